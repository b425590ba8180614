package groups

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/palisade-host/palisade/hosts/agent/internal/service"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// group is one declared group. It holds the desired state, the status that was observed last, and the loop that
// converges the group. Only the loop's goroutine calls containerd for the group.
type group struct {
	manager *Manager
	name    string
	logger  *slog.Logger

	mutex sync.Mutex
	// record is the desired state and the history. It is replaced and never changed in place.
	record  *record
	cleaner *cleaner
	status  *agentv1.GroupStatus
	events  eventRing
	// changed is closed and replaced whenever something changes that watchers see.
	changed chan struct{}
	// suspendedUntil and observedAt are times of the monotonic clock.
	suspendedUntil time.Duration
	observedAt     time.Duration
	observeError   error
	// observedGeneration is the last generation that the group has converged on.
	observedGeneration uint64
	// declarations counts how often the group was declared. Each declaration retries failed images.
	declarations uint64
	// interrupt cancels the pass in flight, because it works for an outdated record.
	interrupt context.CancelFunc

	wake chan struct{}
	// gone is closed when nothing remains of a deleted group.
	gone chan struct{}
	// firstObserved is closed when the first pass has observed the group in containerd.
	firstObserved chan struct{}
	observedOnce  sync.Once

	// The fields below belong to the loop's goroutine.
	pulls     map[string]*pullState
	sandboxes sandboxFailures
	waiting   map[string]waitingReason
	cgroups   map[string]string
	// runningSince is when containers were started, by the monotonic clock and by their identifiers.
	runningSince map[string]time.Duration
	// lastFailure is the error of the last pass.
	lastFailure string
}

type waitingReason struct {
	reason  string
	message string
}

func newGroup(manager *Manager, r *record) *group {
	r.resumeRestarts(manager.now())
	g := &group{
		manager:       manager,
		name:          r.spec.GetName(),
		logger:        manager.options.Logger.With("group", r.spec.GetName()),
		record:        r,
		changed:       make(chan struct{}),
		wake:          make(chan struct{}, 1),
		gone:          make(chan struct{}),
		firstObserved: make(chan struct{}),
		pulls:         map[string]*pullState{},
		waiting:       map[string]waitingReason{},
		cgroups:       map[string]string{},
		runningSince:  map[string]time.Duration{},
	}
	g.status = &agentv1.GroupStatus{Phase: agentv1.GroupPhase_GROUP_PHASE_PENDING}
	if r.Deleting {
		g.status.Phase = agentv1.GroupPhase_GROUP_PHASE_DELETING
	}
	for _, container := range r.spec.GetContainers() {
		g.status.Containers = append(g.status.Containers, &agentv1.ContainerStatus{
			Name: container.GetName(), Phase: agentv1.ContainerPhase_CONTAINER_PHASE_WAITING, Reason: reasonPending,
		})
	}
	return g
}

// run reconciles the group at every wake-up and every poll interval, until ctx ends or the group is gone.
func (g *group) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer g.dropPulls(nil)
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.gone:
			return
		case <-g.wake:
		case <-timer.C:
		}
		// A wake-up may be pending when the group is gone, and select chooses any case that is ready.
		select {
		case <-g.gone:
			return
		default:
		}
		pass, cancel := context.WithCancel(ctx)
		g.mutex.Lock()
		g.interrupt = cancel
		g.mutex.Unlock()
		err := g.reconcile(pass)
		cancel()
		g.logFailure(ctx, err)
		timer.Reset(g.manager.pollInterval())
	}
}

// logFailure logs the error of a pass, unless the pass before failed with the same one.
func (g *group) logFailure(ctx context.Context, err error) {
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return
	}
	text := ""
	if err != nil {
		text = g.clean(err.Error())
	}
	if text != "" && text != g.lastFailure {
		g.logger.Warn("reconcile", "error", text)
	}
	g.lastFailure = text
}

func (g *group) wakeUp() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// markDeleting makes the loop remove everything of the group. On a full disk the mark is not stored, because the
// removal is what frees the disk. When the agent ends before the removal, the group is not deleted, and no caller was
// told so.
func (g *group) markDeleting() error {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.record.Deleting {
		return nil
	}
	changed := g.record.clone()
	changed.Deleting = true
	if err := g.manager.store.save(changed); service.IsDiskFull(err) {
		g.logger.Warn("the group is deleted, and this is not stored", "error", err)
	} else if err != nil {
		return err
	}
	g.becomeLocked(changed)
	return nil
}

// replace stores a new desired state and cancels the pass that works for the old one. It changes nothing when change
// returns nil.
func (g *group) replace(change func(*record) (*record, error)) error {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	changed, err := change(g.record)
	if err != nil || changed == nil {
		return err
	}
	if err := g.manager.store.save(changed); err != nil {
		return err
	}
	g.becomeLocked(changed)
	return nil
}

// becomeLocked puts a new desired state in force. The caller holds the mutex.
func (g *group) becomeLocked(changed *record) {
	g.cleaner = g.cleaner.of(secrets(g.record.spec)).of(secrets(changed.spec))
	g.record = changed
	if g.interrupt != nil {
		g.interrupt()
	}
	g.notify()
	g.wakeUp()
}

