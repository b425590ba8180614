package groups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// sandboxBackOffMaximum bounds the wait after a sandbox could not be created. The wait starts at 2 s and doubles.
const sandboxBackOffMaximum = 30 * time.Second

// sandboxFailures is the history of failed sandboxes of one spec.
type sandboxFailures struct {
	hash  string
	count uint
	// next is when the next attempt is due, by the monotonic clock.
	next time.Duration
	err  error
}

// converge makes containerd run what is desired: it removes outdated sandboxes, and creates and starts what is missing.
func (g *group) converge(ctx context.Context, desired *record, observed *observation) error {
	if desired.allDone() {
		// Nothing runs any more, and a dead sandbox of an earlier boot is not needed.
		return g.removeSandboxes(ctx, observed.outdated)
	}
	// Images come first: while a new image is not there, the old generation continues to serve.
	desired, failure := g.ensureImages(ctx, desired, observed)
	if errors.Is(failure, context.Canceled) || observed.sandbox == nil && g.waitsForImages(desired, observed) {
		return failure
	}
	if err := g.removeSandboxes(ctx, observed.outdated); err != nil {
		return err
	}
	if g.startIsDue(desired, observed) {
		if err := g.manager.startSlots.Acquire(ctx, 1); err != nil {
			return err
		}
		defer g.manager.startSlots.Release(1)
	}
	if observed.sandbox == nil {
		var err error
		if desired, err = g.createSandbox(ctx, desired, observed); err != nil {
			return err
		}
	}
	for _, id := range observed.replaced {
		if err := g.removeContainer(ctx, id); err != nil {
			return err
		}
	}
	for _, container := range desired.spec.GetContainers() {
		if g.lacksImage(container.GetName()) {
			continue
		}
		var err error
		if desired, err = g.ensureContainer(ctx, desired, observed, container); err != nil {
			if ctx.Err() != nil {
				return err
			}
			failure = err
			desired = g.desired()
		}
	}
	g.rotateLogs(ctx, desired, observed)
	return failure
}

// waitsForImages reports whether a new sandbox has to wait for images: because an old one serves until all of them are
// there, or because no container could start in it.
func (g *group) waitsForImages(desired *record, observed *observation) bool {
	lacking, ready := 0, 0
	for _, container := range desired.spec.GetContainers() {
		switch name := container.GetName(); {
		case g.lacksImage(name):
			lacking++
		case !desired.Containers[name].Done:
			ready++
		}
	}
	serves := slices.ContainsFunc(observed.outdated, func(sandbox *runtimev1.PodSandbox) bool {
		return sandbox.State == runtimev1.PodSandboxState_SANDBOX_READY
	})
	return lacking > 0 && (serves || ready == 0)
}

// startIsDue reports whether a sandbox or a container has to be started now.
func (g *group) startIsDue(desired *record, observed *observation) bool {
	now := g.manager.now()
	if observed.sandbox == nil {
		return now.monotonic >= g.sandboxes.next
	}
	return slices.ContainsFunc(desired.spec.GetContainers(), func(container *agentv1.Container) bool {
		state, status := desired.Containers[container.GetName()], observed.containers[container.GetName()]
		running := status != nil && status.State == runtimev1.ContainerState_CONTAINER_RUNNING
		return !state.Done && !running && !g.lacksImage(container.GetName()) && state.restartIsDue(now)
	})
}

// createSandbox runs a sandbox of the desired spec and makes it the observed one.
func (g *group) createSandbox(ctx context.Context, desired *record, observed *observation) (*record, error) {
	hash := desired.specHash()
	if g.sandboxes.hash != hash {
		g.sandboxes = sandboxFailures{hash: hash}
	}
	if g.manager.options.Monotonic() < g.sandboxes.next {
		return nil, g.sandboxes.err
	}
	g.waitForSandbox(desired, waitingReason{reason: reasonCreating})
	if err := os.MkdirAll(g.logDirectory(), 0o700); err != nil {
		return nil, err
	}
	// The attempt is stored before it is used: its name in containerd must not be used twice, not even after a failure.
	desired, err := g.updateRecord(desired, func(r *record) { r.SandboxAttempt++ })
	if err != nil {
		return nil, err
	}
	config := g.sandboxConfig(desired)
	response, err := g.manager.runtime.RunPodSandbox(ctx, &runtimev1.RunPodSandboxRequest{Config: config})
	if err != nil {
		return nil, g.sandboxFailed(desired, fmt.Errorf("run sandbox: %w", err))
	}
	g.sandboxes = sandboxFailures{}
	g.event(eventNormal, "SandboxCreated", "sandbox "+shortID(response.PodSandboxId), "")
	if g.manager.options.Sealed == nil {
		// The first sandbox unpacks the pause image, and containerd does not sync it. After a power loss the unpacked
		// program was found empty, and no group started.
		unix.Sync()
	}
	observed.sandbox = &runtimev1.PodSandbox{Id: response.PodSandboxId, Labels: config.Labels}
	observed.containers = map[string]*runtimev1.ContainerStatus{}
	return desired, nil
}

