package groups

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// Reasons of a container's status, in addition to those of the runtime (Completed, Error, OOMKilled).
const (
	reasonPending        = "Pending"
	reasonCreating       = "ContainerCreating"
	reasonPulling        = "ImagePulling"
	reasonPullFailed     = "ImagePullFailed"
	reasonRefused        = "ImageRefused"
	reasonSandboxFailed  = "SandboxFailed"
	reasonCreateFailed   = "CreateContainerFailed"
	reasonStartFailed    = "StartFailed"
	reasonCrashLoop      = "CrashLoopBackOff"
	reasonRemoved        = "Removed"
	reasonLayerCorrupted = "LayerCorrupted"
)

// statusOf returns the status of an observation as callers see it.
func (g *group) statusOf(desired *record, observed *observation) *agentv1.GroupStatus {
	status := &agentv1.GroupStatus{Address: observed.address}
	kept := map[string]string{}
	for _, container := range desired.spec.GetContainers() {
		name := container.GetName()
		shown := g.containerStatus(name, desired.Containers[name], observed.containers[name])
		if id := shown.GetContainerId(); shown.GetPhase() == agentv1.ContainerPhase_CONTAINER_PHASE_RUNNING {
			g.readCgroup(shown)
			kept[id] = g.cgroups[id]
		}
		status.Containers = append(status.Containers, shown)
	}
	for _, container := range status.GetContainers() {
		container.Sealed = g.manager.rootHashes(container.GetImageDigest())
	}
	g.cgroups = kept
	status.Phase = groupPhase(desired, status.GetContainers(), g.suspended())
	return status
}

func (g *group) containerStatus(name string, state containerState, status *runtimev1.ContainerStatus) *agentv1.ContainerStatus {
	result := &agentv1.ContainerStatus{Name: name, RestartCount: state.RestartCount, Phase: agentv1.ContainerPhase_CONTAINER_PHASE_WAITING}
	if status != nil && status.State == runtimev1.ContainerState_CONTAINER_RUNNING {
		result.Phase = agentv1.ContainerPhase_CONTAINER_PHASE_RUNNING
		result.ContainerId = status.Id
		result.ImageDigest = imageDigest(status)
		result.StartedAt = timestamppb.New(instant(status.StartedAt))
		return result
	}
	if wait, found := g.waiting[name]; found && wait.message != "" && !state.Done {
		result.Reason, result.Message = wait.reason, wait.message
		if state.BackOff > 0 {
			result.BackOff = durationpb.New(state.BackOff)
		}
		return result
	}
	if end := state.Exit; end != nil && (state.ContainerID == end.ContainerID || state.Done) {
		result.Phase = agentv1.ContainerPhase_CONTAINER_PHASE_TERMINATED
		result.ContainerId = end.ContainerID
		result.ImageDigest = end.ImageDigest
		result.ExitCode, result.Reason, result.Message = end.Code, end.Reason, end.Message
		if !end.StartedAt.IsZero() {
			result.StartedAt = timestamppb.New(end.StartedAt)
		}
		result.FinishedAt = timestamppb.New(end.FinishedAt)
		if state.Done {
			return result
		}
		if state.BackOff > 0 && !g.suspended() {
			result.Phase = agentv1.ContainerPhase_CONTAINER_PHASE_WAITING
			result.Reason = reasonCrashLoop
			result.Message = fmt.Sprintf("waits %s; last exit code %d (%s)", state.BackOff, end.Code, end.Reason)
			if end.Message != "" {
				result.Message += ": " + end.Message
			}
			result.BackOff = durationpb.New(state.BackOff)
		}
		return result
	}
	if wait, found := g.waiting[name]; found {
		result.Reason = wait.reason
		return result
	}
	result.Reason = reasonPending
	if state.ContainerID != "" {
		result.Reason = reasonRemoved
		result.Message = "container " + shortID(state.ContainerID) + " is not there any more"
	}
	return result
}

func groupPhase(desired *record, containers []*agentv1.ContainerStatus, suspended bool) agentv1.GroupPhase {
	running, started, done, failed := 0, 0, 0, 0
	for _, container := range containers {
		state := desired.Containers[container.GetName()]
		if container.GetPhase() == agentv1.ContainerPhase_CONTAINER_PHASE_RUNNING {
			running++
		}
		if state.ContainerID != "" || state.RestartCount > 0 {
			started++
		}
		if state.Done {
			done++
			if state.Exit != nil && state.Exit.Code != 0 {
				failed++
			}
		}
	}
	switch {
	case done == len(containers) && failed > 0:
		return agentv1.GroupPhase_GROUP_PHASE_FAILED
	case done == len(containers):
		return agentv1.GroupPhase_GROUP_PHASE_SUCCEEDED
	case suspended && running == 0:
		return agentv1.GroupPhase_GROUP_PHASE_STOPPED
	case started == len(containers):
		return agentv1.GroupPhase_GROUP_PHASE_RUNNING
	}
	return agentv1.GroupPhase_GROUP_PHASE_PENDING
}

// imageDigest returns the digest of the manifest that containerd reports as running.
func imageDigest(status *runtimev1.ContainerStatus) string {
	for _, reference := range []string{status.GetImageRef(), status.GetImage().GetImage()} {
		if _, digest, found := strings.Cut(reference, "@"); found {
			return digest
		}
	}
	return status.GetImageRef()
}
