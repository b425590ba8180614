// Package image holds the tests of the scripts that build the host image.
package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sources runs apt-sources.sh on a folder with the given files. It returns "URI suite" of each source that the script
// prints.
func sources(t *testing.T, files map[string]string) ([]string, error) {
	t.Helper()
	folder := t.TempDir()
	for name, content := range files {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	output, err := exec.Command("scripts/apt-sources.sh", "trixie", folder).Output()
	var found []string
	uri := ""
	for line := range strings.Lines(string(output)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "URIs":
			uri = value
		case "Suites":
			found = append(found, uri+" "+value)
		}
	}
	return found, err
}

func TestAptSources(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"deb822": {
			map[string]string{"sources.list.d/debian.sources": `Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
`},
			[]string{
				"http://mirror.example/debian trixie", "http://mirror.example/debian trixie-updates",
				"http://mirror.example/debian-security trixie-security",
			},
		},
		"one line": {
			map[string]string{"sources.list": `# deb http://old.example/debian bookworm main
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/d bookworm main # note
deb http://mirror.example/debian-security/ stable-security main
`},
			[]string{"http://mirror.example/d trixie", "http://mirror.example/debian-security/ trixie-security"},
		},
		"third parties are left out": {
			map[string]string{
				"sources.list.d/a.list": "deb https://third.example/repository bookworm main\n",
				"sources.list.d/b.list": "deb [signed-by=/etc/apt/keyrings/third.gpg] https://third.example/linux/debian bookworm main\n",
				"sources.list.d/c.sources": "Types: deb\nURIs: https://third.example/debian\nSuites: bookworm\nComponents: main\n" +
					"Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n",
				"sources.list.d/d.sources": "Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n",
				"sources.list":             "deb http://mirror.example/debian bookworm main\n",
			},
			[]string{"http://mirror.example/debian trixie"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := sources(t, test.files)
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

func TestAptSourcesRefusesAMachineWithoutDebian(t *testing.T) {
	if got, err := sources(t, map[string]string{"sources.list": "deb https://third.example/x bookworm main\n"}); err == nil {
		t.Errorf("no error, got %q", got)
	}
}

func TestInputsAreFilesOfTheDefinition(t *testing.T) {
	output, err := exec.Command("./inputs.sh").Output()
	if err != nil {
		t.Fatal(err)
	}
	files := strings.Fields(string(output))
	for _, want := range []string{"build.sh", "command-line", "command-line.enforce", "firmware-certificates", "ipe-policy", "ipe-policy.jit", "mkosi/mkosi.conf", "mkosi/mkosi.extra/etc/fstab"} {
		if !slices.Contains(files, want) {
			t.Errorf("%s is not among the inputs", want)
		}
	}
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
		if strings.HasSuffix(file, "_test.go") || strings.HasSuffix(file, ".md") {
			t.Errorf("%s would rebuild the image", file)
		}
	}
}
