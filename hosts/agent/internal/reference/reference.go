// Package reference parses image references: server/repository[:tag]@digest, in the grammar of
// https://github.com/distribution/reference. The server is always required, and the digest identifies the image: a tag
// beside it has no effect. shared/image-reference.ts does the same, and the tests of both read
// hosts/api/testdata/image-references.json.
package reference

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/distribution/reference"
)

const (
	// Form is the form that messages show.
	Form = "server/repository@sha256:<64 hexadecimal digits>"

	// maximumHost and maximumLabel are the lengths of a DNS name and of its labels.
	maximumHost  = 253
	maximumLabel = 63

	dockerHub = "docker.io"
)

var (
	digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	serverPattern = regexp.MustCompile(`^` + reference.DomainRegexp.String() + `$`)
)

// Reference names an image by digest.
type Reference struct {
	// Server is host[:port] as written. IPv6 addresses are in brackets.
	Server string
	// Repository is the path below the server.
	Repository string
	// Digest is sha256: and 64 lower-case hexadecimal digits.
	Digest string
}

// Parse parses a reference with a digest.
func Parse(text string) (Reference, error) {
	parsed, err := reference.Parse(text)
	if err != nil {
		return Reference{}, fmt.Errorf("it is not %s: %w", Form, err)
	}
	result, err := named(parsed)
	if err != nil {
		return Reference{}, fmt.Errorf("it is not %s: %w", Form, err)
	}
	digested, ok := parsed.(reference.Digested)
	if !ok {
		return Reference{}, fmt.Errorf("it is not %s: it names no digest, and a tag alone can point elsewhere tomorrow", Form)
	}
	if result.Digest = digested.Digest().String(); !digestPattern.MatchString(result.Digest) {
		return Reference{}, fmt.Errorf("it is not %s: its digest is none", Form)
	}
	return result, nil
}

func named(parsed reference.Reference) (Reference, error) {
	name, ok := parsed.(reference.Named)
	if !ok || reference.Domain(name) == "" {
		return Reference{}, errors.New("it names no server")
	}
	result := Reference{Server: reference.Domain(name), Repository: reference.Path(name)}
	return result, ValidateServer(result.Server)
}

// ValidateServer checks host[:port].
func ValidateServer(server string) error {
	if !serverPattern.MatchString(server) {
		return fmt.Errorf("%q is not host[:port]; an IPv6 address stands in brackets", server)
	}
	host := server
	if colon := strings.LastIndexByte(server, ':'); colon > strings.LastIndexByte(server, ']') {
		host = server[:colon]
		if port, err := strconv.Atoi(server[colon+1:]); err != nil || port < 1 || port > 65535 {
			return fmt.Errorf("port %s of %q is not between 1 and 65535", server[colon+1:], server)
		}
	}
	if address, bracketed := strings.CutPrefix(host, "["); bracketed {
		if _, err := netip.ParseAddr(strings.TrimSuffix(address, "]")); err != nil {
			return fmt.Errorf("%q is not host[:port]: %w", server, err)
		}
		return nil
	}
	for _, label := range strings.Split(host, ".") {
		if len(label) > maximumLabel || len(host) > maximumHost {
			return fmt.Errorf("%q is longer than a DNS name may be", server)
		}
	}
	return nil
}

// ValidatePattern checks a pattern of a policy: server/repository, server/prefix/* or server/*.
func ValidatePattern(pattern string) error {
	name, isPrefix := strings.CutSuffix(pattern, "/*")
	if isPrefix && !strings.Contains(name, "/") {
		return ValidateServer(name)
	}
	parsed, err := reference.Parse(name)
	if err != nil {
		return err
	}
	if !reference.IsNameOnly(parsed.(reference.Named)) {
		return errors.New("it has a tag or a digest")
	}
	_, err = named(parsed)
	return err
}

// Name returns server and repository.
func (r Reference) Name() string {
	return r.Server + "/" + r.Repository
}

// String returns the reference without a tag.
func (r Reference) String() string {
	return r.Name() + "@" + r.Digest
}

// CanonicalServer returns the same form for all names of a server: lower case, and Docker Hub's current name instead of
// its old one.
func CanonicalServer(server string) string {
	if server = strings.ToLower(server); server == "index."+dockerHub {
		return dockerHub
	}
	return server
}

// CanonicalName returns the same form for all names of a repository or of a pattern.
func CanonicalName(name string) string {
	server, repository, _ := strings.Cut(name, "/")
	server = CanonicalServer(server)
	if server == dockerHub && !strings.Contains(repository, "/") && repository != "*" {
		repository = "library/" + repository
	}
	return server + "/" + repository
}

// API returns the host of the server's registry API and the repository's path there. Docker Hub's API is on another
// host than its name.
func (r Reference) API() (host, repository string) {
	if CanonicalServer(r.Server) != dockerHub {
		return r.Server, r.Repository
	}
	_, repository, _ = strings.Cut(CanonicalName(r.Name()), "/")
	return "registry-1." + dockerHub, repository
}
