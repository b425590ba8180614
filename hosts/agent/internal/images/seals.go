package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/mod/semver"
	"golang.org/x/sync/errgroup"

	"github.com/palisade-host/palisade/hosts/agent/internal/registry"
	"github.com/palisade-host/palisade/hosts/agent/internal/service"
	"github.com/palisade-host/palisade/hosts/seal"
)

const (
	// maximumSeals bounds how many seals of one image are considered.
	maximumSeals = 2000
	// sealReaders is how many seals are read at the same time.
	sealReaders = 8
	// maximumRegistryFailures is how many failures of the registry end the search for seals.
	maximumRegistryFailures = 4
	// maximumEnvelope bounds the envelope of a seal, in bytes.
	maximumEnvelope = 1 << 20
	// maximumSignature bounds the signature of a layer, in bytes.
	maximumSignature = 64 << 10
)

// sealed is a verified seal, with the descriptors of its blobs in the registry.
type sealed struct {
	*seal.Manifest
	envelope []byte
	// signatures are the descriptors of the layers' signatures, in the order of the layers; nil for a seal from the
	// store.
	signatures []ocispec.Descriptor
}

// complete makes the store hold everything of the image, by the seal in the store or else by a seal from the registry.
func (f *fetch) complete(ctx context.Context, found *image) (*sealed, error) {
	stored, failure := f.storedSeal(found)
	if stored != nil {
		release := f.protect(stored)
		defer release()
		if missing := f.missing(stored); len(missing) == 0 {
			f.startProgress(sizeOf(stored.Layers), 0)
			if err := f.link(ctx, stored); err != nil {
				return nil, err
			}
			return stored, f.record(found, nil)
		}
	}
	candidates, err := f.registrySeals(ctx, found)
	var refusal *Refusal
	if err != nil && failure != nil && !errors.As(err, &refusal) {
		// The reason why the stored seal is invalid says more than the registry's failure.
		return nil, failure
	}
	if err != nil {
		return nil, err
	}
	for _, candidate := range candidates {
		if err = f.place(ctx, found, candidate); err == nil {
			return candidate, nil
		}
		if !errors.As(err, &refusal) || refusal.Reason == DiskFull {
			return nil, err
		}
		f.role.options.Logger.Warn("a seal's layers cannot be used", "error", err)
	}
	return nil, err
}

// place downloads the missing layers and writes the seal last. So the store has a seal only when it has everything
// else.
func (f *fetch) place(ctx context.Context, found *image, candidate *sealed) error {
	release := f.protect(candidate)
	defer release()
	if err := f.layers(ctx, candidate); err != nil {
		return err
	}
	if err := f.link(ctx, candidate); err != nil {
		return err
	}
	if err := f.record(found, nil); err != nil {
		return err
	}
	return f.diskError(service.WriteFile(f.role.options.Store.Seal(found.digest), candidate.envelope, 0o644))
}

// protect prevents the removal of the layers until release is called.
func (f *fetch) protect(s *sealed) (release func()) {
	var releases []func()
	for _, layer := range s.Layers {
		releases = append(releases, f.role.protect(layer.RootHash))
	}
	return func() {
		for _, release := range releases {
			release()
		}
	}
}

// storedSeal returns the seal of the image in the store, or the reason why it is invalid. It returns neither when the
// store has no seal.
func (f *fetch) storedSeal(found *image) (*sealed, error) {
	content, err := os.ReadFile(f.role.options.Store.Seal(found.digest))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	manifest, err := f.check(content, found)
	if err != nil {
		return nil, err
	}
	return &sealed{Manifest: manifest, envelope: content}, nil
}

// check verifies an envelope and compares its content with the image.
func (f *fetch) check(envelope []byte, found *image) (*seal.Manifest, error) {
	trust := f.role.options.Trust
	manifest, err := seal.Open(envelope, trust.Keys)
	if errors.Is(err, seal.ErrUnknownKey) {
		return nil, f.reference.refuse(SealByUnknownKey, "its seal: %v", err)
	}
	if err != nil {
		return nil, f.reference.refuse(SealInvalid, "its seal: %v", err)
	}
	if err := manifest.Covers(found.digest, found.config, found.layers, found.diffIDs); err != nil {
		refusal := f.reference.refuse(SealMismatch, "its seal, signed by key %s, is not this image's: %v", manifest.KeyID, err)
		refusal.Key = manifest.KeyID
		return nil, refusal
	}
	if err := trust.Revocations.Refuse(manifest); err != nil {
		refusal := f.reference.refuse(SealRevoked, "%v", err)
		for _, layer := range manifest.Layers {
			if slices.Contains(trust.Revocations.RootHashes, layer.RootHash) {
				refusal.Layer = layer.Digest
			}
		}
		for _, key := range []string{manifest.KeyID, manifest.LayerKey} {
			if slices.Contains(trust.Revocations.Keys, key) {
				refusal.Key = key
			}
		}
		return nil, refusal
	}
	return manifest, nil
}

// severity orders the reasons why seals are refused. The refusal of the seal that is nearest to a valid one is
// reported.
var severity = []Reason{SealMissing, ContentMismatch, SealInvalid, SealByUnknownKey, SealMismatch, SealRevoked}

