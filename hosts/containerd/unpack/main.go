// Command unpack is the reference for tests of sealed layers. It unpacks archives as containerd does and lists the
// files, and it lists the files of EROFS images in an overlay in the same way. It reads a JSON list of cases and writes
// a list of results. It is never shipped. It needs root, and mounts in a mount namespace of its own.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"golang.org/x/sys/unix"
)

// testCase has either archives or images, bottom first.
type testCase struct {
	Archives []string `json:"archives"`
	Images   []string `json:"images"`
}

type result struct {
	Files map[string]file `json:"files,omitempty"`
	// Error is why containerd refuses an archive.
	Error string `json:"error,omitempty"`
}

// file is what users see of a file. It omits the times of folders, because folders that no archive contains have the
// time of the unpacking.
type file struct {
	Mode     string            `json:"mode"`
	Owner    string            `json:"owner"`
	Modified string            `json:"modified,omitempty"`
	Size     int64             `json:"size,omitempty"`
	SHA256   string            `json:"sha256,omitempty"`
	Target   string            `json:"target,omitempty"`
	Device   string            `json:"device,omitempty"`
	Xattrs   map[string]string `json:"xattrs,omitempty"`
	// SameAs is the first name of a file with several names.
	SameAs string `json:"sameAs,omitempty"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "unpack:", err)
		os.Exit(1)
	}
}

func run() error {
	var cases []testCase
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "palisade-unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	results := make([]result, len(cases))
	for index, testCase := range cases {
		folder := filepath.Join(work, fmt.Sprint(index))
		if results[index], err = testCase.look(folder); err != nil {
			return fmt.Errorf("case %d: %w", index, err)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}

func (c testCase) look(folder string) (result, error) {
	root := filepath.Join(folder, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return result{}, err
	}
	if c.Archives != nil {
		for _, path := range c.Archives {
			if err := apply(root, path); err != nil {
				return result{Error: err.Error()}, nil
			}
		}
	} else {
		unmount, err := overlay(folder, root, c.Images)
		defer unmount()
		if err != nil {
			return result{}, err
		}
	}
	files, err := list(root)
	return result{Files: files}, err
}

func apply(root, path string) error {
	content, err := os.Open(path)
	if err != nil {
		return err
	}
	defer content.Close()
	_, err = archive.Apply(context.Background(), root, content)
	return err
}

// overlay mounts images over each other. An empty folder is the lowest one, because an overlay needs more than one
// lower folder.
func overlay(folder, root string, images []string) (unmount func(), err error) {
	empty := filepath.Join(folder, "empty")
	lower := []string{empty}
	mounted := []string{}
	unmount = func() {
		for _, target := range slices.Backward(mounted) {
			_ = mount.UnmountAll(target, unix.MNT_DETACH)
		}
	}
	if err := os.Mkdir(empty, 0o755); err != nil {
		return unmount, err
	}
	for index, image := range images {
		target := filepath.Join(folder, fmt.Sprint(index))
		if err := os.Mkdir(target, 0o755); err != nil {
			return unmount, err
		}
		if err := (&mount.Mount{Type: "erofs", Source: image, Options: []string{"ro", "loop"}}).Mount(target); err != nil {
			return unmount, fmt.Errorf("%s: %w", image, err)
		}
		mounted = append(mounted, target)
		lower = append([]string{target}, lower...)
	}
	if err := unix.Mount("overlay", root, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(lower, ":")); err != nil {
		return unmount, err
	}
	mounted = append(mounted, root)
	return unmount, nil
}

func list(root string) (map[string]file, error) {
	files := map[string]file{}
	names := map[[2]uint64][]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		found := file{Mode: fmt.Sprintf("%06o", stat.Mode), Owner: fmt.Sprintf("%d:%d", stat.Uid, stat.Gid)}
		if !info.IsDir() {
			found.Modified = fmt.Sprintf("%d.%09d", stat.Mtim.Sec, stat.Mtim.Nsec)
			id := [2]uint64{stat.Dev, stat.Ino}
			names[id] = append(names[id], name)
		}
		switch info.Mode().Type() {
		case 0:
			found.Size = info.Size()
			found.SHA256, err = digest(path)
		case fs.ModeSymlink:
			found.Target, err = os.Readlink(path)
		case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
			found.Device = fmt.Sprintf("%d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev))
		}
		if err != nil {
			return err
		}
		found.Xattrs, err = xattrs(path)
		files[name] = found
		return err
	})
	for _, same := range names {
		for _, name := range same[1:] {
			found := files[name]
			found.SameAs = same[0]
			files[name] = found
		}
	}
	return files, err
}

func digest(path string) (string, error) {
	content, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer content.Close()
	hash := sha256.New()
	_, err = io.Copy(hash, content)
	return hex.EncodeToString(hash.Sum(nil)), err
}

func xattrs(path string) (map[string]string, error) {
	buffer := make([]byte, 64<<10)
	size, err := unix.Llistxattr(path, buffer)
	if err != nil {
		return nil, err
	}
	var found map[string]string
	for name := range strings.SplitSeq(string(buffer[:size]), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		size, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", path, name, err)
		}
		if found == nil {
			found = map[string]string{}
		}
		found[name] = hex.EncodeToString(value[:size])
	}
	return found, nil
}
