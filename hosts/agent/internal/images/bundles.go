package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/palisade-host/palisade/hosts/seal"
)

// Signature bundles of cosign 3: https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto
const (
	bundleMediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	statementType   = "application/vnd.in-toto+json"
	// signPredicate is the predicate of a statement that only says that the image is signed. Other predicates, such as
	// an SBOM's, do not approve the image.
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
	// maximumBundle bounds a bundle in bytes. A bundle has an envelope, a certificate chain and log entries.
	maximumBundle = 1 << 20

	dsseForm    = "dsse"
	messageForm = "message"
)

// otherForms are signature formats that this role does not read. Their presence is reported.
var otherForms = map[string]string{
	"application/vnd.cncf.notary.signature":           "a signature of Notation",
	"application/vnd.dev.cosign.artifact.sig.v1+json": "a signature of cosign as an artifact (experimental, before cosign 3)",
}

type bundle struct {
	MediaType string `json:"mediaType"`
	Material  struct {
		Certificate json.RawMessage `json:"certificate"`
		Chain       json.RawMessage `json:"x509CertificateChain"`
	} `json:"verificationMaterial"`
	Envelope *struct {
		PayloadType string            `json:"payloadType"`
		Payload     string            `json:"payload"`
		Signatures  []json.RawMessage `json:"signatures"`
	} `json:"dsseEnvelope"`
	Message *struct {
		Digest struct {
			Algorithm string `json:"algorithm"`
			Digest    string `json:"digest"`
		} `json:"messageDigest"`
		Signature string `json:"signature"`
	} `json:"messageSignature"`
}

// bundles reads the cosign bundles that refer to an image. It also returns the names of the formats that it does not
// read.
func (f *fetch) bundles(ctx context.Context, client *client, subject string, failed func(error)) (result []signature, unread []string) {
	referrers, err := f.referrers(ctx, subject)
	if err != nil {
		failed(err)
		return nil, nil
	}
	for _, referrer := range referrers {
		kind := referrer.ArtifactType
		switch {
		case otherForms[kind] != "":
			unread = append(unread, otherForms[kind])
			continue
		case kind != bundleMediaType && strings.HasPrefix(kind, "application/vnd.dev.sigstore.bundle"):
			unread = append(unread, fmt.Sprintf("a sigstore bundle of type %q", kind))
			continue
		case kind != bundleMediaType || len(result) >= maximumSignatures:
			continue
		}
		content, err := f.bundleContent(ctx, client, referrer)
		if err != nil {
			failed(err)
			continue
		}
		signatures, form, err := readBundle(content)
		if err != nil {
			failed(f.reference.refuse(ContentMismatch, "bundle %s: %v", referrer.Digest, err))
		}
		result = append(result, signatures...)
		if form != "" {
			unread = append(unread, form)
		}
	}
	return result, unread
}

func (f *fetch) bundleContent(ctx context.Context, client *client, referrer ocispec.Descriptor) ([]byte, error) {
	content, err := client.manifest(ctx, referrer.Digest.String())
	if err != nil {
		return nil, err
	}
	layers, err := artifactLayers(content)
	if err != nil {
		return nil, f.reference.refuse(ContentMismatch, "bundle %s: %v", referrer.Digest, err)
	}
	for _, layer := range layers {
		if layer.MediaType == bundleMediaType {
			return client.readBlob(ctx, layer, maximumBundle)
		}
	}
	return nil, f.reference.refuse(ContentMismatch, "bundle %s: it has no layer of type %s", referrer.Digest, bundleMediaType)
}

// readBundle returns the signatures of a bundle, or none for an attestation. It returns the name of the format when a
// key cannot verify it.
func readBundle(content []byte) (result []signature, unread string, err error) {
	var read bundle
	if err := seal.Decode(content, &read); err != nil {
		return nil, "", err
	}
	if isSet(read.Material.Certificate) || isSet(read.Material.Chain) {
		unread = "a sigstore bundle with a certificate instead of a key (keyless signing)"
	}
	switch {
	case read.MediaType != bundleMediaType:
		return nil, fmt.Sprintf("a sigstore bundle of type %q", read.MediaType), nil
	case read.Envelope != nil && read.Message == nil:
		payload, err := seal.DecodeBase64(read.Envelope.Payload)
		if err != nil {
			return nil, "", err
		}
		if read.Envelope.PayloadType != statementType {
			return nil, fmt.Sprintf("a sigstore bundle with an envelope of type %q", read.Envelope.PayloadType), nil
		}
		if !isSignStatement(payload) {
			return nil, "", nil
		}
		for _, raw := range read.Envelope.Signatures {
			var one struct {
				Signature string `json:"sig"`
			}
			if seal.Decode(raw, &one) != nil {
				continue
			}
			if decoded, err := seal.DecodeBase64(one.Signature); err == nil {
				result = append(result, signature{Form: dsseForm, Payload: payload, Signature: decoded})
			}
		}
		return result, unread, nil
	case read.Message != nil && read.Envelope == nil:
		decoded, err := seal.DecodeBase64(read.Message.Signature)
		if err != nil {
			return nil, "", err
		}
		// A digest that cannot be decoded stays empty.
		digest, _ := seal.DecodeBase64(read.Message.Digest.Digest)
		if read.Message.Digest.Algorithm != "SHA2_256" || len(digest) != sha256.Size {
			return nil, fmt.Sprintf("a sigstore bundle with a digest of %q", read.Message.Digest.Algorithm), nil
		}
		return []signature{{Form: messageForm, Payload: []byte("sha256:" + hex.EncodeToString(digest)), Signature: decoded}}, unread, nil
	}
	return nil, "a sigstore bundle with neither an envelope nor the signature of a message", nil
}

func isSet(field json.RawMessage) bool {
	return len(field) > 0 && string(field) != "null"
}

// statement is an in-toto statement: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
type statement struct {
	Type          string `json:"_type"`
	PredicateType string `json:"predicateType"`
	Subject       []struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	} `json:"subject"`
}

func isSignStatement(payload []byte) bool {
	var read statement
	return seal.Decode(payload, &read) == nil && read.PredicateType == signPredicate &&
		slices.Contains([]string{"https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"}, read.Type)
}

// statementClaim returns the subjects of a statement. A statement that is not a signature claims nothing.
func statementClaim(payload []byte) (result claim) {
	var read statement
	if !isSignStatement(payload) || seal.Decode(payload, &read) != nil {
		return claim{}
	}
	for _, subject := range read.Subject {
		result.digests = append(result.digests, "sha256:"+subject.Digest["sha256"])
	}
	result.signed = sha256.Sum256(seal.PreAuthenticationEncoding(statementType, payload))
	return result
}

// messageClaim returns the manifest whose bytes are signed, because their SHA-256 is its digest.
func messageClaim(digest []byte) (result claim) {
	raw, err := hex.DecodeString(strings.TrimPrefix(string(digest), "sha256:"))
	if err != nil || len(raw) != sha256.Size {
		return claim{}
	}
	return claim{digests: []string{string(digest)}, signed: [sha256.Size]byte(raw)}
}
