package sealed

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"

	"github.com/palisade-host/palisade/hosts/seal"
	"github.com/palisade-host/palisade/hosts/seal/sealtest"
)

// host has a store in its verified root, a store on the state disk, and its trusted keys.
type host struct {
	fixed, fetched seal.Store
	trust          string
	key            *sealtest.Key
}

func newHost(t *testing.T) *host {
	t.Helper()
	folder := t.TempDir()
	h := &host{
		fixed: seal.Store(filepath.Join(folder, "usr")), fetched: seal.Store(filepath.Join(folder, "var")),
		trust: filepath.Join(folder, "trust"), key: sealtest.NewKey(t),
	}
	writeFile(t, filepath.Join(h.trust, "seals", "seal.pem"), []byte(h.key.PEM))
	return h
}

func (h *host) stores() []seal.Store {
	return []seal.Store{h.fixed, h.fetched}
}

// revoke replaces the host's revocations.
func (h *host) revoke(t *testing.T, revocations seal.Revocations) {
	t.Helper()
	content, err := json.Marshal(revocations)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(h.trust, "revoked.json"), content)
}

// store writes an image's layers and a seal to a store.
func (h *host) store(t *testing.T, store seal.Store, image *sealtest.Image, envelope []byte) {
	t.Helper()
	for index, layer := range image.Sealed.Layers {
		writeFile(t, store.Blob(layer.RootHash), image.Blobs[index])
		writeFile(t, store.Signature(layer.RootHash), image.Signatures[index])
		lookup := store.Lookup(layer.DiffID)
		if err := os.MkdirAll(filepath.Dir(lookup), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(store.Blob(layer.RootHash), lookup); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
		content, err := json.Marshal(seal.Verity{RootHash: layer.RootHash, HashOffset: layer.HashOffset})
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, store.Metadata(layer.DiffID), content)
	}
	if envelope != nil {
		writeFile(t, store.Seal(image.Digest), envelope)
	}
}

// sealed creates an image and writes it to the store on the state disk with the host's seal.
func (h *host) sealed(t *testing.T, contents ...string) *sealtest.Image {
	t.Helper()
	image := sealtest.NewImage(t, contents...)
	h.store(t, h.fetched, image, h.key.Seal(t, image.Sealed))
	return image
}

// lowers returns mounts of a store's layers in the order of upstream's snapshotter: from the top.
func lowers(store seal.Store, layers []seal.Layer) (mounts []mount.Mount) {
	for _, layer := range layers {
		lower := mount.Mount{Type: "erofs", Source: store.Lookup(layer.DiffID), Options: []string{"ro", "loop"}}
		mounts = append([]mount.Mount{lower}, mounts...)
	}
	return mounts
}

func writeFile(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
}
