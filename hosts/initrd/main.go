// Command palisade-initrd is the whole user space of the initrd. It runs as /init and checks that firmware and kernel
// are in exactly the state that the image was signed for. Then it opens the root file system through dm-verity with a
// signature that the kernel checks, activates the IPE policy, and executes systemd.
//
// There is no shell and no fallback. Any difference from the expected state powers the machine off, after a line on the
// console that names the difference: a host that does not prove its integrity must not run.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/hosts/devicemapper"
	"github.com/palisade-host/palisade/hosts/verity"
)

const (
	// The file is in the initrd, so the signature of the unified kernel image covers it.
	commandLineFile = "/etc/palisade/command-line"
	policyFile      = "/etc/palisade/ipe-policy.p7b"

	newRoot = "/sysroot"
	// Emulated machines are slow to probe the disk that has the root file system.
	diskTimeout = 60 * time.Second
)

// These modules are what the programs of a host need, besides the drivers of its devices. No module can be loaded
// later. Modules that are built into the kernel are skipped.
var modules = []string{"efivarfs", "dm_mod", "dm_verity", "erofs", "loop", "overlay", "netkit", "veth"}

func main() {
	// Capabilities belong to a thread, and the thread that gives them up has to become systemd.
	runtime.LockOSThread()
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "palisade-initrd runs as the init process of the initrd only")
		os.Exit(2)
	}
	err := boot()
	say("HALT: %v", err)
	// The serial line needs time to drain, and only the console shows the reason.
	time.Sleep(500 * time.Millisecond)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

// say writes one line to the console.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "palisade-initrd: "+format+"\n", args...)
}

// boot returns only when it has failed.
func boot() error {
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"mount kernel file systems", mountKernelFileSystems},
		{"load modules", loadModules},
		{"check the firmware", checkFirmware},
		{"check the kernel", checkFacts},
		{"open the root file system", openRoot},
		{"activate the integrity policy", activatePolicy},
		{"give up what could undo it", giveUp},
	} {
		if err := step.run(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	say("integrity of firmware, kernel, root and policy as expected; starting systemd")
	return switchRoot(newRoot, "/usr/lib/systemd/systemd")
}

func mountKernelFileSystems() error {
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=755"},
		{"securityfs", "/sys/kernel/security", "securityfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data)
		if err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
		}
	}
	return nil
}

func loadModules() error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	folder := filepath.Join("/usr/lib/modules", unix.ByteSliceToString(name.Release[:]))
	index, err := readModuleIndex(folder)
	if err != nil {
		return err
	}
	commandLine, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	loader := moduleLoader{folder: folder, index: index, commandLine: string(commandLine), loaded: map[string]bool{}}
	for _, module := range modules {
		if err := loader.load(module); err != nil {
			return err
		}
	}
	devices, err := deviceAliases("/sys/bus")
	if err != nil {
		return err
	}
	for _, driver := range index.drivers(devices) {
		// A driver may decline a device. A host without a device that it needs fails by itself.
		if err := loader.load(driver); err != nil {
			say("%v", err)
		}
	}
	return nil
}

func openRoot() error {
	commandLine, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	hash, err := rootHash(string(commandLine))
	if err != nil {
		return err
	}
	parts, err := waitForRoot(hash, diskTimeout)
	if err != nil {
		return err
	}
	hashDevice, err := os.Open(parts.hash.path)
	if err != nil {
		return err
	}
	defer hashDevice.Close()
	superblock, err := verity.ReadSuperblock(hashDevice, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", parts.hash.path, err)
	}
	signature, err := readSignature(parts.signature.path, hash)
	if err != nil {
		return err
	}
	mapper, err := devicemapper.Open(devicemapper.Control)
	if err != nil {
		return err
	}
	defer mapper.Close()
	source := verity.Source{Data: parts.data.number, Hash: parts.hash.number, Superblock: superblock}
	// A corrupted block stops the machine. An attacker who can change blocks must not choose which reads fail.
	device, err := verity.Open(mapper, "root", source, hash, signature, "panic_on_corruption")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return err
	}
	node, err := device.AwaitNode(5 * time.Second)
	if err != nil {
		return err
	}
	if err := unix.Mount(node, newRoot, "erofs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount the root file system: %w", err)
	}
	say("root %s… opened, signature checked by the kernel", hash[:16])
	return nil
}

func activatePolicy() error {
	policy, err := os.ReadFile(policyFile)
	if err != nil {
		return err
	}
	name, err := loadPolicy("/sys/kernel/security/ipe", policy)
	if err != nil {
		return err
	}
	commandLine, err := os.ReadFile(commandLineFile)
	if err != nil {
		return err
	}
	enforce := commandLineValue(string(commandLine), "ipe.enforce")
	state, err := os.ReadFile("/sys/kernel/security/ipe/enforce")
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(string(state)); got != enforce {
		return fmt.Errorf("ipe/enforce is %s, the signed command line says %s", got, enforce)
	}
	say("integrity policy %s active, enforce=%s", name, enforce)
	return nil
}
