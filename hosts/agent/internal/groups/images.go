package groups

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/palisade-host/palisade/hosts/agent/internal/reference"
	"github.com/palisade-host/palisade/hosts/agent/internal/registry"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// pullPatience is how long a pass waits for its images together. Images that are on the host are checked in less, so
// that their containers start in the same pass. The other pulls go on beside the group's loop.
const pullPatience = 2 * time.Second

// documentsTimeout bounds containerd's pull of a sealed image, which is only a manifest and a configuration. It ends a
// pull from a registry that drips bytes, which containerd takes for progress.
const documentsTimeout = 4 * time.Minute

// pullState is the history of the pulls of one image.
type pullState struct {
	failures uint32
	// next is when the next attempt is due, by the monotonic clock.
	next time.Duration
	// access describes how the registry was reached. Changed credentials are tried at once.
	access string
	// declaration is the number of the declaration that the failure belongs to.
	declaration uint64
	err         error
	// running is the pull in progress; nil when there is none.
	running *imagePull
}

// imagePull brings one image onto the host, in a goroutine of its own. A slow registry holds up nothing but its own
// image: the group's loop goes on, observes, and starts the other containers.
type imagePull struct {
	cancel context.CancelFunc
	// transferring is closed when something has to be fetched.
	transferring chan struct{}
	once         sync.Once
	// isFirst is false when an earlier attempt has failed.
	isFirst bool
	// unattended is set when no pass waits for the end, which then wakes the group's loop.
	unattended atomic.Bool
	// done is closed at the end. The fields below are valid then.
	done chan struct{}
	// manifest is the digest of the sealed image's manifest; empty for an image without a seal.
	manifest string
	err      error
}

// transfers records that something has to be fetched.
func (p *imagePull) transfers() {
	p.once.Do(func() { close(p.transferring) })
}

// errPulling is the result of an image that is still being pulled.
var errPulling = errors.New("the image is being pulled")

// ensureImages pulls the images that are missing. A container whose image is not there waits with the reason, and does
// not stop the others. The failure is that of an image that cannot be pulled.
func (g *group) ensureImages(ctx context.Context, desired *record, observed *observation) (_ *record, failure error) {
	wanted := map[string]bool{}
	for _, container := range desired.spec.GetContainers() {
		wanted[container.GetImage()] = true
	}
	g.dropPulls(wanted)
	var needed []*agentv1.Container
	for _, container := range desired.spec.GetContainers() {
		if needsImage(desired, observed, container) {
			needed = append(needed, container)
			g.startPull(ctx, desired, container)
		} else {
			g.clearImageReason(container.GetName())
		}
	}
	patience, cancel := context.WithTimeout(ctx, g.manager.pullPatience)
	defer cancel()
	for _, container := range needed {
		changed, err := g.awaitImage(patience, desired, observed, container)
		if ctx.Err() != nil {
			return desired, ctx.Err()
		}
		if errors.Is(err, errDesiredChanged) {
			return desired, err
		}
		desired = changed
		name := container.GetName()
		switch {
		case errors.Is(err, errPulling):
			g.waiting[name] = waitingReason{reason: reasonPulling}
		case err != nil:
			failure = err
			g.waiting[name] = waitingReason{imageReason(err), g.clean(err.Error())}
		default:
			g.clearImageReason(name)
		}
	}
	return desired, failure
}

// needsImage reports whether the container has to be started at some time.
func needsImage(desired *record, observed *observation, container *agentv1.Container) bool {
	status := observed.containers[container.GetName()]
	running := status != nil && status.State == runtimev1.ContainerState_CONTAINER_RUNNING
	return !running && !desired.Containers[container.GetName()].Done
}

// lacksImage reports whether a container waits for its image.
func (g *group) lacksImage(name string) bool {
	reason := g.waiting[name].reason
	return reason == reasonPullFailed || reason == reasonRefused || reason == reasonPulling
}

func (g *group) clearImageReason(name string) {
	if g.lacksImage(name) {
		delete(g.waiting, name)
	}
}

// dropPulls forgets images that are not wanted, and ends their pulls.
func (g *group) dropPulls(wanted map[string]bool) {
	for image, state := range g.pulls {
		if !wanted[image] {
			state.stop()
			delete(g.pulls, image)
		}
	}
}

