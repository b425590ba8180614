package groups

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/palisade-host/palisade/hosts/agent/internal/reference"
	"github.com/palisade-host/palisade/hosts/agent/internal/registry"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// pullState is the history of failed pulls of one image.
type pullState struct {
	failures uint32
	next     time.Time
	// access describes how the registry was reached. Changed credentials are tried at once.
	access string
	// declaration is the number of the declaration that the failure belongs to.
	declaration uint64
	err         error
}

// ensureImages pulls the images that are missing. A container whose image cannot be pulled waits with the reason, and
// does not stop the others.
func (g *group) ensureImages(ctx context.Context, desired *record, observed *observation) (*record, error) {
	var failure error
	wanted := map[string]bool{}
	for _, container := range desired.spec.GetContainers() {
		wanted[container.GetImage()] = true
		changed, err := g.ensureImage(ctx, desired, observed, container)
		if ctx.Err() != nil {
			return desired, ctx.Err()
		}
		if errors.Is(err, errDesiredChanged) {
			return desired, err
		}
		desired = changed
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
	return desired, failure
}

// imageReason distinguishes an image that must not run from one that cannot be pulled.
func imageReason(err error) string {
	var refused *refusedError
	if errors.As(err, &refused) {
		return reasonRefused
	}
	return reasonPullFailed
}

func (g *group) ensureImage(ctx context.Context, desired *record, observed *observation, container *agentv1.Container) (*record, error) {
	name, image := container.GetName(), container.GetImage()
	if status := observed.containers[name]; status != nil && status.State == runtimev1.ContainerState_CONTAINER_RUNNING {
		return desired, nil
	}
	if desired.Containers[name].Done {
		return desired, nil
	}
	access := registryOf(desired.spec, image)
	if g.manager.options.Sealed != nil {
		// An image that was accepted before may be refused now, so each start asks again.
		if err := g.failedBefore(image, access); err != nil {
			return desired, err
		}
		changed, err := g.fetchImage(ctx, desired, observed, container, access)
		if err != nil {
			return desired, g.recordImageFailure(ctx, image, name, access, err)
		}
		desired = changed
	}
	local := desired.localReference(image)
	present, err := g.checkImage(ctx, local)
	if err != nil {
		return desired, g.recordImageFailure(ctx, image, name, access, err)
	}
	if present {
		delete(g.pulls, image)
		return desired, nil
	}
	if err := g.failedBefore(image, access); err != nil {
		return desired, err
	}
	if g.pulls[image] == nil {
		g.event(eventNormal, "Pulling", "image "+local, name)
	}
	g.waiting[name] = waitingReason{reason: reasonPulling}
	g.publish(g.statusOf(desired, observed))
	started := time.Now()
	if err := g.pull(ctx, desired, local, access); err != nil {
		return desired, g.recordImageFailure(ctx, image, name, access, err)
	}
	delete(g.pulls, image)
	g.event(eventNormal, "Pulled", fmt.Sprintf("image %s in %s", local, time.Since(started).Round(time.Millisecond)), name)
	_, err = g.checkImage(ctx, local)
	return desired, err
}

// failedBefore returns the last failure while the image waits for its next attempt. Changed credentials and a new
// declaration of the group are tried at once.
func (g *group) failedBefore(image string, access *agentv1.ImageRegistry) error {
	state := g.pulls[image]
	if state != nil && (state.access != access.String() || state.declaration != g.declarationCount()) {
		delete(g.pulls, image)
		return nil
	}
	if state != nil && g.manager.options.Now().Before(state.next) {
		return state.err
	}
	return nil
}

// recordImageFailure delays the next attempt to pull the image, and returns the failure.
func (g *group) recordImageFailure(ctx context.Context, image, name string, access *agentv1.ImageRegistry, failure error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(failure, errDesiredChanged) {
		return failure
	}
	state := g.pulls[image]
	if state == nil {
		state = &pullState{access: access.String(), declaration: g.declarationCount()}
		g.pulls[image] = state
	}
	state.failures++
	state.err = failure
	state.next = g.manager.options.Now().Add(nextBackOff(state.failures))
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

func (g *group) pull(ctx context.Context, desired *record, image string, access *agentv1.ImageRegistry) error {
	server, _, _ := strings.Cut(image, "/")
	// containerd looks up the server by this name.
	server = reference.CanonicalServer(server)
	release, err := g.manager.certificates.Use(server, access.GetEndpoint(), access.GetCa())
	if err != nil {
		return fmt.Errorf("configuration of registry %s: %w", server, err)
	}
	defer release()
	request := &runtimev1.PullImageRequest{Image: &runtimev1.ImageSpec{Image: image}, SandboxConfig: g.sandboxConfig(desired)}
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
