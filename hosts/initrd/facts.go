package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The vendor of the variables that the UEFI specification defines.
const efiGlobal = "-8be4df61-93ca-11d2-aa0d-00e098032b8c"

// checkFacts requires the state of firmware and kernel that all later checks depend on.
func checkFacts() error {
	const efiVariables = "/sys/firmware/efi/efivars"
	if err := unix.Mount("efivarfs", efiVariables, "efivarfs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount the firmware's variables (was this started by UEFI?): %w", err)
	}
	for _, variable := range []struct {
		name string
		want byte
	}{{"SecureBoot", 1}, {"SetupMode", 0}} {
		content, err := os.ReadFile(efiVariables + "/" + variable.name + efiGlobal)
		if err != nil {
			return err
		}
		got, err := efiByte(content)
		if err != nil {
			return fmt.Errorf("firmware variable %s: %w", variable.name, err)
		}
		if got != variable.want {
			return fmt.Errorf("firmware variable %s is %d, expected %d", variable.name, got, variable.want)
		}
	}
	if err := unix.Unmount(efiVariables, 0); err != nil {
		return err
	}
	say("firmware: SecureBoot 1, SetupMode 0")

	actual, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	signed, err := os.ReadFile(commandLineFile)
	if err != nil {
		return err
	}
	if err := checkCommandLine(string(actual), string(signed)); err != nil {
		return err
	}

	lockdown, err := os.ReadFile("/sys/kernel/security/lockdown")
	if err != nil {
		return err
	}
	if got := selected(string(lockdown)); got != "integrity" && got != "confidentiality" {
		return fmt.Errorf("kernel lockdown is %q, expected integrity", got)
	}
	lsm, err := os.ReadFile("/sys/kernel/security/lsm")
	if err != nil {
		return err
	}
	active := strings.Split(strings.TrimSpace(string(lsm)), ",")
	for _, want := range []string{"lockdown", "selinux", "ipe"} {
		if !slices.Contains(active, want) {
			return fmt.Errorf("security module %s is not active (active: %s)", want, strings.Join(active, ", "))
		}
	}
	required, err := os.ReadFile("/sys/module/dm_verity/parameters/require_signatures")
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(string(required)); got != "Y" {
		return fmt.Errorf("dm_verity.require_signatures is %s, expected Y", got)
	}
	return nil
}

// efiByte returns the value of a one-byte variable. In efivarfs four bytes of attributes precede it.
func efiByte(content []byte) (byte, error) {
	if len(content) != 5 {
		return 0, fmt.Errorf("%d bytes, expected 5", len(content))
	}
	return content[4], nil
}

// selected returns the word in brackets in a kernel file that lists choices, as in "none [integrity] confidentiality".
func selected(choices string) string {
	_, rest, found := strings.Cut(choices, "[")
	if !found {
		return ""
	}
	word, _, found := strings.Cut(rest, "]")
	if !found {
		return ""
	}
	return word
}
