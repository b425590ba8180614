package images

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"testing"
)

// table reads a table with which the TypeScript implementation is tested as well.
func table(t *testing.T, name string, rows any) {
	t.Helper()
	content, err := os.ReadFile("../../../api/testdata/" + name)
	if err == nil {
		err = json.Unmarshal(content, rows)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestDocuments(t *testing.T) {
	var rows struct {
		Documents []struct{ Name, Document, Kind string }
		Indexes   []struct {
			Name, Architecture string
			Manifests          json.RawMessage
			Candidates         []string
		}
	}
	table(t, "image-documents.json", &rows)
	for _, row := range rows.Documents {
		read, err := readDocument([]byte(row.Document))
		kind := "refused"
		if err == nil {
			kind = map[bool]string{true: "index", false: "image"}[read.isIndex]
		}
		if kind != row.Kind {
			t.Errorf("%s: %s (%v), expected %s", row.Name, kind, err, row.Kind)
		}
	}
	for _, row := range rows.Indexes {
		manifests, err := descriptors(row.Manifests)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, candidate := range candidates(manifests, row.Architecture) {
			got = append(got, candidate.Digest.String())
		}
		if !slices.Equal(got, row.Candidates) {
			t.Errorf("%s: %v, expected %v", row.Name, got, row.Candidates)
		}
	}
}

func TestHeaders(t *testing.T) {
	var rows struct{ Challenges, Links [][2]json.RawMessage }
	table(t, "registry-headers.json", &rows)
	for _, row := range rows.Challenges {
		var header string
		var want [][2]json.RawMessage
		if json.Unmarshal(row[0], &header) != nil || json.Unmarshal(row[1], &want) != nil {
			t.Fatal("the table")
		}
		got := challenges(header)
		if len(got) != len(want) {
			t.Errorf("%s: %v", header, got)
			continue
		}
		for index, expected := range want {
			var scheme string
			var parameters map[string]string
			if json.Unmarshal(expected[0], &scheme) != nil || json.Unmarshal(expected[1], &parameters) != nil {
				t.Fatal("the table")
			}
			if got[index].scheme != scheme || !maps.Equal(got[index].parameters, parameters) {
				t.Errorf("%s: %v", header, got)
			}
		}
	}
	for _, row := range rows.Links {
		var header, want string
		if json.Unmarshal(row[0], &header) != nil || json.Unmarshal(row[1], &want) != nil {
			t.Fatal("the table")
		}
		if got := nextLink([]string{header}); got != want {
			t.Errorf("%s: %q, expected %q", header, got, want)
		}
	}
}
