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
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/palisade-host/palisade/hosts/seal"
)

// Mount options that only the mount handler of this package reads.
const (
	optionRootHash   = "X-palisade.root-hash="
	optionHashOffset = "X-palisade.hash-offset="
	optionSignature  = "X-palisade.signature="
	// optionMapping is followed by uidmap=… or gidmap=….
	optionMapping = "X-palisade."
)

// binder binds mounts to the seal manifest of an image: each layer that is mounted names the root hash and the
// signature of its manifest entry, and the layers are exactly those of the manifest.
type binder struct {
	stores []seal.Store
	trust  string
	images interface {
		digestOf(ctx context.Context, key string) (string, error)
	}
}

// bind checks that the lower layers are exactly those of a sealed image, and adds root hash and signature to each of
// their mounts. It returns mounts without lower layers, such as those of an empty snapshot, unchanged.
func (b binder) bind(ctx context.Context, key string, mounts []mount.Mount) ([]mount.Mount, error) {
	diffIDs, err := b.lowerLayers(mounts)
	if err != nil {
		return nil, err
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
	return bindLayers(mounts, manifest, store)
}

// lowerLayers returns the diffIDs of the mounted layers, the lowest first.
func (b binder) lowerLayers(mounts []mount.Mount) ([]string, error) {
	var diffIDs []string
	for _, m := range mounts {
		if m.Type != "erofs" {
			continue
		}
		diffID, err := b.diffID(m.Source)
		if err != nil {
			return nil, err
		}
		diffIDs = append(diffIDs, diffID)
	}
	// Mounts begin with the top layer, manifests with the lowest.
	slices.Reverse(diffIDs)
	return diffIDs, nil
}

// bindLayers returns the mounts with source, root hash and signature of each layer taken from the manifest.
func bindLayers(mounts []mount.Mount, manifest *seal.Manifest, store seal.Store) ([]mount.Mount, error) {
	bound := slices.Clone(mounts)
	mappings := takeMappings(bound)
	next := len(manifest.Layers)
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

// takeMappings removes the user namespace's mappings from the overlay, where the shim would apply them to each layer,
// and returns them as options of the layers.
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

// diffID returns a layer's diffID from its path in a store. The path is not trusted: it only selects an entry of the
// manifest.
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

// manifest returns the seal manifest of the image and its store, if the image has exactly these layers. Without an
// image it returns the first manifest that has them.
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
				// The agent may be removing this manifest, and another one may have the layers.
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

// readSeal verifies a seal manifest and returns it.
func readSeal(trust seal.Trust, file string) (*seal.Manifest, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return trust.Open(content)
}

// sameLayers refuses layers that are not exactly those of the manifest, in the same order.
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
