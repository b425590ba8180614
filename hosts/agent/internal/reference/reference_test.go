package reference

import (
	"testing"

	"github.com/palisade-host/palisade/hosts/agent/internal/reference/referencetest"
)

func TestTable(t *testing.T) {
	rows := referencetest.Load(t)
	for _, row := range rows.References {
		found, err := Parse(row.Reference)
		if row.Refused != "" {
			if err == nil {
				t.Errorf("%q is taken, as %+v: %s", row.Reference, found, row.Refused)
			}
			continue
		}
		if want := (Reference{row.Server, row.Repository, row.Digest}); err != nil || found != want {
			t.Errorf("%q: %+v, %v, expected %+v", row.Reference, found, err, want)
		}
		want := []string{row.Server, row.Repository}
		if row.API != nil {
			want = row.API
		}
		if host, repository := found.API(); host != want[0] || repository != want[1] {
			t.Errorf("%q is asked for at %s/%s, expected %v", row.Reference, host, repository, want)
		}
	}
	check := func(what string, rows referencetest.Cases, validate func(string) error) {
		for _, text := range rows.Accepted {
			if err := validate(text); err != nil {
				t.Errorf("%s %q: %v", what, text, err)
			}
		}
		for _, text := range rows.Refused {
			if validate(text) == nil {
				t.Errorf("%s %q is taken", what, text)
			}
		}
	}
	check("server", rows.Servers, ValidateServer)
	check("pattern", rows.Patterns, ValidatePattern)
}

func TestCanonicalName(t *testing.T) {
	for name, want := range map[string]string{
		"R.Example/web":             "r.example/web",
		"docker.io/alpine":          "docker.io/library/alpine",
		"index.docker.io/a/b":       "docker.io/a/b",
		"docker.io/*":               "docker.io/*",
		"Docker.io/library/alpine":  "docker.io/library/alpine",
		"registry-1.docker.io/a/b":  "registry-1.docker.io/a/b",
		"r.example:5000/docker.io/": "r.example:5000/docker.io/",
	} {
		if got := CanonicalName(name); got != want {
			t.Errorf("%s: %s, expected %s", name, got, want)
		}
	}
}
