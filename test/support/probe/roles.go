package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a role tries from within its own sandbox, and what the inventories of a host need.
func init() {
	// connect SOCKET: to a unix socket.
	attacks["connect"] = attackKind{1, func(a []string) error { return connect(a[0]) }}
	// open-file FILE r|w: without reading or writing.
	attacks["open-file"] = attackKind{2, func(a []string) error { return openFile(a[0], a[1]) }}
	// list FOLDER: its names.
	attacks["list"] = attackKind{1, func(a []string) error { _, err := os.ReadDir(a[0]); return err }}
	// bpf, io-uring, userfaultfd, perf, user-namespace, trace-me: calls of the kernel that few programs need. To be
	// traced by its parent a process needs no right over another one.
	attacks["bpf"] = attackKind{0, func([]string) error { return makeMap() }}
	attacks["io-uring"] = attackKind{0, func([]string) error { return setUpRing() }}
	attacks["userfaultfd"] = attackKind{0, func([]string) error { return openDescriptor(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0) }}
	attacks["perf"] = attackKind{0, func([]string) error { return openPerformanceEvent() }}
	attacks["user-namespace"] = attackKind{0, func([]string) error { return inChild(unix.CLONE_NEWUSER, unix.SYS_GETPID, 0) }}
	attacks["trace-me"] = attackKind{0, func([]string) error { return inChild(0, unix.SYS_PTRACE, unix.PTRACE_TRACEME) }}
	// listen PORT SECONDS: on all addresses.
	attacks["listen"] = attackKind{2, func(a []string) error { return listen(a[0], a[1]) }}
	// set-id FILE: a copy of the probe that becomes its owner when it is run.
	attacks["set-id"] = attackKind{1, func(a []string) error {
		return errors.Join(copyFile("/proc/self/exe", a[0]), os.Chmod(a[0], 0o755|fs.ModeSetuid))
	}}
	// privileged-files FOLDER: prints the programs of its file system that give privileges, one a line.
	attacks["privileged-files"] = attackKind{1, func(a []string) error { return listPrivileged(a[0]) }}
	// fill FILE BYTES: takes space on a disk, as much as there is.
	attacks["fill"] = attackKind{2, func(a []string) error { return fill(a[0], a[1]) }}
}

func connect(socket string) error {
	connection, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	return connection.Close()
}

func openFile(path, mode string) error {
	flags := os.O_RDONLY | unix.O_NONBLOCK
	if mode == "w" {
		flags = os.O_RDWR | unix.O_NONBLOCK
	}
	file, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return err
	}
	return file.Close()
}

// openDescriptor makes a system call that returns a descriptor, and closes it.
func openDescriptor(number, one, two, three uintptr) error {
	descriptor, _, errno := unix.Syscall(number, one, two, three)
	if errno != 0 {
		return errno
	}
	return unix.Close(int(descriptor))
}

// makeMap makes an array of one entry (bpf(2), BPF_MAP_CREATE).
func makeMap() error {
	const mapCreate, typeArray = 0, 2
	attributes := [16]uint32{typeArray, 4, 4, 1}
	return openDescriptor(unix.SYS_BPF, mapCreate, uintptr(unsafe.Pointer(&attributes)), unsafe.Sizeof(attributes))
}

func setUpRing() error {
	// struct io_uring_params has 120 bytes.
	var parameters [120]byte
	return openDescriptor(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&parameters)), 0)
}

// openPerformanceEvent counts what this process does, in user space only.
func openPerformanceEvent() error {
	attributes := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_TASK_CLOCK, Bits: unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv,
	}
	attributes.Size = uint32(unsafe.Sizeof(attributes))
	descriptor, err := unix.PerfEventOpen(&attributes, 0, -1, -1, 0)
	if err != nil {
		return err
	}
	return unix.Close(descriptor)
}

// inChild makes a system call in a child, and returns its error. The child makes no other call, because it has only one
// of the threads of a Go program.
func inChild(flags, number, argument uintptr) error {
	child, _, errno := unix.RawSyscall(unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0, 0)
	if errno != 0 {
		return errno
	}
	if child == 0 {
		_, _, errno = unix.RawSyscall(number, argument, 0, 0)
		for {
			_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(errno), 0, 0)
		}
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(int(child), &status, 0, nil); err != nil {
		return err
	}
	if code := status.ExitStatus(); code != 0 {
		return unix.Errno(code)
	}
	return nil
}

func listen(port, seconds string) error {
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	defer listener.Close()
	return sleep(seconds)
}

func listPrivileged(folder string) error {
	var root unix.Stat_t
	if err := unix.Lstat(folder, &root); err != nil {
		return err
	}
	return filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		var status unix.Stat_t
		if err := unix.Lstat(path, &status); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		if entry.IsDir() {
			if status.Dev != root.Dev {
				return filepath.SkipDir
			}
			return nil
		}
		capabilities, err := unix.Lgetxattr(path, "security.capability", nil)
		if entry.Type().IsRegular() && (status.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 || err == nil && capabilities > 0) {
			fmt.Println(path)
		}
		return nil
	})
}

func fill(path, bytes string) error {
	count, err := strconv.ParseInt(bytes, 10, 64)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	// Halves until nothing more fits.
	for at := int64(0); count >= 4096; {
		switch err := unix.Fallocate(int(file.Fd()), 0, at, count); {
		case errors.Is(err, unix.ENOSPC):
			count /= 2
		case errors.Is(err, unix.EINTR):
			time.Sleep(time.Millisecond)
		case err != nil:
			return err
		default:
			at += count
		}
	}
	return file.Sync()
}
