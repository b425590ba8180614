package sealed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/palisade-host/palisade/hosts/seal"
)

// snapshotter gives out mounts of sealed layers only.
type snapshotter struct {
	snapshots.Snapshotter
	binder binder
	// sealedOnly is false in upstream's tests of snapshotters alone, which make layers by writing files and mount them as
	// they are.
	sealedOnly bool
}

// Prepare makes a snapshot: a layer of an image that is being unpacked, or the writable layer of a container. A layer that
// is in no store is refused, with the error FailedPrecondition: nothing is unpacked on a host.
func (s *snapshotter) Prepare(ctx context.Context, key, parent string, options ...snapshots.Opt) ([]mount.Mount, error) {
	mounts, err := s.Snapshotter.Prepare(ctx, key, parent, options...)
	if err != nil {
		return nil, err
	}
	if diffID := extractedLayer(options); diffID != "" {
		// Read-only is how upstream says that the layer is there already, as the unpacker reads it, too.
		if len(mounts) > 0 && mounts[len(mounts)-1].ReadOnly() {
			return mounts, nil
		}
		refusal := fmt.Errorf("layer with diffID %s is not sealed: no store of this host holds it: %w", diffID, errdefs.ErrFailedPrecondition)
		return nil, errors.Join(refusal, s.Remove(ctx, key))
	}
	return s.bindNew(ctx, key, mounts)
}

// View makes a read-only snapshot.
func (s *snapshotter) View(ctx context.Context, key, parent string, options ...snapshots.Opt) ([]mount.Mount, error) {
	mounts, err := s.Snapshotter.View(ctx, key, parent, options...)
	if err != nil {
		return nil, err
	}
	return s.bindNew(ctx, key, mounts)
}

// Mounts tells how a snapshot is mounted.
func (s *snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	mounts, err := s.Snapshotter.Mounts(ctx, key)
	if err != nil {
		return nil, err
	}
	return s.bind(ctx, key, mounts)
}

func (s *snapshotter) bind(ctx context.Context, key string, mounts []mount.Mount) ([]mount.Mount, error) {
	if !s.sealedOnly {
		return mounts, nil
	}
	return s.binder.bind(ctx, key, mounts)
}

// bindNew removes a snapshot that was just made when it is refused: containerd keeps no record of it.
func (s *snapshotter) bindNew(ctx context.Context, key string, mounts []mount.Mount) ([]mount.Mount, error) {
	bound, err := s.bind(ctx, key, mounts)
	if err != nil {
		return nil, errors.Join(err, s.Remove(ctx, key))
	}
	return bound, nil
}

// Commit turns a layer that was unpacked into a read-only one. What was written by others than the sealer is no layer.
func (s *snapshotter) Commit(ctx context.Context, name, key string, options ...snapshots.Opt) error {
	if s.sealedOnly {
		mounts, err := s.Snapshotter.Mounts(ctx, key)
		if err != nil {
			return err
		}
		if len(mounts) == 0 || !mounts[len(mounts)-1].ReadOnly() {
			return fmt.Errorf("snapshot %s is no sealed layer: %w", key, errdefs.ErrFailedPrecondition)
		}
		// The snapshot's own layer comes first; it may also be one that was written into the snapshot's folder.
		if _, err := s.binder.diffID(mounts[0].Source); err != nil {
			return fmt.Errorf("snapshot %s is no sealed layer: %w", key, err)
		}
	}
	return s.Snapshotter.Commit(ctx, name, key, options...)
}

// Cleanup passes on what the snapshotter below can do.
func (s *snapshotter) Cleanup(ctx context.Context) error {
	if cleaner, ok := s.Snapshotter.(snapshots.Cleaner); ok {
		return cleaner.Cleanup(ctx)
	}
	return fmt.Errorf("cleanup: %w", errdefs.ErrNotImplemented)
}

// extractedLayer returns the diffID when the options are those of a layer that is being unpacked.
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

// Options of a mount that only the mount handler of this package reads.
const (
	optionRootHash   = "X-palisade.root-hash="
	optionHashOffset = "X-palisade.hash-offset="
	optionSignature  = "X-palisade.signature="
	// optionMapping is followed by uidmap=… or gidmap=….
	optionMapping = "X-palisade."
)

// binder replaces what a mount says about layers by what a seal manifest says.
type binder struct {
	stores []seal.Store
	trust  string
	images interface {
		digestOf(ctx context.Context, key string) (string, error)
	}
}

