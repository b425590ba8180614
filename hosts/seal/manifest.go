// Package seal reads the seals of container images and checks that a trusted key has signed them. A seal says which
// image it belongs to, and which root hashes its layers have, in which order. The agent uses the package to fetch
// seals, and containerd to mount by them.
package seal

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	// ArtifactType is that of a seal in a registry. Its subject is the image's manifest.
	ArtifactType = "application/vnd.palisade.seal.v1"
	// EnvelopeMediaType is that of the first blob of a seal.
	EnvelopeMediaType = "application/vnd.dsse.envelope.v1+json"
	// BlobMediaType is that of an EROFS file system followed by its dm-verity tree.
	BlobMediaType = "application/vnd.erofs.layer.v1"
	// SignatureMediaType is that of a PKCS#7 signature over a root hash (notaryproject/notation#1335).
	SignatureMediaType = "application/vnd.oci.image.layer.v1.erofs.sig"
	// RootHashAnnotation names the root hash that a blob or signature belongs to.
	RootHashAnnotation = "image.layer.root_hash"

	payloadType     = "application/vnd.palisade.seal.v1+json"
	manifestVersion = 1
	blockSize       = 4096
	// maximumBlobSize bounds a layer, in bytes.
	maximumBlobSize = 64 << 30
)

// MaximumLayers is how many layers an image may have. It must have at least one. The sealer has the same limit
// (maximumLayers in provider/local/sealing/image.ts), and both are tested with testdata/layer-counts.json.
const MaximumLayers = 127

// CheckLayerCount returns an error unless an image may have that many layers.
func CheckLayerCount(count int) error {
	if count == 0 || count > MaximumLayers {
		return fmt.Errorf("layers: %d layers, expected 1 to %d", count, MaximumLayers)
	}
	return nil
}

