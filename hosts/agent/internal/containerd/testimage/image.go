// Package testimage creates images with one program for tests, and serves them from a registry.
package testimage

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"path"
	"runtime"
	"strconv"
	"strings"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	godigest "github.com/opencontainers/go-digest"
)

// Image is an OCI image in memory.
type Image struct {
	Manifest ocispec.Descriptor
	Blobs    map[string][]byte
}

// New returns an image of one layer with program as /program, its entry point. An empty architecture means this
// machine's.
func New(program []byte, architecture string) (*Image, error) {
	if architecture == "" {
		architecture = runtime.GOARCH
	}
	var layer bytes.Buffer
	writer := tar.NewWriter(&layer)
	if err := writer.WriteHeader(&tar.Header{Name: "program", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))}); err != nil {
		return nil, err
	}
	if _, err := writer.Write(program); err != nil {
		return nil, err
	}
	for _, directory := range []string{"etc/", "proc/", "sys/", "dev/", "work/"} {
		if err := writer.WriteHeader(&tar.Header{Name: directory, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	image := &Image{Blobs: map[string][]byte{}}
	layerBlob := image.add(ocispec.MediaTypeImageLayer, layer.Bytes())
	config, err := json.Marshal(ocispec.Image{
		Platform: ocispec.Platform{Architecture: architecture, OS: "linux"},
		Config:   ocispec.ImageConfig{Entrypoint: []string{"/program"}, Env: []string{"PATH=/"}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []godigest.Digest{layerBlob.Digest}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: image.add(ocispec.MediaTypeImageConfig, config), Layers: []ocispec.Descriptor{layerBlob},
	})
	if err != nil {
		return nil, err
	}
	image.Manifest = image.add(ocispec.MediaTypeImageManifest, manifest)
	return image, nil
}

func (i *Image) add(mediaType string, content []byte) ocispec.Descriptor {
	sum := sha256.Sum256(content)
	digest := godigest.Digest("sha256:" + hex.EncodeToString(sum[:]))
	i.Blobs[digest.String()] = content
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest, Size: int64(len(content))}
}

// Archive returns the image as an OCI layout in a tar file.
func (i *Image) Archive() ([]byte, error) {
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{i.Manifest},
	})
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{ocispec.ImageIndexFile: index, ocispec.ImageLayoutFile: []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	for digest, content := range i.Blobs {
		files[path.Join(ocispec.ImageBlobsDir, strings.Replace(digest, ":", "/", 1))] = content
	}
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	for name, content := range files {
		if err := writer.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}); err != nil {
			return nil, err
		}
		if _, err := writer.Write(content); err != nil {
			return nil, err
		}
	}
	return archive.Bytes(), writer.Close()
}

// Registry serves images by digest (OCI distribution specification, pull only). With a user it requires basic
// authentication.
func Registry(user, password string, images ...*Image) http.Handler {
	return http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if givenUser, givenPassword, _ := request.BasicAuth(); user != "" && (givenUser != user || givenPassword != password) {
			writer.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			http.Error(writer, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		if request.URL.Path == "/v2/" {
			return
		}
		digest := path.Base(request.URL.Path)
		for _, image := range images {
			content, found := image.Blobs[digest]
			if !found {
				continue
			}
			if strings.Contains(request.URL.Path, "/manifests/") {
				writer.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			} else {
				writer.Header().Set("Content-Type", "application/octet-stream")
			}
			writer.Header().Set("Docker-Content-Digest", digest)
			writer.Header().Set("Content-Length", strconv.Itoa(len(content)))
			if request.Method != http.MethodHead {
				_, _ = writer.Write(content)
			}
			return
		}
		http.Error(writer, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, http.StatusNotFound)
	})
}
