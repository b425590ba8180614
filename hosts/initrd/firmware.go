package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	firmwareFolder  = "/sys/firmware/efi"
	variablesFolder = firmwareFolder + "/efivars"
	// Made by hosts/image/scripts/initrd.sh. The file is in the initrd, so the signature of the unified kernel image
	// covers it.
	firmwareCertificatesFile = "/etc/palisade/firmware-certificates"

	// Vendors of variables: the UEFI specification, its list of signers, and shim, whose lists the kernel believes as
	// well.
	efiGlobal   = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	efiDatabase = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
	shimVendor  = "605dab50-e046-4300-abb6-3dd810dd8b23"

	// Type of a signature list of X.509 certificates.
	x509List = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072"
)

// certificateVariables have the certificates that decide what the firmware starts and what the kernel believes. dbx is
// not among them, because it can only forbid.
var certificateVariables = []struct{ name, vendor string }{
	{"PK", efiGlobal}, {"KEK", efiGlobal}, {"db", efiDatabase},
}

// checkFirmware requires Secure Boot, exactly the certificates that the signed boot image names, and none that were
// planted where shim keeps those of a machine's owner: the kernel believes the latter without having been asked to.
func checkFirmware() error {
	if err := unix.Mount("efivarfs", variablesFolder, "efivarfs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount the firmware's variables (was this started by UEFI?): %w", err)
	}
	named, err := os.ReadFile(firmwareCertificatesFile)
	if err != nil {
		return err
	}
	expected, err := parseFirmwareCertificates(string(named))
	if err != nil {
		return fmt.Errorf("%s: %w", firmwareCertificatesFile, err)
	}
	if err := checkVariables(firmwareFolder, expected); err != nil {
		return err
	}
	keys, err := os.ReadFile("/proc/keys")
	if err != nil {
		return err
	}
	if err := checkKeyrings(string(keys), len(expected["db"])); err != nil {
		return err
	}
	if err := unix.Unmount(variablesFolder, 0); err != nil {
		return err
	}
	say("firmware: SecureBoot 1, SetupMode 0, certificates as signed, none of a machine owner")
	return nil
}

// checkVariables checks the firmware's variables below a folder that is like /sys/firmware/efi. expected has the
// SHA-256 fingerprints of the certificates of each variable.
func checkVariables(folder string, expected map[string][]string) error {
	read := func(name, vendor string) ([]byte, error) {
		content, err := os.ReadFile(filepath.Join(folder, "efivars", name+"-"+vendor))
		if err != nil {
			return nil, err
		}
		// In efivarfs four bytes of attributes precede the value.
		if len(content) < 4 {
			return nil, fmt.Errorf("firmware variable %s: %d bytes, expected attributes and a value", name, len(content))
		}
		return content[4:], nil
	}
	for _, flag := range []struct {
		name string
		want byte
	}{{"SecureBoot", 1}, {"SetupMode", 0}} {
		value, err := read(flag.name, efiGlobal)
		if err != nil {
			return err
		}
		if !bytes.Equal(value, []byte{flag.want}) {
			return fmt.Errorf("firmware variable %s is %v, expected [%d]", flag.name, value, flag.want)
		}
	}
	entries, err := os.ReadDir(filepath.Join(folder, "efivars"))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if isOfMachineOwner(entry.Name()) {
			return fmt.Errorf("firmware variable %s must not exist: certificates of a machine owner are not believed here", entry.Name())
		}
	}
	if _, err := os.Lstat(filepath.Join(folder, "mok-variables")); !errors.Is(err, os.ErrNotExist) {
		return errors.New("the firmware's table of a machine owner's certificates (MokListRT) must not exist")
	}
	for _, variable := range certificateVariables {
		value, err := read(variable.name, variable.vendor)
		if err != nil {
			return err
		}
		found, err := listedCertificates(value)
		if err != nil {
			return fmt.Errorf("firmware variable %s: %w", variable.name, err)
		}
		if err := compareCertificates(found, expected[variable.name]); err != nil {
			return fmt.Errorf("firmware variable %s: %w", variable.name, err)
		}
	}
	return nil
}

// isOfMachineOwner reports whether the file of a variable, NAME-VENDOR, belongs to shim.
func isOfMachineOwner(file string) bool {
	return strings.HasPrefix(file, "Mok") || strings.HasSuffix(strings.ToLower(file), "-"+shimVendor)
}

