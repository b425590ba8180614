package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/palisade-host/palisade/hosts/agent/internal/images/registrytest"
	"github.com/palisade-host/palisade/hosts/agent/internal/registry"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/seal"
	"github.com/palisade-host/palisade/hosts/seal/sealtest"
)

func TestReferences(t *testing.T) {
	f := newSealedFixture(t, "app")
	for _, text := range []string{
		"", "registry.test/team/app", "registry.test/team/app:1", "team/app@sha256:12", "https://registry.test/app@" + f.image.Digest,
		"registry.test/team/../app@" + f.image.Digest, "registry.test/app@" + f.image.Digest + "\n", strings.ToUpper(f.reference),
	} {
		_, err := f.role.Ensure(context.Background(), text, f.server.Access(), nil)
		var refusal *Refusal
		if !errors.As(err, &refusal) || refusal.Reason != InvalidReference {
			t.Errorf("%q: %v", text, err)
		}
	}
	if f.server.Asked("") != 0 {
		t.Error("the registry was asked")
	}
}

// TestSeals has one seal with one error. Each case has its own reason. The first is the negative control.
func TestSeals(t *testing.T) {
	type change func(f *fixture)
	reseal := func(edit func(*seal.Manifest)) change {
		return func(f *fixture) {
			manifest := f.image.Sealed
			manifest.Layers = slices.Clone(manifest.Layers)
			edit(&manifest)
			f.server.AddSeal(f.t, f.image, f.key.Seal(f.t, manifest))
		}
	}
	edited := func(edit func(*fixture, *ocispec.Manifest)) change {
		return func(f *fixture) {
			envelope := f.key.Seal(f.t, f.image.Sealed)
			f.server.AddBlob(envelope)
			f.server.AddBlob(slices.Concat(f.image.Blobs, f.image.Signatures)...)
			var artifact ocispec.Manifest
			if err := json.Unmarshal(f.image.Artifact(f.t, envelope), &artifact); err != nil {
				f.t.Fatal(err)
			}
			edit(f, &artifact)
			content, err := json.Marshal(artifact)
			if err != nil {
				f.t.Fatal(err)
			}
			f.server.AddReferrer(f.image.Digest, content)
		}
	}
	tests := map[string]struct {
		change change
		want   Reason
		names  func(*fixture) string
	}{
		"a valid seal": {change: reseal(func(*seal.Manifest) {})},
		"no seal":      {func(*fixture) {}, SealMissing, func(*fixture) string { return registrytest.Repository }},
		"a foreign key": {func(f *fixture) {
			f.server.AddSeal(f.t, f.image, sealtest.NewKey(f.t).Seal(f.t, f.image.Sealed))
		}, SealByUnknownKey, nil},
		"a foreign key that claims the id of ours": {func(f *fixture) {
			foreign := sealtest.NewKey(f.t)
			id := foreign.ID
			foreign.ID = f.key.ID
			f.server.AddSeal(f.t, f.image, foreign.Seal(f.t, f.image.Sealed))
			foreign.ID = id
		}, SealByUnknownKey, nil},
		"an envelope of another kind": {func(f *fixture) {
			payload, _ := json.Marshal(f.image.Sealed)
			f.server.AddSeal(f.t, f.image, f.key.Envelope(f.t, "application/vnd.palisade.layer-seal.v1+json", payload))
		}, SealInvalid, nil},
		"nonsense": {func(f *fixture) { f.server.AddSeal(f.t, f.image, []byte("nonsense")) }, SealInvalid, nil},
		"the seal of another image": {func(f *fixture) {
			other := sealtest.NewImage(f.t, "base", "other")
			f.server.AddSeal(f.t, f.image, f.key.Seal(f.t, other.Sealed))
		}, SealMismatch, func(f *fixture) string { return f.key.ID }},
		"another configuration": {reseal(func(m *seal.Manifest) { m.Image.Config = m.Image.Digest }), SealMismatch, nil},
		"layers in another order": {reseal(func(m *seal.Manifest) { slices.Reverse(m.Layers) }), SealMismatch, func(f *fixture) string {
			return f.image.Sealed.Layers[1].Digest
		}},
		"a layer too few":   {reseal(func(m *seal.Manifest) { m.Layers = m.Layers[:1] }), SealMismatch, nil},
		"a layer too many":  {reseal(func(m *seal.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) }), SealMismatch, nil},
		"another diffID":    {reseal(func(m *seal.Manifest) { m.Layers[1].DiffID = m.Layers[0].DiffID }), SealMismatch, nil},
		"a path in a hash":  {reseal(func(m *seal.Manifest) { m.Layers[0].RootHash = "../../../etc/passwd" }), SealInvalid, nil},
		"a newer version":   {reseal(func(m *seal.Manifest) { m.Version = 2 }), SealInvalid, nil},
		"no envelope first": {edited(func(_ *fixture, a *ocispec.Manifest) { a.Layers = a.Layers[1:] }), SealInvalid, nil},
		"a blob too few":    {edited(func(_ *fixture, a *ocispec.Manifest) { a.Layers = a.Layers[:4] }), SealInvalid, nil},
		"blobs in another order": {edited(func(_ *fixture, a *ocispec.Manifest) { a.Layers[1], a.Layers[2] = a.Layers[2], a.Layers[1] }), SealInvalid, func(f *fixture) string {
			return f.image.Sealed.Layers[0].Digest
		}},
		"a swapped layer with its valid signature": {edited(func(f *fixture, a *ocispec.Manifest) {
			a.Layers[2], a.Layers[4] = a.Layers[1], a.Layers[3]
		}), SealInvalid, func(f *fixture) string { return f.image.Sealed.Layers[1].Digest }},
		"a signature of another layer": {edited(func(_ *fixture, a *ocispec.Manifest) { a.Layers[3] = a.Layers[4] }), SealInvalid, nil},
		"a revoked image": {func(f *fixture) {
			f.options.Trust.Revocations.Images = []string{f.image.Digest}
			reseal(func(*seal.Manifest) {})(f)
		}, SealRevoked, func(f *fixture) string { return f.image.Digest }},
		"a revoked layer": {func(f *fixture) {
			f.options.Trust.Revocations.RootHashes = []string{f.image.Sealed.Layers[1].RootHash}
			reseal(func(*seal.Manifest) {})(f)
		}, SealRevoked, func(f *fixture) string { return f.image.Sealed.Layers[1].Digest }},
		"a revoked seal key": {func(f *fixture) {
			f.options.Trust.Revocations.Keys = []string{f.key.ID}
			reseal(func(*seal.Manifest) {})(f)
		}, SealRevoked, func(f *fixture) string { return f.key.ID }},
		"a revoked layer key": {func(f *fixture) {
			f.options.Trust.Revocations.Keys = []string{f.image.Sealed.LayerKey}
			reseal(func(*seal.Manifest) {})(f)
		}, SealRevoked, func(f *fixture) string { return f.image.Sealed.LayerKey }},
		"an envelope that is too long": {func(f *fixture) {
			f.server.AddSeal(f.t, f.image, []byte(`{"payload":"`+strings.Repeat("A", maximumEnvelope)+`"}`))
		}, ContentMismatch, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, "base", "app")
			test.change(f)
			f.restart()
			if test.want == "" {
				f.mustEnsure()
				f.expectComplete(f.image)
				return
			}
			refusal := f.refused(test.want)
			if test.names != nil && !strings.Contains(refusal.Error(), test.names(f)) {
				t.Errorf("%v does not name %s", refusal, test.names(f))
			}
			for _, blob := range f.image.Blobs {
				if f.server.Downloads(blob) != 0 {
					t.Error("a layer was downloaded")
				}
			}
		})
	}
}

