// Command init is all of the userland of the guest that test/support/guest/run.sh boots: it loads the modules of the
// list, runs one program with its standard input and output on virtio's serial ports, writes down its exit status and
// powers off. What fails before that is said on the console.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// One compressed file a line, in the order in which they are loaded.
	moduleList = "/modules/list"
	program    = "/program"
	// One argument a line.
	arguments = "/arguments"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init runs as the init process of a guest only")
		os.Exit(2)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
	// Time for the serial line to drain.
	time.Sleep(100 * time.Millisecond)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func run() error {
	if err := mountFileSystems(); err != nil {
		return err
	}
	if err := loadModules(); err != nil {
		return err
	}
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		return err
	}
	// The last port comes first: when it has its name, the host's ends of the others are known to be open, and reading
	// from `input` does not end before the caller's input does.
	status, err := openPort("status", os.O_WRONLY)
	if err != nil {
		return err
	}
	input, err := openPort("input", os.O_RDONLY)
	if err != nil {
		return err
	}
	output, err := openPort("output", os.O_WRONLY)
	if err != nil {
		return err
	}
	code, err := runProgram(input, output)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(status, code)
	return err
}

func mountFileSystems() error {
	for _, mount := range []struct{ kind, target string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"tmpfs", "/tmp"},
		{"tmpfs", "/run"},
		{"bpf", "/sys/fs/bpf"},
		{"cgroup2", "/sys/fs/cgroup"},
	} {
		err := unix.Mount(mount.kind, mount.target, mount.kind, 0, "")
		if err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s on %s: %w", mount.kind, mount.target, err)
		}
	}
	return nil
}

func loadModules() error {
	list, err := os.ReadFile(moduleList)
	if err != nil {
		return err
	}
	for _, path := range strings.Fields(string(list)) {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(file.Fd()), "", unix.MODULE_INIT_COMPRESSED_FILE)
		_ = file.Close()
		// The processor lacks what a faster variant of an algorithm needs.
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("load %s: %w", path, err)
		}
	}
	return nil
}

// openPort waits until the port has its name.
func openPort(name string, flag int) (*os.File, error) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		named, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, file := range named {
			if content, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(content)) == name {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(file)), flag, 0)
			}
		}
	}
	return nil, fmt.Errorf("there is no port %q", name)
}

// runProgram returns the exit status as a shell would: 128 and the signal's number for one that was killed.
func runProgram(input, output *os.File) (int, error) {
	list, err := os.ReadFile(arguments)
	if err != nil {
		return 0, err
	}
	command := exec.Command(program)
	if len(list) != 0 {
		command.Args = append(command.Args, strings.Split(strings.TrimSuffix(string(list), "\n"), "\n")...)
	}
	command.Env = []string{"HOME=/tmp", "PATH=/"}
	command.Dir = "/tmp"
	command.Stdin, command.Stdout, command.Stderr = input, output, os.Stderr
	err = command.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if status := command.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return command.ProcessState.ExitCode(), nil
}
