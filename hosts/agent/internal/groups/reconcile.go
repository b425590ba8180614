package groups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// stopTimeout is what a container has between SIGTERM and SIGKILL.
const stopTimeout = 10 * time.Second

// sandboxBackOffMaximum bounds the wait after a sandbox that could not be made; it starts at 2 s and doubles.
const sandboxBackOffMaximum = 30 * time.Second

// sandboxFailures is the history of making a sandbox of one spec.
type sandboxFailures struct {
	hash  string
	count uint
	next  time.Time
	err   error
}

// Reasons beside those of the runtime (Completed, Error, OOMKilled).
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
	exitCodeStartFailed  = 128
	exitCodeUnknown      = 255
	maximumMessageLength = 1024
)

// observation is what containerd shows of a group.
type observation struct {
	// sandbox is the present one: of the wanted spec, ready. Nil when there is none.
	sandbox *runtimev1.PodSandbox
	address string
	// outdated sandboxes are of another spec, dead, or one too many.
	outdated []*runtimev1.PodSandbox
	// containers of the present sandbox, or else of the one that died last, newest attempt by name.
	containers map[string]*runtimev1.ContainerStatus
	// leftovers are containers of the present sandbox that a newer attempt has replaced.
	leftovers []string
}

// reconcile looks at containerd once and brings the group one step nearer to its wish. It returns the error that ended the
// step; the next pass goes on from what is there then.
func (g *group) reconcile(ctx context.Context) error {
	wish := g.wish()
	seen, err := g.observe(ctx, wish)
	if err != nil {
		g.observationFailed(err)
		return err
	}
	defer g.markSeen()
	if wish.Deleting {
		return g.delete(ctx, wish, seen)
	}
	if wish, err = g.noteExits(wish, seen); err != nil {
		return err
	}
	g.noteObserved(wish, seen)
	g.publish(g.assess(wish, seen))
	g.markSeen()
	if g.suspended() {
		return nil
	}
	failure := g.advance(ctx, wish, seen)
	// Shown as it is now, whatever the step came to.
	if ctx.Err() == nil {
		wish = g.wish()
		if seen, err = g.observe(ctx, wish); err != nil {
			g.observationFailed(err)
			return err
		}
		g.noteObserved(wish, seen)
		g.publish(g.assess(wish, seen))
	}
	return failure
}

// observe lists the group's sandboxes and containers and sorts them.
func (g *group) observe(ctx context.Context, wish *record) (*observation, error) {
	runtime := g.manager.runtime
	selector := map[string]string{labelGroup: g.name}
	sandboxes, err := runtime.ListPodSandbox(ctx, &runtimev1.ListPodSandboxRequest{Filter: &runtimev1.PodSandboxFilter{LabelSelector: selector}})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	containers, err := runtime.ListContainers(ctx, &runtimev1.ListContainersRequest{Filter: &runtimev1.ContainerFilter{LabelSelector: selector}})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	seen := &observation{containers: map[string]*runtimev1.ContainerStatus{}}
	hash := wish.specHash()
	// Newest first.
	slices.SortFunc(sandboxes.Items, func(a, b *runtimev1.PodSandbox) int { return int(b.CreatedAt - a.CreatedAt) })
	for _, sandbox := range sandboxes.Items {
		wanted := sandbox.Labels[labelUID] == wish.UID && sandbox.Labels[labelSpecHash] == hash
		if wanted && seen.sandbox == nil && sandbox.State == runtimev1.PodSandboxState_SANDBOX_READY {
			seen.sandbox = sandbox
			continue
		}
		seen.outdated = append(seen.outdated, sandbox)
	}
	home := seen.sandbox
	if home == nil {
		// How containers ended in a sandbox that died, e.g. with the host's last boot, decides on their restart.
		dead := slices.IndexFunc(seen.outdated, func(s *runtimev1.PodSandbox) bool {
			return s.Labels[labelUID] == wish.UID && s.Labels[labelSpecHash] == hash
		})
		if dead < 0 {
			return seen, nil
		}
		home = seen.outdated[dead]
	} else {
		status, err := runtime.PodSandboxStatus(ctx, &runtimev1.PodSandboxStatusRequest{PodSandboxId: home.Id})
		if err != nil {
			return nil, fmt.Errorf("status of sandbox %s: %w", home.Id, err)
		}
		seen.address = status.GetStatus().GetNetwork().GetIp()
	}

	newest := map[string]*runtimev1.Container{}
	for _, container := range containers.Containers {
		if container.PodSandboxId != home.Id {
			continue
		}
		name := container.Labels[labelContainer]
		other := newest[name]
		switch {
		case other == nil:
			newest[name] = container
		case container.GetMetadata().GetAttempt() > other.GetMetadata().GetAttempt():
			seen.leftovers = append(seen.leftovers, other.Id)
			newest[name] = container
		default:
			seen.leftovers = append(seen.leftovers, container.Id)
		}
	}
	for name, container := range newest {
		status, err := runtime.ContainerStatus(ctx, &runtimev1.ContainerStatusRequest{ContainerId: container.Id})
		if grpcstatus.Code(err) == codes.NotFound {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("status of container %s: %w", container.Id, err)
		}
		if found := status.GetStatus(); found != nil {
			found.Reason, found.Message = g.clean(found.Reason), g.clean(found.Message)
			seen.containers[name] = found
		}
	}
	return seen, nil
}

