package sealed

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/containerd/containerd/v2/plugins/snapshots/erofs"
)

// These are upstream's tests for every snapshotter of containerd. They write files into layers and mount them unsealed,
// so the snapshotter does not require seals here. Nothing else differs.
func TestSnapshotterSuite(t *testing.T) {
	requireErofs(t)
	// By this name the tests know that directories of lower layers cannot be renamed, as with every overlay.
	testsuite.SnapshotterSuite(t, "erofs", func(_ context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		inner, err := erofs.NewSnapshotter(root, erofs.WithLayerContentCaches(root+"-store"), erofs.WithDmverityMode("off"))
		if err != nil {
			return nil, nil, err
		}
		s := &snapshotter{Snapshotter: inner}
		return s, s.Close, nil
	})
}

// requireErofs skips a test where EROFS file systems cannot be made or mounted.
func requireErofs(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	if !erofs.FindErofs() {
		t.Skip("this machine's kernel has no EROFS (modprobe erofs)")
	}
	output, err := exec.Command("mkfs.erofs", "--version").CombinedOutput()
	if err != nil {
		t.Skipf("mkfs.erofs does not run (make test has one): %v", err)
	}
	version := regexp.MustCompile(`(\d+)\.(\d+)`).FindSubmatch(output)
	if version == nil {
		t.Skipf("mkfs.erofs reports no version: %s", output)
	}
	major, _ := strconv.Atoi(string(version[1]))
	minor, _ := strconv.Atoi(string(version[2]))
	if major < 1 || major == 1 && minor < 8 {
		t.Skipf("mkfs.erofs is version %s, 1.8 is needed (make test has one)", version[0])
	}
}
