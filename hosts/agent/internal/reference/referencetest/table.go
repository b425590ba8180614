// Package referencetest reads the table of references with which all parsers of references are tested.
package referencetest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// Table is hosts/api/testdata/image-references.json.
type Table struct {
	References                      []Row
	Servers, Repositories, Patterns Cases
}

// Row is a reference with its parts, or the reason why it is refused.
type Row struct {
	Reference, Server, Repository, Digest string
	// API is host and repository of the registry API, where they differ from server and repository.
	API     []string
	Refused string
}

// Cases are texts of one kind.
type Cases struct {
	Accepted, Refused []string
}

// Load reads the table.
func Load(t *testing.T) Table {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(moduleRoot(t), "hosts/api/testdata/image-references.json"))
	if err != nil {
		t.Fatal(err)
	}
	var table Table
	if err := json.Unmarshal(content, &table); err != nil || len(table.References) == 0 {
		t.Fatalf("%d references, %v", len(table.References), err)
	}
	return table
}

// moduleRoot returns the folder of go.mod above that of the test. The compiler may trim its paths.
func moduleRoot(t *testing.T) string {
	t.Helper()
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; folder = filepath.Dir(folder) {
		if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
			return folder
		}
		if folder == filepath.Dir(folder) {
			t.Fatal("there is no go.mod above the test")
		}
	}
}
