package sealed

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	coreimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// storedImage is an image in a content store.
type storedImage struct {
	store            content.Store
	manifest, config ocispec.Descriptor
	folder           string
}

func newStoredImage(t *testing.T) *storedImage {
	t.Helper()
	folder := t.TempDir()
	store, err := newContent(folder)
	if err != nil {
		t.Fatal(err)
	}
	stored := &storedImage{store: store, folder: folder}
	stored.config = stored.write(t, ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: platforms.DefaultSpec(),
		Config:   ocispec.ImageConfig{User: "1000", Entrypoint: []string{"/bin/web"}},
	})
	stored.manifest = stored.write(t, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: stored.config,
	})
	return stored
}

func (s *storedImage) write(t *testing.T, mediaType string, value any) ocispec.Descriptor {
	t.Helper()
	encoded, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	descriptor := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(encoded), Size: int64(len(encoded))}
	if err := content.WriteBlob(t.Context(), s.store, descriptor.Digest.String(), bytes.NewReader(encoded), descriptor); err != nil {
		t.Fatal(err)
	}
	return descriptor
}

// edit changes a blob on the disk and keeps its length.
func (s *storedImage) edit(t *testing.T, blob ocispec.Descriptor, before, after string) {
	t.Helper()
	file := filepath.Join(s.folder, "blobs", "sha256", blob.Digest.Encoded())
	present, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(present, []byte(before), []byte(after), 1)
	if bytes.Equal(changed, present) || len(changed) != len(present) {
		t.Fatalf("%s is not changed at the same length: %s", before, present)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, changed, 0o600); err != nil {
		t.Fatal(err)
	}
}

// read reads the configuration as CRI does.
func (s *storedImage) read(ctx context.Context) (ocispec.Image, error) {
	var config ocispec.Image
	descriptor, err := coreimages.Config(ctx, s.store, s.manifest, platforms.Default())
	if err != nil {
		return config, err
	}
	encoded, err := content.ReadBlob(ctx, s.store, descriptor)
	if err != nil {
		return config, err
	}
	return config, json.Unmarshal(encoded, &config)
}

func TestAConfigurationThatWasChangedIsRefused(t *testing.T) {
	for name, edit := range map[string]func(*testing.T, *storedImage){
		"the user":        func(t *testing.T, s *storedImage) { s.edit(t, s.config, `"1000"`, `"0000"`) },
		"the entry point": func(t *testing.T, s *storedImage) { s.edit(t, s.config, "/bin/web", "/bin/ash") },
		"the manifest": func(t *testing.T, s *storedImage) {
			other := s.write(t, ocispec.MediaTypeImageConfig, ocispec.Image{Platform: platforms.DefaultSpec(), Config: ocispec.ImageConfig{User: "0"}})
			s.edit(t, s.manifest, s.config.Digest.String(), other.Digest.String())
		},
	} {
		t.Run(name, func(t *testing.T) {
			stored := newStoredImage(t)
			config, err := stored.read(t.Context())
			if err != nil || config.Config.User != "1000" || len(config.Config.Entrypoint) != 1 {
				t.Fatalf("untouched: %v, %v", config, err)
			}
			edit(t, stored)
			if config, err := stored.read(t.Context()); !errdefs.IsDataLoss(err) {
				t.Errorf("%v, %v", config, err)
			}
		})
	}
}

func TestALargeBlobThatWasChangedIsRefused(t *testing.T) {
	stored := newStoredImage(t)
	blob := stored.write(t, ocispec.MediaTypeImageLayer, string(bytes.Repeat([]byte("x"), maximumDocument)))
	if read, err := content.ReadBlob(t.Context(), stored.store, blob); err != nil || int64(len(read)) != blob.Size {
		t.Fatalf("%d bytes, %v", len(read), err)
	}
	reader, err := stored.store.ReaderAt(t.Context(), blob)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if read, err := io.ReadAll(content.NewReader(reader)); err != nil || int64(len(read)) != blob.Size {
		t.Errorf("as a stream: %d bytes, %v", len(read), err)
	}
	stored.edit(t, blob, "xx", "xy")
	if _, err := content.ReadBlob(t.Context(), stored.store, blob); !errdefs.IsDataLoss(err) {
		t.Errorf("%v", err)
	}
}

func TestAnAbsentBlobIsNotFound(t *testing.T) {
	stored := newStoredImage(t)
	absent := ocispec.Descriptor{Digest: digest.FromString("absent")}
	if _, err := stored.store.ReaderAt(t.Context(), absent); !errdefs.IsNotFound(err) {
		t.Errorf("%v", err)
	}
}
