package sealed

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// The rows have the layers bottom first, as in an image, and the overlay as upstream's snapshotter creates it.
func TestBindOfRepeatedLayers(t *testing.T) {
	writable := func(lower string) mount.Mount {
		return mount.Mount{Type: "format/mkdir/overlay", Source: "overlay", Options: []string{"workdir=/w", "upperdir=/u", "lowerdir=" + lower}}
	}
	view := func(lower string) mount.Mount {
		return mount.Mount{Type: "format/mkdir/overlay", Source: "overlay", Options: []string{"lowerdir=" + lower}}
	}
	bind := mount.Mount{Type: "format/bind", Source: "{{ mount 0 }}", Options: []string{"ro", "rbind"}}
	for name, test := range map[string]struct {
		layers []string
		given  mount.Mount
		// kept are indices of layers, top first.
		kept []int
		want mount.Mount
	}{
		"none":                           {[]string{"a", "b", "c"}, writable("{{ overlay 0 2 }}"), []int{2, 1, 0}, writable("{{ overlay 0 2 }}")},
		"an empty one between":           {[]string{"base", "empty", "app", "empty"}, writable("{{ overlay 0 3 }}"), []int{3, 2, 0}, writable("{{ overlay 0 2 }}")},
		"an empty one, in a view":        {[]string{"base", "empty", "app", "empty"}, view("{{ overlay 0 3 }}"), []int{3, 2, 0}, view("{{ overlay 0 2 }}")},
		"the base again on top":          {[]string{"base", "app", "base"}, writable("{{ overlay 0 2 }}"), []int{2, 1}, writable("{{ overlay 0 1 }}")},
		"two, each twice":                {[]string{"a", "b", "a", "b"}, view("{{ overlay 0 3 }}"), []int{3, 2}, view("{{ overlay 0 1 }}")},
		"one many times":                 {[]string{"a", "e", "e", "e", "b", "e"}, view("{{ overlay 0 5 }}"), []int{5, 4, 0}, view("{{ overlay 0 2 }}")},
		"one only, under a container":    {[]string{"a", "a"}, writable("{{ overlay 0 1 }}"), []int{1}, writable("{{ overlay 0 0 }}")},
		"one only, in a view":            {[]string{"a", "a", "a"}, view("{{ overlay 0 2 }}"), []int{2}, bind},
		"lower folders named one by one": {[]string{"e", "a", "e"}, writable("{{ mount 0 }}:{{ mount 1 }}"), []int{2, 1}, writable("{{ mount 0 }}:{{ mount 1 }}")},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			image := h.sealed(t, test.layers...)
			given := append(lowers(h.fetched, image.Sealed.Layers), test.given)
			before := slices.Clone(given)
			bound, err := h.binder(image.Digest).bind(t.Context(), "k8s.io/1/c", given)
			if err != nil {
				t.Fatal(err)
			}
			var want []mount.Mount
			for _, index := range test.kept {
				want = append(want, wantLayer(h.fetched, image.Sealed.Layers[index]))
			}
			if want = append(want, test.want); !reflect.DeepEqual(bound, want) {
				t.Errorf("got  %+v\nwant %+v", bound, want)
			}
			if !reflect.DeepEqual(given, before) {
				t.Error("the mounts that were given changed")
			}
		})
	}
}

// A writable layer on a block device precedes the lower ones, which shifts their indices.
func TestRepeatedLayersBelowABlockDevice(t *testing.T) {
	h := newHost(t)
	image := h.sealed(t, "e", "a", "e")
	block := mount.Mount{Type: "mkfs/ext4", Source: "/var/lib/containerd/rw.img", Options: []string{"rw", "loop"}}
	given := append([]mount.Mount{block}, lowers(h.fetched, image.Sealed.Layers)...)
	given = append(given, mount.Mount{Type: "format/mkdir/overlay", Source: "overlay", Options: []string{"upperdir={{ mount 0 }}/upper", "lowerdir={{ overlay 1 3 }}"}})
	bound, err := h.binder(image.Digest).bind(t.Context(), "k8s.io/1/c", given)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"upperdir={{ mount 0 }}/upper", "lowerdir={{ overlay 1 2 }}"}; len(bound) != 4 || !reflect.DeepEqual(bound[3].Options, want) {
		t.Errorf("got %+v, want the options %q", bound, want)
	}
}

func TestRenumberedRefusesAMountThatIsLeftOut(t *testing.T) {
	if text, err := renumbered("{{ mount 1 }}", map[int]int{0: 0}); err == nil {
		t.Error(text)
	}
}

// TestKernelTakesRepeatedLayers mounts overlays of folders, one for each file system. Without bind the kernel refuses
// them.
func TestKernelTakesRepeatedLayers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	h := newHost(t)
	image := h.sealed(t, "base", "empty", "app", "empty")
	folder := t.TempDir()
	if err := unix.Mount("tmpfs", folder, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(folder, unix.MNT_DETACH) })
	for index, layer := range image.Sealed.Layers {
		file := []string{"of", "", "of", ""}[index]
		if err := os.MkdirAll(filepath.Join(folder, layer.RootHash), 0o755); err != nil {
			t.Fatal(err)
		}
		if file != "" {
			writeFile(t, filepath.Join(folder, layer.RootHash, file), []byte{byte('0' + index)})
		}
	}
	target := filepath.Join(folder, "target")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	try := func(mounts []mount.Mount, folderOf func(mount.Mount) string) error {
		var places []string
		for _, m := range mounts[:len(mounts)-1] {
			places = append(places, folderOf(m))
		}
		return unix.Mount("overlay", target, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(places, ":"))
	}
	given := append(lowers(h.fetched, image.Sealed.Layers), mount.Mount{Type: "format/mkdir/overlay", Source: "overlay", Options: []string{"lowerdir={{ overlay 0 3 }}"}})
	byDiffID := func(m mount.Mount) string {
		for _, layer := range image.Sealed.Layers {
			if h.fetched.Lookup(layer.DiffID) == m.Source {
				return filepath.Join(folder, layer.RootHash)
			}
		}
		return ""
	}
	if err := try(given, byDiffID); !errors.Is(err, unix.ELOOP) {
		t.Fatalf("with a layer twice: %v, expected ELOOP", err)
	}
	bound, err := h.binder(image.Digest).bind(t.Context(), "k8s.io/1/c", given)
	if err != nil {
		t.Fatal(err)
	}
	err = try(bound, func(m mount.Mount) string {
		return filepath.Join(folder, strings.TrimSuffix(filepath.Base(m.Source), ".erofs"))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	if content, err := os.ReadFile(filepath.Join(target, "of")); err != nil || string(content) != "2" {
		t.Errorf("%q, %v; want that of the app's layer", content, err)
	}
}
