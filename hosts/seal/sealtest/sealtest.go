// Package sealtest creates sealed images for tests. Nothing mounts them, so a file system is arbitrary bytes with the
// root hash of something else.
package sealtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/palisade-host/palisade/hosts/seal"
)

// PayloadType of a seal's envelope.
const PayloadType = "application/vnd.palisade.seal.v1+json"

// hashOffset is that of every test layer, in bytes.
const hashOffset = 4096

// Key is an ECDSA P-256 key pair.
type Key struct {
	private *ecdsa.PrivateKey
	// ID is SHA-256 of the SubjectPublicKeyInfo, hex.
	ID string
	// PEM is the public key.
	PEM string
}

// NewKey makes a key pair.
func NewKey(t testing.TB) *Key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256(der)
	return &Key{
		private: private, ID: hex.EncodeToString(id[:]),
		PEM: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
	}
}

// Keys returns this key and others, in the form in which a host trusts them.
func (k *Key) Keys(others ...*Key) seal.Keys {
	keys := seal.Keys{}
	for _, key := range append(others, k) {
		keys[key.ID] = &key.private.PublicKey
	}
	return keys
}

// Sign signs the SHA-256 of content (ASN.1).
func (k *Key) Sign(t testing.TB, content []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(content)
	signature, err := ecdsa.SignASN1(rand.Reader, k.private, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

// Envelope wraps a payload in DSSE.
func (k *Key) Envelope(t testing.TB, payloadType string, payload []byte) []byte {
	t.Helper()
	signed := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
	return encode(t, map[string]any{
		"payloadType": payloadType,
		"payload":     base64.StdEncoding.EncodeToString(payload),
		"signatures":  []any{map[string]string{"keyid": k.ID, "sig": base64.StdEncoding.EncodeToString(k.Sign(t, signed))}},
	})
}

// Seal returns the envelope of a seal manifest.
func (k *Key) Seal(t testing.TB, manifest seal.Manifest) []byte {
	t.Helper()
	return k.Envelope(t, PayloadType, encode(t, manifest))
}

// Image is an image for this machine's platform, with its seal.
type Image struct {
	Manifest, Config []byte
	Digest           string
	// Layers are the image's own layers, which a sealed host never reads.
	Layers [][]byte
	// Sealed is the valid seal manifest.
	Sealed seal.Manifest
	// Blobs and Signatures are those of the layers, bottom first.
	Blobs, Signatures [][]byte
}

// NewImage creates an image with one layer for each content. Equal contents are equal layers.
func NewImage(t testing.TB, contents ...string) *Image {
	t.Helper()
	result := &Image{}
	config := ocispec.Image{Platform: ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}, RootFS: ocispec.RootFS{Type: "layers"}}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, content := range contents {
		layer := []byte("layer " + content)
		diffID := digest.FromString("tar " + content)
		blob := append([]byte(content+strings.Repeat("\x00", hashOffset)), []byte("tree of "+content)...)
		root := sha256.Sum256([]byte("root " + content))
		rootHash := hex.EncodeToString(root[:])
		result.Layers = append(result.Layers, layer)
		result.Blobs = append(result.Blobs, blob)
		signature := []byte("signature of " + rootHash)
		result.Signatures = append(result.Signatures, signature)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		manifest.Layers = append(manifest.Layers, descriptor(ocispec.MediaTypeImageLayerGzip, layer))
		result.Sealed.Layers = append(result.Sealed.Layers, seal.Layer{
			Digest: digest.FromBytes(layer).String(), DiffID: diffID.String(), RootHash: rootHash,
			HashOffset: hashOffset, Size: int64(len(blob)), Blob: digest.FromBytes(blob).String(), Signature: digest.FromBytes(signature).String(),
		})
	}
	result.Config = encode(t, config)
	manifest.Config = descriptor(ocispec.MediaTypeImageConfig, result.Config)
	result.Manifest = encode(t, manifest)
	result.Digest = digest.FromBytes(result.Manifest).String()
	result.Sealed.Version = 1
	result.Sealed.Image = seal.Image{Digest: result.Digest, MediaType: manifest.MediaType, Config: manifest.Config.Digest.String()}
	result.Sealed.LayerKey = strings.Repeat("1", 64)
	result.Sealed.Tools = map[string]string{"mkfs.erofs": "1.8.6", "veritysetup": "2.7.5", "palisade": "0.1.0"}
	return result
}

// Index returns an index of images. The first one has this machine's platform, and the others have a foreign one.
func Index(t testing.TB, images ...*Image) []byte {
	t.Helper()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for position, image := range images {
		entry := descriptor(ocispec.MediaTypeImageManifest, image.Manifest)
		entry.Platform = &ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
		if position > 0 {
			entry.Platform = &ocispec.Platform{OS: "plan9", Architecture: "mips"}
		}
		index.Manifests = append([]ocispec.Descriptor{entry}, index.Manifests...)
	}
	return encode(t, index)
}

// EmptyConfig is the configuration of artifacts.
var EmptyConfig = []byte("{}")

// Artifact returns the manifest of a seal in a registry, for an envelope.
func (i *Image) Artifact(t testing.TB, envelope []byte) []byte {
	t.Helper()
	subject := descriptor(ocispec.MediaTypeImageManifest, i.Manifest)
	artifact := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: seal.ArtifactType,
		Config: descriptor(ocispec.MediaTypeEmptyJSON, EmptyConfig), Subject: &subject,
		Layers: []ocispec.Descriptor{descriptor(seal.EnvelopeMediaType, envelope)},
	}
	artifact.Layers = append(artifact.Layers, i.describe(seal.BlobMediaType, i.Blobs)...)
	artifact.Layers = append(artifact.Layers, i.describe(seal.SignatureMediaType, i.Signatures)...)
	return encode(t, artifact)
}

func (i *Image) describe(kind string, contents [][]byte) (result []ocispec.Descriptor) {
	for index, content := range contents {
		one := descriptor(kind, content)
		one.Annotations = map[string]string{"image.layer.digest": i.Sealed.Layers[index].Digest, seal.RootHashAnnotation: i.Sealed.Layers[index].RootHash}
		result = append(result, one)
	}
	return result
}

// CosignPayload returns the bytes that cosign signs for an image (simple signing).
func CosignPayload(t testing.TB, repository, imageDigest string) []byte {
	t.Helper()
	return encode(t, map[string]any{
		"critical": map[string]any{
			"identity": map[string]string{"docker-reference": repository},
			"image":    map[string]string{"docker-manifest-digest": imageDigest},
			"type":     "cosign container image signature",
		},
		"optional": nil,
	})
}

// CosignManifest returns the manifest under the tag of an image's signatures, with payloads and signatures.
func CosignManifest(t testing.TB, payloads, signatures [][]byte) []byte {
	t.Helper()
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: descriptor(ocispec.MediaTypeImageConfig, EmptyConfig),
	}
	for index, payload := range payloads {
		one := descriptor("application/vnd.dev.cosign.simplesigning.v1+json", payload)
		one.Annotations = map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signatures[index])}
		manifest.Layers = append(manifest.Layers, one)
	}
	return encode(t, manifest)
}

func descriptor(mediaType string, content []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
}

func encode(t testing.TB, value any) []byte {
	t.Helper()
	content, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
