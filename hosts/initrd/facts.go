package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// checkFacts requires the state of the kernel that all later checks depend on.
func checkFacts() error {
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
