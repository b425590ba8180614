package groups

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestResolver(t *testing.T) {
	directory := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(directory, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	stub := write("stub", "nameserver 127.0.0.53\n")
	real := write("real", "# comment\nnameserver 10.0.2.3\nnameserver fe80::1%eth0\nnameserver nonsense\nsearch example.test\n")
	for name, test := range map[string]struct {
		files   []string
		servers []string
	}{
		"real":   {[]string{filepath.Join(directory, "absent"), real, stub}, []string{"10.0.2.3", "fe80::1%eth0"}},
		"stub":   {[]string{stub}, nil},
		"absent": {nil, nil},
	} {
		config := resolver(test.files)
		if !slices.Equal(config.Servers, test.servers) || len(config.Options) == 0 {
			t.Errorf("%s: %v", name, config)
		}
	}
	if config := resolver([]string{real}); !slices.Equal(config.Searches, []string{"example.test"}) {
		t.Errorf("%v", config)
	}
}
