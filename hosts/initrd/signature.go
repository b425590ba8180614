package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// signatureLimit bounds what is read of the signature partition, in bytes.
const signatureLimit = 1 << 20

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

// parseSignature parses the JSON object that systemd-repart writes to the signature partition, padded with zeros, and
// returns its PKCS#7 signature. Nothing of it is trusted, because the kernel checks the signature.
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