// update declares a new spec of the group. With dryRun it changes nothing and returns the group as it would be.
// Declaring the present spec again keeps the generation, and retries at once what waits: images that could not be
// pulled, and restarts.
func (g *group) update(spec *agentv1.GroupSpec, expected uint64, dryRun bool) (*agentv1.Group, error) {
	var preview *agentv1.Group
	err := g.replace(func(present *record) (*record, error) {
		if present.Deleting {
			return nil, connect.NewError(connect.CodeAborted, fmt.Errorf("group %q is being deleted; try again", g.name))
		}
		if expected != 0 && present.Generation != expected {
			return nil, generationConflict(g.name, present.Generation, expected)
		}
		changed := present.withSpec(spec)
		if dryRun {
			preview = &agentv1.Group{Spec: redacted(spec), Generation: changed.Generation}
			return nil, nil
		}
		if changed == present {
			return present.withRestartsDue(g.manager.now()), nil
		}
		return changed, nil
	})
	if err != nil {
		return nil, err
	}
	if !dryRun {
		g.retryImages()
	}
	view, _ := g.view()
	if preview != nil {
		preview.Status = view.GetStatus()
		return preview, nil
	}
	return view, nil
}

// desired returns the record; it must not be changed.
func (g *group) desired() *record {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return g.record
}

// updateRecord stores a change of the history in desired. It returns errDesiredChanged when another record has replaced
// that one meanwhile.
func (g *group) updateRecord(desired *record, change func(*record)) (*record, error) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.record != desired {
		return nil, errDesiredChanged
	}
	changed := desired.clone()
	change(changed)
	if err := g.manager.store.save(changed); err != nil {
		return nil, err
	}
	g.record = changed
	return changed, nil
}

var errDesiredChanged = fmt.Errorf("the group was declared again: %w", context.Canceled)

func (g *group) notify() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// event records and logs an event, without the group's secrets.
func (g *group) event(kind, reason, message, container string) {
	message = g.clean(message)
	g.mutex.Lock()
	added := g.events.add(g.manager.now(), kind, reason, message, container)
	if added {
		g.notify()
	}
	g.mutex.Unlock()
	if added {
		level := slog.LevelInfo
		if kind == eventWarning {
			level = slog.LevelWarn
		}
		g.logger.Log(context.Background(), level, reason, "container", container, "message", message)
	}
}

// clean returns the message without the group's secrets. Every message from outside the agent passes through it before
// it is stored, logged or shown.
func (g *group) clean(message string) string {
	g.mutex.Lock()
	g.cleaner = g.cleaner.of(secrets(g.record.spec))
	cleaner := g.cleaner
	g.mutex.Unlock()
	return cleaner.clean(message)
}

// publish makes a status visible, and wakes watchers when it differs from the last one.
func (g *group) publish(status *agentv1.GroupStatus) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.observedAt, g.observeError = g.manager.options.Monotonic(), nil
	if !proto.Equal(g.status, status) {
		g.status = status
		g.notify()
	}
}

func (g *group) observationFailed(err error) {
	err = errors.New(g.clean(err.Error()))
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.observeError == nil {
		g.observeError = err
	}
}

func (g *group) markObserved() {
	g.observedOnce.Do(func() { close(g.firstObserved) })
}

// view returns the group for callers, without secrets, and a channel that is closed at the next change.
func (g *group) view() (*agentv1.Group, <-chan struct{}) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	status := proto.CloneOf(g.status)
	status.Events = g.events.snapshot()
	status.ReconcileSuspended = g.suspendedLocked()
	status.ObservedGeneration = g.observedGeneration
	if g.record.Deleting {
		status.Phase = agentv1.GroupPhase_GROUP_PHASE_DELETING
	}
	return &agentv1.Group{Spec: redacted(g.record.spec), Generation: g.record.Generation, Status: status}, g.changed
}

// observationError returns an error when containerd could not be observed for some time, because the last status may be
// wrong by now.
func (g *group) observationError() error {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.observeError != nil && g.manager.options.Monotonic()-g.observedAt > 5*g.manager.options.PollInterval {
		return g.observeError
	}
	return nil
}

// retryImages forgets that images failed. What they lacked, such as a seal or a policy, may exist by now.
func (g *group) retryImages() {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.declarations++
	status := proto.CloneOf(g.status)
	for _, container := range status.GetContainers() {
		if reason := container.GetReason(); reason == reasonRefused || reason == reasonPullFailed {
			container.Reason, container.Message = reasonPending, ""
		}
	}
	if !proto.Equal(g.status, status) {
		g.status = status
		g.notify()
		g.wakeUp()
	}
}

// declarationCount returns how often the group was declared.
func (g *group) declarationCount() uint64 {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return g.declarations
}

func (g *group) suspend(duration time.Duration) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.suspendedUntil = g.manager.options.Monotonic() + duration
	g.notify()
	g.wakeUp()
}

func (g *group) suspended() bool {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return g.suspendedLocked()
}

func (g *group) suspendedLocked() bool {
	return g.manager.options.Monotonic() < g.suspendedUntil
}
