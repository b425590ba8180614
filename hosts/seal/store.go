package seal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// DevicePrefix begins the names of the verity devices of layers. The root hash follows it.
const DevicePrefix = "palisade-layer-"

// Store is a folder of sealed layers on a host:
//
//	blobs/<root hash>.erofs, .p7s                file system with its verity tree; signature over the root hash
//	sha256/<xx>/<diffID>.erofs, .erofs.dmverity  names by which containerd looks a layer up
//	seals/<image digest>.json                    envelope of the seal manifest, written last
//
// None of it is trusted: the envelope is verified at each use, and the kernel verifies the layers.
type Store string

// Blob returns the file of a layer.
func (s Store) Blob(rootHash string) string {
	return filepath.Join(string(s), "blobs", rootHash+".erofs")
}

// Signature returns the file of a layer's signature.
func (s Store) Signature(rootHash string) string {
	return filepath.Join(string(s), "blobs", rootHash+".p7s")
}

// Lookup returns the path at which containerd looks for a layer by its diffID.
func (s Store) Lookup(diffID string) string {
	name := hexOf(diffID)
	return filepath.Join(string(s), "sha256", name[:2], name+".erofs")
}

// Metadata returns the file beside Lookup that says where the verity superblock is.
func (s Store) Metadata(diffID string) string {
	return s.Lookup(diffID) + ".dmverity"
}

// Verity is the content of a layer's Metadata file, as containerd reads it.
type Verity struct {
	RootHash   string `json:"roothash"`
	HashOffset int64  `json:"hashoffset"`
}

// Seal returns the file of an image's seal.
func (s Store) Seal(imageDigest string) string {
	return filepath.Join(string(s), "seals", hexOf(imageDigest)+".json")
}

// ErrNotSealed is the error of an image without a seal in any store.
var ErrNotSealed = errors.New("not sealed")

// Find returns the verified manifest of an image and its store. It searches the stores in order.
func Find(stores []Store, trust Trust, imageDigest string) (*Manifest, Store, error) {
	if !digestPattern.MatchString(imageDigest) {
		return nil, "", fmt.Errorf("%q is no digest", imageDigest)
	}
	for _, store := range stores {
		content, err := os.ReadFile(store.Seal(imageDigest))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		manifest, err := trust.Open(content)
		if err != nil {
			return nil, "", fmt.Errorf("seal of image %s: %w", imageDigest, err)
		}
		if manifest.Image.Digest != imageDigest {
			return nil, "", fmt.Errorf("seal of image %s: it is for image %s", imageDigest, manifest.Image.Digest)
		}
		return manifest, store, nil
	}
	return nil, "", fmt.Errorf("image %s: %w", imageDigest, ErrNotSealed)
}
