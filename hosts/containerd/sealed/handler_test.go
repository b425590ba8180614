package sealed

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func sealedMount() mount.Mount {
	return mount.Mount{Type: "erofs", Source: "/store/blobs/a.erofs", Options: []string{
		"ro", "X-palisade.root-hash=" + strings.Repeat("a", 64), "X-palisade.hash-offset=8192",
		"X-palisade.signature=/store/blobs/a.p7s",
	}}
}

func TestLayerOf(t *testing.T) {
	got, err := layerOf(sealedMount())
	want := layer{blob: "/store/blobs/a.erofs", signature: "/store/blobs/a.p7s", rootHash: strings.Repeat("a", 64), hashOffset: 8192}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestLayerOfRefuses(t *testing.T) {
	without := func(prefix string) []string {
		return slices.DeleteFunc(sealedMount().Options, func(option string) bool { return strings.HasPrefix(option, prefix) })
	}
	with := func(prefix, value string) []string {
		return append(without(prefix), prefix+value)
	}
	for name, test := range map[string]struct {
		options []string
		err     error
	}{
		"a plain file system":        {[]string{"ro", "loop"}, errdefs.ErrPermissionDenied},
		"upstream's verity option":   {[]string{"ro", "loop", "X-containerd.dmverity=/store/a.erofs.dmverity"}, errdefs.ErrPermissionDenied},
		"no options":                 {nil, errdefs.ErrPermissionDenied},
		"no root hash":               {without(optionRootHash), errdefs.ErrPermissionDenied},
		"no signature":               {without(optionSignature), errdefs.ErrPermissionDenied},
		"no hash offset":             {without(optionHashOffset), errdefs.ErrPermissionDenied},
		"an empty root hash":         {with(optionRootHash, ""), errdefs.ErrPermissionDenied},
		"an empty signature":         {with(optionSignature, ""), errdefs.ErrPermissionDenied},
		"hash offset 0":              {with(optionHashOffset, "0"), errdefs.ErrPermissionDenied},
		"an empty hash offset":       {with(optionHashOffset, ""), errdefs.ErrInvalidArgument},
		"a hash offset that is none": {with(optionHashOffset, "4096x"), errdefs.ErrInvalidArgument},
		"a negative hash offset":     {with(optionHashOffset, "-4096"), errdefs.ErrInvalidArgument},
		"a hash offset in a block":   {with(optionHashOffset, "4097"), errdefs.ErrInvalidArgument},
		"a hash offset too large":    {with(optionHashOffset, "9223372036854775808"), errdefs.ErrInvalidArgument},
		"a short root hash":          {with(optionRootHash, "aa"), errdefs.ErrInvalidArgument},
		"a root hash in upper case":  {with(optionRootHash, strings.Repeat("A", 64)), errdefs.ErrInvalidArgument},
		"more of the kernel's line":  {with(optionRootHash, strings.Repeat("a", 64)+" - 0"), errdefs.ErrInvalidArgument},
		"a line break":               {with(optionRootHash, strings.Repeat("a", 64)+"\n"), errdefs.ErrInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			m := sealedMount()
			m.Options = test.options
			if got, err := layerOf(m); !errors.Is(err, test.err) || got != (layer{}) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// Other types have handlers of their own, for which containerd continues to look.
func TestLayerOfLeavesOtherTypes(t *testing.T) {
	m := sealedMount()
	m.Type = "ext4"
	if _, err := layerOf(m); !errdefs.IsNotImplemented(err) {
		t.Error(err)
	}
}

func TestMountRefusesAPlainFileSystem(t *testing.T) {
	h := &handler{devices: withoutDeviceMapper(t)}
	target := filepath.Join(t.TempDir(), "target")
	_, err := h.Mount(t.Context(), mount.Mount{Type: "erofs", Source: "/store/blobs/a.erofs", Options: []string{"ro", "loop"}}, target, nil)
	if !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Error(err)
	}
	if _, err := os.Stat(target); !errors.Is(err, os.ErrNotExist) {
		t.Error("the target was made:", err)
	}
}

func TestMountNamesTheLayer(t *testing.T) {
	h := &handler{devices: withoutDeviceMapper(t)}
	_, err := h.Mount(t.Context(), sealedMount(), filepath.Join(t.TempDir(), "target"), nil)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), strings.Repeat("a", 64)) {
		t.Error(err)
	}
}

func TestUnmountOfAnotherFileSystem(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	// The device mapper is not used for what is on none of its devices.
	h := &handler{devices: withoutDeviceMapper(t)}
	target := t.TempDir()
	if err := unix.Mount("tmpfs", target, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	if err := h.Unmount(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	if info, err := mount.Lookup(target); err != nil || info.Mountpoint == target {
		t.Errorf("still mounted: %+v, %v", info, err)
	}
}

func TestHandlerStartsWithoutADeviceMapper(t *testing.T) {
	if _, err := newHandler(); err != nil {
		t.Error(err)
	}
}
