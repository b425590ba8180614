package images

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/hosts/agent/internal/images/registrytest"
	"github.com/palisade-host/palisade/hosts/agent/internal/registry"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/seal"
	"github.com/palisade-host/palisade/hosts/seal/sealtest"
)

// fixture is a role with a registry that has one sealed image.
type fixture struct {
	t         *testing.T
	server    *registrytest.Server
	key       *sealtest.Key
	image     *sealtest.Image
	reference string
	options   Options
	role      *Role
}

// newFixture adds the image without a seal.
func newFixture(t *testing.T, layers ...string) *fixture {
	t.Helper()
	f := &fixture{t: t, server: registrytest.New(t), key: sealtest.NewKey(t), image: sealtest.NewImage(t, layers...)}
	f.reference = f.server.AddImage(f.image)
	directory := t.TempDir()
	f.options = Options{
		DataDirectory: filepath.Join(directory, "data"), Store: seal.Store(filepath.Join(directory, "layers")),
		Trust: seal.Trust{Keys: f.key.Keys()}, Stall: 2 * time.Second, Available: Available, Logger: slog.New(slog.DiscardHandler),
	}
	f.restart()
	return f
}

func newSealedFixture(t *testing.T, layers ...string) *fixture {
	t.Helper()
	f := newFixture(t, layers...)
	f.server.AddSeal(t, f.image, f.key.Seal(t, f.image.Sealed))
	return f
}

func (f *fixture) restart() {
	f.t.Helper()
	role, err := New(f.options)
	if err != nil {
		f.t.Fatal(err)
	}
	f.role = role
}

func (f *fixture) ensure() (*agentv1.SealedImage, error) {
	return f.role.Ensure(context.Background(), f.reference, f.server.Access(), nil)
}

func (f *fixture) mustEnsure() *agentv1.SealedImage {
	f.t.Helper()
	image, err := f.ensure()
	if err != nil {
		f.t.Fatal(err)
	}
	return image
}

// refused expects a refusal and returns it.
func (f *fixture) refused(want Reason) *Refusal {
	f.t.Helper()
	image, err := f.ensure()
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Reason != want {
		f.t.Fatalf("%v, %v; expected %s", image, err, want)
	}
	if !strings.Contains(err.Error(), f.reference) {
		f.t.Errorf("the image is not named: %v", err)
	}
	if _, err := os.Stat(f.options.Store.Seal(f.image.Digest)); err == nil {
		f.t.Error("a refused image has a seal in the store")
	}
	f.noTemporary()
	return refusal
}

func (f *fixture) noTemporary() {
	f.t.Helper()
	_ = filepath.WalkDir(string(f.options.Store), func(path string, entry os.DirEntry, _ error) error {
		if strings.HasPrefix(entry.Name(), temporaryPrefix) {
			f.t.Errorf("left over: %s", path)
		}
		return nil
	})
}

// expectComplete requires every file of the image in the store.
func (f *fixture) expectComplete(image *sealtest.Image) {
	f.t.Helper()
	store := f.options.Store
	for index, layer := range image.Sealed.Layers {
		for path, want := range map[string]string{
			store.Blob(layer.RootHash):      string(image.Blobs[index]),
			store.Signature(layer.RootHash): string(image.Signatures[index]),
			store.Lookup(layer.DiffID):      string(image.Blobs[index]),
			store.Metadata(layer.DiffID):    `{"roothash":"` + layer.RootHash + `","hashoffset":4096}`,
		} {
			content, err := os.ReadFile(path)
			if err != nil || string(content) != want {
				f.t.Errorf("%s: %d bytes, %v", path, len(content), err)
			}
			if info, err := os.Stat(path); err == nil && info.Mode().Perm() != 0o644 {
				f.t.Errorf("%s: mode %o; containerd and the role groups read it", path, info.Mode().Perm())
			}
		}
		if !sameFile(store.Blob(layer.RootHash), store.Lookup(layer.DiffID)) {
			f.t.Errorf("layer %d is there twice", index)
		}
	}
	if _, _, err := seal.Find([]seal.Store{store}, f.options.Trust, image.Digest); err != nil {
		f.t.Error(err)
	}
}

