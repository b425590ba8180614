package sealed

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/snapshots/erofs"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"

	"github.com/palisade-host/palisade/hosts/seal"
	"github.com/palisade-host/palisade/hosts/seal/sealtest"
)

// service is containerd's snapshot service over the snapshotter of a host, with the records of images.
type service struct {
	*host
	snapshots.Snapshotter
	// below is the snapshotter of this package without the service's records.
	below    *snapshotter
	database *metadata.DB
	root     string
}

func newService(t *testing.T) *service {
	t.Helper()
	if !erofs.FindErofs() {
		t.Skip("this machine's kernel has no EROFS (modprobe erofs)")
	}
	h := newHost(t)
	root := t.TempDir()
	inner, err := erofs.NewSnapshotter(root, erofs.WithLayerContentCaches(string(h.fixed), string(h.fetched)), erofs.WithDmverityMode("off"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inner.Close() })
	lookup := &imageLookup{}
	below := &snapshotter{Snapshotter: inner, binder: binder{stores: h.stores(), trust: h.trust, images: lookup}, sealedOnly: true}
	database := newDatabase(t, map[string]snapshots.Snapshotter{Name: below})
	lookup.use(database)
	return &service{host: h, Snapshotter: database.Snapshotter(Name), below: below, database: database, root: root}
}

// extract prepares one layer as containerd's unpacker does.
func (s *service) extract(ctx context.Context, key, parent, chainID, diffID string) ([]mount.Mount, error) {
	return s.Prepare(ctx, key, parent, snapshots.WithLabels(map[string]string{
		snapshots.LabelSnapshotRef: chainID, snapshots.LabelSnapshotDiffID: diffID,
	}))
}

// unpack commits an image's layers and returns the name of the chain.
func (s *service) unpack(t *testing.T, image *sealtest.Image) string {
	t.Helper()
	var parent string
	var chain []digest.Digest
	for _, layer := range image.Sealed.Layers {
		chain = append(chain, digest.Digest(layer.DiffID))
		name := identity.ChainID(chain).String()
		key := "extract-" + name
		mounts, err := s.extract(inNamespace(t), key, parent, name, layer.DiffID)
		if err != nil {
			t.Fatal(err)
		}
		// For the unpacker this means that nothing remains to be applied.
		if !mounts[len(mounts)-1].ReadOnly() {
			t.Fatalf("a sealed layer's mounts are not read-only: %+v", mounts)
		}
		if err := s.Commit(inNamespace(t), name, key); err != nil {
			t.Fatal(err)
		}
		parent = name
	}
	return parent
}

