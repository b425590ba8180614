// Package referencetest reads the table of references that everything which takes one is tested with.
package referencetest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Table is hosts/api/testdata/image-references.json.
type Table struct {
	References                      []Row
	Servers, Repositories, Patterns Cases
}

// Row is a reference and its parts, or why it is refused.
type Row struct {
	Reference, Server, Repository, Digest string
	// API is where the registry API answers, host and repository, where that differs from server and repository.
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
	_, here, _, _ := runtime.Caller(0)
	content, err := os.ReadFile(filepath.Join(filepath.Dir(here), "../../../../api/testdata/image-references.json"))
	if err != nil {
		t.Fatal(err)
	}
	var table Table
	if err := json.Unmarshal(content, &table); err != nil || len(table.References) == 0 {
		t.Fatalf("%d references, %v", len(table.References), err)
	}
	return table
}