func TestAnyValidSealDoes(t *testing.T) {
	f := newFixture(t, "base", "app")
	f.server.AddSeal(t, f.image, sealtest.NewKey(t).Seal(t, f.image.Sealed))
	f.server.AddSeal(t, f.image, []byte("nonsense"))
	old := f.image.Sealed
	old.Tools = map[string]string{"palisade": "0.9.0", "mkfs.erofs": "1.8.6"}
	f.server.AddSeal(t, f.image, f.key.Seal(t, old))
	// It is newer than 0.9.0, although not in lexical order. Its key shows which one was used.
	other := sealtest.NewKey(t)
	f.options.Trust.Keys = f.key.Keys(other)
	newest := f.image.Sealed
	newest.Tools = map[string]string{"palisade": "0.10.0", "mkfs.erofs": "1.8.6"}
	f.server.AddSeal(t, f.image, other.Seal(t, newest))
	f.restart()
	if image := f.mustEnsure(); image.GetSealKeyId() != other.ID {
		t.Errorf("%v", image)
	}
	f.expectComplete(f.image)
}

// TestNextSealWhenLayersAreWrong has a valid seal whose blob the registry no longer has.
func TestNextSealWhenLayersAreWrong(t *testing.T) {
	f := newFixture(t, "app")
	broken := *f.image
	broken.Sealed.Layers = slices.Clone(broken.Sealed.Layers)
	content := []byte("other file system")
	broken.Blobs = [][]byte{append(content, make([]byte, 8192)...)}
	broken.Sealed.Layers[0].RootHash = strings.Repeat("a", 64)
	broken.Sealed.Layers[0].Blob, broken.Sealed.Layers[0].Size = digestOf(broken.Blobs[0]), int64(len(broken.Blobs[0]))
	broken.Sealed.Tools = map[string]string{"palisade": "9.0.0"}
	f.server.AddSeal(t, &broken, f.key.Seal(t, broken.Sealed))
	f.server.AddSeal(t, f.image, f.key.Seal(t, f.image.Sealed))
	f.server.Tell(func(writer http.ResponseWriter, request *http.Request) bool {
		if !strings.HasSuffix(request.URL.Path, broken.Sealed.Layers[0].Blob) {
			return false
		}
		registrytest.Send(writer, make([]byte, broken.Sealed.Layers[0].Size))
		return true
	})
	f.mustEnsure()
	f.expectComplete(f.image)
	f.noTemporary()
}