func TestImageComesIntoTheStore(t *testing.T) {
	f := newSealedFixture(t, "base", "app", "base")
	f.server.User, f.server.Password = "user", "password"
	var progress []*agentv1.ImageProgress
	image, err := f.role.Ensure(context.Background(), f.reference, f.server.Access(), func(p *agentv1.ImageProgress) { progress = append(progress, p) })
	if err != nil {
		t.Fatal(err)
	}
	total := uint64(len(f.image.Blobs[0]) + len(f.image.Blobs[1]))
	if image.GetManifestDigest() != f.image.Digest || image.GetSealKeyId() != f.key.ID || image.GetTotalBytes() != total || image.GetFetchedBytes() != total {
		t.Errorf("%v, expected %d bytes", image, total)
	}
	if hashes := image.GetRootHashes(); len(hashes) != 3 || hashes[0] != f.image.Sealed.Layers[0].RootHash || hashes[0] != hashes[2] || hashes[1] != f.image.Sealed.Layers[1].RootHash {
		t.Errorf("%v", hashes)
	}
	if len(progress) == 0 || progress[0].GetMissingBytes() != total || progress[0].GetFetchedBytes() != 0 {
		t.Errorf("%v", progress)
	}
	f.expectComplete(f.image)
	f.noTemporary()
	for index, layer := range f.image.Layers {
		if f.server.Downloads(layer) != 0 {
			t.Errorf("layer %d of the image itself was downloaded", index)
		}
	}
}

func TestImageStartsAgainWithoutItsRegistry(t *testing.T) {
	f := newSealedFixture(t, "base", "app")
	f.mustEnsure()
	f.server.Close()
	f.restart()
	if image := f.mustEnsure(); image.GetFetchedBytes() != 0 || len(image.GetRootHashes()) != 2 || image.GetTotalBytes() == 0 {
		t.Errorf("%v", image)
	}
}

func TestImageOfAnIndex(t *testing.T) {
	f := newSealedFixture(t, "app")
	f.reference = registrytest.Repository + "@" + f.server.AddManifest(sealtest.Index(t, f.image, sealtest.NewImage(t, "foreign")))
	if image := f.mustEnsure(); image.GetManifestDigest() != f.image.Digest {
		t.Errorf("%v", image)
	}
	f.server.Close()
	f.restart()
	f.mustEnsure()
}

