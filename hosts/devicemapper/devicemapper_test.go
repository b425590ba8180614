package devicemapper

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

func TestRequestWithTable(t *testing.T) {
	const table = "1 254:2 254:3"
	b, err := newRequest("root", "", flagReadOnly, &Target{228320, "verity", table})
	if err != nil {
		t.Fatal(err)
	}
	if len(b)%8 != 0 || len(b) < headerSize+targetSize+len(table)+1 {
		t.Errorf("request of %d bytes", len(b))
	}
	for _, field := range []struct {
		name   string
		offset int
		want   uint32
	}{
		{"version", 0, 4}, {"size", 12, uint32(len(b))}, {"start of data", 16, 312}, {"targets", 20, 1}, {"flags", 28, 1},
		{"next target", 312 + 20, uint32(len(b) - 312)},
	} {
		if got := binary.NativeEndian.Uint32(b[field.offset:]); got != field.want {
			t.Errorf("%s: got %d, want %d", field.name, got, field.want)
		}
	}
	if got := binary.NativeEndian.Uint64(b[312+8:]); got != 228320 {
		t.Errorf("length %d", got)
	}
	if !bytes.HasPrefix(b[48:], []byte("root\x00")) || !bytes.HasPrefix(b[312+24:], []byte("verity\x00")) ||
		!bytes.HasPrefix(b[312+40:], []byte(table+"\x00")) {
		t.Error("name, target type or parameters are not where the kernel looks for them")
	}
}

func TestRequestRefusesLongNames(t *testing.T) {
	if _, err := newRequest(strings.Repeat("n", 128), "", 0, nil); err == nil {
		t.Error("a name of 128 bytes was accepted")
	}
}