// waitForSandbox records why the containers wait, except for those that wait for their images.
func (g *group) waitForSandbox(desired *record, waiting waitingReason) {
	for _, container := range desired.spec.GetContainers() {
		if !g.lacksImage(container.GetName()) {
			g.waiting[container.GetName()] = waiting
		}
	}
}

// sandboxFailed records that a sandbox could not be created, and delays the next attempt.
func (g *group) sandboxFailed(desired *record, failure error) error {
	g.waitForSandbox(desired, waitingReason{reasonSandboxFailed, g.clean(failure.Error())})
	g.event(eventWarning, "Failed", failure.Error(), "")
	g.sandboxes.count++
	g.sandboxes.err = failure
	g.sandboxes.next = g.manager.options.Monotonic() + min(sandboxBackOffMaximum, time.Second<<min(g.sandboxes.count, 10))
	return failure
}

// ensureContainer starts a container that is not running, unless it is done or its restart is not due.
func (g *group) ensureContainer(ctx context.Context, desired *record, observed *observation, container *agentv1.Container) (*record, error) {
	name := container.GetName()
	state, status := desired.Containers[name], observed.containers[name]
	if state.Done || !state.restartIsDue(g.manager.now()) {
		return desired, nil
	}
	restart := false
	switch {
	case status == nil:
		if state.ContainerID != "" && (state.Exit == nil || state.Exit.ContainerID != state.ContainerID) {
			g.event(eventWarning, reasonRemoved, "container "+shortID(state.ContainerID)+" was removed by somebody else", name)
		}
		restart = state.ContainerID != ""
	case status.State == runtimev1.ContainerState_CONTAINER_RUNNING:
		delete(g.waiting, name)
		if state.ContainerID == status.Id {
			return desired, nil
		}
		// An agent started it and died before it could record the container.
		return g.updateRecord(desired, func(r *record) {
			state.ContainerID, state.Attempt = status.Id, status.GetMetadata().GetAttempt()
			r.Containers[name] = state
		})
	default:
		restart = status.State != runtimev1.ContainerState_CONTAINER_CREATED
		if err := g.removeContainer(ctx, status.Id); err != nil {
			return desired, err
		}
	}
	return g.startContainer(ctx, desired, observed.sandbox.Id, container, restart)
}

// startContainer creates and starts the next attempt of a container. A restart counts as one in the container's status.
func (g *group) startContainer(
	ctx context.Context, desired *record, sandboxID string, container *agentv1.Container, restart bool,
) (*record, error) {
	name := container.GetName()
	state := desired.Containers[name]
	state.Attempt++
	// The attempt is stored before it is used, as that of the sandbox is.
	desired, err := g.updateRecord(desired, func(r *record) { r.Containers[name] = state })
	if err != nil {
		return nil, err
	}
	g.waiting[name] = waitingReason{reason: reasonCreating}
	if err := g.createLog(name); err != nil {
		return desired, err
	}
	created, err := g.manager.runtime.CreateContainer(ctx, &runtimev1.CreateContainerRequest{
		PodSandboxId: sandboxID, Config: g.containerConfig(desired, container, state.Attempt), SandboxConfig: g.sandboxConfig(desired),
	})
	if err != nil {
		return g.recordCreateFailure(desired, name, fmt.Errorf("create container: %w", err))
	}
	g.event(eventNormal, "Created", "container "+shortID(created.ContainerId), name)
	if _, err := g.manager.runtime.StartContainer(ctx, &runtimev1.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		return g.recordStartFailure(desired, name, created.ContainerId, fmt.Errorf("start container: %w", err))
	}
	g.runningSince[created.ContainerId] = g.manager.options.Monotonic()
	state.ContainerID, state.RestartAt = created.ContainerId, time.Time{}
	if restart {
		state.RestartCount++
		state.Restarts++
	}
	if desired, err = g.updateRecord(desired, func(r *record) { r.Containers[name] = state }); err != nil {
		return nil, err
	}
	delete(g.waiting, name)
	g.event(eventNormal, "Started", "container "+shortID(created.ContainerId), name)
	return desired, nil
}

// shortID is the part of a container's or sandbox's identifier that people compare.
func shortID(id string) string {
	return id[:min(len(id), 12)]
}
