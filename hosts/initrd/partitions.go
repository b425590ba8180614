package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// rootSignatureType is the type of the partition with the signature of the root hash on x86-64 (UAPI Group,
// Discoverable Partitions Specification).
const rootSignatureType = "41092b05-9fc8-4523-994f-2def0408b176"

// gptEntry is one used entry of a GUID partition table.
type gptEntry struct {
	// index counts from 1, as the kernel does.
	index            int
	typeID, uniqueID string
}

// partition is a partition in the kernel.
type partition struct {
	path string
	// number is major:minor.
	number string
}

type rootPartitions struct {
	data, hash, signature partition
}

// guid formats the 16 bytes of a GUID as stored in a partition table: the first three fields are little-endian.
func guid(b []byte) string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(b[0:4]), binary.LittleEndian.Uint16(b[4:6]),
		binary.LittleEndian.Uint16(b[6:8]), b[8:10], b[10:16])
}

// verityPartitionIDs returns the unique ids of the data and hash partitions that belong to a root hash: its first and
// its last 128 bits.
func verityPartitionIDs(hash string) (data, hashes string) {
	format := func(s string) string {
		return s[0:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:32]
	}
	return format(hash[:32]), format(hash[len(hash)-32:])
}

// readPartitionTable reads the primary GUID partition table of a disk with sectors of the given size.
func readPartitionTable(disk io.ReaderAt, sector int64) ([]gptEntry, error) {
	header := make([]byte, 92)
	if _, err := disk.ReadAt(header, sector); err != nil {
		return nil, fmt.Errorf("read the partition table: %w", err)
	}
	if string(header[:8]) != "EFI PART" {
		return nil, errors.New("no GUID partition table")
	}
	start := int64(binary.LittleEndian.Uint64(header[72:80]))
	count := int(binary.LittleEndian.Uint32(header[80:84]))
	size := int(binary.LittleEndian.Uint32(header[84:88]))
	if size < 128 || size > 4096 || count > 1024 || start <= 0 {
		return nil, fmt.Errorf("implausible partition table: %d entries of %d bytes at sector %d", count, size, start)
	}
	table := make([]byte, count*size)
	if _, err := disk.ReadAt(table, start*sector); err != nil {
		return nil, fmt.Errorf("read the partition table: %w", err)
	}
	var entries []gptEntry
	for i := range count {
		entry := table[i*size : (i+1)*size]
		if typeID := guid(entry[0:16]); typeID != "00000000-0000-0000-0000-000000000000" {
			entries = append(entries, gptEntry{index: i + 1, typeID: typeID, uniqueID: guid(entry[16:32])})
		}
	}
	return entries, nil
}

// rootEntries returns the entries of a partition table that form the root file system of a root hash. ok is false when
// the disk has another one.
func rootEntries(entries []gptEntry, hash string) (data, hashes, signature int, ok bool) {
	dataID, hashID := verityPartitionIDs(hash)
	for _, entry := range entries {
		switch {
		case entry.uniqueID == dataID:
			data = entry.index
		case entry.uniqueID == hashID:
			hashes = entry.index
		case entry.typeID == rootSignatureType:
			signature = entry.index
		}
	}
	return data, hashes, signature, data > 0 && hashes > 0 && signature > 0
}

// waitForRoot waits for the disk that has the root file system, and returns its partitions.
func waitForRoot(hash string, timeout time.Duration) (rootPartitions, error) {
	deadline := time.Now().Add(timeout)
	for {
		parts, err := findRoot(hash)
		if err == nil || time.Now().After(deadline) {
			return parts, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func findRoot(hash string) (rootPartitions, error) {
	disks, err := os.ReadDir("/sys/block")
	if err != nil {
		return rootPartitions{}, err
	}
	var seen []string
	for _, disk := range disks {
		name := disk.Name()
		seen = append(seen, name)
		entries, err := diskEntries(name)
		if err != nil {
			continue
		}
		data, hashes, signature, ok := rootEntries(entries, hash)
		if !ok {
			continue
		}
		var parts rootPartitions
		for _, p := range []struct {
			index int
			into  *partition
		}{{data, &parts.data}, {hashes, &parts.hash}, {signature, &parts.signature}} {
			if *p.into, err = kernelPartition(name, p.index); err != nil {
				return rootPartitions{}, err
			}
		}
		return parts, nil
	}
	return rootPartitions{}, fmt.Errorf("no disk carries the root file system of roothash=%s (disks: %s)", hash,
		strings.Join(seen, ", "))
}

func diskEntries(name string) ([]gptEntry, error) {
	sector, err := readNumber(filepath.Join("/sys/block", name, "queue/logical_block_size"))
	if err != nil {
		return nil, err
	}
	disk, err := os.Open(filepath.Join("/dev", name))
	if err != nil {
		return nil, err
	}
	defer disk.Close()
	return readPartitionTable(disk, sector)
}

// kernelPartition returns the kernel's device for an entry of a disk's table.
func kernelPartition(disk string, index int) (partition, error) {
	folder := filepath.Join("/sys/block", disk)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return partition{}, err
	}
	for _, entry := range entries {
		number, err := readNumber(filepath.Join(folder, entry.Name(), "partition"))
		if err != nil || number != int64(index) {
			continue
		}
		device, err := os.ReadFile(filepath.Join(folder, entry.Name(), "dev"))
		if err != nil {
			return partition{}, err
		}
		path := filepath.Join("/dev", entry.Name())
		if _, err := os.Stat(path); err != nil {
			return partition{}, err
		}
		return partition{path: path, number: strings.TrimSpace(string(device))}, nil
	}
	return partition{}, fmt.Errorf("the kernel does not know partition %d of %s", index, disk)
}

func readNumber(path string) (int64, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
}
