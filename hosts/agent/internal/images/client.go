package images

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	remoteregistry "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/palisade-host/palisade/hosts/agent/internal/registry"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

const (
	// maximumDocument bounds manifests, configurations and lists of referrers, in bytes.
	maximumDocument = 4 << 20
	// maximumPages bounds the pages of a list of referrers.
	maximumPages = 100
	// minimumProgress is how many bytes of a blob have to arrive within each stall time. A registry that sends a byte now
	// and then would otherwise hold an image for ever. 64 KiB in a minute, the default, is slower than any line on which
	// an image would arrive within a day.
	minimumProgress = 64 << 10
	// maximumRedirects is the limit of browsers and of Go.
	maximumRedirects = 10
)

// client reads one repository of a registry.
type client struct {
	reference  imageReference
	repository *remote.Repository
	user       string
	stall      time.Duration
	close      func()
}

// newClient returns a client for the repository of a reference. Without access it connects to https://<server> without
// credentials.
func newClient(ref imageReference, access *agentv1.ImageRegistry, stall time.Duration) (*client, error) {
	host, path := ref.API()
	if endpoint := access.GetEndpoint(); endpoint != "" {
		parsed, err := url.Parse(endpoint)
		if err != nil || parsed.Scheme != "https" || parsed.Host == "" {
			return nil, fmt.Errorf("imageRegistries: endpoint %q of %s is not of the form https://host[:port]", endpoint, ref.Server)
		}
		host = parsed.Host
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if ca := access.GetCa(); ca != "" && !roots.AppendCertsFromPEM([]byte(ca)) {
		return nil, fmt.Errorf("imageRegistries: ca of %s contains no PEM certificate", ref.Server)
	}
	transport := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: stall}).DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   stall,
		ResponseHeaderTimeout: stall,
		ForceAttemptHTTP2:     true,
	}
	location := remoteregistry.Reference{Registry: host, Repository: path}
	repository := &remote.Repository{
		Reference:        location,
		MaxMetadataBytes: maximumDocument,
		Client: &auth.Client{
			Client: &http.Client{Transport: oneChallenge{onlyTLS{transport}}, CheckRedirect: checkRedirect},
			Cache:  auth.NewCache(),
			Credential: auth.StaticCredential(location.Host(), auth.Credential{
				Username: access.GetUsername(), Password: access.GetPassword(),
			}),
		},
	}
	return &client{reference: ref, repository: repository, user: access.GetUsername(), stall: stall, close: transport.CloseIdleConnections}, nil
}

// onlyTLS refuses requests without TLS, also those to redirects and token services.
type onlyTLS struct {
	http.RoundTripper
}

func (t onlyTLS) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s is not reached over TLS", request.URL.Host)
	}
	return t.RoundTripper.RoundTrip(request)
}

// checkRedirect sends credentials only to the server that they belong to. Go removes them when the host's name changes,
// but not when only the port changes.
func checkRedirect(request *http.Request, via []*http.Request) error {
	if len(via) >= maximumRedirects {
		return fmt.Errorf("more than %d redirects", maximumRedirects)
	}
	if request.URL.Host != via[0].URL.Host {
		request.Header.Del("Authorization")
	}
	return nil
}

// explain classifies an error of the registry or of the connection to it.
func (c *client) explain(err error) error {
	var refusal *Refusal
	if err == nil || errors.As(err, &refusal) {
		return err
	}
	// oras reports only in the text of its error that the registry announced other content than was requested.
	if strings.Contains(err.Error(), "mismatch") {
		return c.reference.refuse(ContentMismatch, "the registry's answer is not what was asked for: %v", err)
	}
	return registry.Classify(c.reference.String(), c.user, err)
}

// manifest returns the manifest or index with a digest.
func (c *client) manifest(ctx context.Context, wanted string) ([]byte, error) {
	content, _, err := c.get(ctx, "manifests/"+wanted)
	if err != nil {
		return nil, err
	}
	if digestOf(content) != wanted {
		return nil, c.reference.refuse(ContentMismatch, "the registry sends other content for %s", wanted)
	}
	return content, nil
}

// tagged returns the manifest of a tag; nil when there is no such tag.
func (c *client) tagged(ctx context.Context, tag string) ([]byte, error) {
	content, _, err := c.get(ctx, "manifests/"+tag)
	var pull *registry.PullError
	if errors.As(err, &pull) && pull.Reason == registry.NotFound {
		return nil, nil
	}
	return content, err
}

// answer is what a registry returns with a document.
type answer struct {
	header http.Header
	// address is the document's URL after redirects.
	address *url.URL
}

