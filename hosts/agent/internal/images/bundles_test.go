package images

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/palisade-host/palisade/hosts/agent/internal/images/registrytest"
	"github.com/palisade-host/palisade/hosts/seal"
	"github.com/palisade-host/palisade/hosts/seal/sealtest"
)

const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// refer adds an artifact with one layer that refers to the image.
func (f *fixture) refer(artifactType, layerType string, content []byte) {
	f.server.AddBlob(content, sealtest.EmptyConfig)
	f.server.AddReferrer(f.image.Digest, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":%q,
		"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		artifactType, digest.FromBytes(sealtest.EmptyConfig), layerType, digest.FromBytes(content), len(content)))
}

func encoded(content []byte) string {
	return base64.StdEncoding.EncodeToString(content)
}

// cosignStatement returns what cosign 3 signs.
func cosignStatement(image, predicate string) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`,
		strings.TrimPrefix(image, "sha256:"), predicate)
}

func dsseBundle(t *testing.T, key *sealtest.Key, statement []byte, material string) []byte {
	signed := key.Sign(t, seal.PreAuthenticationEncoding(statementType, statement))
	return fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":%s,"dsseEnvelope":{"payload":%q,"payloadType":%q,"signatures":[null,{"sig":"AAAA"},{"sig":%q}]}}`,
		bundleType, material, encoded(statement), statementType, encoded(signed))
}

func messageBundle(t *testing.T, key *sealtest.Key, manifest []byte, named string) []byte {
	raw, err := hex.DecodeString(digest.Digest(named).Encoded())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":"x"}},"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":%q},"signature":%q}}`,
		bundleType, encoded(raw), encoded(key.Sign(t, manifest)))
}

func TestBundles(t *testing.T) {
	ours, foreign := sealtest.NewKey(t), sealtest.NewKey(t)
	key := `{"publicKey":{"hint":"x"}}`
	other := "sha256:" + strings.Repeat("0", 64)
	for name, test := range map[string]struct {
		bundle func(*fixture) []byte
		// want is empty when the image is accepted.
		want    Reason
		message string
	}{
		"signed by cosign 3": {func(f *fixture) []byte {
			return dsseBundle(t, ours, cosignStatement(f.image.Digest, signPredicate), key)
		}, "", ""},
		"a signed manifest": {func(f *fixture) []byte { return messageBundle(t, ours, f.image.Manifest, f.image.Digest) }, "", ""},
		"by another key": {func(f *fixture) []byte {
			return dsseBundle(t, foreign, cosignStatement(f.image.Digest, signPredicate), key)
		}, SignatureByUnknownKey, ""},
		"a manifest by another": {func(f *fixture) []byte { return messageBundle(t, foreign, f.image.Manifest, f.image.Digest) }, SignatureByUnknownKey, ""},
		"for another image":     {func(*fixture) []byte { return dsseBundle(t, ours, cosignStatement(other, signPredicate), key) }, SignatureByUnknownKey, ""},
		"another manifest under this digest": {func(f *fixture) []byte {
			return messageBundle(t, ours, []byte("another"), f.image.Digest)
		}, SignatureByUnknownKey, ""},
		// Attesting an SBOM does not approve the image.
		"an attestation": {func(f *fixture) []byte {
			return dsseBundle(t, ours, cosignStatement(f.image.Digest, "https://spdx.dev/Document"), key)
		}, SignatureMissing, ""},
		"keyless": {func(f *fixture) []byte {
			return dsseBundle(t, foreign, cosignStatement(f.image.Digest, signPredicate), `{"certificate":{"rawBytes":"AAAA"}}`)
		}, SignatureByUnknownKey, "keyless signing"},
		"an older bundle": {func(*fixture) []byte {
			return []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle+json;version=0.2"}`)
		}, SignatureMissing, "version=0.2"},
		"no content": {func(*fixture) []byte { return fmt.Appendf(nil, `{"mediaType":%q}`, bundleType) }, SignatureMissing, "neither an envelope nor"},
		"both contents": {func(f *fixture) []byte {
			var first, second map[string]json.RawMessage
			_ = json.Unmarshal(dsseBundle(t, ours, cosignStatement(f.image.Digest, signPredicate), key), &first)
			_ = json.Unmarshal(messageBundle(t, ours, f.image.Manifest, f.image.Digest), &second)
			first["messageSignature"] = second["messageSignature"]
			content, _ := json.Marshal(first)
			return content
		}, SignatureMissing, "neither an envelope nor"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newSealedFixture(t, "app")
			f.declare("signed", []string{ours.PEM}, registrytest.Repository)
			f.refer(bundleType, bundleType, test.bundle(f))
			if test.want != "" {
				if refusal := f.refused(test.want); !strings.Contains(refusal.Error(), test.message) {
					t.Error(refusal)
				}
				return
			}
			f.mustEnsure()
			// The signature is stored, so the image starts again without its registry.
			f.server.Close()
			f.restart()
			f.mustEnsure()
		})
	}
}

func TestOtherSignaturesAreNamed(t *testing.T) {
	key := sealtest.NewKey(t)
	for kind, message := range map[string]string{
		"application/vnd.cncf.notary.signature":                "a signature of Notation",
		"application/vnd.dev.sigstore.bundle+json;version=0.1": "sigstore bundle of type",
		"application/vnd.dev.cosign.artifact.sig.v1+json":      "cosign as an artifact",
		"application/vnd.dev.sigstore.bundle.v0.4+json":        "bundle.v0.4",
	} {
		f := newSealedFixture(t, "app")
		f.declare("signed", []string{key.PEM}, registrytest.Repository)
		f.refer(kind, "application/json", []byte("{}"))
		if refusal := f.refused(SignatureMissing); !strings.Contains(refusal.Error(), message) {
			t.Errorf("%s: %v", kind, refusal)
		}
	}
}