func TestThousandReferrers(t *testing.T) {
	f := newSealedFixture(t, "app")
	real := f.server.TakeReferrers(f.image.Digest)
	for index := range 1000 {
		artifact := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/spdx+json","annotations":{"number":"%d"}}`, ocispec.MediaTypeImageManifest, index)
		f.server.AddReferrer(f.image.Digest, []byte(artifact))
	}
	f.server.PutReferrers(f.image.Digest, real)
	f.mustEnsure()
	if pages := f.server.Asked("referrers/"); pages != 11 {
		t.Errorf("%d pages", pages)
	}

	// Foreign seals do not hide the valid one either.
	foreign := sealtest.NewKey(t)
	g := newFixture(t, "app")
	for index := range 999 {
		manifest := g.image.Sealed
		manifest.Tools = map[string]string{"palisade": fmt.Sprintf("9.0.%d", index)}
		g.server.AddSeal(t, g.image, foreign.Seal(t, manifest))
	}
	g.server.AddSeal(t, g.image, g.key.Seal(t, g.image.Sealed))
	g.mustEnsure()
}

// TestLies has a registry that returns wrong content.
func TestLies(t *testing.T) {
	answer := func(part func(*fixture) string, give func(*fixture, http.ResponseWriter)) func(*fixture) {
		return func(f *fixture) {
			suffix := part(f)
			f.server.Tell(func(writer http.ResponseWriter, request *http.Request) bool {
				if !strings.HasSuffix(request.URL.Path, suffix) {
					return false
				}
				give(f, writer)
				return true
			})
		}
	}
	manifest := func(f *fixture) string { return "/manifests/" + f.image.Digest }
	config := func(f *fixture) string { return "/blobs/" + f.image.Sealed.Image.Config }
	blob := func(f *fixture) string { return "/blobs/" + f.image.Sealed.Layers[1].Blob }
	signature := func(f *fixture) string { return "/blobs/" + digestOf(f.image.Signatures[1]) }
	asManifest := func(writer http.ResponseWriter, content []byte) {
		writer.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		registrytest.Send(writer, content)
	}
	endless := func(_ *fixture, writer http.ResponseWriter) {
		writer.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		chunk := make([]byte, 64<<10)
		for {
			if _, err := writer.Write(chunk); err != nil {
				return
			}
		}
	}
	for name, test := range map[string]struct {
		lie   func(*fixture)
		want  Reason
		layer bool
	}{
		"another manifest": {answer(manifest, func(f *fixture, w http.ResponseWriter) { asManifest(w, sealtest.NewImage(f.t, "other").Manifest) }), ContentMismatch, false},
		"a manifest with a false digest": {answer(manifest, func(f *fixture, w http.ResponseWriter) {
			w.Header().Set("Docker-Content-Digest", f.image.Digest)
			asManifest(w, sealtest.NewImage(f.t, "other").Manifest)
		}), ContentMismatch, false},
		"another configuration": {answer(config, func(f *fixture, w http.ResponseWriter) { registrytest.Send(w, []byte(`{"os":"linux"}`)) }), ContentMismatch, false},
		"a configuration of the same length": {answer(config, func(f *fixture, w http.ResponseWriter) {
			registrytest.Send(w, []byte(strings.Repeat(" ", len(f.image.Config))))
		}), ContentMismatch, false},
		"an endless configuration": {answer(config, endless), ContentMismatch, false},
		"other bytes of a layer": {answer(blob, func(f *fixture, w http.ResponseWriter) {
			content := slices.Clone(f.image.Blobs[1])
			content[10] ^= 1
			registrytest.Send(w, content)
		}), LayerMismatch, true},
		"a truncated layer that says its length": {answer(blob, func(f *fixture, w http.ResponseWriter) { registrytest.Send(w, f.image.Blobs[1][:4000]) }), ContentMismatch, true},
		"a truncated layer": {answer(blob, func(f *fixture, w http.ResponseWriter) {
			_, _ = w.Write(f.image.Blobs[1][:4000])
			w.(http.Flusher).Flush()
		}), LayerMismatch, true},
		"an endless layer":        {answer(blob, endless), LayerMismatch, true},
		"another signature":       {answer(signature, func(f *fixture, w http.ResponseWriter) { registrytest.Send(w, f.image.Signatures[0]) }), ContentMismatch, true},
		"an endless signature":    {answer(signature, endless), ContentMismatch, true},
		"a missing layer's bytes": {answer(blob, func(_ *fixture, w http.ResponseWriter) { registrytest.Send(w, nil) }), ContentMismatch, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newSealedFixture(t, "base", "app")
			test.lie(f)
			refusal := f.refused(test.want)
			if named := refusal.Layer == f.image.Sealed.Layers[1].Digest && strings.Contains(refusal.Message, refusal.Layer); named != test.layer {
				t.Errorf("layer %q: %v", refusal.Layer, refusal)
			}
			// With correct responses it fetches what is missing.
			f.server.Tell(nil)
			f.mustEnsure()
			f.expectComplete(f.image)
		})
	}
}

