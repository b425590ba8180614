package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// loadPolicy loads a signed policy (PKCS#7, DER) into IPE, activates it and returns its name. Once a policy is active,
// the kernel always keeps one active.
func loadPolicy(securityFolder string, policy []byte) (string, error) {
	if err := writeKernelFile(filepath.Join(securityFolder, "new_policy"), policy); err != nil {
		return "", fmt.Errorf("the kernel refused the policy (is its signer in the platform keyring?): %w", err)
	}
	entries, err := os.ReadDir(filepath.Join(securityFolder, "policies"))
	if err != nil {
		return "", err
	}
	if len(entries) != 1 {
		return "", fmt.Errorf("%d policies are loaded, expected one", len(entries))
	}
	folder := filepath.Join(securityFolder, "policies", entries[0].Name())
	if err := writeKernelFile(filepath.Join(folder, "active"), []byte("1")); err != nil {
		return "", fmt.Errorf("activate policy %s: %w", entries[0].Name(), err)
	}
	active, err := os.ReadFile(filepath.Join(folder, "active"))
	if err != nil {
		return "", err
	}
	if got := strings.TrimSpace(string(active)); got != "1" {
		return "", fmt.Errorf("policy %s: active is %s after activation", entries[0].Name(), got)
	}
	return entries[0].Name(), nil
}

// writeKernelFile writes the content with one system call, as files of securityfs require.
func writeKernelFile(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
