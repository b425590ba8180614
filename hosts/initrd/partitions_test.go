package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
)

func TestGUID(t *testing.T) {
	stored, _ := hex.DecodeString("28732ac11ff8d211ba4b00a0c93ec93b")
	if got := guid(stored); got != "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" {
		t.Errorf("got %s", got)
	}
}

func TestVerityPartitionIDs(t *testing.T) {
	data, hashes := verityPartitionIDs(hash)
	if data != "7d0c1be6-0c64-bf43-bff2-c99d6d9c2e5e" || hashes != "cf565a7d-4ef3-06eb-0362-748d0b675870" {
		t.Errorf("got %s and %s", data, hashes)
	}
}

// stored is the inverse of guid.
func stored(t *testing.T, id string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(id, "-", ""))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range [][2]int{{0, 4}, {4, 6}, {6, 8}} {
		for i, j := field[0], field[1]-1; i < j; i, j = i+1, j-1 {
			b[i], b[j] = b[j], b[i]
		}
	}
	return b
}

func disk(t *testing.T, sector int, entries ...gptEntry) []byte {
	t.Helper()
	b := make([]byte, 2*sector+128*128)
	header := b[sector:]
	copy(header, "EFI PART")
	binary.LittleEndian.PutUint64(header[72:], 2)
	binary.LittleEndian.PutUint32(header[80:], 128)
	binary.LittleEndian.PutUint32(header[84:], 128)
	for _, entry := range entries {
		slot := b[2*sector+(entry.index-1)*128:]
		copy(slot, stored(t, entry.typeID))
		copy(slot[16:], stored(t, entry.uniqueID))
	}
	return b
}

func TestRootOnPartitionTable(t *testing.T) {
	dataID, hashID := verityPartitionIDs(hash)
	const other = "11111111-2222-3333-4444-555555555555"
	complete := []gptEntry{
		{1, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", other},
		{2, "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", dataID},
		{3, "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5", hashID},
		{5, rootSignatureType, other},
	}
	for _, sector := range []int{512, 4096} {
		entries, err := readPartitionTable(bytes.NewReader(disk(t, sector, complete...)), int64(sector))
		if err != nil {
			t.Fatal(err)
		}
		data, hashes, signature, ok := rootEntries(entries, hash)
		if !ok || data != 2 || hashes != 3 || signature != 5 {
			t.Errorf("sector %d: got %d, %d, %d, %v", sector, data, hashes, signature, ok)
		}
	}
	entries, err := readPartitionTable(bytes.NewReader(disk(t, 512, complete[:3]...)), 512)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, ok := rootEntries(entries, hash); ok {
		t.Error("a disk without a signature partition was taken")
	}
}

func TestBrokenPartitionTables(t *testing.T) {
	good := disk(t, 512)
	huge := bytes.Clone(good)
	binary.LittleEndian.PutUint32(huge[512+80:], 1<<31)
	for name, content := range map[string][]byte{
		"empty": nil, "no signature": make([]byte, 4096), "too many entries": huge, "cut off": good[:1024],
	} {
		if _, err := readPartitionTable(bytes.NewReader(content), 512); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
