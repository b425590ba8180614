package verity

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func header(change func([]byte)) []byte {
	b := make([]byte, SuperblockSize)
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

func TestTable(t *testing.T) {
	s, err := parseSuperblock(header(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := "1 254:2 254:3 4096 4096 28540 1 sha256 h 5fab 3 panic_on_corruption root_hash_sig_key_desc palisade:root"
	if got := s.Table("254:2", "254:3", 0, "h", "palisade:root", "panic_on_corruption"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := s.Sectors(); got != 228320 {
		t.Errorf("%d sectors", got)
	}
	if got, want := s.DeviceUUID("root"), "CRYPT-VERITY-abababababababababababababababab-root"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTableOfOneDeviceWithoutSaltAndOptions(t *testing.T) {
	s, err := parseSuperblock(header(func(b []byte) { binary.LittleEndian.PutUint16(b[80:], 0) }))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Table("7:1", "7:1", 28540*4096, "h", "k"), "1 7:1 7:1 4096 4096 28540 28541 sha256 h - 2 root_hash_sig_key_desc k"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestBrokenSuperblocks(t *testing.T) {
	for name, content := range map[string][]byte{
		"short":             header(nil)[:100],
		"no magic":          make([]byte, SuperblockSize),
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

func FuzzParseSuperblock(f *testing.F) {
	f.Add(header(nil))
	f.Fuzz(func(t *testing.T, content []byte) {
		if s, err := parseSuperblock(content); err == nil {
			_ = s.Table("1:1", "1:2", 0, "h", "k")
		}
	})
}

func TestSigned(t *testing.T) {
	s, err := parseSuperblock(header(nil))
	if err != nil {
		t.Fatal(err)
	}
	table := s.Table("7:1", "7:1", 0, "h", "k")
	if hash, signed := Signed(table); hash != "h" || !signed {
		t.Errorf("got %q, %v", hash, signed)
	}
	unsigned := "1 7:1 7:1 4096 4096 28540 1 sha256 h -"
	if hash, signed := Signed(unsigned); hash != "h" || signed {
		t.Errorf("got %q, %v", hash, signed)
	}
	if hash, signed := Signed("1 7:1"); hash != "" || signed {
		t.Errorf("got %q, %v", hash, signed)
	}
}
