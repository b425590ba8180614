package images

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/palisade-host/palisade/hosts/agent/internal/service"
)

// recordStore is what the role keeps so that an image can start again without its registry: documents by their digests,
// and for each image its references and signatures. None of it is trusted: documents are compared with their digests,
// and signatures are verified at each use.
type recordStore struct {
	directory string
}

// record is that of one image. Its file is named after the manifest's digest.
type record struct {
	// References are those by which the image was requested: with its own digest, or with that of an index.
	References []string `json:"references"`
	// Documents are the digests of the manifests and the configuration.
	Documents  []string    `json:"documents"`
	Signatures []signature `json:"signatures,omitempty"`
}

func openRecords(directory string) (*recordStore, error) {
	r := &recordStore{directory: directory}
	for _, folder := range []string{r.documents(), r.images()} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *recordStore) documents() string {
	return filepath.Join(r.directory, "documents")
}

func (r *recordStore) images() string {
	return filepath.Join(r.directory, "images")
}

func (r *recordStore) documentFile(digest string) string {
	return filepath.Join(r.documents(), strings.TrimPrefix(digest, "sha256:"))
}

func (r *recordStore) imageFile(digest string) string {
	return filepath.Join(r.images(), strings.TrimPrefix(digest, "sha256:")+".json")
}

// document returns the document with a digest, or nil.
func (r *recordStore) document(digest string) []byte {
	content, err := os.ReadFile(r.documentFile(digest))
	if err != nil || digestOf(content) != digest {
		return nil
	}
	return content
}

func (r *recordStore) saveDocument(content []byte) error {
	return service.WriteFile(r.documentFile(digestOf(content)), content, 0o600)
}

// load returns the record of an image. It returns an empty record when none can be read, because all of it can be
// fetched again.
func (r *recordStore) load(digest string) record {
	var found record
	content, err := os.ReadFile(r.imageFile(digest))
	if err != nil || json.Unmarshal(content, &found) != nil {
		return record{}
	}
	return found
}

func (r *recordStore) save(digest string, changed record) error {
	content, err := json.Marshal(changed)
	if err != nil {
		return err
	}
	return service.WriteFile(r.imageFile(digest), content, 0o600)
}

// all returns the digests of the recorded images.
func (r *recordStore) all() ([]string, error) {
	return digests(r.images(), ".json")
}

// digests returns the sorted digests that files of a folder are named after.
func digests(folder, suffix string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var found []string
	for _, entry := range entries {
		name, matches := strings.CutSuffix(entry.Name(), suffix)
		if digest := "sha256:" + name; matches && digestPattern.MatchString(digest) {
			found = append(found, digest)
		}
	}
	return found, nil
}

// with returns the record with a reference and documents added.
func (r record) with(reference string, documents ...string) record {
	for _, document := range documents {
		if !slices.Contains(r.Documents, document) {
			r.Documents = append(slices.Clone(r.Documents), document)
		}
	}
	if !slices.Contains(r.References, reference) {
		r.References = append(slices.Clone(r.References), reference)
	}
	return r
}
