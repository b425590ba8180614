package images

import (
	"context"
	"encoding/json"
	"runtime"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/palisade-host/palisade/hosts/agent/internal/registry"
	"github.com/palisade-host/palisade/hosts/seal"
)

const (
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

// image is what a reference leads to on this host's platform.
type image struct {
	digest  string
	config  string
	layers  []string
	diffIDs []string
	// documents are the digests of everything that was read.
	documents []string
}

// resolve reads the manifest, by way of an index where the reference is one's, and the configuration.
func (f *fetch) resolve(ctx context.Context) (*image, error) {
	found := &image{digest: f.reference.digest}
	content, err := f.document(ctx, found, found.digest)
	if err != nil {
		return nil, err
	}
	kind, err := f.kindOf(found.digest, content)
	if err != nil {
		return nil, err
	}
	if kind == ocispec.MediaTypeImageIndex {
		if found.digest, err = f.choose(content); err != nil {
			return nil, err
		}
		if content, err = f.document(ctx, found, found.digest); err != nil {
			return nil, err
		}
		if kind, err = f.kindOf(found.digest, content); err != nil {
			return nil, err
		}
		if kind != ocispec.MediaTypeImageManifest {
			return nil, f.reference.refuse(ContentMismatch, "the index names %s, which is no image manifest", found.digest)
		}
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(content, &manifest); err != nil {
		return nil, f.reference.refuse(ContentMismatch, "manifest %s: %v", found.digest, err)
	}
	found.config = manifest.Config.Digest.String()
	if !digestPattern.MatchString(found.config) {
		return nil, f.reference.refuse(ContentMismatch, "manifest %s names the configuration %q, which is no digest", found.digest, found.config)
	}
	if err := seal.CheckLayerCount(len(manifest.Layers)); err != nil {
		return nil, f.reference.refuse(ContentMismatch, "manifest %s: %v; build the image with as many", found.digest, err)
	}
	for _, layer := range manifest.Layers {
		found.layers = append(found.layers, layer.Digest.String())
	}
	return found, f.readConfig(ctx, found, manifest.Config)
}

func (f *fetch) readConfig(ctx context.Context, found *image, descriptor ocispec.Descriptor) error {
	content := f.role.records.document(found.config)
	if content == nil {
		client, err := f.open()
		if err != nil {
			return err
		}
		if content, err = client.small(ctx, descriptor, maximumDocument); err != nil {
			return err
		}
		if err := f.keep(content); err != nil {
			return err
		}
	}
	found.documents = append(found.documents, found.config)
	var config ocispec.Image
	if err := json.Unmarshal(content, &config); err != nil {
		return f.reference.refuse(ContentMismatch, "configuration %s: %v", found.config, err)
	}
	if config.OS != runtime.GOOS || config.Architecture != runtime.GOARCH {
		return registry.Foreign(f.reference.String(), config.OS+"/"+config.Architecture, runtime.GOOS+"/"+runtime.GOARCH)
	}
	for _, diffID := range config.RootFS.DiffIDs {
		found.diffIDs = append(found.diffIDs, diffID.String())
	}
	return nil
}

// document returns a manifest or index, from the records or the registry.
func (f *fetch) document(ctx context.Context, found *image, digest string) ([]byte, error) {
	content := f.role.records.document(digest)
	if content == nil {
		client, err := f.open()
		if err != nil {
			return nil, err
		}
		if content, err = client.manifest(ctx, digest); err != nil {
			return nil, err
		}
		if err := f.keep(content); err != nil {
			return nil, err
		}
	}
	found.documents = append(found.documents, digest)
	return content, nil
}

func (f *fetch) keep(content []byte) error {
	return f.diskError(f.role.records.saveDocument(content))
}

// kindOf tells an index from a manifest. A document that could be read as both is neither: other programs might read it
// differently (CVE-2021-41190).
func (f *fetch) kindOf(digest string, content []byte) (string, error) {
	var document struct {
		specs.Versioned
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Layers    json.RawMessage `json:"layers"`
		Config    json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal(content, &document); err != nil {
		return "", f.reference.refuse(ContentMismatch, "manifest %s: %v", digest, err)
	}
	isIndex, isManifest := document.Manifests != nil, document.Layers != nil || document.Config != nil
	switch {
	case document.SchemaVersion != 2 || isIndex == isManifest:
		return "", f.reference.refuse(ContentMismatch, "%s is neither an image manifest nor an index", digest)
	case isIndex && (document.MediaType == "" || document.MediaType == ocispec.MediaTypeImageIndex || document.MediaType == dockerIndex):
		return ocispec.MediaTypeImageIndex, nil
	case isManifest && (document.MediaType == "" || document.MediaType == ocispec.MediaTypeImageManifest || document.MediaType == dockerManifest):
		return ocispec.MediaTypeImageManifest, nil
	}
	return "", f.reference.refuse(ContentMismatch, "%s says that it is %q, which its content is not", digest, document.MediaType)
}

// choose returns the digest of the first manifest of an index that is for this host.
func (f *fetch) choose(content []byte) (string, error) {
	var index ocispec.Index
	if err := json.Unmarshal(content, &index); err != nil {
		return "", f.reference.refuse(ContentMismatch, "index %s: %v", f.reference.digest, err)
	}
	for _, candidate := range index.Manifests {
		platform := candidate.Platform
		if platform == nil || platform.OS != runtime.GOOS || platform.Architecture != runtime.GOARCH {
			continue
		}
		if digest := candidate.Digest.String(); digestPattern.MatchString(digest) {
			return digest, nil
		}
		return "", f.reference.refuse(ContentMismatch, "the index names %q, which is no digest", candidate.Digest)
	}
	return "", registry.Foreign(f.reference.String(), "other platforms", runtime.GOOS+"/"+runtime.GOARCH)
}