// stop ends the pull in progress, and waits for its end.
func (s *pullState) stop() {
	if s.running != nil {
		s.running.cancel()
		<-s.running.done
		s.running = nil
	}
}

// imageReason distinguishes an image that must not run from one that cannot be pulled.
func imageReason(err error) string {
	var refused *refusedError
	if errors.As(err, &refused) {
		return reasonRefused
	}
	return reasonPullFailed
}

// startPull starts the pull of a container's image, unless it is in progress or waits for its next attempt. An image
// that was accepted before may be refused now, so each start of a container asks again.
func (g *group) startPull(ctx context.Context, desired *record, container *agentv1.Container) {
	image := container.GetImage()
	access := registryOf(desired.spec, image)
	state := g.pulls[image]
	if state != nil && (state.access != access.String() || state.running == nil && state.declaration != g.declarationCount()) {
		state.stop()
		state = nil
	}
	if state == nil {
		state = &pullState{access: access.String(), declaration: g.declarationCount()}
		g.pulls[image] = state
	}
	if state.running != nil || g.failedBefore(image) != nil {
		return
	}
	// A pull outlives the pass.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	pull := &imagePull{cancel: cancel, transferring: make(chan struct{}), isFirst: state.failures == 0, done: make(chan struct{})}
	state.running = pull
	go func() {
		defer cancel()
		pull.manifest, pull.err = g.pullImage(ctx, pull, desired, container, access)
		close(pull.done)
		if pull.unattended.Load() {
			g.wakeUp()
		}
	}()
}

// awaitImage returns the record with the pulled image, or why it is not there.
func (g *group) awaitImage(patience context.Context, desired *record, observed *observation, container *agentv1.Container) (*record, error) {
	name, image := container.GetName(), container.GetImage()
	state := g.pulls[image]
	if state == nil {
		// Another container has the same image, and its pull has ended in this pass.
		return desired, nil
	}
	pull := state.running
	if pull == nil {
		return desired, state.err
	}
	if !g.waitForPull(patience, pull, desired, observed, name) {
		return desired, errPulling
	}
	state.running = nil
	if pull.err != nil {
		return desired, g.recordImageFailure(state, name, pull.err)
	}
	delete(g.pulls, image)
	if pull.manifest == "" || desired.Manifests[image] == pull.manifest {
		return desired, nil
	}
	return g.updateRecord(desired, func(r *record) {
		if r.Manifests == nil {
			r.Manifests = map[string]string{}
		}
		r.Manifests[image] = pull.manifest
	})
}

// waitForPull waits until the pull ends or patience does, and shows in the meantime that it transfers something. It
// reports whether the pull has ended.
func (g *group) waitForPull(patience context.Context, pull *imagePull, desired *record, observed *observation, name string) bool {
	transferring := pull.transferring
	for !pull.hasEnded() {
		select {
		case <-pull.done:
			return true
		case <-transferring:
			transferring = nil
			g.waiting[name] = waitingReason{reason: reasonPulling}
			g.publish(g.statusOf(desired, observed))
		case <-patience.Done():
			pull.unattended.Store(true)
			return pull.hasEnded()
		}
	}
	return true
}

func (p *imagePull) hasEnded() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// pullImage brings an image onto the host and returns the digest of its manifest, if it is sealed. It runs beside the
// group's loop, so it changes nothing of the group but its events.
func (g *group) pullImage(ctx context.Context, pull *imagePull, desired *record, container *agentv1.Container, access *agentv1.ImageRegistry) (manifest string, err error) {
	name, image := container.GetName(), container.GetImage()
	local := desired.localReference(image)
	if g.manager.options.Sealed != nil {
		if manifest, err = g.fetchImage(ctx, pull, container, access); err != nil {
			return "", err
		}
		repository, _, _ := strings.Cut(image, "@")
		local = repository + "@" + manifest
		bounded, cancel := context.WithTimeoutCause(ctx, documentsTimeout, fmt.Errorf("the registry makes no progress: no manifest and configuration in %s", documentsTimeout))
		defer cancel()
		ctx = bounded
	}
	present, err := g.checkImage(ctx, local)
	if err != nil || present {
		return manifest, err
	}
	pull.transfers()
	if pull.isFirst {
		g.event(eventNormal, "Pulling", "image "+local, name)
	}
	started := time.Now()
	if err := g.pull(ctx, local, access); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = registry.Classify(local, access.GetUsername(), cause)
		}
		return "", err
	}
	g.event(eventNormal, "Pulled", fmt.Sprintf("image %s in %s", local, time.Since(started).Round(time.Millisecond)), name)
	_, err = g.checkImage(ctx, local)
	return manifest, err
}

