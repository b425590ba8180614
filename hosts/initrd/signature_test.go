package main

import (
	"encoding/base64"
	"fmt"
	"testing"
)

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
