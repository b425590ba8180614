package groups

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// observation is the state of a group in containerd.
type observation struct {
	// sandbox is ready and has the desired spec; nil when there is none.
	sandbox *runtimev1.PodSandbox
	// address is the sandbox's IP address.
	address string
	// outdated are the other sandboxes of the group: they have another spec, are dead, or are surplus.
	outdated []*runtimev1.PodSandbox
	// containers are the newest attempts by name. They belong to the sandbox or, when there is none, to the newest
	// outdated sandbox with the desired spec.
	containers map[string]*runtimev1.ContainerStatus
	// replaced are the identifiers of containers in the same sandbox that a newer attempt has replaced.
	replaced []string
}

// observe reads the group's sandboxes and containers from containerd.
func (g *group) observe(ctx context.Context, desired *record) (*observation, error) {
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
	observed := &observation{containers: map[string]*runtimev1.ContainerStatus{}}
	sandbox := observed.sortSandboxes(desired, sandboxes.Items)
	if sandbox == nil {
		return observed, nil
	}
	if observed.sandbox != nil {
		status, err := runtime.PodSandboxStatus(ctx, &runtimev1.PodSandboxStatusRequest{PodSandboxId: sandbox.Id})
		if err != nil {
			return nil, fmt.Errorf("status of sandbox %s: %w", sandbox.Id, err)
		}
		observed.address = status.GetStatus().GetNetwork().GetIp()
	}
	for name, container := range observed.newestAttempts(sandbox.Id, containers.Containers) {
		status, err := runtime.ContainerStatus(ctx, &runtimev1.ContainerStatusRequest{ContainerId: container.Id})
		if grpcstatus.Code(err) == codes.NotFound {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("status of container %s: %w", container.Id, err)
		}
		if found := status.GetStatus(); found != nil {
			found.Reason, found.Message = g.clean(found.Reason), g.clean(found.Message)
			observed.containers[name] = found
		}
	}
	return observed, nil
}

// sortSandboxes separates the sandbox with the desired spec from outdated ones. It returns the sandbox whose containers
// count: that one or, when there is none, the newest dead one with the desired spec. How containers exited in a dead
// sandbox, such as that of the host's last boot, decides whether they restart.
func (o *observation) sortSandboxes(desired *record, sandboxes []*runtimev1.PodSandbox) *runtimev1.PodSandbox {
	hash := desired.specHash()
	hasDesiredSpec := func(sandbox *runtimev1.PodSandbox) bool {
		return sandbox.Labels[labelUID] == desired.UID && sandbox.Labels[labelSpecHash] == hash
	}
	newestFirst := func(a, b *runtimev1.PodSandbox) int { return int(b.CreatedAt - a.CreatedAt) }
	slices.SortFunc(sandboxes, newestFirst)
	for _, sandbox := range sandboxes {
		if o.sandbox == nil && sandbox.State == runtimev1.PodSandboxState_SANDBOX_READY && hasDesiredSpec(sandbox) {
			o.sandbox = sandbox
		} else {
			o.outdated = append(o.outdated, sandbox)
		}
	}
	if o.sandbox != nil {
		return o.sandbox
	}
	if index := slices.IndexFunc(o.outdated, hasDesiredSpec); index >= 0 {
		return o.outdated[index]
	}
	return nil
}

// newestAttempts returns the newest container of each name in a sandbox, and records the others as replaced.
func (o *observation) newestAttempts(sandboxID string, containers []*runtimev1.Container) map[string]*runtimev1.Container {
	newest := map[string]*runtimev1.Container{}
	for _, container := range containers {
		if container.PodSandboxId != sandboxID {
			continue
		}
		name := container.Labels[labelContainer]
		other := newest[name]
		switch {
		case other == nil:
			newest[name] = container
		case container.GetMetadata().GetAttempt() > other.GetMetadata().GetAttempt():
			o.replaced = append(o.replaced, other.Id)
			newest[name] = container
		default:
			o.replaced = append(o.replaced, container.Id)
		}
	}
	return newest
}
