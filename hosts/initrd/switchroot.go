package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// switchRoot makes a folder the root of the file system and executes its init. It removes the files of the initrd
// first, because they would occupy memory until the machine is off.
func switchRoot(root, init string) error {
	for _, mount := range []string{"/dev", "/proc", "/sys"} {
		if err := unix.Mount(mount, root+mount, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", mount, err)
		}
	}
	for _, path := range []string{"/usr", "/etc", "/init"} {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	return fmt.Errorf("start %s: %w", init, unix.Exec(init, []string{init}, []string{"TERM=linux"}))
}
