package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/palisade-host/palisade/hosts/agent/internal/reference"
	"github.com/palisade-host/palisade/hosts/seal"
)

// Signature formats that are read: cosign's simple signing, in the image with the tag sha256-<hex>.sig
// (https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md), and the bundles of cosign 3
// (https://github.com/sigstore/cosign/blob/main/specs/BUNDLE_SPEC.md), which refer to the image and contain a DSSE
// envelope or a signature over the manifest.
const (
	simpleSigningMediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureAnnotation    = "dev.cosignproject.cosign/signature"
	// maximumPayload bounds the signed payload in bytes. It only names an image.
	maximumPayload = 64 << 10
	// maximumSignatures bounds how many signatures of an image are considered.
	maximumSignatures = 100
)

// signature is a signature of an image. It is stored in this form and verified at each use.
type signature struct {
	// Form is empty for simple signing, else dsseForm or messageForm.
	Form string `json:"form,omitempty"`
	// Payload names the image. It is an in-toto statement for dsseForm, and the manifest's digest for messageForm.
	Payload   []byte `json:"payload"`
	Signature []byte `json:"signature"`
}

func (s signature) equal(other signature) bool {
	return s.Form == other.Form && bytes.Equal(s.Payload, other.Payload) && bytes.Equal(s.Signature, other.Signature)
}

// signedBy returns the id of the key that signed one of the digests in a repository, or nothing when none did.
func (s signature) signedBy(keys seal.Keys, repository string, digests ...string) string {
	var named claim
	switch s.Form {
	case "":
		named = simpleSigningClaim(s.Payload)
	case dsseForm:
		named = statementClaim(s.Payload)
	case messageForm:
		named = messageClaim(s.Payload)
	}
	if !slices.ContainsFunc(named.digests, func(digest string) bool { return slices.Contains(digests, digest) }) {
		return ""
	}
	if named.repository != "" && reference.CanonicalName(named.repository) != reference.CanonicalName(repository) {
		return ""
	}
	for id, key := range keys {
		if seal.Verify(key, named.signed, s.Signature) {
			return id
		}
	}
	return ""
}

// claim is what a signature is about.
type claim struct {
	digests []string
	// repository includes the server; empty when the signature names none.
	repository string
	// signed is the SHA-256 of the signed bytes.
	signed [sha256.Size]byte
}

func simpleSigningClaim(content []byte) claim {
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
	if seal.Decode(content, &payload) != nil {
		return claim{}
	}
	return claim{
		digests: []string{payload.Critical.Image.Digest}, repository: payload.Critical.Identity.DockerReference,
		signed: sha256.Sum256(content),
	}
}

// admit refuses an image that the policies do not allow. The signatures are stored, so that the image can start again
// without its registry. They are fetched once even when no policy requires any, because a later policy may.
func (f *fetch) admit(ctx context.Context, found *image) error {
	declared := f.role.policies.declared()
	before := f.role.records.load(found.digest)
	refusal := checkPolicies(declared, f.reference, found.digest, before.Signatures)
	if refusal == nil && len(before.References) > 0 {
		return nil
	}
	if refusal != nil && refusal.Reason == ImageNotAllowed {
		return refusal
	}
	fetched, unread, err := f.signatures(ctx, found)
	if refusal := checkPolicies(declared, f.reference, found.digest, fetched); refusal != nil {
		if err != nil {
			return err
		}
		if len(unread) > 0 {
			refusal.Message += fmt.Sprintf(". It also has what is not read: %s; sign it with a key, by cosign sign --key", strings.Join(unread, ", "))
		}
		return refusal
	}
	if err != nil {
		f.role.options.Logger.Warn("signatures were not all read; those that the policies ask for are there", "image", f.reference.String(), "error", err)
		if len(fetched) == 0 {
			return nil
		}
	}
	return f.record(found, fetched)
}

// checkPolicies returns the refusal of an image whose signatures do not meet the policies, or nil.
func checkPolicies(declared declaredPolicies, ref imageReference, manifest string, signatures []signature) *Refusal {
	required := requirementFor(declared, ref.Name())
	if required.unrestricted {
		return nil
	}
	if len(declared.missing) > 0 && len(required.keys) == 0 {
		// The missing policy may be the one that asks for a signature.
		return ref.refuse(ImageNotAllowed, "an image policy of this host is not known: %s", declared.missing[0])
	}
	if len(required.policies) == 0 {
		return ref.refuse(ImageNotAllowed, "no image policy of this host names repository %s", ref.Name())
	}
	if len(required.keys) == 0 {
		return nil
	}
	for _, candidate := range signatures {
		if candidate.signedBy(required.keys, ref.Name(), manifest, ref.Digest) != "" {
			return nil
		}
	}
	names := strings.Join(required.policies, ", ")
	if len(signatures) == 0 {
		return ref.refuse(SignatureMissing, "image policy %s asks for a signature and it has none", names)
	}
	return ref.refuse(SignatureByUnknownKey, "none of its %d signatures is by a key of image policy %s for this image in this repository", len(signatures), names)
}

// signatures reads the signatures of the manifest and, if the reference names an index, of the index. It returns all
// that can be read, the first error, and the names of the formats that it does not read.
func (f *fetch) signatures(ctx context.Context, found *image) (result []signature, unread []string, first error) {
	client, err := f.openClient()
	if err != nil {
		return nil, nil, err
	}
	result = []signature{}
	failed := func(err error) {
		if first == nil {
			first = err
		}
	}
	for _, digest := range slices.Compact([]string{found.digest, f.reference.Digest}) {
		result = append(result, f.simpleSignatures(ctx, client, digest, failed)...)
		bundles, forms := f.bundles(ctx, client, digest, failed)
		result, unread = append(result, bundles...), append(unread, forms...)
	}
	if len(result) > maximumSignatures {
		result = result[:maximumSignatures]
	}
	slices.Sort(unread)
	return result, slices.Compact(unread), first
}

func (f *fetch) simpleSignatures(ctx context.Context, client *client, digest string, failed func(error)) (result []signature) {
	content, err := client.tagged(ctx, strings.Replace(digest, ":", "-", 1)+".sig")
	if err != nil {
		failed(err)
	}
	if content == nil {
		return nil
	}
	layers, err := artifactLayers(content)
	if err != nil {
		failed(f.reference.refuse(ContentMismatch, "its signatures: %v", err))
	}
	for _, layer := range layers {
		encoded := layer.Annotations[signatureAnnotation]
		decoded, err := seal.DecodeBase64(encoded)
		if layer.MediaType != simpleSigningMediaType || encoded == "" || err != nil || len(result) >= maximumSignatures {
			continue
		}
		payload, err := client.readBlob(ctx, layer, maximumPayload)
		if err != nil {
			failed(err)
			continue
		}
		result = append(result, signature{Payload: payload, Signature: decoded})
	}
	return result
}
