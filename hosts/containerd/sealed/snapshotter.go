package sealed

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// snapshotter serves mounts of sealed layers only.
type snapshotter struct {
	snapshots.Snapshotter
	binder binder
	// sealedOnly is false only in upstream's tests of snapshotters, which write files into layers and mount them
	// unsealed.
	sealedOnly bool
}

// Prepare creates a snapshot: a layer of an image that is being unpacked, or the writable layer of a container. It
// refuses a layer that no store holds with FailedPrecondition, because a host unpacks nothing.
func (s *snapshotter) Prepare(ctx context.Context, key, parent string, options ...snapshots.Opt) ([]mount.Mount, error) {
	mounts, err := s.Snapshotter.Prepare(ctx, key, parent, options...)
	if err != nil {
		return nil, err
	}
	if diffID := extractedLayer(options); diffID != "" {
		// Upstream returns a read-only mount when the layer exists already, and the unpacker relies on that.
		if len(mounts) > 0 && mounts[len(mounts)-1].ReadOnly() {
			return mounts, nil
		}
		refusal := fmt.Errorf("layer with diffID %s is not sealed: no store of this host holds it: %w", diffID, errdefs.ErrFailedPrecondition)
		return nil, errors.Join(refusal, s.Remove(ctx, key))
	}
	return s.bindNew(ctx, key, mounts)
}

// View creates a read-only snapshot.
func (s *snapshotter) View(ctx context.Context, key, parent string, options ...snapshots.Opt) ([]mount.Mount, error) {
	mounts, err := s.Snapshotter.View(ctx, key, parent, options...)
	if err != nil {
		return nil, err
	}
	return s.bindNew(ctx, key, mounts)
}

// Mounts returns the mounts of a snapshot.
func (s *snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	mounts, err := s.Snapshotter.Mounts(ctx, key)
	if err != nil {
		return nil, err
	}
	return s.bind(ctx, key, mounts)
}

// bind returns the mounts with the root hash and signature of each layer.
func (s *snapshotter) bind(ctx context.Context, key string, mounts []mount.Mount) ([]mount.Mount, error) {
	if !s.sealedOnly {
		return mounts, nil
	}
	return s.binder.bind(ctx, key, mounts)
}

// bindNew binds the mounts of a new snapshot. It removes a snapshot that is refused, because containerd keeps no record
// of it.
func (s *snapshotter) bindNew(ctx context.Context, key string, mounts []mount.Mount) ([]mount.Mount, error) {
	bound, err := s.bind(ctx, key, mounts)
	if err != nil {
		return nil, errors.Join(err, s.Remove(ctx, key))
	}
	return bound, nil
}

// Commit turns an unpacked layer into a read-only one. It refuses anything but a sealed layer.
func (s *snapshotter) Commit(ctx context.Context, name, key string, options ...snapshots.Opt) error {
	if s.sealedOnly {
		mounts, err := s.Snapshotter.Mounts(ctx, key)
		if err != nil {
			return err
		}
		if len(mounts) == 0 || !mounts[len(mounts)-1].ReadOnly() {
			return fmt.Errorf("snapshot %s is no sealed layer: %w", key, errdefs.ErrFailedPrecondition)
		}
		// The snapshot's own layer comes first. Only one that lies in a store is sealed; it could also have been
		// written into the snapshot's folder.
		if _, err := s.binder.diffID(mounts[0].Source); err != nil {
			return fmt.Errorf("snapshot %s is no sealed layer: %w", key, err)
		}
	}
	return s.Snapshotter.Commit(ctx, name, key, options...)
}

// Cleanup calls the Cleanup of the wrapped snapshotter, if it has one.
func (s *snapshotter) Cleanup(ctx context.Context) error {
	if cleaner, ok := s.Snapshotter.(snapshots.Cleaner); ok {
		return cleaner.Cleanup(ctx)
	}
	return fmt.Errorf("cleanup: %w", errdefs.ErrNotImplemented)
}

// extractedLayer returns the diffID of the layer that is being unpacked, or nothing when the options are those of a
// container.
func extractedLayer(options []snapshots.Opt) string {
	var info snapshots.Info
	for _, option := range options {
		if err := option(&info); err != nil {
			return ""
		}
	}
	if info.Labels[snapshots.LabelSnapshotRef] == "" {
		return ""
	}
	return info.Labels[snapshots.LabelSnapshotDiffID]
}
