package registry

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestClassify(t *testing.T) {
	for text, reason := range map[string]Reason{
		"unexpected status from HEAD request to https://r/v2/: 401 Unauthorized":                           Unauthorized,
		"pull access denied, repository does not exist or may require authorization: authorization failed": Unauthorized,
		"failed to resolve image: r/x@sha256:00: not found":                                                NotFound,
		"tls: failed to verify certificate: x509: certificate signed by unknown authority":                 Untrusted,
		"dial tcp 10.0.2.2:5000: connect: connection refused":                                              Unreachable,
		"dial tcp: lookup registry.test: no such host":                                                     Unreachable,
		"no match for platform in manifest: not found":                                                     WrongPlatform,
		"disk is full": Failed,
	} {
		var pull *PullError
		if err := Classify("image", "user", status.Error(codes.Unknown, text)); !errors.As(err, &pull) || pull.Reason != reason || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := Classify("image", "", errors.New("401 Unauthorized")); !strings.Contains(err.Error(), "asks for credentials") {
		t.Error(err)
	}
}

func TestCertificates(t *testing.T) {
	directory := t.TempDir()
	certificates := NewCertificates(directory)
	read := func(name string) string {
		content, err := os.ReadFile(filepath.Join(directory, "127.0.0.1:5000", name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return string(content)
	}
	use := func(endpoint, ca string) func() {
		t.Helper()
		release, err := certificates.Use(t.Context(), "127.0.0.1:5000", endpoint, ca)
		if err != nil {
			t.Fatal(err)
		}
		return release
	}
	release := use("https://10.0.2.2:5000", "PEM")
	want := "server = \"https://10.0.2.2:5000\"\ncapabilities = [\"pull\", \"resolve\"]\nca = [\"" + directory + "/127.0.0.1:5000/ca.pem\"]\n"
	if got := read("hosts.toml"); got != want || read("ca.pem") != "PEM" {
		t.Errorf("%s", got)
	}
	// A pull in the same way does not wait.
	same := use("https://10.0.2.2:5000", "PEM")
	// One in another way ends its waiting when it is cancelled.
	cancelled, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := certificates.Use(cancelled, "127.0.0.1:5000", "", "OTHER"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	// Another group's access to the same server waits until both pulls have ended.
	taken := make(chan struct{})
	go func() {
		other, err := certificates.Use(t.Context(), "127.0.0.1:5000", "", "OTHER")
		if err == nil {
			defer other()
		}
		close(taken)
	}()
	select {
	case <-taken:
		t.Error("the entry changed under a pull")
	case <-time.After(20 * time.Millisecond):
	}
	release()
	select {
	case <-taken:
		t.Error("the entry changed under the second pull")
	case <-time.After(20 * time.Millisecond):
	}
	same()
	<-taken
	if got := read("hosts.toml"); !strings.Contains(got, `server = "https://127.0.0.1:5000"`) || read("ca.pem") != "OTHER" {
		t.Errorf("%s", got)
	}
	use("", "")()
	if read("hosts.toml") != "" || read("ca.pem") != "" {
		t.Error("an entry is left")
	}
}