var (
	digestPattern   = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	rootHashPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Manifest binds the digest of an image to the root hashes of its layers, bottom first.
type Manifest struct {
	Version int     `json:"version"`
	Image   Image   `json:"image"`
	Layers  []Layer `json:"layers"`
	// LayerKey is the SHA-256 of the certificate (DER) that signed the layers' root hashes, hex.
	LayerKey string `json:"layerKey"`
	// Tools are the versions of the programs that made the file systems. They are information only.
	Tools map[string]string `json:"tools"`

	// KeyID is the id of the key that signed the envelope. It is not part of the payload.
	KeyID string `json:"-"`
}

// Image identifies the sealed image.
type Image struct {
	// Digest is that of the image's manifest.
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	// Config is the digest of the image's configuration.
	Config string `json:"config"`
}

// Layer is one layer of the image as a file system.
type Layer struct {
	// Digest is that of the layer in the image's manifest.
	Digest string `json:"digest"`
	// DiffID is the digest of the uncompressed layer.
	DiffID string `json:"diffId"`
	// RootHash is that of the dm-verity tree, hex.
	RootHash string `json:"rootHash"`
	// HashOffset is where the verity superblock begins, in bytes.
	HashOffset int64 `json:"hashOffset"`
	// Size is that of file system and tree together, in bytes.
	Size int64 `json:"size"`
	// Blob is the digest of file system and tree together.
	Blob string `json:"blob"`
	// Signature is the digest of the PKCS#7 signature over the root hash.
	Signature string `json:"signature"`
}

// Open returns the manifest of an envelope that one of the keys has signed.
func Open(content []byte, keys Keys) (*Manifest, error) {
	payload, keyID, err := keys.open(content, payloadType)
	if err != nil {
		return nil, err
	}
	manifest := &Manifest{KeyID: keyID}
	if err := Decode(payload, manifest); err != nil {
		return nil, fmt.Errorf("the seal manifest: %w", err)
	}
	if err := manifest.check(); err != nil {
		return nil, fmt.Errorf("the seal manifest: %w", err)
	}
	return manifest, nil
}

func (m *Manifest) check() error {
	if m.Version != manifestVersion {
		return fmt.Errorf("version %d is not known, expected %d", m.Version, manifestVersion)
	}
	for _, digest := range []struct{ field, value string }{{"image.digest", m.Image.Digest}, {"image.config", m.Image.Config}} {
		if !digestPattern.MatchString(digest.value) {
			return fmt.Errorf("%s: %q is no digest", digest.field, digest.value)
		}
	}
	if m.Image.MediaType == "" {
		return errors.New("image.mediaType: is missing")
	}
	if !rootHashPattern.MatchString(m.LayerKey) {
		return fmt.Errorf("layerKey: %q is no SHA-256 value", m.LayerKey)
	}
	if err := CheckLayerCount(len(m.Layers)); err != nil {
		return err
	}
	for index, layer := range m.Layers {
		at := fmt.Sprintf("layers[%d]", index)
		switch {
		case !digestPattern.MatchString(layer.Digest):
			return fmt.Errorf("%s.digest: %q is no digest", at, layer.Digest)
		case !digestPattern.MatchString(layer.DiffID):
			return fmt.Errorf("%s.diffId: %q is no digest", at, layer.DiffID)
		case !digestPattern.MatchString(layer.Blob):
			return fmt.Errorf("%s.blob: %q is no digest", at, layer.Blob)
		case !digestPattern.MatchString(layer.Signature):
			return fmt.Errorf("%s.signature: %q is no digest", at, layer.Signature)
		case !rootHashPattern.MatchString(layer.RootHash):
			return fmt.Errorf("%s.rootHash: %q is no SHA-256 value", at, layer.RootHash)
		case layer.HashOffset < blockSize || layer.HashOffset%blockSize != 0:
			return fmt.Errorf("%s.hashOffset: %d is no multiple of %d", at, layer.HashOffset, blockSize)
		case layer.Size <= layer.HashOffset || layer.Size > maximumBlobSize:
			return fmt.Errorf("%s.size: %d is not between hashOffset and %d", at, layer.Size, int64(maximumBlobSize))
		}
	}
	return nil
}

// Covers returns an error unless the manifest belongs to an image with these digests of manifest, configuration and
// layers (bottom first), and with these diffIDs in the same order.
func (m *Manifest) Covers(image, config string, layers, diffIDs []string) error {
	switch {
	case m.Image.Digest != image:
		return fmt.Errorf("it is for image %s, not for %s", m.Image.Digest, image)
	case m.Image.Config != config:
		return fmt.Errorf("it is for configuration %s, the image has %s", m.Image.Config, config)
	case len(m.Layers) != len(layers) || len(m.Layers) != len(diffIDs):
		return fmt.Errorf("it names %d layers, the image has %d and %d diffIDs", len(m.Layers), len(layers), len(diffIDs))
	}
	for index, layer := range m.Layers {
		if layer.Digest != layers[index] {
			return fmt.Errorf("its layer %d is %s, the image's is %s", index, layer.Digest, layers[index])
		}
		if layer.DiffID != diffIDs[index] {
			return fmt.Errorf("its layer %d (%s) has diffID %s, the image's has %s", index, layer.Digest, layer.DiffID, diffIDs[index])
		}
	}
	return nil
}

// Revocations are signed things that are no longer trusted. They are part of the host image.
type Revocations struct {
	// Images are digests of images.
	Images []string `json:"images"`
	// RootHashes are those of layers.
	RootHashes []string `json:"rootHashes"`
	// Keys are ids of seal keys, or fingerprints of the certificates of layer keys.
	Keys []string `json:"keys"`
}

// Refuse returns an error that names the revoked part of the manifest.
func (r Revocations) Refuse(m *Manifest) error {
	if slices.Contains(r.Images, m.Image.Digest) {
		return fmt.Errorf("image %s is revoked", m.Image.Digest)
	}
	for _, key := range []string{m.KeyID, m.LayerKey} {
		if slices.Contains(r.Keys, key) {
			return fmt.Errorf("image %s: key %s is revoked", m.Image.Digest, key)
		}
	}
	for _, layer := range m.Layers {
		if slices.Contains(r.RootHashes, layer.RootHash) {
			return fmt.Errorf("image %s: layer %s with root hash %s is revoked", m.Image.Digest, layer.Digest, layer.RootHash)
		}
	}
	return nil
}

// Trust is what a host trusts: the keys of seals, except for what is revoked.
type Trust struct {
	Keys        Keys
	Revocations Revocations
}

// LoadTrust reads `seals/*.pem` and `revoked.json` of a folder. Without the latter nothing is revoked.
func LoadTrust(folder string) (Trust, error) {
	keys, err := LoadKeys(filepath.Join(folder, "seals"))
	if err != nil {
		return Trust{}, err
	}
	trust := Trust{Keys: keys}
	content, err := os.ReadFile(filepath.Join(folder, "revoked.json"))
	if errors.Is(err, os.ErrNotExist) {
		return trust, nil
	}
	if err != nil {
		return Trust{}, err
	}
	if err := json.Unmarshal(content, &trust.Revocations); err != nil {
		return Trust{}, fmt.Errorf("%s: %w", filepath.Join(folder, "revoked.json"), err)
	}
	return trust, nil
}

// Open returns the manifest of an envelope that a trusted key has signed and that is not revoked.
func (t Trust) Open(content []byte) (*Manifest, error) {
	manifest, err := Open(content, t.Keys)
	if err != nil {
		return nil, err
	}
	return manifest, t.Revocations.Refuse(manifest)
}

// hexOf returns the hexadecimal part of a valid digest.
func hexOf(digest string) string {
	return strings.TrimPrefix(digest, "sha256:")
}