// bind checks that the lower layers are exactly those of a sealed image and makes each mount name root hash and signature.
// Mounts without lower layers, e.g. of an empty snapshot, stay as they are.
func (b binder) bind(ctx context.Context, key string, mounts []mount.Mount) ([]mount.Mount, error) {
	var diffIDs []string
	for _, m := range mounts {
		if m.Type != "erofs" {
			continue
		}
		diffID, err := b.diffID(m.Source)
		if err != nil {
			return nil, err
		}
		// Mounts come from the top, manifests count from the bottom.
		diffIDs = append([]string{diffID}, diffIDs...)
	}
	if len(diffIDs) == 0 {
		return mounts, nil
	}
	image, err := b.images.digestOf(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("the image of snapshot %s: %w", key, err)
	}
	manifest, store, err := b.manifest(image, diffIDs)
	if err != nil {
		return nil, fmt.Errorf("refused to mount: %w: %w", err, errdefs.ErrPermissionDenied)
	}
	bound := slices.Clone(mounts)
	mappings := takeMappings(bound)
	next := len(diffIDs)
	seen := map[string]bool{}
	repeated := map[int]bool{}
	for index, m := range bound {
		if m.Type != "erofs" {
			continue
		}
		next--
		layer := manifest.Layers[next]
		repeated[index] = seen[layer.RootHash]
		seen[layer.RootHash] = true
		m.Source = store.Blob(layer.RootHash)
		m.Options = append([]string{
			"ro", optionRootHash + layer.RootHash, fmt.Sprintf("%s%d", optionHashOffset, layer.HashOffset),
			optionSignature + store.Signature(layer.RootHash),
		}, mappings...)
		bound[index] = m
	}
	return withoutRepeated(bound, repeated)
}

// takeMappings takes the mappings of a user namespace off the overlay, where the shim would apply them to each layer, and
// returns them as options of the layers.
func takeMappings(mounts []mount.Mount) []string {
	var taken []string
	for index, m := range mounts {
		var kept []string
		for _, option := range m.Options {
			if strings.HasPrefix(option, "uidmap=") || strings.HasPrefix(option, "gidmap=") {
				taken = append(taken, optionMapping+option)
			} else {
				kept = append(kept, option)
			}
		}
		mounts[index].Options = kept
	}
	return taken
}

// diffID reads a layer's diffID off its place in a store. The name only chooses an entry of the manifest.
func (b binder) diffID(source string) (string, error) {
	for _, store := range b.stores {
		name, below := strings.CutPrefix(source, filepath.Join(string(store), "sha256")+"/")
		if !below {
			continue
		}
		diffID, err := digest.Parse("sha256:" + strings.TrimSuffix(filepath.Base(name), ".erofs"))
		if err == nil && store.Lookup(diffID.String()) == source {
			return diffID.String(), nil
		}
	}
	return "", fmt.Errorf("refused to mount %s: it is no layer of a store: %w", source, errdefs.ErrPermissionDenied)
}

// manifest returns the seal manifest of the image, when it has exactly these layers. Without an image any sealed image will
// do that has them.
func (b binder) manifest(image string, diffIDs []string) (*seal.Manifest, seal.Store, error) {
	trust, err := seal.LoadTrust(b.trust)
	if err != nil {
		return nil, "", err
	}
	if image != "" {
		manifest, store, err := seal.Find(b.stores, trust, image)
		if err != nil {
			return nil, "", err
		}
		return manifest, store, sameLayers(manifest, diffIDs)
	}
	var refusals []error
	for _, store := range b.stores {
		files, err := filepath.Glob(filepath.Join(string(store), "seals", "*.json"))
		if err != nil {
			return nil, "", err
		}
		for _, file := range files {
			manifest, err := readSeal(trust, file)
			if err != nil {
				// The agent may be removing it; another one may do.
				refusals = append(refusals, fmt.Errorf("%s: %w", file, err))
				continue
			}
			if sameLayers(manifest, diffIDs) == nil {
				return manifest, store, nil
			}
		}
	}
	return nil, "", errors.Join(append(refusals, fmt.Errorf("no sealed image has the layers %s", strings.Join(diffIDs, ", ")))...)
}

func readSeal(trust seal.Trust, file string) (*seal.Manifest, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return trust.Open(content)
}

func sameLayers(manifest *seal.Manifest, diffIDs []string) error {
	sealed := make([]string, len(manifest.Layers))
	for index, layer := range manifest.Layers {
		sealed[index] = layer.DiffID
	}
	if !slices.Equal(sealed, diffIDs) {
		return fmt.Errorf("image %s was sealed with the layers %s, not with %s",
			manifest.Image.Digest, strings.Join(sealed, ", "), strings.Join(diffIDs, ", "))
	}
	return nil
}
