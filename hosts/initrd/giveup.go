package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// debugMode keeps what the other modes give up, so that tests can see each layer of protection alone. Images that are
// products have no kernel image of this mode.
const debugMode = "debug"

// giveUp takes away for ever what no program of a host needs and what an attacker with all of root's rights would use to undo
// the integrity of code: CAP_MAC_ADMIN, by which policies of IPE are loaded and its enforcement is switched off, and
// ptrace, by which the code of a running process is changed. A reboot brings the same state back.
func giveUp() error {
	commandLine, err := os.ReadFile(commandLineFile)
	if err != nil {
		return err
	}
	if commandLineValue(string(commandLine), "palisade.mode") == debugMode {
		return nil
	}
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_MAC_ADMIN, 0, 0, 0); err != nil {
		return fmt.Errorf("drop CAP_MAC_ADMIN: %w", err)
	}
	// Programs that the kernel itself starts, e.g. for core dumps, do not descend from this process.
	for _, name := range []string{"bset", "inheritable"} {
		file := filepath.Join("/proc/sys/kernel/usermodehelper", name)
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		reduced, err := without(string(content), unix.CAP_MAC_ADMIN)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := writeKernelFile(file, []byte(reduced)); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	// 3: nobody attaches, and nobody can allow it again (Documentation/admin-guide/LSM/Yama.rst).
	return writeKernelFile("/proc/sys/kernel/yama/ptrace_scope", []byte("3"))
}

// without clears a capability in the kernel's notation of a set: two words of 32 bits, the lower first.
func without(set string, capability uint) (string, error) {
	var words [2]uint32
	if _, err := fmt.Sscanf(strings.TrimSpace(set), "%d %d", &words[0], &words[1]); err != nil {
		return "", fmt.Errorf("%q is no set of capabilities: %w", set, err)
	}
	words[capability/32] &^= 1 << (capability % 32)
	return fmt.Sprintf("%d %d", words[0], words[1]), nil
}