// get reads a document below the repository's path, or at an address from the registry. It ignores the announced media
// type and length, and reads the content.
func (c *client) get(ctx context.Context, below string) ([]byte, answer, error) {
	ctx, cancel := context.WithTimeout(auth.AppendRepositoryScope(ctx, c.repository.Reference, auth.ActionPull), c.stall)
	defer cancel()
	location := &url.URL{Scheme: "https", Host: c.repository.Reference.Host(), Path: "/v2/" + c.repository.Reference.Repository + "/"}
	location, err := location.Parse(below)
	if err != nil {
		return nil, answer{}, c.explain(err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, location.String(), nil)
	if err != nil {
		return nil, answer{}, c.explain(err)
	}
	request.Header["Accept"] = slices.Concat(manifestTypes[1:], indexTypes[1:])
	response, err := c.repository.Client.Do(request)
	if err != nil {
		return nil, answer{}, c.explain(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, maximumDocument+1))
	if err != nil {
		return nil, answer{}, c.explain(err)
	}
	if response.StatusCode != http.StatusOK {
		failure := &errcode.ErrorResponse{Method: request.Method, URL: request.URL, StatusCode: response.StatusCode}
		var body struct {
			Errors errcode.Errors `json:"errors"`
		}
		if json.Unmarshal(content, &body) == nil {
			failure.Errors = body.Errors
		}
		return nil, answer{}, c.explain(failure)
	}
	if len(content) > maximumDocument {
		return nil, answer{}, c.reference.refuse(ContentMismatch, "the registry sends more than %d bytes for %s", maximumDocument, below)
	}
	return content, answer{header: response.Header, address: response.Request.URL}, nil
}

// readBlob reads a whole blob into memory.
func (c *client) readBlob(ctx context.Context, descriptor ocispec.Descriptor, maximum int64) ([]byte, error) {
	if descriptor.Size < 0 || descriptor.Size > maximum {
		return nil, c.reference.refuse(ContentMismatch, "blob %s has %d bytes, more than %d", descriptor.Digest, descriptor.Size, maximum)
	}
	ctx, cancel := context.WithTimeout(ctx, c.stall)
	defer cancel()
	body, err := c.repository.Blobs().Fetch(ctx, descriptor)
	if err != nil {
		return nil, c.explain(err)
	}
	return c.read(body, descriptor.Digest.String(), descriptor.Size)
}

func (c *client) read(body io.ReadCloser, wanted string, maximum int64) ([]byte, error) {
	defer body.Close()
	content, err := io.ReadAll(io.LimitReader(body, maximum+1))
	if err != nil {
		return nil, c.explain(err)
	}
	if int64(len(content)) > maximum {
		return nil, c.reference.refuse(ContentMismatch, "the registry sends more than %d bytes for %s", maximum, wanted)
	}
	if digestOf(content) != wanted {
		return nil, c.reference.refuse(ContentMismatch, "the registry sends other content for %s", wanted)
	}
	return content, nil
}

// openBlob opens a blob for streaming. Opening or reading fails when less than minimumProgress arrives within the stall
// time, unless that is the rest.
func (c *client) openBlob(ctx context.Context, wanted string, size int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	b := &watchedBody{context: ctx, cancel: cancel, stall: c.stall}
	b.timer = time.AfterFunc(c.stall, func() {
		cancel(fmt.Errorf("i/o timeout: the registry makes no progress: %d bytes arrived in %s, expected at least %d", b.received.Load(), c.stall, minimumProgress))
	})
	body, err := c.repository.Blobs().Fetch(ctx, ocispec.Descriptor{Digest: digest.Digest(wanted), Size: size})
	if err != nil {
		err = b.explain(err)
		b.timer.Stop()
		cancel(nil)
		return nil, c.explain(err)
	}
	b.body = body
	return b, nil
}

// watchedBody cancels a download that makes no progress.
type watchedBody struct {
	body    io.ReadCloser
	context context.Context
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	stall   time.Duration
	// received counts the bytes since the timer was started.
	received atomic.Int64
}

func (b *watchedBody) Read(buffer []byte) (int, error) {
	count, err := b.body.Read(buffer)
	if b.received.Add(int64(count)) >= minimumProgress {
		b.received.Store(0)
		b.timer.Reset(b.stall)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.explain(err)
	}
	return count, err
}

// explain returns why the download was cancelled, or else the error.
func (b *watchedBody) explain(err error) error {
	if cause := context.Cause(b.context); cause != nil {
		return cause
	}
	return err
}

func (b *watchedBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.body.Close()
}

// referrers returns what refers to a manifest, from the referrers API, if the registry has it, and from the fallback
// tag.
func (c *client) referrers(ctx context.Context, subject string) ([]ocispec.Descriptor, error) {
	found, err := c.listed(ctx, "referrers/"+subject)
	if err != nil {
		return nil, err
	}
	content, err := c.tagged(ctx, strings.Replace(subject, ":", "-", 1))
	if err != nil {
		return nil, err
	}
	if content != nil {
		tagged, err := referrerEntries(content)
		if err != nil {
			return nil, c.reference.refuse(ContentMismatch, "what refers to %s: %v", subject, err)
		}
		found = append(found, tagged...)
	}
	seen := map[digest.Digest]bool{}
	return slices.DeleteFunc(found, func(one ocispec.Descriptor) bool {
		before := seen[one.Digest]
		seen[one.Digest] = true
		return before
	}), nil
}

// listed returns all pages of a list, or nothing when the registry has no referrers API.
func (c *client) listed(ctx context.Context, page string) (found []ocispec.Descriptor, err error) {
	for count := 1; ; count++ {
		content, said, err := c.get(ctx, page)
		var pull *registry.PullError
		if count == 1 && errors.As(err, &pull) && pull.Reason == registry.NotFound {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		entries, err := referrerEntries(content)
		if err != nil {
			return nil, c.reference.refuse(ContentMismatch, "what the registry lists at %s: %v", page, err)
		}
		found = append(found, entries...)
		next := nextLink(said.header.Values("Link"))
		if next == "" {
			return found, nil
		}
		location, err := said.address.Parse(next)
		if err != nil || location.Host != said.address.Host || count == maximumPages {
			return nil, c.reference.refuse(ContentMismatch, "what the registry lists goes on at %q, which is not followed", next)
		}
		page = location.String()
	}
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}