func TestAmbiguousManifest(t *testing.T) {
	f := newFixture(t, "app")
	both := strings.TrimSuffix(string(f.image.Manifest), "}") + `,"manifests":[]}`
	for name, content := range map[string]string{
		"both an index and a manifest": both,
		"neither":                      `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`,
		"an index that says otherwise": strings.ReplaceAll(string(sealtest.Index(t, f.image)), `"mediaType":"`+ocispec.MediaTypeImageIndex, `"mediaType":"`+ocispec.MediaTypeImageManifest),
		"schema 1":                     `{"schemaVersion":1,"mediaType":"` + ocispec.MediaTypeImageManifest + `","layers":[]}`,
	} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			f.reference = registrytest.Repository + "@" + f.server.AddManifest([]byte(content))
			f.refused(ContentMismatch)
		})
	}
}

func TestAccessFails(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*agentv1.ImageRegistry)
		want   registry.Reason
		hint   string
	}{
		"a wrong password": {func(a *agentv1.ImageRegistry) { a.Password = "wrong" }, registry.Unauthorized, "check user name"},
		"no credentials":   {func(a *agentv1.ImageRegistry) { a.Username, a.Password = "", "" }, registry.Unauthorized, "asks for credentials"},
		"no CA":            {func(a *agentv1.ImageRegistry) { a.Ca = "" }, registry.Untrusted, "CA"},
		"nobody there":     {func(a *agentv1.ImageRegistry) { a.Endpoint = "https://127.0.0.1:1" }, registry.Unreachable, "endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newSealedFixture(t, "app")
			f.server.User, f.server.Password = "user", "password"
			access := f.server.Access()
			test.change(access[1])
			_, err := f.role.Ensure(context.Background(), f.reference, access, nil)
			var pull *registry.PullError
			if !errors.As(err, &pull) || pull.Reason != test.want || !strings.Contains(err.Error(), test.hint) {
				t.Errorf("%v", err)
			}
			if err != nil && strings.Contains(err.Error(), "password") && strings.Contains(err.Error(), f.server.Password+"@") {
				t.Errorf("the error contains the password: %v", err)
			}
			if _, err := f.role.Ensure(context.Background(), f.reference, f.server.Access(), nil); err != nil {
				t.Errorf("the right way: %v", err)
			}
		})
	}
	f := newFixture(t, "app")
	f.reference = strings.Replace(f.reference, "team/app", "team/absent", 1)
	var pull *registry.PullError
	if _, err := f.ensure(); !errors.As(err, &pull) || pull.Reason != registry.NotFound {
		t.Errorf("%v", err)
	}
}

