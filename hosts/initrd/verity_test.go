package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"testing"
)

func header(change func([]byte)) []byte {
	b := make([]byte, superblockSize)
	copy(b, "verity\x00\x00")
	binary.LittleEndian.PutUint32(b[8:], 1)
	binary.LittleEndian.PutUint32(b[12:], 1)
	copy(b[16:32], bytes.Repeat([]byte{0xab}, 16))
	copy(b[32:], "sha256")
	binary.LittleEndian.PutUint32(b[64:], 4096)
	binary.LittleEndian.PutUint32(b[68:], 4096)
	binary.LittleEndian.PutUint64(b[72:], 28540)
	binary.LittleEndian.PutUint16(b[80:], 2)
	copy(b[88:], "\x5f\xab")
	if change != nil {
		change(b)
	}
	return b
}

func TestVerityTable(t *testing.T) {
	s, err := parseSuperblock(header(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := "1 254:2 254:3 4096 4096 28540 1 sha256 " + hash + " 5fab 3 panic_on_corruption root_hash_sig_key_desc palisade:root"
	if got := s.table("254:2", "254:3", hash, signatureKey); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := s.sectors(); got != 228320 {
		t.Errorf("%d sectors", got)
	}
	if got, want := s.deviceUUID("root"), "CRYPT-VERITY-abababababababababababababababab-root"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestVerityTableWithoutSalt(t *testing.T) {
	s, err := parseSuperblock(header(func(b []byte) { binary.LittleEndian.PutUint16(b[80:], 0) }))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.table("1:1", "1:2", "h", "k"), "1 1:1 1:2 4096 4096 28540 1 sha256 h - 3 panic_on_corruption root_hash_sig_key_desc k"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestBrokenSuperblocks(t *testing.T) {
	for name, content := range map[string][]byte{
		"short":             header(nil)[:100],
		"no magic":          make([]byte, superblockSize),
		"version":           header(func(b []byte) { b[8] = 2 }),
		"hash type":         header(func(b []byte) { b[12] = 7 }),
		"algorithm":         header(func(b []byte) { copy(b[32:], "sha1\x00\x00") }),
		"data block size":   header(func(b []byte) { binary.LittleEndian.PutUint32(b[64:], 4095) }),
		"hash block size":   header(func(b []byte) { binary.LittleEndian.PutUint32(b[68:], 0) }),
		"no blocks":         header(func(b []byte) { binary.LittleEndian.PutUint64(b[72:], 0) }),
		"implausible size":  header(func(b []byte) { binary.LittleEndian.PutUint64(b[72:], 1<<60) }),
		"salt out of range": header(func(b []byte) { binary.LittleEndian.PutUint16(b[80:], 257) }),
	} {
		if _, err := parseSuperblock(content); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestParseSignature(t *testing.T) {
	object := fmt.Sprintf(`{"rootHash":%q,"certificateFingerprint":"aa","signature":%q}`, hash,
		base64.StdEncoding.EncodeToString([]byte("pkcs7")))
	padded := append([]byte(object), make([]byte, 4096)...)
	if got, err := parseSignature(padded, hash); err != nil || string(got) != "pkcs7" {
		t.Errorf("got %q, %v", got, err)
	}
	for name, content := range map[string]string{
		"empty":           "",
		"no object":       "garbage",
		"other root hash": `{"rootHash":"00","signature":"AAAA"}`,
		"no signature":    fmt.Sprintf(`{"rootHash":%q}`, hash),
		"no base64":       fmt.Sprintf(`{"rootHash":%q,"signature":"***"}`, hash),
	} {
		if _, err := parseSignature([]byte(content), hash); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParseSuperblock(f *testing.F) {
	f.Add(header(nil))
	f.Fuzz(func(t *testing.T, content []byte) {
		if s, err := parseSuperblock(content); err == nil {
			_ = s.table("1:1", "1:2", hash, signatureKey)
		}
	})
}