// registrySeals returns the valid seals among the image's referrers, those of the newest tools first.
func (f *fetch) registrySeals(ctx context.Context, found *image) ([]*sealed, error) {
	client, err := f.openClient()
	if err != nil {
		return nil, err
	}
	referrers, err := f.referrers(ctx, found.digest)
	if err != nil {
		return nil, err
	}
	referrers = slices.DeleteFunc(slices.Clone(referrers), func(one ocispec.Descriptor) bool { return one.ArtifactType != seal.ArtifactType })
	if len(referrers) > maximumSeals {
		return nil, client.explain(fmt.Errorf("more than %d seals refer to it", maximumSeals))
	}
	candidates, failures := make([]*sealed, len(referrers)), make([]error, len(referrers))
	var registryFailures atomic.Int32
	var firstFailure atomic.Pointer[error]
	readers, ctx := errgroup.WithContext(ctx)
	readers.SetLimit(sealReaders)
	for index, referrer := range referrers {
		readers.Go(func() error {
			candidates[index], failures[index] = f.registrySeal(ctx, client, found, referrer)
			var refusal *Refusal
			var pull *registry.PullError
			if failures[index] == nil || errors.As(failures[index], &refusal) || errors.As(failures[index], &pull) && pull.Reason == registry.NotFound {
				return nil
			}
			// A registry that fails repeatedly is not asked again.
			if registryFailures.Add(1) >= maximumRegistryFailures {
				return failures[index]
			}
			firstFailure.CompareAndSwap(nil, &failures[index])
			return nil
		})
	}
	err = readers.Wait()
	valid := slices.DeleteFunc(candidates, func(one *sealed) bool { return one == nil })
	if len(valid) == 0 {
		// A failure of the registry may hide the valid seal, so it does not count as absence of a seal.
		if first := firstFailure.Load(); first != nil {
			err = *first
		}
		if err != nil {
			return nil, err
		}
		return nil, f.mostSevere(failures)
	}
	slices.SortStableFunc(valid, newestFirst)
	return valid, nil
}

// mostSevere returns the refusal that is nearest to a valid seal, or that there is no seal at all.
func (f *fetch) mostSevere(failures []error) error {
	result := f.reference.refuse(SealMissing, "it has no seal in repository %s: seal it with the operator's keys", f.reference.Name())
	for _, failure := range failures {
		var refusal *Refusal
		if errors.As(failure, &refusal) && slices.Index(severity, refusal.Reason) > slices.Index(severity, result.Reason) {
			result = refusal
		}
	}
	return result
}

func (f *fetch) registrySeal(ctx context.Context, client *client, found *image, referrer ocispec.Descriptor) (*sealed, error) {
	content, err := client.manifest(ctx, referrer.Digest.String())
	if err != nil {
		return nil, err
	}
	layers, err := artifactLayers(content)
	if err != nil {
		return nil, f.reference.refuse(SealInvalid, "seal %s: %v", referrer.Digest, err)
	}
	if len(layers) == 0 || layers[0].MediaType != seal.EnvelopeMediaType {
		return nil, f.reference.refuse(SealInvalid, "seal %s does not begin with an envelope", referrer.Digest)
	}
	envelope, err := client.readBlob(ctx, layers[0], maximumEnvelope)
	if err != nil {
		return nil, err
	}
	manifest, err := f.check(envelope, found)
	if err != nil {
		return nil, err
	}
	count := len(manifest.Layers)
	if len(layers) != 1+2*count {
		return nil, f.reference.refuse(SealInvalid, "seal %s has %d blobs, expected an envelope and two for each of %d layers", referrer.Digest, len(layers), count)
	}
	signatures := layers[1+count:]
	for index, layer := range manifest.Layers {
		blob, signature := layers[1+index], signatures[index]
		if blob.MediaType != seal.BlobMediaType || blob.Digest.String() != layer.Blob || blob.Size != layer.Size ||
			signature.MediaType != seal.SignatureMediaType || signature.Digest.String() != layer.Signature || signature.Annotations[seal.RootHashAnnotation] != layer.RootHash {
			refusal := f.reference.refuse(SealInvalid, "seal %s lists other blobs for layer %s than its envelope does", referrer.Digest, layer.Digest)
			refusal.Layer = layer.Digest
			return nil, refusal
		}
	}
	return &sealed{Manifest: manifest, envelope: envelope, signatures: signatures}, nil
}

// newestFirst compares the tools that made two seals, beginning with the most significant tool.
func newestFirst(a, b *sealed) int {
	for _, tool := range []string{"palisade", "mkfs.erofs", "veritysetup"} {
		if order := semver.Compare("v"+b.Tools[tool], "v"+a.Tools[tool]); order != 0 {
			return order
		}
	}
	return cmp.Compare(a.Layers[0].RootHash, b.Layers[0].RootHash)
}

func sizeOf(layers []seal.Layer) (total int64) {
	for _, layer := range unique(layers) {
		total += layer.Size
	}
	return total
}

// unique returns each layer once. An image may have the same layer twice.
func unique(layers []seal.Layer) []seal.Layer {
	seen := map[string]bool{}
	var result []seal.Layer
	for _, layer := range layers {
		if !seen[layer.RootHash] {
			seen[layer.RootHash] = true
			result = append(result, layer)
		}
	}
	return result
}
