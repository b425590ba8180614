package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

const (
	superblockSize = 512
	// A signature partition is small; more is not read.
	signatureLimit = 1 << 20
	// Description of the key that hands the signature to the kernel.
	signatureKey = "palisade:root"
	sectorSize   = 512
)

// superblock is the on-disk header of a verity hash device (cryptsetup, "DMVerity" format 1).
type superblock struct {
	hashType                     uint32
	uuid                         []byte
	algorithm                    string
	dataBlockSize, hashBlockSize uint32
	dataBlocks                   uint64
	salt                         []byte
}

func readSuperblock(path string) (superblock, error) {
	f, err := os.Open(path)
	if err != nil {
		return superblock{}, err
	}
	defer f.Close()
	content := make([]byte, superblockSize)
	if _, err := io.ReadFull(f, content); err != nil {
		return superblock{}, fmt.Errorf("read the verity header of %s: %w", path, err)
	}
	return parseSuperblock(content)
}

func parseSuperblock(b []byte) (superblock, error) {
	if len(b) < superblockSize || string(b[:8]) != "verity\x00\x00" {
		return superblock{}, errors.New("no verity header")
	}
	if version := binary.LittleEndian.Uint32(b[8:12]); version != 1 {
		return superblock{}, fmt.Errorf("verity header of version %d, expected 1", version)
	}
	algorithm, _, _ := bytes.Cut(b[32:64], []byte{0})
	s := superblock{
		hashType:      binary.LittleEndian.Uint32(b[12:16]),
		uuid:          b[16:32],
		algorithm:     string(algorithm),
		dataBlockSize: binary.LittleEndian.Uint32(b[64:68]),
		hashBlockSize: binary.LittleEndian.Uint32(b[68:72]),
		dataBlocks:    binary.LittleEndian.Uint64(b[72:80]),
	}
	saltSize := binary.LittleEndian.Uint16(b[80:82])
	switch {
	case s.hashType > 1:
		return superblock{}, fmt.Errorf("verity hash type %d is unknown", s.hashType)
	case s.algorithm != "sha256":
		return superblock{}, fmt.Errorf("verity hash algorithm is %q, expected sha256", s.algorithm)
	case !blockSize(s.dataBlockSize) || !blockSize(s.hashBlockSize):
		return superblock{}, fmt.Errorf("verity block sizes %d and %d are not powers of two from 512 to 65536",
			s.dataBlockSize, s.hashBlockSize)
	case s.dataBlocks == 0 || s.dataBlocks > 1<<40:
		return superblock{}, fmt.Errorf("verity device of %d blocks", s.dataBlocks)
	case saltSize > 256:
		return superblock{}, fmt.Errorf("verity salt of %d bytes", saltSize)
	}
	s.salt = b[88 : 88+int(saltSize)]
	return s, nil
}

func blockSize(n uint32) bool {
	return n >= 512 && n <= 65536 && n&(n-1) == 0
}

// sectors is the size of the verified device.
func (s superblock) sectors() uint64 {
	return s.dataBlocks * uint64(s.dataBlockSize) / sectorSize
}

// deviceUUID is the name that systemd and cryptsetup give to such a device.
func (s superblock) deviceUUID(name string) string {
	return "CRYPT-VERITY-" + hex.EncodeToString(s.uuid) + "-" + name
}

// table is the device's line for the device mapper (Documentation/admin-guide/device-mapper/verity.rst). A corrupted
// block stops the machine: the attacker who can change blocks should not get to choose which reads fail.
func (s superblock) table(data, hash, rootHash, key string) string {
	salt := "-"
	if len(s.salt) > 0 {
		salt = hex.EncodeToString(s.salt)
	}
	// The tree begins in the first block after the header.
	start := (superblockSize + int(s.hashBlockSize) - 1) / int(s.hashBlockSize)
	return strings.Join([]string{
		fmt.Sprint(s.hashType), data, hash, fmt.Sprint(s.dataBlockSize), fmt.Sprint(s.hashBlockSize),
		fmt.Sprint(s.dataBlocks), fmt.Sprint(start), s.algorithm, rootHash, salt,
		"3", "panic_on_corruption", "root_hash_sig_key_desc", key,
	}, " ")
}

func readSignature(path, rootHash string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, signatureLimit))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return parseSignature(content, rootHash)
}

// parseSignature reads the JSON object that systemd-repart writes into the signature partition, padded with zeros, and
// returns the PKCS#7 signature in it. Nothing in it is trusted: the kernel checks the signature.
func parseSignature(content []byte, rootHash string) ([]byte, error) {
	object, _, _ := bytes.Cut(content, []byte{0})
	var parsed struct {
		RootHash  string `json:"rootHash"`
		Signature string `json:"signature"`
	}
	if err := json.Unmarshal(object, &parsed); err != nil {
		return nil, fmt.Errorf("the signature partition holds no signature: %w", err)
	}
	if parsed.RootHash != rootHash {
		return nil, fmt.Errorf("the signature is for root hash %q, expected %s", parsed.RootHash, rootHash)
	}
	signature, err := base64.StdEncoding.DecodeString(parsed.Signature)
	if err != nil || len(signature) == 0 {
		return nil, errors.New("the signature of the root hash is empty or no base64")
	}
	return signature, nil
}
