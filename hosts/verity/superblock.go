// Package verity opens dm-verity devices with a signed root hash. It reads the header that cryptsetup writes, builds
// the table for the device mapper, and passes the signature to the kernel.
package verity

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	// SuperblockSize is the size of the header in bytes. The tree begins in the next hash block.
	SuperblockSize = 512
	sectorSize     = 512
)

// Superblock is the on-disk header of a verity hash device (cryptsetup, "DMVerity" format 1).
type Superblock struct {
	HashType                     uint32
	UUID                         []byte
	Algorithm                    string
	DataBlockSize, HashBlockSize uint32
	DataBlocks                   uint64
	Salt                         []byte
}

// ReadSuperblock reads the header at an offset in bytes.
func ReadSuperblock(device io.ReaderAt, offset int64) (Superblock, error) {
	content := make([]byte, SuperblockSize)
	if _, err := device.ReadAt(content, offset); err != nil {
		return Superblock{}, fmt.Errorf("read the verity header: %w", err)
	}
	return parseSuperblock(content)
}

func parseSuperblock(b []byte) (Superblock, error) {
	if len(b) < SuperblockSize || string(b[:8]) != "verity\x00\x00" {
		return Superblock{}, errors.New("no verity header")
	}
	if version := binary.LittleEndian.Uint32(b[8:12]); version != 1 {
		return Superblock{}, fmt.Errorf("verity header of version %d, expected 1", version)
	}
	algorithm, _, _ := bytes.Cut(b[32:64], []byte{0})
	s := Superblock{
		HashType:      binary.LittleEndian.Uint32(b[12:16]),
		UUID:          slices.Clone(b[16:32]),
		Algorithm:     string(algorithm),
		DataBlockSize: binary.LittleEndian.Uint32(b[64:68]),
		HashBlockSize: binary.LittleEndian.Uint32(b[68:72]),
		DataBlocks:    binary.LittleEndian.Uint64(b[72:80]),
	}
	saltSize := binary.LittleEndian.Uint16(b[80:82])
	switch {
	case s.HashType > 1:
		return Superblock{}, fmt.Errorf("verity hash type %d is unknown", s.HashType)
	case s.Algorithm != "sha256":
		return Superblock{}, fmt.Errorf("verity hash algorithm is %q, expected sha256", s.Algorithm)
	case !blockSize(s.DataBlockSize) || !blockSize(s.HashBlockSize):
		return Superblock{}, fmt.Errorf("verity block sizes %d and %d are not powers of two from 512 to 65536",
			s.DataBlockSize, s.HashBlockSize)
	case s.DataBlocks == 0 || s.DataBlocks > 1<<40:
		return Superblock{}, fmt.Errorf("verity device of %d blocks", s.DataBlocks)
	case saltSize > 256:
		return Superblock{}, fmt.Errorf("verity salt of %d bytes", saltSize)
	}
	s.Salt = slices.Clone(b[88 : 88+int(saltSize)])
	return s, nil
}

func blockSize(n uint32) bool {
	return n >= 512 && n <= 65536 && n&(n-1) == 0
}

// DataSize returns the size of the verified device, in bytes.
func (s Superblock) DataSize() uint64 {
	return s.DataBlocks * uint64(s.DataBlockSize)
}

// Sectors returns the size of the verified device, in sectors of 512 bytes.
func (s Superblock) Sectors() uint64 {
	return s.DataSize() / sectorSize
}

// DeviceUUID returns the UUID that systemd and cryptsetup give to such a device.
func (s Superblock) DeviceUUID(name string) string {
	return "CRYPT-VERITY-" + hex.EncodeToString(s.UUID) + "-" + name
}

// Table returns the device's parameters for the device mapper (Documentation/admin-guide/device-mapper/verity.rst). The
// header is at offset bytes of the hash device. options precede the description of the key with the signature.
func (s Superblock) Table(data, hash string, offset int64, rootHash, key string, options ...string) string {
	options = append(options, "root_hash_sig_key_desc", key)
	return fmt.Sprintf("%s %d %s", s.UnsignedTable(data, hash, offset, rootHash), len(options), strings.Join(options, " "))
}

// UnsignedTable returns the parameters of a device with an unsigned root hash. Hosts refuse it.
func (s Superblock) UnsignedTable(data, hash string, offset int64, rootHash string) string {
	salt := "-"
	if len(s.Salt) > 0 {
		salt = hex.EncodeToString(s.Salt)
	}
	// The tree begins in the first block after the header.
	start := (offset + SuperblockSize + int64(s.HashBlockSize) - 1) / int64(s.HashBlockSize)
	return fmt.Sprintf("%d %s %s %d %d %d %d %s %s %s", s.HashType, data, hash, s.DataBlockSize, s.HashBlockSize,
		s.DataBlocks, start, s.Algorithm, rootHash, salt)
}

// Corrupted reports from a device's status whether the kernel has read a block that does not match the root hash.
func Corrupted(status string) bool {
	return strings.HasPrefix(status, "C")
}

// Signed returns the root hash in a device's parameters, and whether the kernel checked its signature when it loaded
// the table.
func Signed(parameters string) (rootHash string, signed bool) {
	fields := strings.Fields(parameters)
	if len(fields) < 10 {
		return "", false
	}
	return fields[8], slices.Contains(fields[10:], "root_hash_sig_key_desc")
}
