package sealtest

import (
	"encoding/json"
	"os"
	"testing"
)

// LayerCount says whether an image of so many layers is accepted.
type LayerCount struct {
	Layers   int
	Accepted bool
}

// LayerCounts reads testdata/layer-counts.json of the package seal, with which the sealer is tested too
// (provider/local/sealing/image.test.ts). The path of the file is relative to the test's folder.
func LayerCounts(t *testing.T, file string) []LayerCount {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var cases []LayerCount
	if err := json.Unmarshal(content, &cases); err != nil || len(cases) == 0 {
		t.Fatalf("%s: %d cases, %v", file, len(cases), err)
	}
	return cases
}
