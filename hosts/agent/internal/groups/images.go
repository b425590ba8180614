package groups

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"time"

	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/palisade-host/palisade/hosts/agent/internal/registry"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// pullState is the history of pulling one image for the present wish.
type pullState struct {
	failures uint32
	next     time.Time
	// access is how the registry was reached; other credentials are tried at once.
	access string
	err    error
}

// ensureImages pulls what is not there. A container whose image cannot be had waits with the reason; the others go on.
func (g *group) ensureImages(ctx context.Context, wish *record, seen *observation) error {
	var failure error
	wanted := map[string]bool{}
	for _, container := range wish.spec.GetContainers() {
		wanted[container.GetImage()] = true
		err := g.ensureImage(ctx, wish, seen, container)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		name := container.GetName()
		if err != nil {
			failure = err
			g.waiting[name] = waitingReason{reasonPullFailed, g.clean(err.Error())}
			continue
		}
		if reason := g.waiting[name].reason; reason == reasonPullFailed || reason == reasonPulling {
			delete(g.waiting, name)
		}
	}
	for image := range g.pulls {
		if !wanted[image] {
			delete(g.pulls, image)
		}
	}
	return failure
}

func (g *group) ensureImage(ctx context.Context, wish *record, seen *observation, container *agentv1.Container) error {
	name, image := container.GetName(), container.GetImage()
	if status := seen.containers[name]; status != nil && status.State == runtimev1.ContainerState_CONTAINER_RUNNING {
		return nil
	}
	if wish.Containers[name].Done {
		return nil
	}
	present, err := g.checkImage(ctx, image)
	if err != nil {
		return err
	}
	if present {
		delete(g.pulls, image)
		return nil
	}
	access := registryOf(wish.spec, image)
	now := g.manager.options.Now()
	state := g.pulls[image]
	if state != nil && state.access == access.String() && now.Before(state.next) {
		return state.err
	}
	if state == nil || state.access != access.String() {
		state = &pullState{access: access.String()}
		g.pulls[image] = state
	}
	if state.failures == 0 {
		g.event(eventNormal, "Pulling", "image "+image, name)
	}
	g.waiting[name] = waitingReason{reason: reasonPulling}
	g.publish(g.assess(wish, seen))
	started := time.Now()
	if err := g.pull(ctx, wish, image, access); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		state.failures++
		state.err = err
		state.next = g.manager.options.Now().Add(nextBackOff(state.failures))
		g.event(eventWarning, reasonPullFailed, err.Error(), name)
		return err
	}
	delete(g.pulls, image)
	g.event(eventNormal, "Pulled", fmt.Sprintf("image %s in %s", image, time.Since(started).Round(time.Millisecond)), name)
	_, err = g.checkImage(ctx, image)
	return err
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

func (g *group) pull(ctx context.Context, wish *record, image string, access *agentv1.ImageRegistry) error {
	server, _, _ := strings.Cut(image, "/")
	release, err := g.manager.certificates.Use(server, access.GetEndpoint(), access.GetCa())
	if err != nil {
		return fmt.Errorf("configuration of registry %s: %w", server, err)
	}
	defer release()
	request := &runtimev1.PullImageRequest{Image: &runtimev1.ImageSpec{Image: image}, SandboxConfig: g.sandboxConfig(wish)}
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
	for _, candidate := range spec.GetImageRegistries() {
		if candidate.GetServer() == server {
			return candidate
		}
	}
	return nil
}
