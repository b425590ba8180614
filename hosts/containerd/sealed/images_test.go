package sealed

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	coreimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/types/known/emptypb"
)

const namespace = "k8s.io"

func inNamespace(t *testing.T) context.Context {
	return namespaces.WithNamespace(t.Context(), namespace)
}

// newDatabase opens containerd's records.
func newDatabase(t *testing.T, snapshotters map[string]snapshots.Snapshotter) *metadata.DB {
	t.Helper()
	folder := t.TempDir()
	file, err := bolt.Open(filepath.Join(folder, "meta.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	content, err := local.NewStore(filepath.Join(folder, "content"))
	if err != nil {
		t.Fatal(err)
	}
	return metadata.NewDB(file, content, snapshotters)
}

func recordImage(t *testing.T, database *metadata.DB, name, imageDigest string) {
	t.Helper()
	target := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(imageDigest), Size: 1}
	if _, err := metadata.NewImageStore(database).Create(inNamespace(t), coreimages.Image{Name: name, Target: target}); err != nil {
		t.Fatal(err)
	}
}

func recordContainer(t *testing.T, database *metadata.DB, id, image string) {
	t.Helper()
	spec, err := typeurl.MarshalAny(&emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	container := containers.Container{
		ID: id, Image: image, Spec: spec, Runtime: containers.RuntimeInfo{Name: "io.containerd.runc.v2"},
		Snapshotter: Name, SnapshotKey: id,
	}
	if image == "" {
		container.Snapshotter, container.SnapshotKey = "", ""
	}
	if _, err := metadata.NewContainerStore(database).Create(inNamespace(t), container); err != nil {
		t.Fatal(err)
	}
}

func TestDigestOf(t *testing.T) {
	database := newDatabase(t, nil)
	web := digest.FromString("web").String()
	recordImage(t, database, "registry.test/web:1", web)
	recordContainer(t, database, "web", "registry.test/web:1")
	recordContainer(t, database, "imageless", "")
	lookup := &imageLookup{}
	lookup.use(database)
	for name, test := range map[string]struct{ key, want string }{
		"a recorded container":           {"k8s.io/7/web", web},
		"one that is not recorded":       {"k8s.io/7/other", ""},
		"one without an image":           {"k8s.io/7/imageless", ""},
		"one of another namespace":       {"default/7/web", ""},
		"the name with more behind it":   {"k8s.io/7/web/other", ""},
		"a key that is not containerd's": {"web", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := lookup.digestOf(t.Context(), test.key)
			if err != nil || got != test.want {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

func TestDigestOfAnImageThatIsRecordedAsAnother(t *testing.T) {
	database := newDatabase(t, nil)
	web, other := digest.FromString("web").String(), digest.FromString("other").String()
	recordImage(t, database, "registry.test/web@"+web, web)
	recordImage(t, database, "registry.test/other@"+other, web)
	recordContainer(t, database, "web", "registry.test/web@"+web)
	recordContainer(t, database, "other", "registry.test/other@"+other)
	lookup := &imageLookup{}
	lookup.use(database)
	if got, err := lookup.digestOf(t.Context(), "k8s.io/7/web"); err != nil || got != web {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := lookup.digestOf(t.Context(), "k8s.io/7/other"); !errdefs.IsDataLoss(err) || got != "" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestDigestOfAnImageThatIsGone(t *testing.T) {
	database := newDatabase(t, nil)
	recordImage(t, database, "registry.test/web:1", digest.FromString("web").String())
	recordContainer(t, database, "web", "registry.test/web:1")
	if err := metadata.NewImageStore(database).Delete(inNamespace(t), "registry.test/web:1"); err != nil {
		t.Fatal(err)
	}
	lookup := &imageLookup{}
	if got, err := lookup.digestOf(t.Context(), "k8s.io/7/web"); !errdefs.IsUnavailable(err) || got != "" {
		t.Errorf("before containerd's records are there: got %q, %v", got, err)
	}
	lookup.use(database)
	if got, err := lookup.digestOf(t.Context(), "k8s.io/7/web"); !errdefs.IsNotFound(err) || got != "" {
		t.Errorf("got %q, %v; not an error of the kind NotFound", got, err)
	}
}
