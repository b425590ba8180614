package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/palisade-host/palisade/hosts/agent/internal/service"
	"github.com/palisade-host/palisade/hosts/seal"
)

// layerReaders is how many layers of an image are downloaded at the same time.
const layerReaders = 3

// isPresent reports whether the store has a layer's blob and signature.
func (r *Role) isPresent(layer seal.Layer) bool {
	return r.hasBlob(layer) && r.hasSignature(layer)
}

// hasBlob compares name and size only. The kernel verifies the content, block by block.
func (r *Role) hasBlob(layer seal.Layer) bool {
	blob, err := os.Stat(r.options.Store.Blob(layer.RootHash))
	return err == nil && blob.Size() == layer.Size
}

// hasSignature compares the content. The kernel would refuse the layer with a wrong signature, and nothing would fetch
// it again.
func (r *Role) hasSignature(layer seal.Layer) bool {
	content, err := os.ReadFile(r.options.Store.Signature(layer.RootHash))
	return err == nil && digest.FromBytes(content).String() == layer.Signature
}

func (f *fetch) missing(s *sealed) []seal.Layer {
	var result []seal.Layer
	for _, layer := range unique(s.Layers) {
		if !f.role.isPresent(layer) {
			result = append(result, layer)
		}
	}
	return result
}

// layers downloads the layers of a seal that the store lacks.
func (f *fetch) layers(ctx context.Context, s *sealed) error {
	missing := f.missing(s)
	needed := sizeOf(slices.DeleteFunc(slices.Clone(missing), f.role.hasBlob))
	f.startProgress(sizeOf(s.Layers), needed)
	store := string(f.role.options.Store)
	if len(missing) > 0 {
		available, err := f.role.options.Available(store)
		if err != nil {
			return err
		}
		if uint64(needed) > available {
			return f.reference.refuse(DiskFull, "its layers need %d bytes, the disk of the store has %d; delete groups or give the host a larger state disk", needed, available)
		}
	}
	signatures := map[string]ocispec.Descriptor{}
	for index, layer := range s.Layers {
		signatures[layer.RootHash] = s.signatures[index]
	}
	readers, ctx := errgroup.WithContext(ctx)
	readers.SetLimit(layerReaders)
	for _, layer := range missing {
		readers.Go(func() error { return f.layer(ctx, layer, signatures[layer.RootHash]) })
	}
	return readers.Wait()
}

// layer downloads one layer. When another fetch is downloading the same one, it waits for that.
func (f *fetch) layer(ctx context.Context, layer seal.Layer, signature ocispec.Descriptor) error {
	unlock, err := f.role.layers.acquire(ctx, layer.RootHash)
	if err != nil {
		return err
	}
	defer unlock()
	if f.role.isPresent(layer) {
		return nil
	}
	client, err := f.openClient()
	if err != nil {
		return err
	}
	store := f.role.options.Store
	if !f.role.hasSignature(layer) {
		content, err := client.readBlob(ctx, signature, maximumSignature)
		if err != nil {
			return f.ofLayer(err, layer)
		}
		if err := service.WriteFile(store.Signature(layer.RootHash), content, 0o644); err != nil {
			return f.diskError(err)
		}
	}
	if f.role.hasBlob(layer) {
		return nil
	}
	body, err := client.openBlob(ctx, layer.Blob, layer.Size)
	if err != nil {
		return f.ofLayer(err, layer)
	}
	defer body.Close()
	return f.write(body, layer, store.Blob(layer.RootHash))
}

// write stores a blob under its name only when it is complete, correct and on the disk.
func (f *fetch) write(body io.Reader, layer seal.Layer, path string) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), temporaryPrefix+"fetch-*")
	if err != nil {
		return f.diskError(err)
	}
	defer os.Remove(temporary.Name())
	defer temporary.Close()
	hash := sha256.New()
	counted := writerFunc(func(content []byte) (int, error) {
		f.addProgress(len(content))
		return len(content), nil
	})
	// Reading one byte more than the expected size detects a blob that is too long.
	size, err := io.Copy(io.MultiWriter(temporary, hash, counted), io.LimitReader(body, layer.Size+1))
	if err != nil {
		return f.ofLayer(err, layer)
	}
	if got := "sha256:" + hex.EncodeToString(hash.Sum(nil)); size != layer.Size || got != layer.Blob {
		refusal := f.reference.refuse(LayerMismatch, "layer %s: the registry sends other bytes (%s, at least %d) than the seal names (%s, %d)", layer.Digest, got, size, layer.Blob, layer.Size)
		refusal.Layer = layer.Digest
		return refusal
	}
	if err := temporary.Chmod(0o644); err != nil {
		return err
	}
	if err := temporary.Sync(); err != nil {
		return f.diskError(err)
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return err
	}
	return service.SyncDirectory(filepath.Dir(path))
}

// ofLayer adds the layer to an error of its download.
func (f *fetch) ofLayer(err error, layer seal.Layer) error {
	if err = f.diskError(err); f.client != nil {
		err = f.client.explain(err)
	}
	var refusal *Refusal
	if errors.As(err, &refusal) && refusal.Layer == "" {
		named := *refusal
		named.Layer = layer.Digest
		named.Message = fmt.Sprintf("layer %s: %s", layer.Digest, refusal.Message)
		return &named
	}
	return err
}

// link creates the names by diffID under which containerd looks layers up.
func (f *fetch) link(ctx context.Context, s *sealed) error {
	for _, layer := range unique(s.Layers) {
		unlock, err := f.role.layers.acquire(ctx, layer.DiffID)
		if err != nil {
			return err
		}
		err = f.role.link(layer)
		unlock()
		if err != nil {
			return f.diskError(err)
		}
	}
	return nil
}

func (r *Role) link(layer seal.Layer) error {
	store := r.options.Store
	lookup, blob := store.Lookup(layer.DiffID), store.Blob(layer.RootHash)
	content, err := json.Marshal(seal.Verity{RootHash: layer.RootHash, HashOffset: layer.HashOffset})
	if err != nil {
		return err
	}
	present, err := os.ReadFile(store.Metadata(layer.DiffID))
	if err == nil && string(present) == string(content) && sameFile(lookup, blob) {
		return nil
	}
	folder := filepath.Dir(lookup)
	if err := makeFolder(folder); err != nil {
		return err
	}
	temporary := filepath.Join(folder, temporaryPrefix+filepath.Base(lookup))
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Link(blob, temporary); err != nil {
		return err
	}
	if err := os.Rename(temporary, lookup); err != nil {
		return err
	}
	// Renaming a link to another link of the same file does nothing (rename(2)), so the temporary name remains.
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return service.WriteFile(store.Metadata(layer.DiffID), content, 0o644)
}

func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(content []byte) (int, error) {
	return w(content)
}
