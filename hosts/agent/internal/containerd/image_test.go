package containerd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/palisade-host/palisade/hosts/agent/internal/containerd/testimage"
)

func TestReadArchive(t *testing.T) {
	image, err := testimage.New([]byte("program"), "")
	if err != nil {
		t.Fatal(err)
	}
	content, err := image.Archive()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pause.oci.tar")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	layout, err := readArchive(path)
	if err != nil {
		t.Fatal(err)
	}
	if layout.manifest.Digest != image.Manifest.Digest || len(layout.content.Layers) != 1 || len(layout.blobs) != 3 {
		t.Errorf("%+v", layout)
	}
	if err := os.WriteFile(path, content[:len(content)/3], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readArchive(path); err == nil {
		t.Error("a torn archive was read")
	}
}
