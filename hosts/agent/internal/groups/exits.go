package groups

import (
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode/utf8"

	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// Exit codes of containers that have none of their own.
const (
	exitCodeStartFailed = 128
	exitCodeUnknown     = 255
)

// maximumMessageLength bounds the message of an exit, in bytes.
const maximumMessageLength = 1024

// recordExits stores the exits that are not in the record yet, with the restart that follows from each. It also resets
// the back-off of containers that have run for long enough.
func (g *group) recordExits(desired *record, observed *observation) (*record, error) {
	now := g.manager.now()
	changed := map[string]containerState{}
	running := map[string]time.Duration{}
	for _, container := range desired.spec.GetContainers() {
		name := container.GetName()
		state, status := desired.Containers[name], observed.containers[name]
		if status == nil {
			continue
		}
		switch status.State {
		case runtimev1.ContainerState_CONTAINER_RUNNING:
			ran := g.runTime(now, status.Id, instant(status.StartedAt), now.wall)
			running[status.Id] = now.monotonic - ran
			if state.Restarts > 0 && ran >= backOffReset {
				state.Restarts, state.BackOff = 0, 0
				changed[name] = state
			}
		case runtimev1.ContainerState_CONTAINER_EXITED, runtimev1.ContainerState_CONTAINER_UNKNOWN:
			if state.Exit != nil && state.Exit.ContainerID == status.Id {
				continue
			}
			exited := exitOf(status)
			if exited.FinishedAt.IsZero() {
				exited.FinishedAt = now.wall
			}
			ran := g.runTime(now, status.Id, exited.StartedAt, exited.FinishedAt)
			sandboxDied := observed.sandbox == nil
			state.applyExit(exited, ran, desired.spec.GetRestartPolicy(), sandboxDied, now)
			g.reportExit(name, state)
			changed[name] = state
		}
	}
	g.runningSince = running
	if len(changed) == 0 {
		return desired, nil
	}
	return g.updateRecord(desired, func(r *record) { maps.Copy(r.Containers, changed) })
}

// applyExit records an exit and decides by the restart policy whether and when the container restarts. A container that
// exited because its sandbox died, such as at a reboot, restarts without waiting.
func (s *containerState) applyExit(exited *exit, ran time.Duration, policy agentv1.RestartPolicy, sandboxDied bool, now moment) {
	if ran >= backOffReset {
		s.Restarts = 0
	}
	s.Exit, s.ContainerID = exited, exited.ContainerID
	restart := policy == agentv1.RestartPolicy_RESTART_POLICY_ALWAYS ||
		policy == agentv1.RestartPolicy_RESTART_POLICY_ON_FAILURE && exited.Code != 0
	if !restart {
		s.Done, s.RestartAt, s.BackOff = true, time.Time{}, 0
		return
	}
	backOff := nextBackOff(s.Restarts)
	if sandboxDied {
		backOff = 0
	}
	s.delayRestart(now, backOff)
}

// reportExit adds the events of an exit and of the wait that follows it.
func (g *group) reportExit(name string, state containerState) {
	kind := eventWarning
	if state.Exit.Code == 0 {
		kind = eventNormal
	}
	message := fmt.Sprintf("ended with exit code %d (%s)", state.Exit.Code, state.Exit.Reason)
	if state.Exit.Message != "" {
		message += ": " + state.Exit.Message
	}
	g.event(kind, "Exited", message, name)
	if !state.Done && state.BackOff > 0 {
		g.event(eventWarning, "BackOff", fmt.Sprintf("waits %s before restart %d", state.BackOff, state.RestartCount+1), name)
	}
}

// recordCreateFailure delays the next attempt of a container that could not be created. It returns the record and the
// failure.
func (g *group) recordCreateFailure(desired *record, name string, failure error) (*record, error) {
	message := g.clean(failure.Error())
	g.waiting[name] = waitingReason{reasonCreateFailed, message}
	g.event(eventWarning, "Failed", message, name)
	now := g.manager.now()
	changed, err := g.updateRecord(desired, func(r *record) {
		state := r.Containers[name]
		state.backOffFrom(now)
		r.Containers[name] = state
	})
	if err != nil {
		return nil, err
	}
	return changed, failure
}

// recordStartFailure records a container that was created but could not be started as one that exited at once. Unlike
// after other exits, the first restart waits, too. It returns the record and the failure.
func (g *group) recordStartFailure(desired *record, name, id string, failure error) (*record, error) {
	message := g.clean(failure.Error())
	delete(g.waiting, name)
	g.event(eventWarning, "Failed", message, name)
	now := g.manager.now()
	changed, err := g.updateRecord(desired, func(r *record) {
		state := r.Containers[name]
		if state.ContainerID != "" {
			state.RestartCount++
		}
		state.ContainerID = id
		state.Exit = &exit{ContainerID: id, Code: exitCodeStartFailed, Reason: reasonStartFailed, Message: message, FinishedAt: now.wall}
		if r.spec.GetRestartPolicy() == agentv1.RestartPolicy_RESTART_POLICY_NEVER {
			state.Done = true
		} else {
			state.backOffFrom(now)
		}
		r.Containers[name] = state
	})
	if err != nil {
		return nil, err
	}
	return changed, failure
}

// backOffFrom counts a restart and delays it.
func (s *containerState) backOffFrom(now moment) {
	s.Restarts++
	s.delayRestart(now, nextBackOff(s.Restarts))
}

// exitOf returns what containerd reports of an exit, with a reason and a code where it reports none.
func exitOf(status *runtimev1.ContainerStatus) *exit {
	exited := &exit{
		ContainerID: status.Id, Code: status.ExitCode, Reason: status.Reason, Message: status.Message,
		StartedAt: instant(status.StartedAt), FinishedAt: instant(status.FinishedAt), ImageDigest: imageDigest(status),
	}
	if status.State == runtimev1.ContainerState_CONTAINER_UNKNOWN {
		exited.Code = exitCodeUnknown
	}
	if exited.Reason == "" {
		exited.Reason = "Error"
		if exited.Code == 0 {
			exited.Reason = "Completed"
		}
	}
	exited.Message = truncate(exited.Message, maximumMessageLength)
	return exited
}

// truncate returns the beginning of a text as valid UTF-8, with at most maximum bytes and whole characters only.
func truncate(text string, maximum int) string {
	text = strings.ToValidUTF8(text, "\ufffd")
	if len(text) <= maximum {
		return text
	}
	for maximum > 0 && !utf8.RuneStart(text[maximum]) {
		maximum--
	}
	return text[:maximum]
}

// instant is the time of a CRI timestamp; a zero timestamp is the zero time.
func instant(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds)
}
