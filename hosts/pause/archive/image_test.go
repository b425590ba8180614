package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestArchiveIsReproducibleAndConsistent(t *testing.T) {
	first, err := build([]byte("program"), "palisade.internal/pause:1")
	if err != nil {
		t.Fatal(err)
	}
	second, err := build([]byte("program"), "palisade.internal/pause:1")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Fatal("two builds of the same program differ")
	}

	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(first)); ; {
		header, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	blob := func(d digest.Digest) []byte {
		content, found := files["blobs/sha256/"+d.Encoded()]
		if !found || digest.FromBytes(content) != d {
			t.Fatalf("blob %s is missing or has other content", d)
		}
		return content
	}

	var index v1.Index
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	if got := index.Manifests[0].Annotations["io.containerd.image.name"]; got != "palisade.internal/pause:1" {
		t.Errorf("image name %q", got)
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(blob(index.Manifests[0].Digest), &manifest); err != nil {
		t.Fatal(err)
	}
	var image v1.Image
	if err := json.Unmarshal(blob(manifest.Config.Digest), &image); err != nil {
		t.Fatal(err)
	}
	layer := blob(manifest.Layers[0].Digest)
	if image.RootFS.DiffIDs[0] != digest.FromBytes(layer) {
		t.Error("the layer's diff id does not name the layer")
	}
	header, err := tar.NewReader(bytes.NewReader(layer)).Next()
	if err != nil || header.Name != "pause" || header.Mode != 0o755 {
		t.Errorf("first file of the layer: %+v, %v", header, err)
	}
}
