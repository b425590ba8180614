package main

import (
	"archive/tar"
	"bytes"
	_ "crypto/sha256" // go-digest finds it by registration.
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// containerd takes the full name of the image from this annotation of the index.
const imageNameAnnotation = "io.containerd.image.name"

type file struct {
	name    string
	mode    int64
	content []byte
}

// build returns the archive: one layer with the program, its configuration, manifest and index.
func build(program []byte, reference string) ([]byte, error) {
	layer, err := tarball([]file{{"pause", 0o755, program}})
	if err != nil {
		return nil, err
	}
	configuration, err := json.Marshal(v1.Image{
		Platform: v1.Platform{Architecture: "amd64", OS: "linux"},
		Config:   v1.ImageConfig{Entrypoint: []string{"/pause"}, User: "65535:65535", WorkingDir: "/"},
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    descriptor(v1.MediaTypeImageConfig, configuration),
		Layers:    []v1.Descriptor{descriptor(v1.MediaTypeImageLayer, layer)},
	})
	if err != nil {
		return nil, err
	}
	entry := descriptor(v1.MediaTypeImageManifest, manifest)
	entry.Platform = &v1.Platform{Architecture: "amd64", OS: "linux"}
	entry.Annotations = map[string]string{imageNameAnnotation: reference, v1.AnnotationRefName: reference}
	index, err := json.Marshal(v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{entry},
	})
	if err != nil {
		return nil, err
	}
	layout, err := json.Marshal(v1.ImageLayout{Version: v1.ImageLayoutVersion})
	if err != nil {
		return nil, err
	}
	files := []file{{v1.ImageLayoutFile, 0o644, layout}, {v1.ImageIndexFile, 0o644, index}}
	for _, blob := range [][]byte{manifest, configuration, layer} {
		files = append(files, file{"blobs/sha256/" + digest.FromBytes(blob).Encoded(), 0o644, blob})
	}
	return tarball(files)
}

func descriptor(mediaType string, content []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
}

func tarball(files []file) ([]byte, error) {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for _, f := range files {
		header := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}
