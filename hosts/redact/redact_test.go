package redact_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/palisade-host/palisade/hosts/redact"
)

// TestCases runs the cases that the provider is tested with as well.
func TestCases(t *testing.T) {
	content, err := os.ReadFile("testdata/cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name           string
		Secrets        []string
		Message, Shown string
	}
	if err := json.Unmarshal(content, &cases); err != nil {
		t.Fatal(err)
	}
	for _, test := range cases {
		t.Run(test.Name, func(t *testing.T) {
			redactor := redact.New(test.Secrets...)
			shown := redactor.Redact(test.Message)
			if shown != test.Shown {
				t.Errorf("%q is shown as\n%q, not as\n%q", test.Message, shown, test.Shown)
			}
			if again := redactor.Redact(shown); again != shown {
				t.Errorf("%q is changed again, to %q", shown, again)
			}
		})
	}
}

func TestLongSecretsAndMessagesTakeLittleTime(t *testing.T) {
	start := time.Now()
	for _, secret := range []string{strings.Repeat("a", 20_000), strings.Repeat(`\`, 20_000), strings.Repeat("%61", 7_000), strings.Repeat("ab\n", 7_000)} {
		if shown := redact.New(secret).Redact("x " + secret + " y"); strings.Contains(shown, "aaaa") {
			t.Errorf("shown: %.100s", shown)
		}
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestTextThatIsNotUTF8(t *testing.T) {
	if shown := redact.New("pass\xffword").Redact("x pass\xffword y"); shown != "x [secret] y" {
		t.Errorf("shown: %q", shown)
	}
}
