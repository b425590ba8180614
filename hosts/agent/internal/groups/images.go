package groups

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/palisade-host/palisade/hosts/agent/internal/reference"
	"github.com/palisade-host/palisade/hosts/agent/internal/registry"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// pullState is the history of pulling one image for the present wish.
type pullState struct {
	failures uint32
	next     time.Time
	// access is how the registry was reached; other credentials are tried at once.
	access string
	// declaration is the last one before the failure.
	declaration uint64
	err         error
}

// ensureImages pulls what is not there. A container whose image cannot be had waits with the reason; the others go on.
func (g *group) ensureImages(ctx context.Context, wish *record, seen *observation) (*record, error) {
	var failure error
	wanted := map[string]bool{}
	for _, container := range wish.spec.GetContainers() {
		wanted[container.GetImage()] = true
		changed, err := g.ensureImage(ctx, wish, seen, container)
		if ctx.Err() != nil {
			return wish, ctx.Err()
		}
		if errors.Is(err, errWishChanged) {
			return wish, err
		}
		wish = changed
		name := container.GetName()
		if err != nil {
			failure = err
			g.waiting[name] = waitingReason{imageReason(err), g.clean(err.Error())}
			continue
		}
		if reason := g.waiting[name].reason; reason == reasonPullFailed || reason == reasonRefused || reason == reasonPulling {
			delete(g.waiting, name)
		}
	}
	for image := range g.pulls {
		if !wanted[image] {
			delete(g.pulls, image)
		}
	}
	return wish, failure
}

// imageReason tells an image that must not run from one that cannot be had.
func imageReason(err error) string {
	var refused *refusedError
	if errors.As(err, &refused) {
		return reasonRefused
	}
	return reasonPullFailed
}

func (g *group) ensureImage(ctx context.Context, wish *record, seen *observation, container *agentv1.Container) (*record, error) {
	name, image := container.GetName(), container.GetImage()
	if status := seen.containers[name]; status != nil && status.State == runtimev1.ContainerState_CONTAINER_RUNNING {
		return wish, nil
	}
	if wish.Containers[name].Done {
		return wish, nil
	}
	access := registryOf(wish.spec, image)
	if g.manager.options.Sealed != nil {
		// At each start: what was accepted once may be refused by now.
		if err := g.failedBefore(image, access); err != nil {
			return wish, err
		}
		changed, err := g.fetchImage(ctx, wish, seen, container, access)
		if err != nil {
			return wish, g.noteFailure(ctx, image, name, access, err)
		}
		wish = changed
	}
	local := wish.local(image)
	present, err := g.checkImage(ctx, local)
	if err != nil {
		return wish, err
	}
	if present {
		delete(g.pulls, image)
		return wish, nil
	}
	if err := g.failedBefore(image, access); err != nil {
		return wish, err
	}
	if g.pulls[image] == nil {
		g.event(eventNormal, "Pulling", "image "+local, name)
	}
	g.waiting[name] = waitingReason{reason: reasonPulling}
	g.publish(g.assess(wish, seen))
	started := time.Now()
	if err := g.pull(ctx, local, access); err != nil {
		return wish, g.noteFailure(ctx, image, name, access, err)
	}
	delete(g.pulls, image)
	g.event(eventNormal, "Pulled", fmt.Sprintf("image %s in %s", local, time.Since(started).Round(time.Millisecond)), name)
	_, err = g.checkImage(ctx, local)
	return wish, err
}

// failedBefore returns the last failure for as long as the image is not tried again. Other credentials are tried at once, and
// all of it when the group is declared again.
func (g *group) failedBefore(image string, access *agentv1.ImageRegistry) error {
	state := g.pulls[image]
	if state != nil && (state.access != access.String() || state.declaration != g.declared()) {
		delete(g.pulls, image)
		return nil
	}
	if state != nil && g.manager.options.Now().Before(state.next) {
		return state.err
	}
	return nil
}

// noteFailure makes the image wait before the next attempt, and returns the error.
func (g *group) noteFailure(ctx context.Context, image, name string, access *agentv1.ImageRegistry, failure error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(failure, errWishChanged) {
		return failure
	}
	state := g.pulls[image]
	if state == nil {
		state = &pullState{access: access.String(), declaration: g.declared()}
		g.pulls[image] = state
	}
	state.failures++
	state.err = failure
	state.next = g.manager.options.Now().Add(nextBackOff(state.failures))
	g.event(eventWarning, imageReason(failure), failure.Error(), name)
	return failure
}

// checkImage tells whether the image is there, and refuses one for other machines: containerd looks at the platform only where
// an index offers a choice.
func (g *group) checkImage(ctx context.Context, image string) (present bool, err error) {
	response, err := g.manager.images.ImageStatus(ctx, &runtimev1.ImageStatusRequest{Image: &runtimev1.ImageSpec{Image: image}, Verbose: true})
	if err != nil {
		return false, fmt.Errorf("status of image %s: %w", image, err)
	}
	if response.GetImage() == nil {
		return false, nil
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
	// containerd looks for a server under this name.
	server = reference.CanonicalServer(server)
	release, err := g.manager.certificates.Use(server, access.GetEndpoint(), access.GetCa())
	if err != nil {
		return fmt.Errorf("configuration of registry %s: %w", server, err)
	}
	defer release()
	request := &runtimev1.PullImageRequest{Image: &runtimev1.ImageSpec{Image: image}}
	if access.GetUsername() != "" {
		// Without a server address containerd sends them to whatever endpoint the registry's configuration names.
		request.Auth = &runtimev1.AuthConfig{Username: access.GetUsername(), Password: access.GetPassword()}
	}
	if _, err := g.manager.images.PullImage(ctx, request); err != nil {
		return registry.Classify(image, access.GetUsername(), err)
	}
	return nil
}

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
