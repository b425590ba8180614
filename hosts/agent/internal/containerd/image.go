// Package containerd uses containerd's own gRPC services for what CRI cannot do: importing an image from an archive,
// and finding the version of the OCI runtime.
package containerd

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"strings"
	"time"

	"github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/services/leases/v1"
	"github.com/containerd/containerd/api/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// criNamespace is containerd's namespace for the images of CRI.
const criNamespace = "k8s.io"

// maximumBlob bounds a blob of the archive in bytes. The pause image is smaller than one megabyte.
const maximumBlob = 64 << 20

// appearTimeout is how long CRI may take to notice an image that was imported into containerd's store.
const appearTimeout = 10 * time.Second

func withNamespace(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", criNamespace)
}

// EnsureImage imports the OCI archive (an image layout in a tar file, with one manifest) under a reference, unless CRI
// has that image, and waits until CRI has it. The image is pinned, so garbage collection never removes it.
func EnsureImage(ctx context.Context, connection grpc.ClientConnInterface, archive, reference string, logger *slog.Logger) error {
	imageService := runtimev1.NewImageServiceClient(connection)
	present := func() (bool, error) {
		response, err := imageService.ImageStatus(ctx, &runtimev1.ImageStatusRequest{Image: &runtimev1.ImageSpec{Image: reference}})
		return response.GetImage() != nil, err
	}
	if found, err := present(); err != nil || found {
		return err
	}
	layout, err := readArchive(archive)
	if err != nil {
		return fmt.Errorf("pause image: %w", err)
	}
	if err := layout.importTo(ctx, connection, reference); err != nil {
		return fmt.Errorf("import of %s: %w", archive, err)
	}
	deadline := time.Now().Add(appearTimeout)
	for {
		found, err := present()
		if err != nil {
			return err
		}
		if found {
			logger.Info("imported image", "image", reference, "digest", layout.manifest.Digest)
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("image %s was imported, but CRI does not show it after %s", reference, appearTimeout)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// layout is an image archive in memory.
type layout struct {
	manifest ocispec.Descriptor
	content  ocispec.Manifest
	blobs    map[string][]byte
}

func readArchive(name string) (*layout, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	result := &layout{blobs: map[string][]byte{}}
	var index ocispec.Index
	reader := tar.NewReader(file)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if header.Size > maximumBlob {
			return nil, fmt.Errorf("%s: %s has %d bytes, more than %d", name, header.Name, header.Size, maximumBlob)
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		entry := path.Clean(header.Name)
		if entry == ocispec.ImageIndexFile {
			if err := json.Unmarshal(content, &index); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", name, entry, err)
			}
			continue
		}
		if digest, found := strings.CutPrefix(entry, ocispec.ImageBlobsDir+"/"); found {
			result.blobs[strings.Replace(digest, "/", ":", 1)] = content
		}
	}
	if len(index.Manifests) != 1 {
		return nil, fmt.Errorf("%s: %d manifests in the index, expected 1", name, len(index.Manifests))
	}
	result.manifest = index.Manifests[0]
	manifest, found := result.blobs[result.manifest.Digest.String()]
	if !found {
		return nil, fmt.Errorf("%s: no blob %s", name, result.manifest.Digest)
	}
	if err := json.Unmarshal(manifest, &result.content); err != nil {
		return nil, fmt.Errorf("%s: manifest: %w", name, err)
	}
	for _, blob := range append([]ocispec.Descriptor{result.content.Config}, result.content.Layers...) {
		if int64(len(result.blobs[blob.Digest.String()])) != blob.Size {
			return nil, fmt.Errorf("%s: blob %s is missing or torn", name, blob.Digest)
		}
	}
	return result, nil
}

// importTo writes the blobs under a lease, so that none is collected before the image refers to it.
func (l *layout) importTo(ctx context.Context, connection grpc.ClientConnInterface, reference string) error {
	ctx = withNamespace(ctx)
	leaseService := leases.NewLeasesClient(connection)
	lease, err := leaseService.Create(ctx, &leases.CreateRequest{
		ID:     fmt.Sprintf("palisade-import-%d", time.Now().UnixNano()),
		Labels: map[string]string{"containerd.io/gc.expire": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)},
	})
	if err != nil {
		return err
	}
	defer func() {
		// An expired lease is collected anyway, so a failure here does not matter.
		_, _ = leaseService.Delete(context.WithoutCancel(ctx), &leases.DeleteRequest{ID: lease.GetLease().GetID()})
	}()
	leased := metadata.AppendToOutgoingContext(ctx, "containerd-lease", lease.GetLease().GetID())

	store := content.NewContentClient(connection)
	labels := map[string]string{"containerd.io/gc.ref.content.config": l.content.Config.Digest.String()}
	for index, layer := range l.content.Layers {
		labels[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", index)] = layer.Digest.String()
		if err := l.write(leased, store, layer, nil); err != nil {
			return err
		}
	}
	if err := l.write(leased, store, l.content.Config, nil); err != nil {
		return err
	}
	if err := l.write(leased, store, l.manifest, labels); err != nil {
		return err
	}

	image := &images.Image{
		Name: reference,
		Target: &types.Descriptor{
			MediaType: l.manifest.MediaType, Digest: l.manifest.Digest.String(), Size: l.manifest.Size,
		},
		Labels: map[string]string{"io.cri-containerd.image": "managed", "io.cri-containerd.pinned": "pinned"},
	}
	imageStore := images.NewImagesClient(connection)
	_, err = imageStore.Create(leased, &images.CreateImageRequest{Image: image})
	if status.Code(err) == codes.AlreadyExists {
		_, err = imageStore.Update(leased, &images.UpdateImageRequest{Image: image})
	}
	return err
}

// write stores one blob. containerd checks size and digest.
func (l *layout) write(ctx context.Context, store content.ContentClient, blob ocispec.Descriptor, labels map[string]string) error {
	data := l.blobs[blob.Digest.String()]
	stream, err := store.Write(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = stream.CloseSend() }()
	err = stream.Send(&content.WriteContentRequest{
		Action: content.WriteAction_COMMIT, Ref: "palisade-import-" + blob.Digest.String(),
		Total: blob.Size, Expected: blob.Digest.String(), Data: data, Labels: labels,
	})
	if err == nil || errors.Is(err, io.EOF) {
		// The response contains the reason of the failure.
		_, err = stream.Recv()
	}
	if status.Code(err) == codes.AlreadyExists {
		return nil
	}
	return err
}
