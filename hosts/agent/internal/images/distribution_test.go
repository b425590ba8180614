package images

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/seal"
	"github.com/palisade-host/palisade/hosts/seal/sealtest"
)

// startDistribution runs Debian's docker-registry, which has no referrers API, and returns its address and certificate.
func startDistribution(t *testing.T) (address string, certificate *x509.Certificate) {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skipf("no registry: %v", err)
	}
	directory := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registry"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = listener.Addr().String()
	listener.Close()
	for name, content := range map[string]string{
		"key.pem":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})),
		"cert.pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		"config.yml": fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %[1]s/data}}\n"+
			"http: {addr: %[2]q, tls: {certificate: %[1]s/cert.pem, key: %[1]s/key.pem}}\n", directory, address),
	} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	command := exec.CommandContext(ctx, program, "serve", filepath.Join(directory, "config.yml"))
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := command.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = command.Wait()
	})
	deadline := time.Now().Add(20 * time.Second)
	for {
		connection, err := net.Dial("tcp", address)
		if err == nil {
			connection.Close()
			return address, certificate
		}
		if time.Now().After(deadline) {
			t.Fatalf("the registry does not listen: %s", output.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestDistribution fetches a sealed and signed image from a real registry that has its referrers under the fallback
// tag.
func TestDistribution(t *testing.T) {
	address, certificate := startDistribution(t)
	f := newFixture(t, "base", "app")
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	repository, err := remote.NewRepository(address + "/team/app")
	if err != nil {
		t.Fatal(err)
	}
	repository.Client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	// The registry deletes nothing.
	repository.SkipReferrersGC = true
	push := func(mediaType string, content []byte, tags ...string) {
		t.Helper()
		descriptor := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
		if err := repository.Push(t.Context(), descriptor, bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		for _, tag := range tags {
			if err := repository.Tag(t.Context(), descriptor, tag); err != nil {
				t.Fatal(err)
			}
		}
	}
	key := sealtest.NewKey(t)
	payload := sealtest.CosignPayload(t, "registry.test/team/app", f.image.Digest)
	envelope := f.key.Seal(t, f.image.Sealed)
	for _, blob := range slices.Concat(f.image.Layers, f.image.Blobs, f.image.Signatures, [][]byte{f.image.Config, envelope, sealtest.EmptyConfig, payload}) {
		push("application/octet-stream", blob)
	}
	push(ocispec.MediaTypeImageManifest, f.image.Manifest)
	push(ocispec.MediaTypeImageManifest, sealtest.CosignManifest(t, [][]byte{payload}, [][]byte{key.Sign(t, payload)}), strings.Replace(f.image.Digest, ":", "-", 1)+".sig")
	// This is another artifact of the same image, such as a scanner's.
	other := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/spdx+json", Layers: []ocispec.Descriptor{},
		Config:  ocispec.Descriptor{MediaType: ocispec.MediaTypeEmptyJSON, Digest: digest.FromBytes(sealtest.EmptyConfig), Size: 2},
		Subject: &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(f.image.Digest), Size: int64(len(f.image.Manifest))},
	}
	other.SchemaVersion = 2
	content, err := json.Marshal(other)
	if err != nil {
		t.Fatal(err)
	}
	push(ocispec.MediaTypeImageManifest, content)
	access := []*agentv1.ImageRegistry{{
		Server: "registry.test", Endpoint: "https://" + address, Ca: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})),
	}}

	f.declare("signed", []string{key.PEM}, "registry.test/team/*")
	_, err = f.role.Ensure(t.Context(), f.reference, access, nil)
	if err == nil || !strings.Contains(err.Error(), string(SealMissing)) {
		t.Errorf("not sealed yet: %v", err)
	}
	push(ocispec.MediaTypeImageManifest, f.image.Artifact(t, envelope))
	if _, err := f.role.Ensure(t.Context(), f.reference, access, nil); err != nil {
		t.Fatal(err)
	}
	f.expectComplete(f.image)
	if _, _, err := seal.Find([]seal.Store{f.options.Store}, f.options.Trust, f.image.Digest); err != nil {
		t.Error(err)
	}
}
