package images

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/palisade-host/palisade/hosts/agent/internal/images/registrytest"
	"github.com/palisade-host/palisade/hosts/seal"
	"github.com/palisade-host/palisade/hosts/seal/sealtest"
)

// add adds another image to the store.
func (f *fixture) add(layers ...string) *sealtest.Image {
	f.t.Helper()
	image := sealtest.NewImage(f.t, layers...)
	reference := f.server.AddImage(image)
	f.server.AddSeal(f.t, image, f.key.Seal(f.t, image.Sealed))
	if _, err := f.role.Ensure(f.t.Context(), reference, f.server.Access(), nil); err != nil {
		f.t.Fatal(err)
	}
	return image
}

func (f *fixture) retain(keep, candidates []string) []string {
	f.t.Helper()
	removed, _, err := f.role.Retain(keep, candidates)
	if err != nil {
		f.t.Fatal(err)
	}
	return removed
}

// expectAbsent requires that the store has nothing of a layer.
func (f *fixture) expectAbsent(layer seal.Layer) {
	f.t.Helper()
	store := f.options.Store
	for _, path := range []string{store.Blob(layer.RootHash), store.Signature(layer.RootHash), store.Lookup(layer.DiffID), store.Metadata(layer.DiffID)} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			f.t.Errorf("%s: %v", path, err)
		}
	}
}

func TestRetain(t *testing.T) {
	f := newSealedFixture(t, "base", "app")
	f.mustEnsure()
	other, third := f.add("base", "other"), f.add("third")
	if removed := f.retain([]string{f.image.Digest, other.Digest, third.Digest}, nil); len(removed) != 0 {
		t.Fatalf("%v", removed)
	}
	// containerd does this for a snapshot.
	if err := os.Link(f.options.Store.Lookup(third.Sealed.Layers[0].DiffID), filepath.Join(t.TempDir(), "layer.erofs")); err != nil {
		t.Fatal(err)
	}
	// Only candidates are removed, and only those that are not kept.
	if removed := f.retain([]string{other.Digest}, []string{other.Digest, third.Digest}); !slices.Equal(removed, []string{third.Digest}) {
		t.Errorf("%v", removed)
	}
	f.expectAbsent(third.Sealed.Layers[0])
	f.expectComplete(f.image)
	if removed := f.retain([]string{other.Digest}, nil); !slices.Equal(removed, []string{f.image.Digest}) {
		t.Errorf("%v", removed)
	}
	f.expectAbsent(f.image.Sealed.Layers[1])
	// The layer that both images had is kept.
	f.expectComplete(other)
	if f.role.records.document(f.image.Digest) != nil || f.role.records.document(other.Digest) == nil {
		t.Error("documents do not go with their image")
	}
	f.mustEnsure()
	f.expectComplete(f.image)
	f.retain(nil, nil)
	for _, layer := range append(f.image.Sealed.Layers, other.Sealed.Layers...) {
		f.expectAbsent(layer)
	}
}

func TestRetainByTheIndex(t *testing.T) {
	f := newSealedFixture(t, "app")
	index := f.server.AddManifest(sealtest.Index(t, f.image))
	f.reference = registrytest.Repository + "@" + index
	f.mustEnsure()
	if removed := f.retain([]string{index}, nil); len(removed) != 0 {
		t.Errorf("%v", removed)
	}
	if removed := f.retain(nil, []string{index}); !slices.Equal(removed, []string{f.image.Digest}) {
		t.Errorf("%v", removed)
	}
}

func TestRetainLeavesWhatIsBeingFetched(t *testing.T) {
	f := newSealedFixture(t, "base", "app")
	f.mustEnsure()
	release := f.role.protect(f.image.Digest)
	if removed := f.retain(nil, nil); len(removed) != 0 {
		t.Errorf("%v", removed)
	}
	release()
	layer := f.image.Sealed.Layers[0]
	release = f.role.protect(layer.RootHash)
	f.retain(nil, nil)
	if !f.role.isPresent(layer) {
		t.Error("a layer that is being fetched was removed")
	}
	f.expectAbsent(f.image.Sealed.Layers[1])
	release()
	f.retain(nil, nil)
	f.expectAbsent(layer)
}

// TestRetainWithAForeignSeal keeps every layer when the layers of an image are not known, such as after its key was
// removed.
func TestRetainWithAForeignSeal(t *testing.T) {
	f := newSealedFixture(t, "app")
	f.mustEnsure()
	other := f.add("other")
	f.options.Trust.Keys = sealtest.NewKey(t).Keys()
	f.restart()
	f.retain([]string{f.image.Digest}, nil)
	for _, layer := range append(f.image.Sealed.Layers, other.Sealed.Layers...) {
		if !f.role.isPresent(layer) {
			t.Errorf("layer %s was removed", layer.Digest)
		}
	}
}

// TestRetainTurnsLookups has two file systems of one layer, made by different tools.
func TestRetainTurnsLookups(t *testing.T) {
	f := newSealedFixture(t, "base")
	f.mustEnsure()
	other := sealtest.NewImage(t, "base", "other")
	content := append([]byte("made by other tools"), make([]byte, 8192)...)
	other.Blobs[0] = content
	layer := &other.Sealed.Layers[0]
	layer.RootHash, layer.Blob, layer.Size = digestOf([]byte("root"))[7:], digestOf(content), int64(len(content))
	reference := f.server.AddImage(other)
	f.server.AddSeal(t, other, f.key.Seal(t, other.Sealed))
	if _, err := f.role.Ensure(t.Context(), reference, f.server.Access(), nil); err != nil {
		t.Fatal(err)
	}
	f.expectComplete(other)
	f.retain([]string{f.image.Digest}, nil)
	f.expectComplete(f.image)
}
