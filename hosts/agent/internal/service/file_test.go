package service

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestAWriteThatIsCutOffLeavesTheOldOrTheNewContent(t *testing.T) {
	const renamed = 6
	count := len((&replacement{}).steps())
	for done := range count + 1 {
		path := filepath.Join(t.TempDir(), "web.json")
		if err := WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		r := &replacement{path: path, content: []byte("new"), mode: 0o600}
		for _, step := range r.steps()[:done] {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		// The process ends here, without any clean-up.
		want := "old"
		if done >= renamed {
			want = "new"
		}
		if content, err := os.ReadFile(path); err != nil || string(content) != want {
			t.Errorf("after %d steps: %q, %v; expected %q", done, content, err, want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("after %d steps: %v, %v", done, info, err)
		}
	}
}

func TestAWriteThatFailsLeavesTheOldContentAndNothingElse(t *testing.T) {
	steps := len((&replacement{}).steps())
	for failing := range steps - 2 {
		folder := t.TempDir()
		path := filepath.Join(folder, "web.json")
		if err := WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		r := &replacement{path: path, content: []byte("new"), mode: 0o600}
		for _, step := range r.steps()[:failing] {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		r.discard()
		entries, err := os.ReadDir(folder)
		if err != nil || len(entries) != 1 {
			t.Errorf("failed at step %d: %v, %v", failing, entries, err)
		}
		if content, err := os.ReadFile(path); err != nil || string(content) != "old" {
			t.Errorf("failed at step %d: %q, %v", failing, content, err)
		}
	}
}

func TestAWriteToAFullDiskFailsAndKeepsTheOldContent(t *testing.T) {
	folder := t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("needs root: a small file system")
	}
	defer func() { _ = syscall.Unmount(folder, 0) }()
	path := filepath.Join(folder, "web.json")
	if err := WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, bytes.Repeat([]byte("new "), 64<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "old" {
		t.Errorf("%q, %v", content, err)
	}
	entries, _ := os.ReadDir(folder)
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			t.Errorf("left over: %s", entry.Name())
		}
	}
}
