package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// In debugMode the rights are kept that other modes give up, so that tests can check each layer of protection alone.
// Product images have no kernel image of this mode.
const debugMode = "debug"

// surrendered are the capabilities that leave the bounding set: loading integrity policies and switching off their
// enforcement, loading modules, and reaching hardware and the kernel's memory past the kernel.
var surrendered = []uint{unix.CAP_MAC_ADMIN, unix.CAP_SYS_MODULE, unix.CAP_SYS_RAWIO}

// giveUp permanently removes rights that no program of a host needs, and that an attacker with root's rights would use
// against the integrity of code: the firmware's variables, in which certificates are planted for the next boot,
// capabilities, modules, and ptrace, which can change the code of a running process. A reboot leads to the same state
// again.
func giveUp() error {
	commandLine, err := os.ReadFile(commandLineFile)
	if err != nil {
		return err
	}
	if commandLineValue(string(commandLine), "palisade.mode") == debugMode {
		return nil
	}
	if err := removeVariables(); err != nil {
		return err
	}
	for _, file := range []struct{ path, content string }{
		// The kernel asks no program for a module any more, and takes none from anybody: this is never undone.
		{"/proc/sys/kernel/modprobe", "\n"},
		{"/proc/sys/kernel/modules_disabled", "1"},
		// With 3 no process can attach, and none can allow it again (Documentation/admin-guide/LSM/Yama.rst).
		{"/proc/sys/kernel/yama/ptrace_scope", "3"},
	} {
		if err := writeKernelFile(file.path, []byte(file.content)); err != nil {
			return fmt.Errorf("%s: %w", file.path, err)
		}
	}
	for _, capability := range surrendered {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(capability), 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", capability, err)
		}
	}
	// Programs that the kernel itself starts, such as for core dumps, are not descendants of this process.
	for _, name := range []string{"bset", "inheritable"} {
		file := filepath.Join("/proc/sys/kernel/usermodehelper", name)
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		reduced, err := without(string(content), surrendered...)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := writeKernelFile(file, []byte(reduced)); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// removeVariables takes the only interface to the firmware's variables out of the kernel.
func removeVariables() error {
	if err := unix.DeleteModule("efivarfs", unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("unload efivarfs: %w", err)
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(string(known)), "efivarfs") {
		return errors.New("the kernel still offers efivarfs")
	}
	return nil
}

// without removes capabilities from a set in the kernel's notation: two words of 32 bits, the lower one first.
func without(set string, capabilities ...uint) (string, error) {
	var words [2]uint32
	if _, err := fmt.Sscanf(strings.TrimSpace(set), "%d %d", &words[0], &words[1]); err != nil {
		return "", fmt.Errorf("%q is no set of capabilities: %w", set, err)
	}
	for _, capability := range capabilities {
		words[capability/32] &^= 1 << (capability % 32)
	}
	return fmt.Sprintf("%d %d", words[0], words[1]), nil
}
