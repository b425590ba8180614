package integrity

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// efiGlobal is the vendor of the variables that the UEFI specification defines.
const efiGlobal = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

// The field secure_boot of the kernel's boot parameters (arch/x86/include/uapi/asm/bootparam.h), and its value
// efi_secureboot_mode_enabled (include/linux/efi.h).
const (
	secureBootOffset = 0x1ec
	secureBootOn     = 3
)

// Reader reads facts below Root, which is / except in tests.
type Reader struct {
	Root string
}

func (r Reader) path(name string) string {
	return filepath.Join(r.Root, name)
}

// text returns a file's content without surrounding white space, or nothing when it cannot be read.
func (r Reader) text(name string) string {
	content, err := os.ReadFile(r.path(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(content))
}

// digest returns the SHA-256 of a file in hexadecimal, or nothing when it cannot be read.
func (r Reader) digest(name string) string {
	content, err := os.ReadFile(r.path(name))
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// Read returns what the kernel reports. A fact that cannot be read stays empty, so nothing is claimed about it.
func (r Reader) Read() *agentv1.GetIntegrityResponse {
	root, layers := r.readVerity()
	commandLine := r.text("proc/cmdline")
	secureBoot := r.secureBoot()
	return &agentv1.GetIntegrityResponse{
		SecureBoot:          secureBoot,
		SetupMode:           !secureBoot && r.efiFlag("SetupMode"),
		Lockdown:            selected(r.text("sys/kernel/security/lockdown")),
		Lsms:                strings.FieldsFunc(r.text("sys/kernel/security/lsm"), func(character rune) bool { return character == ',' }),
		Root:                root,
		Ipe:                 r.ipe(),
		Selinux:             r.selinux(),
		KeyringCertificates: keyringCertificates(r.text("proc/keys")),
		KernelCommandLine:   commandLine,
		Pcrs:                r.pcrs(),
		Mode:                mode(commandLine),
		Layers:              layers,
	}
}

// mode returns the value of the last palisade.mode= parameter. The signature of the boot image covers the command line.
func mode(commandLine string) (result string) {
	for word := range strings.FieldsSeq(commandLine) {
		if value, found := strings.CutPrefix(word, "palisade.mode="); found {
			result = value
		}
	}
	return result
}

// secureBoot reads what the kernel's EFI stub found in the firmware's variables before it started the kernel: on only
// if SecureBoot was 1 and SetupMode was 0. The variables themselves are out of reach on a running host (hosts/initrd).
func (r Reader) secureBoot() bool {
	parameters, err := os.ReadFile(r.path("sys/kernel/boot_params/data"))
	return err == nil && len(parameters) > secureBootOffset && parameters[secureBootOffset] == secureBootOn
}

// efiFlag reads a one-byte EFI variable. In efivarfs four bytes of attributes precede the value.
func (r Reader) efiFlag(name string) bool {
	content, err := os.ReadFile(r.path("sys/firmware/efi/efivars/" + name + "-" + efiGlobal))
	return err == nil && len(content) == 5 && content[4] == 1
}

// selected returns the word in brackets, as in "none [integrity] confidentiality".
func selected(choices string) string {
	for choice := range strings.FieldsSeq(choices) {
		if name, found := strings.CutPrefix(choice, "["); found {
			return strings.TrimSuffix(name, "]")
		}
	}
	return ""
}

// ipe reads securityfs as described in the kernel's admin-guide/LSM/ipe.
func (r Reader) ipe() *agentv1.IpeStatus {
	const base = "sys/kernel/security/ipe"
	status := &agentv1.IpeStatus{Enforcing: r.text(base+"/enforce") == "1"}
	policies, err := os.ReadDir(r.path(base + "/policies"))
	if err != nil {
		return status
	}
	for _, policy := range policies {
		directory := base + "/policies/" + policy.Name()
		if r.text(directory+"/active") == "1" {
			status.ActivePolicy = r.text(directory + "/name")
			if status.ActivePolicy == "" {
				status.ActivePolicy = policy.Name()
			}
			status.PolicyVersion = r.text(directory + "/version")
			status.PolicyDigest = r.digest(directory + "/policy")
		}
	}
	return status
}

func (r Reader) selinux() *agentv1.SelinuxStatus {
	status := &agentv1.SelinuxStatus{}
	enforce := r.text("sys/fs/selinux/enforce")
	if enforce == "" {
		return status
	}
	// The file system exists from boot on, but a policy only after it was loaded.
	status.Enabled = r.text("sys/fs/selinux/policyvers") != "" && !isDirectoryEmpty(r.path("sys/fs/selinux/class"))
	status.Enforcing = enforce == "1"
	for line := range strings.Lines(r.text("etc/selinux/config")) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), "SELINUXTYPE="); found {
			status.Policy = value
		}
	}
	return status
}

func isDirectoryEmpty(path string) bool {
	entries, err := os.ReadDir(path)
	return err != nil || len(entries) == 0
}

// pcrs reads the SHA-256 bank. The kernel reads it from the TPM at each access.
func (r Reader) pcrs() map[uint32]string {
	entries, err := os.ReadDir(r.path("sys/class/tpm/tpm0/pcr-sha256"))
	if err != nil {
		return nil
	}
	values := map[uint32]string{}
	for _, entry := range entries {
		index, err := strconv.ParseUint(entry.Name(), 10, 32)
		if err != nil {
			continue
		}
		if value := r.text("sys/class/tpm/tpm0/pcr-sha256/" + entry.Name()); value != "" {
			values[uint32(index)] = strings.ToLower(value)
		}
	}
	return values
}

func isTrue(value string) bool {
	return value == "Y" || value == "1"
}
