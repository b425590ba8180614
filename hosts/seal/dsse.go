package seal

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// maximumEnvelope bounds an envelope in bytes. An envelope of a hundred layers has about 50 KiB.
const maximumEnvelope = 1 << 20

// ErrUnknownKey is the error of an envelope that no trusted key has signed.
var ErrUnknownKey = errors.New("no signature of the envelope is by a trusted key")

// envelope is a DSSE envelope (https://github.com/secure-systems-lab/dsse/blob/master/envelope.md).
// provider/local/sealing/dsse.ts does the same, and the tests of both read hosts/api/testdata/seal-envelopes.json.
type envelope struct {
	PayloadType *string           `json:"payloadType"`
	Payload     *string           `json:"payload"`
	Signatures  []json.RawMessage `json:"signatures"`
}

type envelopeSignature struct {
	KeyID     string
	Signature *string
}

// Keys are public keys by their id: SHA-256 of the SubjectPublicKeyInfo, hex.
type Keys map[string]crypto.PublicKey

// LoadKeys reads the keys of all *.pem files of a folder: certificates or public keys.
func LoadKeys(folder string) (Keys, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.pem"))
	if err != nil {
		return nil, err
	}
	keys := Keys{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := keys.addPEM(content); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return keys, nil
}

// ParseKeys reads PEM blocks: certificates or public keys (SubjectPublicKeyInfo).
func ParseKeys(content []byte) (Keys, error) {
	keys := Keys{}
	return keys, keys.addPEM(content)
}

func (k Keys) addPEM(content []byte) error {
	found := false
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		var key crypto.PublicKey
		switch block.Type {
		case "CERTIFICATE":
			certificate, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return err
			}
			key = certificate.PublicKey
		case "PUBLIC KEY":
			parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
			if err != nil {
				return err
			}
			key = parsed
		default:
			return fmt.Errorf("a PEM block of type %q is neither a certificate nor a public key", block.Type)
		}
		id, err := KeyID(key)
		if err != nil {
			return err
		}
		k[id] = key
		found = true
	}
	if !found {
		return errors.New("no PEM block")
	}
	return nil
}

// KeyID returns the id of a public key: SHA-256 of its SubjectPublicKeyInfo (DER), hex.
func KeyID(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// open returns the payload of an envelope with a payload type that one of the keys has signed, and the id of that key.
func (k Keys) open(content []byte, payloadType string) (payload []byte, keyID string, err error) {
	if len(content) > maximumEnvelope {
		return nil, "", fmt.Errorf("the envelope has %d bytes, more than %d", len(content), maximumEnvelope)
	}
	var e envelope
	if err := Decode(content, &e); err != nil {
		return nil, "", fmt.Errorf("no DSSE envelope: %w", err)
	}
	signatures := e.readable()
	if e.PayloadType == nil || e.Payload == nil || e.Signatures == nil || len(e.Signatures) > 0 && len(signatures) == 0 {
		return nil, "", errors.New("no DSSE envelope: it has no payloadType, payload or signatures")
	}
	if *e.PayloadType != payloadType {
		return nil, "", fmt.Errorf("the envelope carries %q, expected %q", *e.PayloadType, payloadType)
	}
	if payload, err = DecodeBase64(*e.Payload); err != nil {
		return nil, "", fmt.Errorf("the envelope's payload: %w", err)
	}
	digest := sha256.Sum256(PreAuthenticationEncoding(payloadType, payload))
	for _, signature := range signatures {
		raw, err := DecodeBase64(*signature.Signature)
		if err != nil {
			continue
		}
		// The id is only a hint and is not signed. The signature decides.
		if key, known := k[signature.KeyID]; known && Verify(key, digest, raw) {
			return payload, signature.KeyID, nil
		}
		for id, key := range k {
			if Verify(key, digest, raw) {
				return payload, id, nil
			}
		}
	}
	return nil, "", ErrUnknownKey
}

// readable returns the entries that are signatures. Other entries do not hide them.
func (e envelope) readable() []envelopeSignature {
	var result []envelopeSignature
	for _, raw := range e.Signatures {
		var signature struct {
			KeyID     any     `json:"keyid"`
			Signature *string `json:"sig"`
		}
		if Decode(raw, &signature) == nil && signature.Signature != nil {
			id, _ := signature.KeyID.(string)
			result = append(result, envelopeSignature{KeyID: id, Signature: signature.Signature})
		}
	}
	return result
}

// Verify reports whether a key has made the signature over a SHA-256 digest: ECDSA (ASN.1) or RSA (PKCS #1 v1.5).
func Verify(key crypto.PublicKey, digest [sha256.Size]byte, signature []byte) bool {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, digest[:], signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature) == nil
	}
	return false
}

// PreAuthenticationEncoding returns the bytes that a DSSE signature covers (protocol.md of DSSE).
func PreAuthenticationEncoding(payloadType string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}
