package images

import (
	"errors"
	"testing"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"

	"github.com/palisade-host/palisade/hosts/agent/internal/reference/referencetest"
)

func TestReferenceTable(t *testing.T) {
	table := referencetest.Load(t)
	for _, row := range table.References {
		found, err := parseReference(row.Reference)
		var refusal *Refusal
		if row.Refused != "" {
			if !errors.As(err, &refusal) || refusal.Reason != InvalidReference {
				t.Errorf("%q (%s): %v, %v", row.Reference, row.Refused, found, err)
			}
			continue
		}
		if want := row.Server + "/" + row.Repository + "@" + row.Digest; err != nil || found.String() != want {
			t.Errorf("%q: %v, %v", row.Reference, found, err)
		}
		if row.API == nil {
			continue
		}
		client, err := newClient(found, nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		if got := client.repository.Reference; got.Host() != row.API[0] || got.Repository != row.API[1] {
			t.Errorf("%q is asked for at %s/%s", row.Reference, got.Host(), got.Repository)
		}
	}
	for _, pattern := range table.Patterns.Accepted {
		if err := validatePolicy(&agentv1.ImagePolicy{Name: "a", Repositories: []string{pattern}}); err != nil {
			t.Errorf("%q: %v", pattern, err)
		}
	}
	for _, pattern := range table.Patterns.Refused {
		if validatePolicy(&agentv1.ImagePolicy{Name: "a", Repositories: []string{pattern}}) == nil {
			t.Errorf("%q is taken", pattern)
		}
	}
}
