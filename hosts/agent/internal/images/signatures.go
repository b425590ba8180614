package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/palisade-host/palisade/hosts/agent/internal/reference"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/seal"
)

// cosign's simple signing format:
// https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md
const (
	simpleSigningMediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureAnnotation    = "dev.cosignproject.cosign/signature"
	// maximumPayload bounds what is signed, in bytes; it names an image.
	maximumPayload = 64 << 10
	// maximumSignatures bounds how many signatures of an image are looked at.
	maximumSignatures = 100
)

// signature of an image in cosign's format.
type signature struct {
	Payload   []byte `json:"payload"`
	Signature []byte `json:"signature"`
}

func (s signature) equal(other signature) bool {
	return bytes.Equal(s.Payload, other.Payload) && bytes.Equal(s.Signature, other.Signature)
}

// signedBy returns the id of the key that made the signature for one of the digests in a repository; empty when none did.
func (s signature) signedBy(keys seal.Keys, repository string, digests ...string) string {
	var payload struct {
		Critical struct {
			Identity struct {
				DockerReference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
		} `json:"critical"`
	}
	if json.Unmarshal(s.Payload, &payload) != nil || !slices.Contains(digests, payload.Critical.Image.Digest) {
		return ""
	}
	if named := payload.Critical.Identity.DockerReference; named != "" && reference.CanonicalName(named) != reference.CanonicalName(repository) {
		return ""
	}
	sum := sha256.Sum256(s.Payload)
	for id, key := range keys {
		if seal.Verify(key, sum, s.Signature) {
			return id
		}
	}
	return ""
}

// admit refuses an image that the policies do not allow. Signatures are kept, so that the image starts again without its
// registry; they are looked for once even when nobody asks for them, as a policy may later.
func (f *fetch) admit(ctx context.Context, found *image) error {
	declared := f.role.policies.all()
	before := f.role.records.load(found.digest)
	refusal := judge(declared, f.reference, found.digest, before.Signatures)
	if refusal == nil && len(before.References) > 0 {
		return nil
	}
	if refusal != nil && refusal.Reason == ImageNotAllowed {
		return refusal
	}
	fetched, err := f.signatures(ctx, found)
	if refusal := judge(declared, f.reference, found.digest, fetched); refusal != nil {
		if err != nil {
			return err
		}
		return refusal
	}
	if err != nil {
		f.role.options.Logger.Warn("signatures were not read; no policy asks for them", "image", f.reference.String(), "error", err)
		return nil
	}
	return f.record(found, fetched)
}

// judge compares an image and its signatures with the policies.
func judge(declared []*agentv1.ImagePolicy, ref imageReference, manifest string, signatures []signature) *Refusal {
	wanted := demandOf(declared, ref.Name())
	if wanted.free {
		return nil
	}
	if len(wanted.policies) == 0 {
		return ref.refuse(ImageNotAllowed, "no image policy of this host names repository %s", ref.Name())
	}
	if len(wanted.keys) == 0 {
		return nil
	}
	for _, one := range signatures {
		if one.signedBy(wanted.keys, ref.Name(), manifest, ref.Digest) != "" {
			return nil
		}
	}
	names := strings.Join(wanted.policies, ", ")
	if len(signatures) == 0 {
		return ref.refuse(SignatureMissing, "image policy %s asks for a signature and it has none", names)
	}
	return ref.refuse(SignatureByUnknownKey, "none of its %d signatures is by a key of image policy %s for this image in this repository", len(signatures), names)
}

// signatures reads the cosign signatures of the manifest and, where the image was named by one, of the index.
func (f *fetch) signatures(ctx context.Context, found *image) ([]signature, error) {
	client, err := f.open()
	if err != nil {
		return nil, err
	}
	result := []signature{}
	for _, digest := range slices.Compact([]string{found.digest, f.reference.Digest}) {
		content, err := client.tagged(ctx, strings.Replace(digest, ":", "-", 1)+".sig")
		if err != nil {
			return nil, err
		}
		if content == nil {
			continue
		}
		var manifest ocispec.Manifest
		if err := json.Unmarshal(content, &manifest); err != nil {
			return nil, f.reference.refuse(ContentMismatch, "its signatures: %v", err)
		}
		for _, layer := range manifest.Layers {
			encoded := layer.Annotations[signatureAnnotation]
			decoded, err := base64.StdEncoding.DecodeString(encoded)
			if layer.MediaType != simpleSigningMediaType || encoded == "" || err != nil || len(result) >= maximumSignatures {
				continue
			}
			payload, err := client.small(ctx, layer, maximumPayload)
			if err != nil {
				return nil, err
			}
			result = append(result, signature{Payload: payload, Signature: decoded})
		}
	}
	return result, nil
}