func TestSilentRegistry(t *testing.T) {
	for _, part := range []string{"/manifests/", "/referrers/", "/blobs/"} {
		t.Run(part, func(t *testing.T) {
			f := newSealedFixture(t, "base", "app")
			f.options.Stall = 100 * time.Millisecond
			f.restart()
			f.server.Tell(func(writer http.ResponseWriter, request *http.Request) bool {
				if !strings.Contains(request.URL.Path, part) {
					return false
				}
				if part == "/blobs/" {
					// The response begins and then stalls.
					writer.Header().Set("Content-Length", "100")
					_, _ = writer.Write([]byte("{"))
					writer.(http.Flusher).Flush()
				}
				<-request.Context().Done()
				return true
			})
			started := time.Now()
			var pull *registry.PullError
			if _, err := f.ensure(); err == nil || errors.As(err, &pull) && pull.Reason != registry.Unreachable {
				t.Errorf("%v", err)
			}
			if took := time.Since(started); took > 2*time.Second {
				t.Errorf("took %s", took)
			}
			f.noTemporary()
		})
	}
	t.Run("a layer that stops", func(t *testing.T) {
		f := newSealedFixture(t, "base", "app")
		f.options.Stall = 100 * time.Millisecond
		f.restart()
		f.server.Tell(func(writer http.ResponseWriter, request *http.Request) bool {
			if !strings.HasSuffix(request.URL.Path, f.image.Sealed.Layers[1].Blob) {
				return false
			}
			writer.Header().Set("Content-Length", fmt.Sprint(len(f.image.Blobs[1])))
			_, _ = writer.Write(f.image.Blobs[1][:100])
			writer.(http.Flusher).Flush()
			<-request.Context().Done()
			return true
		})
		var pull *registry.PullError
		if _, err := f.ensure(); !errors.As(err, &pull) || pull.Reason != registry.Unreachable || !strings.Contains(err.Error(), "makes no progress") {
			t.Errorf("%v", err)
		}
		f.noTemporary()
	})
}