// remaining returns the snapshots of the wrapped snapshotter and their folders.
func (s *service) remaining(t *testing.T) (names, folders []string) {
	t.Helper()
	err := s.below.Walk(t.Context(), func(_ context.Context, info snapshots.Info) error {
		names = append(names, info.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(s.root, "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		folders = append(folders, entry.Name())
	}
	return names, folders
}

func TestContainerOfASealedImage(t *testing.T) {
	s := newService(t)
	image := s.sealed(t, "base", "app")
	top := s.unpack(t, image)
	recordImage(t, s.database, "registry.test/web:1", image.Digest)
	ctx := inNamespace(t)
	// CRI prepares the snapshot before it records the container.
	prepared, err := s.Prepare(ctx, "web", top)
	if err != nil {
		t.Fatal(err)
	}
	recordContainer(t, s.database, "web", "registry.test/web:1")
	mounts, err := s.Mounts(ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(mounts, prepared) {
		t.Errorf("prepared %+v\nmounts   %+v", prepared, mounts)
	}
	want := []mount.Mount{wantLayer(s.fetched, image.Sealed.Layers[1]), wantLayer(s.fetched, image.Sealed.Layers[0])}
	if len(mounts) != 3 || !reflect.DeepEqual(mounts[:2], want) || mounts[2].ReadOnly() {
		t.Errorf("got  %+v\nwant %+v below a writable overlay", mounts, want)
	}
	view, err := s.View(ctx, "view", top)
	if err != nil {
		t.Fatal(err)
	}
	if len(view) != 3 || !reflect.DeepEqual(view[:2], want) || !view[2].ReadOnly() {
		t.Errorf("got  %+v\nwant %+v below a read-only overlay", view, want)
	}
}

func TestMountsAreThoseOfTheRecordedImage(t *testing.T) {
	s := newService(t)
	web, other := s.sealed(t, "base", "web"), s.sealed(t, "base", "other")
	ctx := inNamespace(t)
	if _, err := s.Prepare(ctx, "web", s.unpack(t, other)); err != nil {
		t.Fatal(err)
	}
	recordImage(t, s.database, "registry.test/web:1", web.Digest)
	recordContainer(t, s.database, "web", "registry.test/web:1")
	if mounts, err := s.Mounts(ctx, "web"); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Errorf("%+v, %v", mounts, err)
	}
	if err := metadata.NewImageStore(s.database).Delete(ctx, "registry.test/web:1"); err != nil {
		t.Fatal(err)
	}
	if mounts, err := s.Mounts(ctx, "web"); !errdefs.IsNotFound(err) {
		t.Errorf("the image's record is gone: %+v, %v", mounts, err)
	}
}

func TestMountsStopWhenTheImageIsRevoked(t *testing.T) {
	s := newService(t)
	image := s.sealed(t, "app")
	ctx := inNamespace(t)
	if _, err := s.Prepare(ctx, "web", s.unpack(t, image)); err != nil {
		t.Fatal(err)
	}
	s.revoke(t, seal.Revocations{Images: []string{image.Digest}})
	if mounts, err := s.Mounts(ctx, "web"); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Errorf("%+v, %v", mounts, err)
	}
}

func TestPrepareRefusesAnUnsealedLayer(t *testing.T) {
	s := newService(t)
	parent := s.unpack(t, s.sealed(t, "base"))
	names, folders := s.remaining(t)
	diffID := digest.FromString("unsealed").String()
	for name, parent := range map[string]string{"bottom": "", "above a sealed one": parent} {
		t.Run(name, func(t *testing.T) {
			mounts, err := s.extract(inNamespace(t), "extract", parent, digest.FromString("chain").String(), diffID)
			if !errdefs.IsFailedPrecondition(err) || mounts != nil {
				t.Errorf("%+v, %v", mounts, err)
			}
			if namesAfter, foldersAfter := s.remaining(t); !reflect.DeepEqual(names, namesAfter) || !reflect.DeepEqual(folders, foldersAfter) {
				t.Errorf("left behind: %v %v, before %v %v", namesAfter, foldersAfter, names, folders)
			}
		})
	}
}

func TestRefusedSnapshotsLeaveNothingBehind(t *testing.T) {
	s := newService(t)
	image := s.sealed(t, "base", "app")
	top := s.unpack(t, image)
	remove(t, s.fetched.Seal(image.Digest))
	names, folders := s.remaining(t)
	for name, make := range map[string]func(context.Context, string, string, ...snapshots.Opt) ([]mount.Mount, error){
		"Prepare": s.Prepare, "View": s.View,
	} {
		t.Run(name, func(t *testing.T) {
			if mounts, err := make(inNamespace(t), "web", top); !errors.Is(err, errdefs.ErrPermissionDenied) || mounts != nil {
				t.Errorf("%+v, %v", mounts, err)
			}
			if namesAfter, foldersAfter := s.remaining(t); !reflect.DeepEqual(names, namesAfter) || !reflect.DeepEqual(folders, foldersAfter) {
				t.Errorf("left behind: %v %v, before %v %v", namesAfter, foldersAfter, names, folders)
			}
		})
	}
	// The same snapshot can be mounted as soon as the image is sealed again.
	writeFile(t, s.fetched.Seal(image.Digest), s.key.Seal(t, image.Sealed))
	if _, err := s.Prepare(inNamespace(t), "web", top); err != nil {
		t.Error(err)
	}
}

func TestCommitRefusesWhatIsNoSealedLayer(t *testing.T) {
	s := newService(t)
	ctx := inNamespace(t)
	parent := s.unpack(t, s.sealed(t, "base"))
	for name, parent := range map[string]string{"written": "", "written above a sealed layer": parent} {
		t.Run(name, func(t *testing.T) {
			if _, err := s.Prepare(ctx, name, parent); err != nil {
				t.Fatal(err)
			}
			if err := s.Commit(ctx, "committed-"+name, name); !errdefs.IsFailedPrecondition(err) {
				t.Error(err)
			}
			if _, err := s.Stat(ctx, "committed-"+name); !errdefs.IsNotFound(err) {
				t.Error("it is there:", err)
			}
		})
	}
}

// Upstream takes a file with this name in a snapshot's folder for a complete layer.
func TestCommitRefusesALayerInTheSnapshotsFolder(t *testing.T) {
	s := newService(t)
	ctx := inNamespace(t)
	if _, err := s.Prepare(ctx, "own", ""); err != nil {
		t.Fatal(err)
	}
	_, folders := s.remaining(t)
	writeFile(t, filepath.Join(s.root, "snapshots", folders[0], "layer.erofs"), make([]byte, 4096))
	if err := s.Commit(ctx, "committed", "own"); err == nil {
		t.Error("it was committed")
	}
	if mounts, err := s.Mounts(ctx, "own"); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Errorf("%+v, %v", mounts, err)
	}
}

func TestCleanup(t *testing.T) {
	s := newService(t)
	if err := s.below.Cleanup(t.Context()); !errdefs.IsNotImplemented(err) {
		t.Error(err)
	}
}