// failedBefore returns the last failure while the image waits for its next attempt.
func (g *group) failedBefore(image string) error {
	state := g.pulls[image]
	if state.err != nil && g.manager.options.Monotonic() < state.next {
		return state.err
	}
	return nil
}

// recordImageFailure delays the next attempt to pull the image, and returns the failure.
func (g *group) recordImageFailure(state *pullState, name string, failure error) error {
	state.failures++
	state.err = failure
	state.declaration = g.declarationCount()
	state.next = g.manager.options.Monotonic() + nextBackOff(state.failures)
	g.event(eventWarning, imageReason(failure), failure.Error(), name)
	return failure
}

// checkImage reports whether containerd has the image, and refuses one that is built for another platform. containerd
// itself checks the platform only when it chooses from an index.
func (g *group) checkImage(ctx context.Context, image string) (present bool, err error) {
	response, err := g.manager.images.ImageStatus(ctx, &runtimev1.ImageStatusRequest{Image: &runtimev1.ImageSpec{Image: image}, Verbose: true})
	if err != nil {
		return false, fmt.Errorf("status of image %s: %w", image, err)
	}
	if response.GetImage() == nil {
		return false, nil
	}
	if err := g.manager.checkConfiguration(image, response.GetImage().GetId()); err != nil {
		return true, err
	}
	var info struct {
		ImageSpec struct {
			Architecture string `json:"architecture"`
			OS           string `json:"os"`
		} `json:"imageSpec"`
	}
	if detail := response.GetInfo()["info"]; detail != "" {
		if err := json.Unmarshal([]byte(detail), &info); err != nil {
			return true, fmt.Errorf("status of image %s: %w", image, err)
		}
	}
	spec := info.ImageSpec
	if spec.Architecture != "" && spec.Architecture != runtime.GOARCH || spec.OS != "" && spec.OS != runtime.GOOS {
		return true, registry.Foreign(image, spec.OS+"/"+spec.Architecture, runtime.GOOS+"/"+runtime.GOARCH)
	}
	return true, nil
}

func (g *group) pull(ctx context.Context, image string, access *agentv1.ImageRegistry) error {
	server, _, _ := strings.Cut(image, "/")
	// containerd looks up the server by this name.
	server = reference.CanonicalServer(server)
	release, err := g.manager.certificates.Use(ctx, server, access.GetEndpoint(), access.GetCa())
	if err != nil {
		return fmt.Errorf("configuration of registry %s: %w", server, err)
	}
	defer release()
	request := &runtimev1.PullImageRequest{Image: &runtimev1.ImageSpec{Image: image}}
	if access.GetUsername() != "" {
		// Without a server address containerd sends the credentials to the endpoint that the registry's configuration
		// names.
		request.Auth = &runtimev1.AuthConfig{Username: access.GetUsername(), Password: access.GetPassword()}
	}
	_, err = g.manager.images.PullImage(ctx, request)
	if grpcstatus.Code(err) == codes.DataLoss || err != nil && strings.Contains(err.Error(), changedContent) {
		return &refusedError{fmt.Sprintf("image %s is refused: what this host has of it is not what its digest names: %v", image, err)}
	}
	if err != nil {
		return registry.Classify(image, access.GetUsername(), err)
	}
	return nil
}

// changedContent is in the message of containerd's content store about a blob that was changed on the disk. The pull
// does not always keep the error's code.
const changedContent = "its content has another digest"

// registryOf returns how the spec reaches the image's registry; nil when it does not say.
func registryOf(spec *agentv1.GroupSpec, image string) *agentv1.ImageRegistry {
	server, _, _ := strings.Cut(image, "/")
	server = reference.CanonicalServer(server)
	for _, candidate := range spec.GetImageRegistries() {
		if reference.CanonicalServer(candidate.GetServer()) == server {
			return candidate
		}
	}
	return nil
}