func TestARegistryThatDripsBytesMakesNoProgress(t *testing.T) {
	f := newSealedFixture(t, "base", "app")
	f.options.Stall = 200 * time.Millisecond
	f.restart()
	f.server.Tell(func(writer http.ResponseWriter, request *http.Request) bool {
		if !strings.HasSuffix(request.URL.Path, f.image.Sealed.Layers[1].Blob) {
			return false
		}
		registrytest.Drip(writer, request, f.image.Blobs[1], 1, 10*time.Millisecond)
		return true
	})
	started := time.Now()
	var pull *registry.PullError
	if _, err := f.ensure(); !errors.As(err, &pull) || pull.Reason != registry.Unreachable || !strings.Contains(err.Error(), "makes no progress") {
		t.Errorf("%v", err)
	}
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	f.noTemporary()
	f.server.Tell(nil)
	f.mustEnsure()
}

func TestASlowRegistryMakesProgress(t *testing.T) {
	f := newSealedFixture(t, strings.Repeat("large", minimumProgress))
	f.options.Stall = 300 * time.Millisecond
	f.restart()
	f.server.Tell(func(writer http.ResponseWriter, request *http.Request) bool {
		if !strings.HasSuffix(request.URL.Path, f.image.Sealed.Layers[0].Blob) {
			return false
		}
		registrytest.Drip(writer, request, f.image.Blobs[0], minimumProgress, 100*time.Millisecond)
		return true
	})
	started := time.Now()
	f.mustEnsure()
	if took := time.Since(started); took < f.options.Stall {
		t.Errorf("took %s, which shows nothing", took)
	}
}

// TestCredentialsStayWithTheirServer has a registry that redirects to another server, which does the same, and to one
// without TLS.
func TestCredentialsStayWithTheirServer(t *testing.T) {
	var seen []string
	other := httptest.NewUnstartedServer(nil)
	other.Config.Handler = http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if header := request.Header.Get("Authorization"); header != "" {
			seen = append(seen, header)
		}
		if !strings.HasPrefix(request.URL.Path, "/again") {
			http.Redirect(writer, request, "/again"+request.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		writer.WriteHeader(http.StatusTeapot)
	})
	other.StartTLS()
	t.Cleanup(other.Close)
	plain := httptest.NewServer(other.Config.Handler)
	t.Cleanup(plain.Close)
	for name, target := range map[string]string{"another server": other.URL, "no TLS": plain.URL} {
		t.Run(name, func(t *testing.T) {
			f := newSealedFixture(t, "app")
			f.server.User, f.server.Password = "user", "password"
			f.server.Tell(func(writer http.ResponseWriter, request *http.Request) bool {
				if !strings.HasSuffix(request.URL.Path, f.image.Sealed.Layers[0].Blob) {
					return false
				}
				http.Redirect(writer, request, target+request.URL.Path, http.StatusTemporaryRedirect)
				return true
			})
			_, err := f.ensure()
			if err == nil || (target == plain.URL) != strings.Contains(err.Error(), "not reached over TLS") {
				t.Errorf("%v", err)
			}
			if target == other.URL && !strings.Contains(err.Error(), "418") {
				t.Errorf("the other server was not reached: %v", err)
			}
			if len(seen) > 0 {
				t.Errorf("credentials went to another server: %q", seen)
			}
		})
	}
}

// An image with too many layers is refused before its seals, or even its configuration, are requested.
func TestLayerCounts(t *testing.T) {
	for _, test := range sealtest.LayerCounts(t, "../../../seal/testdata/layer-counts.json") {
		f := newFixture(t, slices.Repeat([]string{"layer"}, test.Layers)...)
		if test.Accepted {
			f.refused(SealMissing)
			continue
		}
		if refusal := f.refused(ContentMismatch); !strings.Contains(refusal.Message, fmt.Sprintf("%d layers, expected 1 to 127", test.Layers)) {
			t.Error(refusal)
		}
		if f.server.Asked("blobs/") != 0 || f.server.Asked("referrers") != 0 {
			t.Errorf("%d layers: more than the manifest was asked for", test.Layers)
		}
	}
}
