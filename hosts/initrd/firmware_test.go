package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const (
	x509Bytes   = "\xa1\x59\xc0\xa5\xe4\x94\xa7\x4a\x87\xb5\xab\x15\x5c\x2b\xf0\x72"
	sha256Bytes = "\x26\x16\xc4\xc1\x4c\x50\x92\x40\xac\xa9\x41\xf9\x36\x93\x43\x28"
	owner       = "an owner's GUID."
)

// signatureList makes an EFI_SIGNATURE_LIST of entries of the same size.
func signatureList(kind, extra string, entries ...string) string {
	content := []byte(kind)
	size := 0
	for _, entry := range entries {
		size = len(owner) + len(entry)
	}
	content = binary.LittleEndian.AppendUint32(content, uint32(28+len(extra)+size*len(entries)))
	content = binary.LittleEndian.AppendUint32(content, uint32(len(extra)))
	content = binary.LittleEndian.AppendUint32(content, uint32(size))
	content = append(content, extra...)
	for _, entry := range entries {
		content = append(content, owner+entry...)
	}
	return string(content)
}

func fingerprint(certificate string) string {
	sum := sha256.Sum256([]byte(certificate))
	return hex.EncodeToString(sum[:])
}

func TestListedCertificates(t *testing.T) {
	one, two := signatureList(x509Bytes, "", "certificate 1"), signatureList(x509Bytes, "", "certificate two")
	for name, test := range map[string]struct {
		content string
		want    []string
	}{
		"nothing":              {"", nil},
		"one":                  {one, []string{fingerprint("certificate 1")}},
		"two lists":            {one + two, []string{fingerprint("certificate 1"), fingerprint("certificate two")}},
		"two in a list":        {signatureList(x509Bytes, "", "aaaa", "bbbb"), []string{fingerprint("aaaa"), fingerprint("bbbb")}},
		"the same twice":       {one + one, []string{fingerprint("certificate 1")}},
		"a header of the list": {signatureList(x509Bytes, "header", "aaaa"), []string{fingerprint("aaaa")}},
	} {
		if got, err := listedCertificates([]byte(test.content)); err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %v, %v; want %v", name, got, err, test.want)
		}
	}
}

func TestDamagedSignatureLists(t *testing.T) {
	list := signatureList(x509Bytes, "", "aaaa", "bbbb")
	with := func(at int, value uint32) string {
		changed := []byte(list)
		binary.LittleEndian.PutUint32(changed[at:], value)
		return string(changed)
	}
	for name, content := range map[string]string{
		"hash of a program":            signatureList(sha256Bytes, "", strings.Repeat("h", 32)),
		"hash behind a certificate":    list + signatureList(sha256Bytes, "", strings.Repeat("h", 32)),
		"shorter than its header":      list[:27],
		"cut":                          list[:len(list)-1],
		"rest behind the last list":    list + "x",
		"size of nothing":              with(16, 0),
		"size of the header":           with(16, 28),
		"size beyond the end":          with(16, uint32(len(list)+1)),
		"size beyond 32 bits":          with(16, 0xffffffff),
		"header beyond the list":       with(20, uint32(len(list))),
		"header that overflows":        with(20, 0xffffffff),
		"entries of nothing":           with(24, 0),
		"entries of an owner only":     with(24, 16),
		"entries larger than the list": with(24, 4096),
		"entries that do not fit":      with(24, 21),
	} {
		if got, err := listedCertificates([]byte(content)); err == nil {
			t.Errorf("%s: accepted as %v", name, got)
		}
	}
}

func FuzzListedCertificates(f *testing.F) {
	f.Add([]byte(signatureList(x509Bytes, "", "aaaa", "bbbb")))
	f.Add([]byte(signatureList(sha256Bytes, "extra", strings.Repeat("h", 32))))
	f.Fuzz(func(t *testing.T, content []byte) {
		found, err := listedCertificates(content)
		if err == nil && len(content) > 0 && len(found) == 0 {
			t.Errorf("%x: no certificate and no error", content)
		}
	})
}

func TestParseFirmwareCertificates(t *testing.T) {
	a, b := fingerprint("a"), fingerprint("b")
	whole := "PK " + a + "\nKEK " + a + "\ndb " + a + "\ndb " + b + "\ndb " + b + "\n"
	want := map[string][]string{"PK": {a}, "KEK": {a}, "db": {a, b}}
	if got, err := parseFirmwareCertificates(whole); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for name, content := range map[string]string{
		"nothing":         "",
		"no db":           "PK " + a + "\nKEK " + a + "\n",
		"another":         whole + "dbx " + a + "\n",
		"no fingerprint":  whole + "db\n",
		"short":           whole + "db abcd\n",
		"upper case":      whole + "db " + strings.ToUpper(a) + "\n",
		"empty line":      whole + "\n",
		"not hexadecimal": whole + "db " + strings.Repeat("x", 64) + "\n",
	} {
		if got, err := parseFirmwareCertificates(content); err == nil {
			t.Errorf("%s: accepted as %v", name, got)
		}
	}
}

const attributes = "\x07\x00\x00\x00"