// noteExits records ends that were not recorded yet, decides on restarts, and resets back-offs that were outlived.
func (g *group) noteExits(wish *record, seen *observation) (*record, error) {
	now := g.manager.options.Now()
	changed := map[string]containerState{}
	for _, container := range wish.spec.GetContainers() {
		name := container.GetName()
		state, status := wish.Containers[name], seen.containers[name]
		if status == nil {
			continue
		}
		switch status.State {
		case runtimev1.ContainerState_CONTAINER_RUNNING:
			if state.Restarts > 0 && now.Sub(time.Unix(0, status.StartedAt)) >= backOffReset {
				state.Restarts, state.BackOff = 0, 0
				changed[name] = state
			}
		case runtimev1.ContainerState_CONTAINER_EXITED, runtimev1.ContainerState_CONTAINER_UNKNOWN:
			if state.Exit != nil && state.Exit.ContainerID == status.Id {
				continue
			}
			end := exitOf(status)
			if end.FinishedAt.IsZero() {
				end.FinishedAt = now
			}
			changed[name] = g.ended(wish, name, state, end, seen.sandbox == nil)
		}
	}
	if len(changed) == 0 {
		return wish, nil
	}
	return g.remember(wish, func(r *record) {
		for name, state := range changed {
			r.Containers[name] = state
		}
	})
}

// ended applies the restart policy to the end of a container. One that went down with its sandbox, e.g. at a reboot, is not to
// blame: it does not wait.
func (g *group) ended(wish *record, name string, state containerState, end *exit, withSandbox bool) containerState {
	if !end.StartedAt.IsZero() && end.FinishedAt.Sub(end.StartedAt) >= backOffReset {
		state.Restarts = 0
	}
	state.Exit = end
	state.ContainerID = end.ContainerID
	kind := eventWarning
	if end.Code == 0 {
		kind = eventNormal
	}
	message := fmt.Sprintf("ended with exit code %d (%s)", end.Code, end.Reason)
	if end.Message != "" {
		message += ": " + end.Message
	}
	g.event(kind, "Exited", message, name)
	policy := wish.spec.GetRestartPolicy()
	restart := policy == agentv1.RestartPolicy_RESTART_POLICY_ALWAYS ||
		policy == agentv1.RestartPolicy_RESTART_POLICY_ON_FAILURE && end.Code != 0
	if !restart {
		state.Done, state.RestartAt, state.BackOff = true, time.Time{}, 0
		return state
	}
	state.BackOff = nextBackOff(state.Restarts)
	if withSandbox {
		state.BackOff = 0
	}
	state.RestartAt = g.manager.options.Now().Add(state.BackOff)
	if state.BackOff > 0 {
		g.event(eventWarning, "BackOff", fmt.Sprintf("waits %s before restart %d", state.BackOff, state.RestartCount+1), name)
	}
	return state
}

func exitOf(status *runtimev1.ContainerStatus) *exit {
	end := &exit{
		ContainerID: status.Id, Code: status.ExitCode, Reason: status.Reason, Message: status.Message,
		StartedAt: instant(status.StartedAt), FinishedAt: instant(status.FinishedAt), ImageDigest: imageDigest(status),
	}
	if status.State == runtimev1.ContainerState_CONTAINER_UNKNOWN {
		end.Code = exitCodeUnknown
	}
	if end.Reason == "" {
		end.Reason = "Error"
		if end.Code == 0 {
			end.Reason = "Completed"
		}
	}
	end.Message = shorten(end.Message, maximumMessageLength)
	return end
}

