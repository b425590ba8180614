package cri

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// folderWithoutLinks tells whether there is a folder at root/relative that no symbolic link leads to.
func folderWithoutLinks(root, relative string) error {
	folder, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", root, err)
	}
	defer unix.Close(folder)
	found, err := unix.Openat2(folder, relative, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	switch {
	case errors.Is(err, unix.ELOOP):
		return errLink
	case err != nil:
		return fmt.Errorf("%q: %w", filepath.Join(root, relative), err)
	}
	return unix.Close(found)
}

// steadyPath tells whether root/relative is a folder or a file which nobody but root can replace after this look: the
// folders that lead to it belong to root, nobody else writes to them, and there is no symbolic link among them.
func steadyPath(root, relative string) error {
	folder, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", root, err)
	}
	defer func() { unix.Close(folder) }()
	path := root
	for name := range strings.SplitSeq(relative, "/") {
		var status unix.Stat_t
		if err := unix.Fstat(folder, &status); err != nil {
			return err
		}
		if status.Mode&unix.S_IFMT != unix.S_IFDIR || status.Uid != 0 || status.Mode&0o022 != 0 {
			return fmt.Errorf("%s is not a folder that only root writes to", path)
		}
		path = filepath.Join(path, name)
		next, err := unix.Openat(folder, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		unix.Close(folder)
		folder = next
	}
	var status unix.Stat_t
	if err := unix.Fstat(folder, &status); err != nil {
		return err
	}
	switch status.Mode & unix.S_IFMT {
	case unix.S_IFDIR, unix.S_IFREG:
		return nil
	case unix.S_IFLNK:
		return errLink
	}
	return fmt.Errorf("%s is neither a folder nor a file", path)
}

// statNoSymlinks is ST_NOSYMFOLLOW of statfs(2).
const statNoSymlinks = 0x2000

// withoutLinks mounts the folder of the logs over itself such that nobody follows a symbolic link in it. containerd
// opens logs as root, by their paths, and its client may write to the folder: no check before that would hold.
func withoutLinks(root string) error {
	var status unix.Statfs_t
	if err := unix.Statfs(root, &status); err != nil {
		return fmt.Errorf("%s: %w", root, err)
	}
	if status.Flags&statNoSymlinks != 0 {
		// Since an earlier start.
		return nil
	}
	if err := steadyPath(filepath.Dir(root), filepath.Base(root)); err != nil {
		return err
	}
	if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", root, err)
	}
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_NOSYMFOLLOW | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if err := unix.Mount("", root, "", flags, ""); err != nil {
		return errors.Join(fmt.Errorf("mount %s without symbolic links: %w", root, err), unix.Unmount(root, unix.MNT_DETACH))
	}
	return nil
}
