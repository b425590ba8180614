// Package registrytest is an image registry for tests that can be made to lie.
package registrytest

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/seal/sealtest"
)

// Repository is the only repository.
const Repository = "registry.test/team/app"

// Server is a registry with one repository and the referrers API.
type Server struct {
	*httptest.Server
	// User and Password are required when User is set.
	User, Password string

	mutex     sync.Mutex
	manifests map[string][]byte
	blobs     map[string][]byte
	referrers map[string][]ocispec.Descriptor
	// pageSize is that of the referrers API.
	pageSize int
	requests map[string]int
	// lie replaces the response to a request when it returns true; may be nil.
	lie func(http.ResponseWriter, *http.Request) bool
}

// New serves until the test ends.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{manifests: map[string][]byte{}, blobs: map[string][]byte{}, referrers: map[string][]ocispec.Descriptor{}, requests: map[string]int{}, pageSize: 100}
	s.Server = httptest.NewUnstartedServer(s)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// Access returns the access to the registry, and one to a registry that does not exist.
func (s *Server) Access() []*agentv1.ImageRegistry {
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	return []*agentv1.ImageRegistry{
		{Server: "other.test", Endpoint: "https://127.0.0.1:1"},
		{Server: "registry.test", Endpoint: s.URL, Ca: ca, Username: s.User, Password: s.Password},
	}
}

// ServeHTTP answers as the distribution specification says.
func (s *Server) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	path := strings.TrimPrefix(request.URL.Path, "/v2/team/app/")
	s.mutex.Lock()
	s.requests[path]++
	lie := s.lie
	s.mutex.Unlock()
	if user, password, _ := request.BasicAuth(); s.User != "" && (user != s.User || password != s.Password) {
		writer.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		writer.WriteHeader(http.StatusUnauthorized)
		return
	}
	if lie != nil && lie(writer, request) {
		return
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	kind, name, _ := strings.Cut(path, "/")
	switch kind {
	case "manifests":
		content := s.manifests[name]
		if content == nil {
			http.NotFound(writer, request)
			return
		}
		var manifest struct{ MediaType string }
		_ = json.Unmarshal(content, &manifest)
		writer.Header().Set("Content-Type", manifest.MediaType)
		writer.Header().Set("Docker-Content-Digest", digest.FromBytes(content).String())
		Send(writer, content)
	case "blobs":
		content := s.blobs[name]
		if content == nil {
			http.NotFound(writer, request)
			return
		}
		Send(writer, content)
	case "referrers":
		start, _ := strconv.Atoi(request.URL.Query().Get("start"))
		page := s.referrers[name][start:]
		if len(page) > s.pageSize {
			page = page[:s.pageSize]
			writer.Header().Set("Link", "<"+request.URL.Path+"?start="+strconv.Itoa(start+s.pageSize)+`>; rel="next"`)
		}
		content, _ := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: page})
		writer.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		Send(writer, content)
	default:
		http.NotFound(writer, request)
	}
}

// Send sends content with its length.
func Send(writer http.ResponseWriter, content []byte) {
	writer.Header().Set("Content-Length", strconv.Itoa(len(content)))
	_, _ = writer.Write(content)
}

// Drip sends content in parts of size bytes with a pause after each, until the client goes away.
func Drip(writer http.ResponseWriter, request *http.Request, content []byte, size int, pause time.Duration) {
	writer.Header().Set("Content-Length", strconv.Itoa(len(content)))
	for part := range slices.Chunk(content, size) {
		_, _ = writer.Write(part)
		writer.(http.Flusher).Flush()
		select {
		case <-request.Context().Done():
			return
		case <-time.After(pause):
		}
	}
}

// Tell makes the registry lie; nil makes it honest again.
func (s *Server) Tell(lie func(http.ResponseWriter, *http.Request) bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.lie = lie
}

// Asked counts the requests below a prefix: manifests, blobs or referrers.
func (s *Server) Asked(prefix string) (count int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for path, times := range s.requests {
		if strings.HasPrefix(path, prefix) {
			count += times
		}
	}
	return count
}

// AddBlob adds blobs.
func (s *Server) AddBlob(contents ...[]byte) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, content := range contents {
		s.blobs[digest.FromBytes(content).String()] = content
	}
}

// AddManifest adds a manifest and returns its digest.
func (s *Server) AddManifest(content []byte, tags ...string) string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	name := digest.FromBytes(content).String()
	for _, tag := range append(tags, name) {
		s.manifests[tag] = content
	}
	return name
}

// AddImage adds an image without its layers, because a sealed host does not read them.
func (s *Server) AddImage(image *sealtest.Image) string {
	s.AddBlob(image.Config)
	s.AddManifest(image.Manifest)
	return Repository + "@" + image.Digest
}

// AddSeal adds a seal with its layers.
func (s *Server) AddSeal(t testing.TB, image *sealtest.Image, envelope []byte) {
	t.Helper()
	s.AddBlob(envelope, sealtest.EmptyConfig)
	s.AddBlob(slices.Concat(image.Blobs, image.Signatures)...)
	s.AddReferrer(image.Digest, image.Artifact(t, envelope))
}

// AddReferrer adds an artifact that refers to a manifest.
func (s *Server) AddReferrer(subject string, artifact []byte) {
	name := s.AddManifest(artifact)
	var manifest ocispec.Manifest
	_ = json.Unmarshal(artifact, &manifest)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.referrers[subject] = append(s.referrers[subject], ocispec.Descriptor{
		MediaType: manifest.MediaType, ArtifactType: manifest.ArtifactType, Digest: digest.Digest(name), Size: int64(len(artifact)),
	})
}

// AddSignature adds cosign signatures of an image.
func (s *Server) AddSignature(t testing.TB, signed string, payloads, signatures [][]byte) {
	t.Helper()
	s.AddBlob(payloads...)
	s.AddManifest(sealtest.CosignManifest(t, payloads, signatures), strings.Replace(signed, ":", "-", 1)+".sig")
}

// Downloads counts the downloads of a blob.
func (s *Server) Downloads(content []byte) int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.requests["blobs/"+digest.FromBytes(content).String()]
}

// TakeReferrers removes and returns the referrers of a manifest.
func (s *Server) TakeReferrers(subject string) []ocispec.Descriptor {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	taken := s.referrers[subject]
	delete(s.referrers, subject)
	return taken
}

// PutReferrers adds referrers that TakeReferrers has returned.
func (s *Server) PutReferrers(subject string, referrers []ocispec.Descriptor) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.referrers[subject] = append(s.referrers[subject], referrers...)
}
