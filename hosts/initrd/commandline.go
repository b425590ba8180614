package main

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// commandLineValue returns the last value of a parameter of the kernel command line, or the empty string.
func commandLineValue(commandLine, key string) string {
	value := ""
	for _, word := range strings.Fields(commandLine) {
		if v, ok := strings.CutPrefix(word, key+"="); ok {
			value = v
		}
	}
	return value
}

// rootHash returns the root hash of the command line: 64 lower-case hexadecimal digits.
func rootHash(commandLine string) (string, error) {
	hash := commandLineValue(commandLine, "roothash")
	if b, err := hex.DecodeString(hash); err != nil || len(b) != 32 || hash != strings.ToLower(hash) {
		return "", fmt.Errorf("roothash=%q on the command line is no SHA-256 value", hash)
	}
	return hash, nil
}

// checkCommandLine requires that the kernel runs with the signed parameters only. A hypervisor or a boot menu can
// append parameters to a signed image (SMBIOS strings, add-ons), and they could switch off every later check.
func checkCommandLine(actual, signed string) error {
	var rest []string
	hashes := 0
	for _, word := range strings.Fields(actual) {
		if strings.HasPrefix(word, "roothash=") {
			hashes++
			continue
		}
		rest = append(rest, word)
	}
	if hashes != 1 {
		return fmt.Errorf("the kernel command line has %d root hashes, expected one", hashes)
	}
	want := strings.Join(strings.Fields(signed), " ")
	if got := strings.Join(rest, " "); got != want {
		return fmt.Errorf("the kernel command line is not the signed one: got %q, expected %q", got, want)
	}
	return nil
}
