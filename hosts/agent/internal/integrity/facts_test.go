package integrity

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/hosts/devicemapper"
	"github.com/palisade-host/palisade/hosts/seal"
)

func write(t *testing.T, root, name, content string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRead(t *testing.T) {
	root := t.TempDir()
	write(t, root, "sys/kernel/boot_params/data", bootParameters(3))
	write(t, root, "sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
	write(t, root, "sys/kernel/security/lsm", "lockdown,capability,yama,selinux,bpf,ipe")
	write(t, root, "sys/kernel/security/ipe/enforce", "0")
	write(t, root, "sys/kernel/security/ipe/policies/old/active", "0")
	write(t, root, "sys/kernel/security/ipe/policies/palisade/active", "1")
	write(t, root, "sys/kernel/security/ipe/policies/palisade/name", "palisade")
	write(t, root, "sys/kernel/security/ipe/policies/palisade/version", "1.0.0")
	write(t, root, "sys/kernel/security/ipe/policies/palisade/policy", "abc\n")
	write(t, root, "sys/fs/selinux/enforce", "0")
	write(t, root, "sys/fs/selinux/policyvers", "33")
	write(t, root, "sys/fs/selinux/class/file/index", "1")
	write(t, root, "etc/selinux/config", "# comment\nSELINUX=permissive\nSELINUXTYPE=default\n")
	write(t, root, "sys/module/dm_verity/parameters/require_signatures", "Y\n")
	write(t, root, "sys/class/tpm/tpm0/pcr-sha256/7", "ABCDEF\n")
	write(t, root, "proc/cmdline", "quiet ipe.enforce=0 palisade.mode=audit palisade.mode=enforce\n")

	facts := Reader{Root: root}.Read()
	if !facts.GetSecureBoot() || facts.GetSetupMode() || facts.GetLockdown() != "integrity" || !strings.HasPrefix(facts.GetKernelCommandLine(), "quiet ") || facts.GetMode() != "enforce" {
		t.Errorf("%v", facts)
	}
	if !slices.Equal(facts.GetLsms(), []string{"lockdown", "capability", "yama", "selinux", "bpf", "ipe"}) {
		t.Errorf("%v", facts.GetLsms())
	}
	if ipe := facts.GetIpe(); ipe.GetActivePolicy() != "palisade" || ipe.GetPolicyVersion() != "1.0.0" || ipe.GetEnforcing() || ipe.GetPolicyDigest() != "edeaaff3f1774ad2888673770c6d64097e391bc362d7d6fb34982ddf0efd18cb" {
		t.Errorf("%v", ipe)
	}
	if selinux := facts.GetSelinux(); !selinux.GetEnabled() || selinux.GetEnforcing() || selinux.GetPolicy() != "default" {
		t.Errorf("%v", selinux)
	}
	if facts.GetPcrs()[7] != "abcdef" || !facts.GetRoot().GetSignaturesRequired() {
		t.Errorf("%v", facts)
	}
}

// bootParameters are those of a kernel whose EFI stub found Secure Boot in this state.
func bootParameters(secureBoot byte) string {
	parameters := make([]byte, 4096)
	parameters[secureBootOffset] = secureBoot
	return string(parameters)
}

func TestSecureBootAndSetupMode(t *testing.T) {
	for name, test := range map[string]struct {
		parameters, setupMode string
		secureBoot, setup     bool
	}{
		"on":                          {bootParameters(3), "", true, false},
		"off":                         {bootParameters(2), "\x06\x00\x00\x00\x00", false, false},
		"off, in setup mode":          {bootParameters(2), "\x06\x00\x00\x00\x01", false, true},
		"not started by the EFI stub": {bootParameters(0), "", false, false},
		"too short":                   {bootParameters(3)[:secureBootOffset], "", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			write(t, root, "sys/kernel/boot_params/data", test.parameters)
			if test.setupMode != "" {
				write(t, root, "sys/firmware/efi/efivars/SetupMode-"+efiGlobal, test.setupMode)
			}
			facts := Reader{Root: root}.Read()
			if facts.GetSecureBoot() != test.secureBoot || facts.GetSetupMode() != test.setup {
				t.Errorf("Secure Boot %t, setup mode %t", facts.GetSecureBoot(), facts.GetSetupMode())
			}
		})
	}
}

func TestNothingIsClaimedWithoutFacts(t *testing.T) {
	facts := Reader{Root: t.TempDir()}.Read()
	if facts.GetSecureBoot() || facts.GetLockdown() != "" || facts.GetMode() != "" || len(facts.GetLayers()) != 0 || facts.GetSelinux().GetEnabled() || facts.GetIpe().GetEnforcing() || facts.GetRoot().GetSignatureVerified() || len(facts.GetPcrs()) != 0 {
		t.Errorf("%v", facts)
	}
}

const (
	unsigned = "1 254:1 254:1 4096 4096 35000 35001 sha256 1111 2222"
	signed   = unsigned + " 2 root_hash_sig_key_desc palisade:1111"
)

func device(name string, minor uint32, parameters string) devicemapper.Device {
	return devicemapper.Device{
		Name: name, Number: unix.Mkdev(254, minor), OpenCount: int32(minor),
		Target: &devicemapper.Target{Sectors: 280000, Kind: "verity", Parameters: parameters},
	}
}

func TestSystemDevice(t *testing.T) {
	points := mountPoints("22 1 254:3 / / ro,relatime - erofs /dev/mapper/root ro\n23 22 0:5 / /dev rw - devtmpfs dev rw\n")
	devices := []devicemapper.Device{device("other", 0, unsigned), device("root", 3, signed)}
	if found, at := systemDevice(devices, points); found == nil || found.Name != "root" || at != "/" {
		t.Errorf("%v at %q", found, at)
	}
	if found, _ := systemDevice(devices[:1], points); found != nil {
		t.Errorf("%v", found)
	}
}

func TestLayerDevices(t *testing.T) {
	layers := layerDevices([]devicemapper.Device{device("root", 3, signed), device(seal.DevicePrefix+"b", 2, unsigned), device(seal.DevicePrefix+"a", 1, signed)})
	if len(layers) != 2 || layers[0].GetName() != seal.DevicePrefix+"a" || layers[0].GetOpenCount() != 1 || layers[0].GetRootHash() != "1111" {
		t.Fatalf("%v", layers)
	}
	if !layers[0].GetSignatureVerified() || layers[1].GetSignatureVerified() {
		t.Errorf("%v", layers)
	}
}

func TestParseKeys(t *testing.T) {
	keys := parseKeys("21cfe372 I------     1 perm 1f0b0000     0     0 keyring   .platform: 1\n" +
		"053971d2 I--Q---     2 perm 1f3f0000     0 65534 asymmetri Example CA: db key: 6ccece7e4c: X509.rsa 9ea1 []\nnonsense\n")
	if len(keys) != 2 || keys[0].description != ".platform" || keys[0].serial != 0x21cfe372 || keys[1].description != "Example CA: db key: 6ccece7e4c" {
		t.Errorf("%+v", keys)
	}
}
