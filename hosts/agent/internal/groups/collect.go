package groups

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

const (
	// collectInterval is the time between two checks of the disk's usage.
	collectInterval = time.Minute
	// collectThreshold is the disk usage above which unused images are removed.
	collectThreshold = 0.8
)

// diskUsage returns the used part of the file system of path, 0 to 1. Agent and containerd share the state disk.
func diskUsage(path string) (float64, error) {
	var status syscall.Statfs_t
	if err := syscall.Statfs(path, &status); err != nil {
		return 0, err
	}
	return 1 - float64(status.Bavail)/float64(max(status.Blocks, 1)), nil
}

// collectImages removes unused images when the disk fills up, until ctx ends.
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

// removeUnusedImages removes unused images from containerd, then their layers from the store. An image is in use when a
// group names it, named it before its last change, or when a container runs from it. Pinned images, such as the pause
// image, stay.
func (m *Manager) removeUnusedImages(ctx context.Context) error {
	used, err := m.usedImages(ctx, nil)
	if err != nil {
		return err
	}
	if err := m.removeImages(ctx, func(names []string) bool { return !used.any(names) }); err != nil {
		return err
	}
	return m.retain(ctx, &agentv1.RetainImagesRequest{Images: used.digests()})
}

// releaseImages removes the sealed images of a group that is being deleted, unless another group or a container uses
// them.
func (m *Manager) releaseImages(ctx context.Context, deleted *group, desired *record) error {
	if m.options.Sealed == nil {
		return nil
	}
	used, err := m.usedImages(ctx, deleted)
	if err != nil {
		return err
	}
	own := imageNames{}
	own.add(desired)
	if err := m.removeImages(ctx, func(names []string) bool { return own.any(names) && !used.any(names) }); err != nil {
		return err
	}
	return m.retain(ctx, &agentv1.RetainImagesRequest{Images: used.digests(), Candidates: own.digests()})
}

func (m *Manager) retain(ctx context.Context, request *agentv1.RetainImagesRequest) error {
	if m.options.Sealed == nil {
		return nil
	}
	_, err := m.options.Sealed.RetainImages(ctx, connect.NewRequest(request))
	return err
}

// removeImages removes the images of containerd whose names are unwanted.
func (m *Manager) removeImages(ctx context.Context, unwanted func(names []string) bool) error {
	present, err := m.images.ListImages(ctx, &runtimev1.ListImagesRequest{})
	if err != nil {
		return err
	}
	for _, image := range present.Images {
		if image.Pinned || !unwanted(append([]string{image.Id}, image.RepoDigests...)) {
			continue
		}
		if _, err := m.images.RemoveImage(ctx, &runtimev1.RemoveImageRequest{Image: &runtimev1.ImageSpec{Image: image.Id}}); err != nil {
			return err
		}
		m.options.Logger.Info("removed unused image", "image", image.Id, "names", image.RepoDigests)
	}
	return nil
}

// usedImages returns the names of the images that containers run from and that groups name. It does not count the group
// except.
func (m *Manager) usedImages(ctx context.Context, except *group) (imageNames, error) {
	containers, err := m.runtime.ListContainers(ctx, &runtimev1.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	used := imageNames{}
	for _, container := range containers.Containers {
		for _, name := range []string{container.ImageId, container.ImageRef, container.GetImage().GetImage()} {
			used[name] = true
		}
	}
	for _, g := range m.all() {
		if g != except {
			used.add(g.desired())
		}
	}
	return used, nil
}

// imageNames is a set of image references and image identifiers.
type imageNames map[string]bool

// add adds the images of a record, both as the spec names them and as containerd does, and its previous images.
func (n imageNames) add(r *record) {
	for _, image := range r.images() {
		n[image], n[r.localReference(image)] = true, true
	}
	for _, image := range r.Previous {
		n[image] = true
	}
}

func (n imageNames) any(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return n[name] })
}

// digests returns the sorted digests of those names that are references.
func (n imageNames) digests() []string {
	var result []string
	for name := range n {
		if _, digest, found := strings.Cut(name, "@"); found {
			result = append(result, digest)
		}
	}
	slices.Sort(result)
	return slices.Compact(result)
}
