package images

import (
	"context"
	"slices"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/palisade-host/palisade/hosts/agent/internal/reference"
	"github.com/palisade-host/palisade/hosts/agent/internal/service"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// progressInterval is the shortest time between two progress reports.
const progressInterval = time.Second

// fetch is one call of Ensure.
type fetch struct {
	role      *Role
	reference imageReference
	access    *agentv1.ImageRegistry
	report    func(*agentv1.ImageProgress)
	// listed are the referrers that were already listed, by the digest of their subject.
	listed map[string][]ocispec.Descriptor

	mutex    sync.Mutex
	client   *client
	progress agentv1.ImageProgress
	reported time.Time
}

// Ensure fetches an image into the store and checks that it may run here; see ImageStoreService.EnsureImage. The checks
// are, in this order: the manifest's digest, the policies, the seal, the layers. A *Refusal means that the image must
// not run here, a *registry.PullError that it could not be fetched, and any other error that the host itself failed.
func (r *Role) Ensure(ctx context.Context, text string, registries []*agentv1.ImageRegistry, report func(*agentv1.ImageProgress)) (*agentv1.SealedImage, error) {
	ref, err := parseReference(text)
	if err != nil {
		return nil, err
	}
	f := &fetch{role: r, reference: ref, report: report, listed: map[string][]ocispec.Descriptor{}}
	for _, candidate := range registries {
		if reference.CanonicalServer(candidate.GetServer()) == reference.CanonicalServer(ref.Server) {
			f.access = candidate
		}
	}
	defer f.close()
	unlock, err := r.images.acquire(ctx, ref.Digest)
	if err != nil {
		return nil, err
	}
	defer unlock()

	found, err := f.resolve(ctx)
	if err != nil {
		return nil, err
	}
	defer r.protect(found.digest)()
	if err := f.admit(ctx, found); err != nil {
		return nil, err
	}
	chosen, err := f.complete(ctx, found)
	if err != nil {
		return nil, err
	}
	result := &agentv1.SealedImage{
		ManifestDigest: found.digest, SealKeyId: chosen.KeyID,
		TotalBytes: f.progress.GetTotalBytes(), FetchedBytes: f.progress.GetFetchedBytes(),
	}
	for _, layer := range chosen.Layers {
		result.RootHashes = append(result.RootHashes, layer.RootHash)
	}
	return result, nil
}

// openClient returns the client. It is created at the first use of the network.
func (f *fetch) openClient() (*client, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.client == nil {
		created, err := newClient(f.reference, f.access, f.role.options.Stall)
		if err != nil {
			return nil, err
		}
		f.client = created
	}
	return f.client, nil
}

// referrers returns what refers to a manifest. Signatures and seals are both referrers, so the list is fetched once.
func (f *fetch) referrers(ctx context.Context, subject string) ([]ocispec.Descriptor, error) {
	if known, found := f.listed[subject]; found {
		return known, nil
	}
	client, err := f.openClient()
	if err != nil {
		return nil, err
	}
	found, err := client.referrers(ctx, subject)
	if err == nil {
		f.listed[subject] = found
	}
	return found, err
}

func (f *fetch) close() {
	if f.client != nil {
		f.client.close()
	}
}

// record stores the reference by which the image was requested, and the documents that it was read from.
func (f *fetch) record(found *image, signatures []signature) error {
	before := f.role.records.load(found.digest)
	after := before.with(f.reference.String(), found.documents...)
	if signatures != nil {
		after.Signatures = signatures
	}
	if len(after.References) == len(before.References) && len(after.Documents) == len(before.Documents) && slices.EqualFunc(after.Signatures, before.Signatures, signature.equal) {
		return nil
	}
	return f.diskError(f.role.records.save(found.digest, after))
}

// diskError turns the error of a full disk into a refusal.
func (f *fetch) diskError(err error) error {
	if service.IsDiskFull(err) {
		return f.reference.refuse(DiskFull, "the disk of the store is full: %v; delete groups or give the host a larger state disk", err)
	}
	return err
}

// startProgress sets the total of the progress of an attempt.
func (f *fetch) startProgress(total, missing int64) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.progress.TotalBytes, f.progress.MissingBytes = uint64(total), uint64(missing)
	f.reportProgress(true)
}

// addProgress adds received bytes to the progress.
func (f *fetch) addProgress(bytes int) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.progress.FetchedBytes += uint64(bytes)
	f.reportProgress(false)
}

func (f *fetch) reportProgress(always bool) {
	if f.report == nil || !always && time.Since(f.reported) < progressInterval {
		return
	}
	f.reported = time.Now()
	f.report(&agentv1.ImageProgress{
		TotalBytes: f.progress.GetTotalBytes(), MissingBytes: f.progress.GetMissingBytes(), FetchedBytes: f.progress.GetFetchedBytes(),
	})
}