// TestGoodAmongBad has unreadable signatures before a valid one.
func TestGoodAmongBad(t *testing.T) {
	ours := sealtest.NewKey(t)
	good := func(f *fixture) ([]byte, []byte) {
		payload := sealtest.CosignPayload(t, registrytest.Repository, f.image.Digest)
		return payload, ours.Sign(t, payload)
	}
	for name, prepare := range map[string]func(*fixture){
		"a signature without its payload": func(f *fixture) {
			payload, signature := good(f)
			f.server.AddBlob(payload)
			lost := []byte("lost")
			content := sealtest.CosignManifest(t, [][]byte{lost, payload}, [][]byte{signature, signature})
			f.server.AddManifest(content, strings.Replace(f.image.Digest, ":", "-", 1)+".sig")
		},
		"entries that are none": func(f *fixture) {
			payload, signature := good(f)
			f.server.AddBlob(payload)
			content := string(sealtest.CosignManifest(t, [][]byte{payload}, [][]byte{signature}))
			content = strings.Replace(content, `"layers":[`, `"layers":[null,"x",{},[],{"digest":5},`, 1)
			f.server.AddManifest([]byte(content), strings.Replace(f.image.Digest, ":", "-", 1)+".sig")
		},
		"a bundle beside signatures that are none": func(f *fixture) {
			f.server.AddManifest([]byte("<html>"), strings.Replace(f.image.Digest, ":", "-", 1)+".sig")
			f.refer(bundleType, bundleType, []byte("null"))
			f.refer(bundleType, "application/json", []byte("{}"))
			f.refer(bundleType, bundleType, messageBundle(t, ours, f.image.Manifest, f.image.Digest))
		},
		"a registry that fails for one bundle": func(f *fixture) {
			broken := []byte(`{"broken":true}`)
			f.refer(bundleType, bundleType, broken)
			f.refer(bundleType, bundleType, messageBundle(t, ours, f.image.Manifest, f.image.Digest))
			f.server.Tell(func(writer http.ResponseWriter, request *http.Request) bool {
				if !strings.HasSuffix(request.URL.Path, digest.FromBytes(broken).String()) {
					return false
				}
				writer.WriteHeader(http.StatusInternalServerError)
				return true
			})
		},
		"a seal that the registry fails for": func(f *fixture) {
			payload, signature := good(f)
			f.server.AddSignature(t, f.image.Digest, [][]byte{payload}, [][]byte{signature})
			broken := []byte(`{"broken":true}`)
			f.refer(seal.ArtifactType, seal.EnvelopeMediaType, broken)
			f.server.Tell(func(writer http.ResponseWriter, request *http.Request) bool {
				if !strings.HasSuffix(request.URL.Path, digest.FromBytes(broken).String()) {
					return false
				}
				writer.WriteHeader(http.StatusInternalServerError)
				return true
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newSealedFixture(t, "app")
			f.declare("signed", []string{ours.PEM}, registrytest.Repository)
			f.t = t
			prepare(f)
			f.mustEnsure()
			f.expectComplete(f.image)
		})
	}
}

// TestProtocol has a registry that answers in other forms that its specification allows.
func TestProtocol(t *testing.T) {
	for name, lie := range map[string]func(*fixture, http.ResponseWriter, *http.Request) bool{
		"a body without its length": func(f *fixture, writer http.ResponseWriter, request *http.Request) bool {
			if !strings.HasSuffix(request.URL.Path, "/manifests/"+f.image.Digest) {
				return false
			}
			writer.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json; charset=utf-8")
			_, _ = writer.Write(f.image.Manifest[:10])
			writer.(http.Flusher).Flush()
			_, _ = writer.Write(f.image.Manifest[10:])
			return true
		},
		"several challenges, a token in access_token": func(f *fixture, writer http.ResponseWriter, request *http.Request) bool {
			if request.URL.Path == "/token" {
				if user, password, _ := request.BasicAuth(); user != "user" || password != "password" || request.URL.Query().Get("realm") != "kept" {
					writer.WriteHeader(http.StatusForbidden)
					return true
				}
				registrytest.Send(writer, []byte(`{"token":"","access_token":"right"}`))
				return true
			}
			if request.Header.Get("Authorization") == "Bearer right" {
				return false
			}
			writer.Header().Add("WWW-Authenticate", `Basic realm="a, b"`)
			writer.Header().Add("WWW-Authenticate", `Bearer Realm = "`+f.server.URL+`/token?realm=kept" ,service="s",scope="repository:team/app:pull"`)
			writer.WriteHeader(http.StatusUnauthorized)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newSealedFixture(t, "app")
			access := f.server.Access()
			access[1].Username, access[1].Password = "user", "password"
			f.server.Tell(func(writer http.ResponseWriter, request *http.Request) bool { return lie(f, writer, request) })
			if _, err := f.role.Ensure(t.Context(), f.reference, access, nil); err != nil {
				t.Fatal(err)
			}
			f.expectComplete(f.image)
		})
	}
}