func TestForeignPlatform(t *testing.T) {
	f := newFixture(t, "app")
	// It is as long as the right one, so that sizes stay the same.
	foreignName := strings.Repeat("x", len(runtime.GOARCH))
	index := strings.ReplaceAll(string(sealtest.Index(t, f.image)), runtime.GOARCH, foreignName)
	foreign := strings.ReplaceAll(string(f.image.Config), runtime.GOARCH, foreignName)
	manifest := strings.ReplaceAll(string(f.image.Manifest), f.image.Sealed.Image.Config, digestOf([]byte(foreign)))
	f.server.AddBlob([]byte(foreign))
	for name, content := range map[string]string{"an index without this platform": index, "an image for another": manifest} {
		f.reference = registrytest.Repository + "@" + f.server.AddManifest([]byte(content))
		var pull *registry.PullError
		if _, err := f.ensure(); !errors.As(err, &pull) || pull.Reason != registry.WrongPlatform {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLayerIsFetchedOnce(t *testing.T) {
	f := newSealedFixture(t, "base", "app")
	f.mustEnsure()
	other := sealtest.NewImage(t, "base", "other")
	f.reference = f.server.AddImage(other)
	f.server.AddSeal(t, other, f.key.Seal(t, other.Sealed))
	image := f.mustEnsure()
	if want := uint64(len(other.Blobs[1])); image.GetFetchedBytes() != want || image.GetTotalBytes() != want+uint64(len(other.Blobs[0])) {
		t.Errorf("%v", image)
	}
	f.expectComplete(other)
	if count := f.server.Downloads(other.Blobs[0]); count != 1 {
		t.Errorf("the shared layer was downloaded %d times", count)
	}
}

func TestConcurrentFetchesAreOneDownload(t *testing.T) {
	f := newSealedFixture(t, "base", "app")
	other := sealtest.NewImage(t, "base", "other")
	reference := f.server.AddImage(other)
	f.server.AddSeal(t, other, f.key.Seal(t, other.Sealed))
	// This is slow enough that all calls overlap.
	f.server.Tell(func(_ http.ResponseWriter, request *http.Request) bool {
		if strings.Contains(request.URL.Path, "/blobs/") {
			time.Sleep(50 * time.Millisecond)
		}
		return false
	})
	var calls errgroup.Group
	for index := range 8 {
		wanted := f.reference
		if index%2 == 1 {
			wanted = reference
		}
		calls.Go(func() error {
			_, err := f.role.Ensure(context.Background(), wanted, f.server.Access(), nil)
			return err
		})
	}
	if err := calls.Wait(); err != nil {
		t.Fatal(err)
	}
	f.expectComplete(f.image)
	f.expectComplete(other)
	for _, blob := range append(f.image.Blobs, other.Blobs...) {
		if count := f.server.Downloads(blob); count != 1 {
			t.Errorf("a layer was downloaded %d times", count)
		}
	}
}

func TestWaiterGivesUp(t *testing.T) {
	f := newSealedFixture(t, "app")
	holding, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		close(holding)
		<-ended
	})
	f.server.Tell(func(_ http.ResponseWriter, request *http.Request) bool {
		if strings.Contains(request.URL.Path, f.image.Sealed.Layers[0].Blob) {
			<-holding
		}
		return false
	})
	go func() {
		defer close(ended)
		_, _ = f.ensure()
	}()
	for f.server.Downloads(f.image.Blobs[0]) == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := f.role.Ensure(ctx, f.reference, f.server.Access(), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestInterruptedFetchIsTakenUpAgain(t *testing.T) {
	f := newSealedFixture(t, "base", "app")
	blob := f.image.Sealed.Layers[1].Blob
	f.server.Tell(func(writer http.ResponseWriter, request *http.Request) bool {
		if !strings.Contains(request.URL.Path, blob) {
			return false
		}
		writer.Header().Set("Content-Length", fmt.Sprint(len(f.image.Blobs[1])))
		_, _ = writer.Write(f.image.Blobs[1][:100])
		return true
	})
	var pull *registry.PullError
	if _, err := f.ensure(); !errors.As(err, &pull) || pull.Reason != registry.Unreachable {
		t.Fatalf("%v", err)
	}
	f.noTemporary()
	// This is the state after a power loss in the middle of a write.
	left := filepath.Join(string(f.options.Store), "blobs", temporaryPrefix+"fetch-1")
	if err := os.WriteFile(left, f.image.Blobs[1][:100], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.options.Store.Blob(f.image.Sealed.Layers[0].RootHash), f.image.Blobs[0][:7], 0o644); err != nil {
		t.Fatal(err)
	}
	f.server.Tell(nil)
	f.restart()
	f.mustEnsure()
	f.expectComplete(f.image)
	f.noTemporary()
}

func TestStoreIsRepaired(t *testing.T) {
	f := newSealedFixture(t, "base", "app")
	f.mustEnsure()
	layer := f.image.Sealed.Layers[0]
	for name, damage := range map[string]func() error{
		"a blob is missing":      func() error { return os.Remove(f.options.Store.Blob(layer.RootHash)) },
		"a blob is short":        func() error { return os.Truncate(f.options.Store.Blob(layer.RootHash), 100) },
		"a signature is missing": func() error { return os.Remove(f.options.Store.Signature(layer.RootHash)) },
		"a signature is empty":   func() error { return os.Truncate(f.options.Store.Signature(layer.RootHash), 0) },
		"a signature is another": func() error {
			return os.WriteFile(f.options.Store.Signature(layer.RootHash), f.image.Signatures[1], 0o644)
		},
		"a link is missing":    func() error { return os.Remove(f.options.Store.Lookup(layer.DiffID)) },
		"a side-car is wrong":  func() error { return os.WriteFile(f.options.Store.Metadata(layer.DiffID), []byte("{}"), 0o644) },
		"the seal is missing":  func() error { return os.Remove(f.options.Store.Seal(f.image.Digest)) },
		"the seal is nonsense": func() error { return os.WriteFile(f.options.Store.Seal(f.image.Digest), []byte("{}"), 0o644) },
		"a document is changed": func() error {
			return os.WriteFile(f.role.records.documentFile(f.image.Digest), f.image.Config, 0o600)
		},
		"the record is nonsense": func() error { return os.WriteFile(f.role.records.imageFile(f.image.Digest), []byte("x"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			f.t = t
			f.mustEnsure()
			f.expectComplete(f.image)
		})
	}
}

func TestDiskFull(t *testing.T) {
	f := newSealedFixture(t, "base", "app")
	f.options.Available = func(string) (uint64, error) { return 100, nil }
	f.restart()
	if refusal := f.refused(DiskFull); !strings.Contains(refusal.Message, "100") || !strings.Contains(refusal.Message, "larger state disk") {
		t.Error(refusal)
	}
	f.options.Available = Available
	f.restart()
	f.mustEnsure()
}

// TestDiskRunsFull uses a file system that is smaller than it reports.
func TestDiskRunsFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	f := newSealedFixture(t, strings.Repeat("base", 64<<10))
	if err := unix.Mount("tmpfs", string(f.options.Store), "tmpfs", 0, "size=128k"); err != nil {
		t.Skipf("no file system of a test's own: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(string(f.options.Store), unix.MNT_DETACH) })
	f.options.Available = func(string) (uint64, error) { return 1 << 30, nil }
	f.restart()
	if refusal := f.refused(DiskFull); !strings.Contains(refusal.Message, "no space left") {
		t.Error(refusal)
	}
}

func TestRevokedLater(t *testing.T) {
	f := newSealedFixture(t, "app")
	f.mustEnsure()
	f.server.Close()
	f.options.Trust.Revocations.Images = []string{f.image.Digest}
	f.restart()
	var refusal *Refusal
	if _, err := f.ensure(); !errors.As(err, &refusal) || refusal.Reason != SealRevoked {
		t.Errorf("%v", err)
	}
}
