package integrity

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
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
	write(t, root, "sys/firmware/efi/efivars/SecureBoot-"+efiGlobal, "\x06\x00\x00\x00\x01")
	write(t, root, "sys/firmware/efi/efivars/SetupMode-"+efiGlobal, "\x06\x00\x00\x00\x00")
	write(t, root, "sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
	write(t, root, "sys/kernel/security/lsm", "lockdown,capability,yama,selinux,bpf,ipe")
	write(t, root, "sys/kernel/security/ipe/enforce", "0")
	write(t, root, "sys/kernel/security/ipe/policies/old/active", "0")
	write(t, root, "sys/kernel/security/ipe/policies/palisade/active", "1")
	write(t, root, "sys/kernel/security/ipe/policies/palisade/name", "palisade")
	write(t, root, "sys/kernel/security/ipe/policies/palisade/version", "1.0.0")
	write(t, root, "sys/fs/selinux/enforce", "0")
	write(t, root, "sys/fs/selinux/policyvers", "33")
	write(t, root, "sys/fs/selinux/class/file/index", "1")
	write(t, root, "etc/selinux/config", "# comment\nSELINUX=permissive\nSELINUXTYPE=default\n")
	write(t, root, "sys/module/dm_verity/parameters/require_signatures", "Y\n")
	write(t, root, "sys/class/tpm/tpm0/pcr-sha256/7", "ABCDEF\n")
	write(t, root, "proc/cmdline", "quiet ipe.enforce=0\n")

	facts := Reader{Root: root}.Read()
	if !facts.GetSecureBoot() || facts.GetSetupMode() || facts.GetLockdown() != "integrity" || facts.GetKernelCommandLine() != "quiet ipe.enforce=0" {
		t.Errorf("%v", facts)
	}
	if !slices.Equal(facts.GetLsms(), []string{"lockdown", "capability", "yama", "selinux", "bpf", "ipe"}) {
		t.Errorf("%v", facts.GetLsms())
	}
	if ipe := facts.GetIpe(); ipe.GetActivePolicy() != "palisade" || ipe.GetPolicyVersion() != "1.0.0" || ipe.GetEnforcing() {
		t.Errorf("%v", ipe)
	}
	if selinux := facts.GetSelinux(); !selinux.GetEnabled() || selinux.GetEnforcing() || selinux.GetPolicy() != "default" {
		t.Errorf("%v", selinux)
	}
	if facts.GetPcrs()[7] != "abcdef" || !facts.GetRoot().GetSignaturesRequired() {
		t.Errorf("%v", facts)
	}
}

func TestNothingIsClaimedWithoutFacts(t *testing.T) {
	facts := Reader{Root: t.TempDir()}.Read()
	if facts.GetSecureBoot() || facts.GetLockdown() != "" || facts.GetSelinux().GetEnabled() || facts.GetIpe().GetEnforcing() || facts.GetRoot().GetSignatureVerified() || len(facts.GetPcrs()) != 0 {
		t.Errorf("%v", facts)
	}
}

const verityParameters = "1 254:1 254:1 4096 4096 35000 35001 sha256 1111 2222"

func TestVerity(t *testing.T) {
	for parameters, signed := range map[string]bool{
		verityParameters: false,
		verityParameters + " 1 restart_on_corruption":                                         false,
		verityParameters + " 2 root_hash_sig_key_desc cryptsetup:root":                        true,
		verityParameters + " 3 panic_on_corruption root_hash_sig_key_desc cryptsetup:0f-root": true,
		"1 254:1 root_hash_sig_key_desc":                                                      false,
	} {
		hash, got := parseVerityTable(parameters)
		if got != signed || signed && hash != "1111" {
			t.Errorf("%q: %q, %v", parameters, hash, got)
		}
	}
	points := mountPoints("22 1 254:3 / / ro,relatime - erofs /dev/mapper/root ro\n23 22 0:5 / /dev rw - devtmpfs dev rw\n")
	targets := []verityTarget{{name: "other", device: "254:0"}, {name: "root", device: "254:3"}}
	if found, at := systemDevice(targets, points); found == nil || found.name != "root" || at != "/" {
		t.Errorf("%v at %q", found, at)
	}
	if found, _ := systemDevice(targets[:1], points); found != nil {
		t.Errorf("%v", found)
	}
}

func TestDeviceMapperAnswers(t *testing.T) {
	native := binary.NativeEndian
	list := make([]byte, 512)
	native.PutUint32(list[16:], dmHeaderSize)
	entry := list[dmHeaderSize:]
	native.PutUint64(entry, 254<<8)
	native.PutUint32(entry[8:], 24)
	copy(entry[12:], "state\x00")
	native.PutUint64(entry[24:], 254<<8|3)
	copy(entry[36:], "root\x00")
	devices := parseNameList(list)
	if len(devices) != 2 || devices[0].name != "state" || devices[1].name != "root" || devices[1].device != "254:3" {
		t.Fatalf("%+v", devices)
	}
	if empty := parseNameList(append(make([]byte, dmHeaderSize+8), 0)); len(empty) != 0 {
		t.Errorf("%+v", empty)
	}

	table := make([]byte, 1024)
	native.PutUint32(table[16:], dmHeaderSize)
	native.PutUint32(table[20:], 1)
	spec := table[dmHeaderSize:]
	native.PutUint64(spec[8:], 280000)
	copy(spec[24:], "verity\x00")
	copy(spec[40:], verityParameters+"\x00")
	target, found := parseTable(table, devices[1])
	if !found || target.table != "0 280000 verity "+verityParameters {
		t.Errorf("%+v", target)
	}
	copy(spec[24:], "crypt\x00\x00")
	if _, found := parseTable(table, devices[1]); found {
		t.Error("crypt is not verity")
	}
}

func TestParseKeys(t *testing.T) {
	keys := parseKeys("21cfe372 I------     1 perm 1f0b0000     0     0 keyring   .platform: 1\n" +
		"053971d2 I--Q---     2 perm 1f3f0000     0 65534 asymmetri Example CA: db key: 6ccece7e4c: X509.rsa 9ea1 []\nnonsense\n")
	if len(keys) != 2 || keys[0].description != ".platform" || keys[0].serial != 0x21cfe372 || keys[1].description != "Example CA: db key: 6ccece7e4c" {
		t.Errorf("%+v", keys)
	}
}