// shorten returns at most so many bytes of a text, whole characters only, as valid UTF-8.
func shorten(text string, maximum int) string {
	text = strings.ToValidUTF8(text, "\ufffd")
	if len(text) <= maximum {
		return text
	}
	for maximum > 0 && !utf8.RuneStart(text[maximum]) {
		maximum--
	}
	return text[:maximum]
}

func instant(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds)
}

// advance makes what is missing and removes what is too much.
func (g *group) advance(ctx context.Context, wish *record, seen *observation) error {
	finished := true
	for _, container := range wish.spec.GetContainers() {
		finished = finished && wish.Containers[container.GetName()].Done
	}
	if finished {
		// Nothing runs any more; a group that has ended keeps no dead sandbox over a reboot.
		return g.removeSandboxes(ctx, seen.outdated)
	}
	// Images come first: while a new one cannot be had, the old generation goes on serving.
	wish, failure := g.ensureImages(ctx, wish, seen)
	if errors.Is(failure, context.Canceled) {
		return failure
	}
	if seen.sandbox == nil {
		if failure != nil {
			return failure
		}
	}
	if err := g.removeSandboxes(ctx, seen.outdated); err != nil {
		return err
	}
	if g.starts(wish, seen) {
		if err := g.manager.starts.Acquire(ctx, 1); err != nil {
			return err
		}
		defer g.manager.starts.Release(1)
	}
	if seen.sandbox == nil {
		var err error
		if wish, err = g.createSandbox(ctx, wish, seen); err != nil {
			return err
		}
	}
	for _, id := range seen.leftovers {
		if err := g.removeContainer(ctx, id); err != nil {
			return err
		}
	}
	for _, container := range wish.spec.GetContainers() {
		if reason := g.waiting[container.GetName()].reason; reason == reasonPullFailed || reason == reasonRefused {
			continue
		}
		var err error
		if wish, err = g.ensureContainer(ctx, wish, seen, container); err != nil {
			if ctx.Err() != nil {
				return err
			}
			failure = err
			wish = g.wish()
		}
	}
	g.rotateLogs(ctx, wish, seen)
	return failure
}

// starts tells whether something has to be started now.
func (g *group) starts(wish *record, seen *observation) bool {
	now := g.manager.options.Now()
	if seen.sandbox == nil {
		return !now.Before(g.sandboxes.next)
	}
	return slices.ContainsFunc(wish.spec.GetContainers(), func(container *agentv1.Container) bool {
		state, status := wish.Containers[container.GetName()], seen.containers[container.GetName()]
		running := status != nil && status.State == runtimev1.ContainerState_CONTAINER_RUNNING
		return !state.Done && !running && !now.Before(state.RestartAt)
	})
}

func (g *group) createSandbox(ctx context.Context, wish *record, seen *observation) (*record, error) {
	hash := wish.specHash()
	if g.sandboxes.hash != hash {
		g.sandboxes = sandboxFailures{hash: hash}
	}
	if g.manager.options.Now().Before(g.sandboxes.next) {
		return nil, g.sandboxes.err
	}
	for _, container := range wish.spec.GetContainers() {
		g.waiting[container.GetName()] = waitingReason{reason: reasonCreating}
	}
	if err := os.MkdirAll(g.logDirectory(), 0o700); err != nil {
		return nil, err
	}
	// The number is taken before use: a name in containerd must not be used twice, not even after a failure.
	wish, err := g.remember(wish, func(r *record) { r.SandboxAttempt++ })
	if err != nil {
		return nil, err
	}
	config := g.sandboxConfig(wish)
	response, err := g.manager.runtime.RunPodSandbox(ctx, &runtimev1.RunPodSandboxRequest{Config: config})
	if err != nil {
		err = fmt.Errorf("run sandbox: %w", err)
		for _, container := range wish.spec.GetContainers() {
			g.waiting[container.GetName()] = waitingReason{reasonSandboxFailed, g.clean(err.Error())}
		}
		g.event(eventWarning, "Failed", err.Error(), "")
		g.sandboxes.count++
		g.sandboxes.err = err
		g.sandboxes.next = g.manager.options.Now().Add(min(sandboxBackOffMaximum, time.Second<<min(g.sandboxes.count, 10)))
		return nil, err
	}
	g.sandboxes = sandboxFailures{}
	g.event(eventNormal, "SandboxCreated", "sandbox "+short(response.PodSandboxId), "")
	if g.manager.options.Sealed == nil {
		// The first sandbox unpacks the pause image, which containerd does not sync: after a loss of power its program was seen
		// to be empty, and no group came back.
		unix.Sync()
	}
	seen.sandbox = &runtimev1.PodSandbox{Id: response.PodSandboxId, Labels: config.Labels}
	seen.containers = map[string]*runtimev1.ContainerStatus{}
	return wish, nil
}