// parseFirmwareCertificates parses lines of a variable and the SHA-256 fingerprint of a certificate that it has to
// hold, both without duplicates. Each variable has at least one.
func parseFirmwareCertificates(content string) (map[string][]string, error) {
	certificates := map[string][]string{}
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) != 2 {
			return nil, fmt.Errorf("%q: expected a variable and a fingerprint", strings.TrimSpace(line))
		}
		name, fingerprint := fields[0], fields[1]
		if decoded, err := hex.DecodeString(fingerprint); err != nil || len(decoded) != sha256.Size || fingerprint != strings.ToLower(fingerprint) {
			return nil, fmt.Errorf("%s: %q is no SHA-256 fingerprint", name, fingerprint)
		}
		if !slices.Contains(certificates[name], fingerprint) {
			certificates[name] = append(certificates[name], fingerprint)
		}
	}
	for _, variable := range certificateVariables {
		if len(certificates[variable.name]) == 0 {
			return nil, fmt.Errorf("no certificate of %s is named", variable.name)
		}
	}
	if len(certificates) != len(certificateVariables) {
		return nil, errors.New("other variables than PK, KEK and db are named")
	}
	return certificates, nil
}

// listedCertificates returns the SHA-256 fingerprints of the certificates in a sequence of EFI_SIGNATURE_LIST (UEFI
// specification, "Signature Database"), each once. Anything but certificates is an error: a hash in db lets the
// firmware start a program that nobody signed.
func listedCertificates(content []byte) ([]string, error) {
	const (
		headerSize = 28
		ownerSize  = 16
	)
	var fingerprints []string
	for len(content) > 0 {
		if len(content) < headerSize {
			return nil, fmt.Errorf("%d bytes remain, too few for a list of signatures", len(content))
		}
		kind := guid(content[0:16])
		listSize := uint64(binary.LittleEndian.Uint32(content[16:20]))
		extraSize := uint64(binary.LittleEndian.Uint32(content[20:24]))
		entrySize := uint64(binary.LittleEndian.Uint32(content[24:28]))
		if kind != x509List {
			return nil, fmt.Errorf("a list of type %s, expected certificates only", kind)
		}
		if listSize > uint64(len(content)) || listSize < headerSize+extraSize || entrySize <= ownerSize {
			return nil, fmt.Errorf("a list of %d bytes in %d, with a header of %d and entries of %d", listSize, len(content), extraSize, entrySize)
		}
		entries := content[headerSize+extraSize : listSize]
		if len(entries) == 0 || uint64(len(entries))%entrySize != 0 {
			return nil, fmt.Errorf("%d bytes of signatures are no whole number of entries of %d bytes", len(entries), entrySize)
		}
		for entry := range slices.Chunk(entries, int(entrySize)) {
			sum := sha256.Sum256(entry[ownerSize:])
			if fingerprint := hex.EncodeToString(sum[:]); !slices.Contains(fingerprints, fingerprint) {
				fingerprints = append(fingerprints, fingerprint)
			}
		}
		content = content[listSize:]
	}
	return fingerprints, nil
}

// compareCertificates requires the same fingerprints, in any order.
func compareCertificates(found, expected []string) error {
	for _, fingerprint := range found {
		if !slices.Contains(expected, fingerprint) {
			return fmt.Errorf("holds certificate %s, which the signed boot image does not name", fingerprint)
		}
	}
	for _, fingerprint := range expected {
		if !slices.Contains(found, fingerprint) {
			return fmt.Errorf("lacks certificate %s, which the signed boot image names", fingerprint)
		}
	}
	return nil
}

// checkKeyrings checks what the kernel made of the firmware's variables, in the text of /proc/keys: no certificate of a
// machine owner, and not more of the firmware than expected.
func checkKeyrings(keys string, expected int) error {
	if size := keyringSize(keys, ".machine"); size != 0 {
		return fmt.Errorf("the kernel's keyring .machine holds %d certificates, expected none", size)
	}
	if size := keyringSize(keys, ".platform"); size > expected {
		return fmt.Errorf("the kernel's keyring .platform holds %d certificates, expected at most %d", size, expected)
	}
	return nil
}

// keyringSize returns how many keys a keyring holds, or 0 if there is no such keyring. A line of /proc/keys ends in
// "keyring   .machine: empty" or "keyring   .platform: 4".
func keyringSize(keys, name string) int {
	for line := range strings.Lines(keys) {
		fields := strings.Fields(line)
		if len(fields) != 10 || fields[7] != "keyring" || fields[8] != name+":" {
			continue
		}
		size, err := strconv.Atoi(fields[9])
		if err != nil {
			return 0
		}
		return size
	}
	return 0
}
