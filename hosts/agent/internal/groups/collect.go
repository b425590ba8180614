package groups

import (
	"context"
	"slices"
	"syscall"
	"time"

	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// collectInterval is how often the disk is looked at.
	collectInterval = time.Minute
	// collectThreshold is how full the disk may get before images that no group uses are removed.
	collectThreshold = 0.8
)

// diskUsage tells how full the file system of path is. Agent and containerd share the state disk.
func diskUsage(path string) (float64, error) {
	var status syscall.Statfs_t
	if err := syscall.Statfs(path, &status); err != nil {
		return 0, err
	}
	return 1 - float64(status.Bavail)/float64(max(status.Blocks, 1)), nil
}

// collectImages keeps the disk from filling up with images of former groups, until ctx ends.
func (m *Manager) collectImages(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(collectInterval):
		}
		if m.options.DiskUsage == nil {
			continue
		}
		usage, err := m.options.DiskUsage()
		if err == nil && usage > collectThreshold {
			err = m.removeUnusedImages(ctx)
		}
		if err != nil && ctx.Err() == nil {
			m.options.Logger.Warn("unused images are not removed", "error", err)
		}
	}
}

// removeUnusedImages removes what neither a group names nor a container uses nor is pinned, like the pause image.
func (m *Manager) removeUnusedImages(ctx context.Context) error {
	present, err := m.images.ListImages(ctx, &runtimev1.ListImagesRequest{})
	if err != nil {
		return err
	}
	containers, err := m.runtime.ListContainers(ctx, &runtimev1.ListContainersRequest{})
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, container := range containers.Containers {
		used[container.ImageId], used[container.ImageRef] = true, true
	}
	for _, g := range m.all() {
		for _, container := range g.wish().spec.GetContainers() {
			used[container.GetImage()] = true
		}
	}
	for _, image := range present.Images {
		names := append([]string{image.Id}, image.RepoDigests...)
		if image.Pinned || slices.ContainsFunc(names, func(name string) bool { return used[name] }) {
			continue
		}
		if _, err := m.images.RemoveImage(ctx, &runtimev1.RemoveImageRequest{Image: &runtimev1.ImageSpec{Image: image.Id}}); err != nil {
			return err
		}
		m.options.Logger.Info("removed unused image", "image", image.Id, "names", image.RepoDigests)
	}
	return nil
}
