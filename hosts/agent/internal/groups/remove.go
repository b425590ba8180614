package groups

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// stopTimeout is how long a container may take to exit between SIGTERM and SIGKILL.
const stopTimeout = 10 * time.Second

// removeSandboxes stops the containers of the sandboxes gracefully, then removes containers and sandboxes.
func (g *group) removeSandboxes(ctx context.Context, sandboxes []*runtimev1.PodSandbox) error {
	for _, sandbox := range sandboxes {
		if err := removeSandbox(ctx, g.manager.runtime, sandbox); err != nil {
			return err
		}
		g.event(eventNormal, "SandboxRemoved", "sandbox "+shortID(sandbox.Id), "")
	}
	return nil
}

// removeSandbox stops and removes one sandbox. It is no error when the sandbox is gone.
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
			// A container that cannot be stopped is killed with its sandbox.
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

// removeContainer removes one container. It is no error when the container is gone.
func (g *group) removeContainer(ctx context.Context, id string) error {
	_, err := g.manager.runtime.RemoveContainer(ctx, &runtimev1.RemoveContainerRequest{ContainerId: id})
	if err != nil && grpcstatus.Code(err) != codes.NotFound {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	return nil
}

// delete removes everything of a deleted group. The record is removed last, so that an agent that starts after a crash
// continues the removal.
func (g *group) delete(ctx context.Context, desired *record, observed *observation) error {
	g.dropPulls(nil)
	sandboxes := observed.outdated
	if observed.sandbox != nil {
		sandboxes = append(sandboxes, observed.sandbox)
	}
	if err := g.removeSandboxes(ctx, sandboxes); err != nil {
		return err
	}
	if err := os.RemoveAll(g.logDirectory()); err != nil {
		return err
	}
	if err := g.manager.releaseImages(ctx, g, desired); err != nil {
		// Images that remain are removed when the disk fills up.
		g.logger.Warn("images of the deleted group are not removed", "error", err)
	}
	return g.manager.forget(g, desired)
}