// firmware makes a folder like /sys/firmware/efi, in the state that the expected certificates describe.
func firmware(t *testing.T) (folder string, expected map[string][]string) {
	t.Helper()
	folder = t.TempDir()
	for name, value := range map[string]string{
		"efivars/SecureBoot-" + efiGlobal: "\x01",
		"efivars/SetupMode-" + efiGlobal:  "\x00",
		"efivars/BootOrder-" + efiGlobal:  "\x00\x00",
		"efivars/PK-" + efiGlobal:         signatureList(x509Bytes, "", "platform"),
		"efivars/KEK-" + efiGlobal:        signatureList(x509Bytes, "", "exchange"),
		"efivars/db-" + efiDatabase:       signatureList(x509Bytes, "", "boot images") + signatureList(x509Bytes, "", "layers"),
		"efivars/dbx-" + efiDatabase:      signatureList(sha256Bytes, "", strings.Repeat("h", 32)),
	} {
		setVariable(t, folder, name, value)
	}
	return folder, map[string][]string{
		"PK": {fingerprint("platform")}, "KEK": {fingerprint("exchange")}, "db": {fingerprint("layers"), fingerprint("boot images")},
	}
}

func setVariable(t *testing.T, folder, name, value string) {
	t.Helper()
	file := filepath.Join(folder, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(attributes+value), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFirmwareAsExpected(t *testing.T) {
	folder, expected := firmware(t)
	if err := checkVariables(folder, expected); err != nil {
		t.Error(err)
	}
}

func TestFirmwareThatDiffers(t *testing.T) {
	planted := signatureList(x509Bytes, "", "planted")
	for name, test := range map[string]struct{ variable, value, want string }{
		"Secure Boot off":          {"efivars/SecureBoot-" + efiGlobal, "\x00", "SecureBoot is [0]"},
		"setup mode":               {"efivars/SetupMode-" + efiGlobal, "\x01", "SetupMode is [1]"},
		"two bytes":                {"efivars/SetupMode-" + efiGlobal, "\x00\x00", "SetupMode is [0 0]"},
		"MokListRT":                {"efivars/MokListRT-" + shimVendor, planted, "MokListRT"},
		"MokListTrustedRT":         {"efivars/MokListTrustedRT-" + shimVendor, "\x01", "MokListTrustedRT"},
		"MokListXRT":               {"efivars/MokListXRT-" + shimVendor, planted, "MokListXRT"},
		"MokIgnoreDB":              {"efivars/MokIgnoreDB-" + shimVendor, "\x01", "MokIgnoreDB"},
		"of shim, by another name": {"efivars/Other-" + strings.ToUpper(shimVendor), planted, "Other"},
		"of another vendor":        {"efivars/MokListRT-" + efiGlobal, planted, "MokListRT"},
		"table":                    {"mok-variables/MokListRT", planted, "table"},
		"db: planted":              {"efivars/db-" + efiDatabase, planted, fingerprint("planted")},
		"db: one lacks":            {"efivars/db-" + efiDatabase, signatureList(x509Bytes, "", "layers"), "lacks certificate " + fingerprint("boot images")},
		"db: damaged":              {"efivars/db-" + efiDatabase, planted[:30], "db"},
		"db: a hash":               {"efivars/db-" + efiDatabase, signatureList(sha256Bytes, "", strings.Repeat("h", 32)), "certificates only"},
		"KEK: another":             {"efivars/KEK-" + efiGlobal, planted, "KEK"},
		"PK: none":                 {"efivars/PK-" + efiGlobal, "", "lacks certificate " + fingerprint("platform")},
	} {
		t.Run(name, func(t *testing.T) {
			folder, expected := firmware(t)
			setVariable(t, folder, test.variable, test.value)
			if err := checkVariables(folder, expected); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
	for _, missing := range []string{"SecureBoot-" + efiGlobal, "SetupMode-" + efiGlobal, "PK-" + efiGlobal, "KEK-" + efiGlobal, "db-" + efiDatabase} {
		folder, expected := firmware(t)
		if err := os.Remove(filepath.Join(folder, "efivars", missing)); err != nil {
			t.Fatal(err)
		}
		if err := checkVariables(folder, expected); err == nil {
			t.Errorf("accepted without %s", missing)
		}
	}
}

func TestVariableWithoutAttributes(t *testing.T) {
	folder, expected := firmware(t)
	if err := os.WriteFile(filepath.Join(folder, "efivars/db-"+efiDatabase), bytes.Repeat([]byte{0}, 3), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := checkVariables(folder, expected); err == nil {
		t.Error("accepted")
	}
}

func TestKeyrings(t *testing.T) {
	const (
		platform    = "21cfe372 I------     1 perm 1f0b0000     0     0 keyring   .platform: 4\n"
		certificate = "053971d2 I--Q---     2 perm 1f3f0000     0 65534 asymmetri .machine: 1 key: 6ccece7e4c: X509.rsa 9ea1 []\n"
	)
	machine := func(size string) string {
		return "21cfe373 I------     1 perm 1f0b0000     0     0 keyring   .machine: " + size + "\n"
	}
	for _, keys := range []string{"", platform, platform + machine("empty") + certificate} {
		if err := checkKeyrings(keys, 4); err != nil {
			t.Errorf("%q: %v", keys, err)
		}
	}
	for name, keys := range map[string]string{"planted": machine("1"), "more than expected": strings.Replace(platform, ": 4", ": 5", 1)} {
		if err := checkKeyrings(keys, 4); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