// ensureContainer starts the container if it should run and does not.
func (g *group) ensureContainer(ctx context.Context, wish *record, seen *observation, container *agentv1.Container) (*record, error) {
	name := container.GetName()
	state, status := wish.Containers[name], seen.containers[name]
	now := g.manager.options.Now()
	if state.Done || now.Before(state.RestartAt) {
		return wish, nil
	}
	restart := false
	switch {
	case status == nil:
		if state.ContainerID != "" && (state.Exit == nil || state.Exit.ContainerID != state.ContainerID) {
			g.event(eventWarning, reasonRemoved, "container "+short(state.ContainerID)+" was removed by somebody else", name)
		}
		restart = state.ContainerID != ""
	case status.State == runtimev1.ContainerState_CONTAINER_RUNNING:
		delete(g.waiting, name)
		if state.ContainerID != status.Id {
			// Started by an agent that died before it could say so.
			return g.remember(wish, func(r *record) {
				state.ContainerID, state.Attempt = status.Id, status.GetMetadata().GetAttempt()
				r.Containers[name] = state
			})
		}
		return wish, nil
	default:
		restart = status.State != runtimev1.ContainerState_CONTAINER_CREATED
		if err := g.removeContainer(ctx, status.Id); err != nil {
			return wish, err
		}
	}

	attempt := state.Attempt + 1
	wish, err := g.remember(wish, func(r *record) {
		state.Attempt = attempt
		r.Containers[name] = state
	})
	if err != nil {
		return nil, err
	}
	g.waiting[name] = waitingReason{reason: reasonCreating}
	if err := g.createLog(name); err != nil {
		return wish, err
	}
	created, err := g.manager.runtime.CreateContainer(ctx, &runtimev1.CreateContainerRequest{
		PodSandboxId: seen.sandbox.Id, Config: g.containerConfig(wish, container, attempt), SandboxConfig: g.sandboxConfig(wish),
	})
	if err != nil {
		return g.startFailed(wish, name, "", reasonCreateFailed, fmt.Errorf("create container: %w", err))
	}
	g.event(eventNormal, "Created", "container "+short(created.ContainerId), name)
	if _, err := g.manager.runtime.StartContainer(ctx, &runtimev1.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		return g.startFailed(wish, name, created.ContainerId, reasonStartFailed, fmt.Errorf("start container: %w", err))
	}
	wish, err = g.remember(wish, func(r *record) {
		state.ContainerID, state.RestartAt = created.ContainerId, time.Time{}
		if restart {
			state.RestartCount++
			state.Restarts++
		}
		r.Containers[name] = state
	})
	if err != nil {
		return nil, err
	}
	delete(g.waiting, name)
	g.event(eventNormal, "Started", "container "+short(created.ContainerId), name)
	return wish, nil
}

// startFailed treats a container that could not be made or started as one that ended at once.
func (g *group) startFailed(wish *record, name, id, reason string, failure error) (*record, error) {
	message := g.clean(failure.Error())
	if id == "" {
		g.waiting[name] = waitingReason{reason, message}
	} else {
		delete(g.waiting, name)
	}
	g.event(eventWarning, "Failed", message, name)
	now := g.manager.options.Now()
	changed, err := g.remember(wish, func(r *record) {
		state := r.Containers[name]
		if id != "" {
			if r.Containers[name].ContainerID != "" {
				state.RestartCount++
			}
			state = g.endedQuietly(r, state, &exit{ContainerID: id, Code: exitCodeStartFailed, Reason: reason, Message: message, FinishedAt: now})
		} else {
			state.Restarts++
			state.BackOff = nextBackOff(state.Restarts)
			state.RestartAt = now.Add(state.BackOff)
		}
		r.Containers[name] = state
	})
	if err != nil {
		return nil, err
	}
	return changed, failure
}

