package images

import (
	"context"
	"errors"
	"runtime"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/palisade-host/palisade/hosts/agent/internal/registry"
	"github.com/palisade-host/palisade/hosts/seal"
)

// image is the image of a reference for this host's platform.
type image struct {
	digest  string
	config  string
	layers  []string
	diffIDs []string
	// documents are the digests of all documents that were read.
	documents []string
}

// resolve reads the index, if the reference is that of one, the manifest, and the configuration.
func (f *fetch) resolve(ctx context.Context) (*image, error) {
	found := &image{digest: f.reference.Digest}
	read, err := f.document(ctx, found, found.digest)
	if err != nil {
		return nil, err
	}
	if !read.isIndex {
		return found, f.readImage(ctx, found, read)
	}
	var foreign error
	entries := candidates(read.manifests, runtime.GOARCH)
	if len(entries) > 1 && entries[0].Platform != nil {
		return nil, f.reference.refuse(ContentMismatch, "the index has %d images for %s/%s, such as %s and %s; give the digest of one image",
			len(entries), runtime.GOOS, runtime.GOARCH, entries[0].Digest, entries[1].Digest)
	}
	for _, entry := range entries {
		// The documents so far, such as the index, belong to each candidate.
		one := &image{digest: entry.Digest.String(), documents: found.documents}
		manifest, err := f.document(ctx, one, one.digest)
		if err != nil {
			return nil, err
		}
		if manifest.isIndex {
			return nil, f.reference.refuse(ContentMismatch, "the index names %s, which is no image manifest", one.digest)
		}
		err = f.readImage(ctx, one, manifest)
		var pull *registry.PullError
		if entry.Platform == nil && errors.As(err, &pull) && pull.Reason == registry.WrongPlatform {
			foreign = err
			continue
		}
		return one, err
	}
	if foreign != nil {
		return nil, foreign
	}
	return nil, registry.Foreign(f.reference.String(), platformsOf(read.manifests), runtime.GOOS+"/"+runtime.GOARCH)
}

func (f *fetch) readImage(ctx context.Context, found *image, manifest *document) error {
	found.config = manifest.config.Digest.String()
	if err := seal.CheckLayerCount(len(manifest.layers)); err != nil {
		return f.reference.refuse(ContentMismatch, "manifest %s: %v; build the image with as many", found.digest, err)
	}
	for _, layer := range manifest.layers {
		found.layers = append(found.layers, layer.Digest.String())
	}
	return f.readConfig(ctx, found, manifest.config)
}

func (f *fetch) readConfig(ctx context.Context, found *image, descriptor ocispec.Descriptor) error {
	content := f.role.records.document(found.config)
	if content == nil {
		client, err := f.openClient()
		if err != nil {
			return err
		}
		if content, err = client.readBlob(ctx, descriptor, maximumDocument); err != nil {
			return err
		}
		if err := f.saveDocument(content); err != nil {
			return err
		}
	}
	found.documents = append(found.documents, found.config)
	var config struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
		RootFS       struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := seal.Decode(content, &config); err != nil {
		return f.reference.refuse(ContentMismatch, "configuration %s: %v", found.config, err)
	}
	if config.OS != runtime.GOOS || config.Architecture != runtime.GOARCH {
		return registry.Foreign(f.reference.String(), config.OS+"/"+config.Architecture, runtime.GOOS+"/"+runtime.GOARCH)
	}
	found.diffIDs = config.RootFS.DiffIDs
	return nil
}

// document returns a manifest or an index, from the records or from the registry.
func (f *fetch) document(ctx context.Context, found *image, digest string) (*document, error) {
	content := f.role.records.document(digest)
	if content == nil {
		client, err := f.openClient()
		if err != nil {
			return nil, err
		}
		if content, err = client.manifest(ctx, digest); err != nil {
			return nil, err
		}
		if err := f.saveDocument(content); err != nil {
			return nil, err
		}
	}
	found.documents = append(slices.Clone(found.documents), digest)
	read, err := readDocument(content)
	if err != nil {
		return nil, f.reference.refuse(ContentMismatch, "manifest %s: %v", digest, err)
	}
	return read, nil
}

func (f *fetch) saveDocument(content []byte) error {
	return f.diskError(f.role.records.saveDocument(content))
}
