package cri

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNobodyFollowsLinksAmongLogs opens files as containerd does, by their paths, after a client has put links in their
// place.
func TestNobodyFollowsLinksAmongLogs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts need root")
	}
	root := filepath.Join(t.TempDir(), "logs")
	victim := filepath.Join(t.TempDir(), "victim")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(root, "web"), 0o700), os.WriteFile(victim, []byte("kept"), 0o600),
		os.Symlink(victim, filepath.Join(root, "web/server.log")), os.Symlink(filepath.Dir(victim), filepath.Join(root, "linked")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	appendTo := func(name string) error {
		file, err := os.OpenFile(filepath.Join(root, name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = file.WriteString("!")
		return err
	}
	// Without the mount the attack works.
	for _, name := range []string{"web/server.log", "linked/victim"} {
		if err := appendTo(name); err != nil {
			t.Fatal(err)
		}
	}
	// The second time is a restart of containerd.
	for range 2 {
		if err := withoutLinks(root); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
		if err := unix.Unmount(root, 0); err == nil {
			t.Error("it was mounted twice")
		}
	})
	for _, name := range []string{"web/server.log", "linked/victim"} {
		if err := appendTo(name); !errors.Is(err, unix.ELOOP) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if content, err := os.ReadFile(victim); err != nil || string(content) != "kept!!" {
		t.Errorf("%q, %v", content, err)
	}
	if err := appendTo("web/other.log"); err != nil {
		t.Errorf("a file of its own: %v", err)
	}
}

func TestTheFolderOfLogsHasToLieInOneOfRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the owner of a folder is changed")
	}
	parent := t.TempDir()
	root := filepath.Join(parent, "logs")
	if err := errors.Join(os.Mkdir(root, 0o700), os.Chown(parent, 841, 841)); err != nil {
		t.Fatal(err)
	}
	if err := withoutLinks(root); err == nil {
		t.Error("a folder that the client could replace is taken")
	}
	if err := withoutLinks(filepath.Join(parent, "none")); err == nil {
		t.Error("a folder that is not there is taken")
	}
}