// endedQuietly is ended for a container that never ran: it always waits.
func (g *group) endedQuietly(r *record, state containerState, end *exit) containerState {
	state.Exit, state.ContainerID = end, end.ContainerID
	if r.spec.GetRestartPolicy() == agentv1.RestartPolicy_RESTART_POLICY_NEVER {
		state.Done = true
		return state
	}
	state.Restarts++
	state.BackOff = nextBackOff(state.Restarts)
	state.RestartAt = end.FinishedAt.Add(state.BackOff)
	return state
}

// noteObserved raises the observed generation once every container of it was started, or waits for its next start.
func (g *group) noteObserved(wish *record, seen *observation) {
	for _, container := range wish.spec.GetContainers() {
		state := wish.Containers[container.GetName()]
		if !state.Done && (state.ContainerID == "" || seen.sandbox == nil) {
			return
		}
	}
	if len(seen.outdated) > 0 {
		return
	}
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.observedGeneration != wish.Generation && g.record.Generation == wish.Generation {
		g.observedGeneration = wish.Generation
		g.notify()
	}
}

// removeSandboxes stops the containers in them, each with its time for an orderly end, then takes everything away.
func (g *group) removeSandboxes(ctx context.Context, sandboxes []*runtimev1.PodSandbox) error {
	for _, sandbox := range sandboxes {
		if err := removeSandbox(ctx, g.manager.runtime, sandbox); err != nil {
			return err
		}
		g.event(eventNormal, "SandboxRemoved", "sandbox "+short(sandbox.Id), "")
	}
	return nil
}

func removeSandbox(ctx context.Context, runtime runtimev1.RuntimeServiceClient, sandbox *runtimev1.PodSandbox) error {
	containers, err := runtime.ListContainers(ctx, &runtimev1.ListContainersRequest{Filter: &runtimev1.ContainerFilter{PodSandboxId: sandbox.Id}})
	if err != nil {
		return fmt.Errorf("list containers of sandbox %s: %w", sandbox.Id, err)
	}
	var stopping sync.WaitGroup
	for _, container := range containers.Containers {
		if container.State != runtimev1.ContainerState_CONTAINER_RUNNING {
			continue
		}
		stopping.Go(func() {
			// Whatever resists is killed with its sandbox.
			_, _ = runtime.StopContainer(ctx, &runtimev1.StopContainerRequest{ContainerId: container.Id, Timeout: int64(stopTimeout / time.Second)})
		})
	}
	stopping.Wait()
	if _, err := runtime.StopPodSandbox(ctx, &runtimev1.StopPodSandboxRequest{PodSandboxId: sandbox.Id}); err != nil && grpcstatus.Code(err) != codes.NotFound {
		return fmt.Errorf("stop sandbox %s: %w", sandbox.Id, err)
	}
	if _, err := runtime.RemovePodSandbox(ctx, &runtimev1.RemovePodSandboxRequest{PodSandboxId: sandbox.Id}); err != nil && grpcstatus.Code(err) != codes.NotFound {
		return fmt.Errorf("remove sandbox %s: %w", sandbox.Id, err)
	}
	return nil
}

func (g *group) removeContainer(ctx context.Context, id string) error {
	_, err := g.manager.runtime.RemoveContainer(ctx, &runtimev1.RemoveContainerRequest{ContainerId: id})
	if err != nil && grpcstatus.Code(err) != codes.NotFound {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	return nil
}

// delete removes everything of the group, its record last: a crash before that goes on here.
func (g *group) delete(ctx context.Context, wish *record, seen *observation) error {
	sandboxes := seen.outdated
	if seen.sandbox != nil {
		sandboxes = append(sandboxes, seen.sandbox)
	}
	if err := g.removeSandboxes(ctx, sandboxes); err != nil {
		return err
	}
	if err := os.RemoveAll(g.logDirectory()); err != nil {
		return err
	}
	if err := g.manager.releaseImages(ctx, g, wish); err != nil {
		// They go when the disk fills up.
		g.logger.Warn("images of the deleted group are not removed", "error", err)
	}
	return g.manager.forget(g, wish)
}

func short(id string) string {
	return id[:min(len(id), 12)]
}
