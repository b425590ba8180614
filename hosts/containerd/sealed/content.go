package sealed

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maximumDocument bounds the blobs that are read into memory, in bytes. The agent accepts no larger manifest or
// configuration.
const maximumDocument = 4 << 20

// verifiedContent compares each blob with its digest when it is opened. Upstream does so only when it writes a blob, so
// that an image's entry point or user could be changed on the disk.
//
// A seal names the digest of the image's manifest, the manifest that of the configuration, and CRI makes a container
// from the configuration that it has read here.
type verifiedContent struct {
	content.Store
}

func newContent(root string) (content.Store, error) {
	store, err := local.NewStore(root)
	if err != nil {
		return nil, err
	}
	return verifiedContent{store}, nil
}

// ReaderAt opens a blob. It refuses one with other content than its digest says with DataLoss.
func (s verifiedContent) ReaderAt(ctx context.Context, descriptor ocispec.Descriptor) (content.ReaderAt, error) {
	reader, err := s.Store.ReaderAt(ctx, descriptor)
	if err != nil {
		return nil, err
	}
	verifier := descriptor.Digest.Verifier()
	if reader.Size() > maximumDocument {
		// Layers are too large for memory. A sealed host has none here: it mounts those of its stores.
		// The reader of a local file shares its position, so content.NewReader would leave the caller nothing to read.
		if _, err := io.Copy(verifier, io.NewSectionReader(reader, 0, reader.Size())); err != nil || !verifier.Verified() {
			_ = reader.Close()
			return nil, refusedContent(descriptor, err)
		}
		return reader, nil
	}
	defer reader.Close()
	// What was verified stays in memory, so that it cannot change until it is used.
	read, err := io.ReadAll(io.TeeReader(io.NewSectionReader(reader, 0, reader.Size()), verifier))
	if err != nil || !verifier.Verified() {
		return nil, refusedContent(descriptor, err)
	}
	return document{bytes.NewReader(read)}, nil
}

func refusedContent(descriptor ocispec.Descriptor, err error) error {
	if err != nil {
		return fmt.Errorf("read blob %s: %w", descriptor.Digest, err)
	}
	return fmt.Errorf("blob %s was changed on the disk: its content has another digest: %w", descriptor.Digest, errdefs.ErrDataLoss)
}

// document is a verified blob in memory.
type document struct {
	*bytes.Reader
}

func (document) Close() error {
	return nil
}
