package sealed

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if HoldNamespace() {
		return
	}
	os.Exit(m.Run())
}

func TestUserNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mappings of other users need root")
	}
	namespace, err := userNamespace("0:200000:65536", "0:300000:1,1:300001:10")
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	own, err := os.Stat("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	made, err := namespace.Stat()
	if err != nil || os.SameFile(own, made) {
		t.Errorf("%v, the same namespace: %v", err, os.SameFile(own, made))
	}
	const nsGetNsType = 0xb703
	if kind, err := unix.IoctlRetInt(int(namespace.Fd()), nsGetNsType); err != nil || kind != unix.CLONE_NEWUSER {
		t.Errorf("type %#x, %v", kind, err)
	}
}

func TestMappingsAreRefused(t *testing.T) {
	for _, text := range []string{"", "0", "0:1", "0:1:2:3", "a:1:2", "0:-1:2", "0:1:2,"} {
		if got, err := parseMappings(text); err == nil {
			t.Errorf("%q: no error, got %v", text, got)
		}
	}
}

func TestMappingsMoveFromTheOverlayToTheLayers(t *testing.T) {
	mounts := []mount.Mount{
		{Type: "erofs", Options: []string{"ro"}},
		{Type: "format/mkdir/overlay", Options: []string{"uidmap=0:200000:65536", "upperdir=/u", "gidmap=0:300000:65536"}},
	}
	taken := takeMappings(mounts)
	if !slices.Equal(mounts[0].Options, []string{"ro"}) || !slices.Equal(mounts[1].Options, []string{"upperdir=/u"}) {
		t.Errorf("%v", mounts)
	}
	l, err := layerOf(mount.Mount{Type: "erofs", Source: "/blob", Options: append(taken,
		optionRootHash+strings.Repeat("0", 64), optionHashOffset+"4096", optionSignature+"/signature")})
	if err != nil || l.uidMap != "0:200000:65536" || l.gidMap != "0:300000:65536" {
		t.Errorf("%+v, %v", l, err)
	}
}
