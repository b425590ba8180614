package images

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	"github.com/palisade-host/palisade/hosts/agent/internal/images/registrytest"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/seal/sealtest"
)

func (f *fixture) declare(name string, keys []string, repositories ...string) *agentv1.ImagePolicy {
	f.t.Helper()
	policy, err := f.role.policies.apply(&agentv1.ImagePolicy{Name: name, Repositories: repositories, Keys: keys}, false)
	if err != nil {
		f.t.Fatal(err)
	}
	return policy
}

// sign adds a signature of the image, as cosign does.
func (f *fixture) sign(key *sealtest.Key) {
	f.t.Helper()
	payload := sealtest.CosignPayload(f.t, registrytest.Repository, f.image.Digest)
	f.server.AddSignature(f.t, f.image.Digest, [][]byte{payload}, [][]byte{key.Sign(f.t, payload)})
}

func TestRepositoriesOfPolicies(t *testing.T) {
	for _, test := range []struct {
		pattern string
		matches bool
	}{
		{registrytest.Repository, true},
		{"registry.test/team/*", true},
		{"registry.test/*", true},
		{"REGISTRY.test/team/app", true},
		{"registry.test/team/ap", false},
		{"registry.test/team/app/*", false},
		{"registry.test/tea/*", false},
		{"registry.test:443/team/app", false},
		{"other.test/team/app", false},
	} {
		f := newSealedFixture(t, "app")
		f.declare("only", nil, test.pattern)
		if test.matches {
			f.mustEnsure()
		} else if refusal := f.refused(ImageNotAllowed); !strings.Contains(refusal.Message, registrytest.Repository) {
			t.Error(refusal)
		}
	}
}

func TestSignatureByAKeyOfThePolicy(t *testing.T) {
	f := newSealedFixture(t, "app")
	ours, foreign := sealtest.NewKey(t), sealtest.NewKey(t)
	f.declare("signed", []string{ours.PEM, sealtest.NewKey(t).PEM}, registrytest.Repository)
	if refusal := f.refused(SignatureMissing); !strings.Contains(refusal.Message, "signed") {
		t.Error(refusal)
	}
	f.sign(foreign)
	f.refused(SignatureByUnknownKey)

	payload := func(repository, digest string) []byte { return sealtest.CosignPayload(t, repository, digest) }
	right := payload(registrytest.Repository, f.image.Digest)
	other := sealtest.NewImage(t, "other")
	for name, test := range map[string]struct{ payload, signature []byte }{
		"of another image":       {payload(registrytest.Repository, other.Digest), ours.Sign(t, payload(registrytest.Repository, other.Digest))},
		"of another repository":  {payload("registry.test/other", f.image.Digest), ours.Sign(t, payload("registry.test/other", f.image.Digest))},
		"over another payload":   {right, ours.Sign(t, []byte("other"))},
		"with a changed payload": {bytes.Replace(right, []byte("optional"), []byte("Optional"), 1), ours.Sign(t, right)},
		"that is none":           {right, []byte("nonsense")},
		"of nothing":             {[]byte("{}"), ours.Sign(t, []byte("{}"))},
	} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			f.server.AddSignature(t, f.image.Digest, [][]byte{test.payload}, [][]byte{test.signature})
			f.refused(SignatureByUnknownKey)
		})
	}
	f.t = t
	// The signature is among others, and one names no repository.
	anonymous := payload("", f.image.Digest)
	f.server.AddSignature(t, f.image.Digest, [][]byte{right, anonymous}, [][]byte{foreign.Sign(t, right), ours.Sign(t, anonymous)})
	f.mustEnsure()
}

func TestSignatureOfTheIndex(t *testing.T) {
	f := newSealedFixture(t, "app")
	key := sealtest.NewKey(t)
	f.declare("signed", []string{key.PEM}, registrytest.Repository)
	index := f.server.AddManifest(sealtest.Index(t, f.image))
	f.reference = registrytest.Repository + "@" + index
	f.refused(SignatureMissing)
	payload := sealtest.CosignPayload(t, registrytest.Repository, index)
	f.server.AddSignature(t, index, [][]byte{payload}, [][]byte{key.Sign(t, payload)})
	f.mustEnsure()
	// The manifest itself was not signed.
	f.reference = registrytest.Repository + "@" + f.image.Digest
	if _, err := f.ensure(); err == nil || !strings.Contains(err.Error(), string(SignatureByUnknownKey)) && !strings.Contains(err.Error(), string(SignatureMissing)) {
		t.Errorf("%v", err)
	}
}

func TestPoliciesAddUp(t *testing.T) {
	f := newSealedFixture(t, "app")
	key := sealtest.NewKey(t)
	f.declare("other", nil, "registry.test/other")
	f.refused(ImageNotAllowed)
	f.declare("wide", nil, "registry.test/*")
	f.declare("narrow", []string{key.PEM}, registrytest.Repository)
	// A policy without keys does not weaken one with keys.
	if refusal := f.refused(SignatureMissing); !strings.Contains(refusal.Message, "narrow") {
		t.Error(refusal)
	}
	f.sign(key)
	f.mustEnsure()
}

func TestStricterPolicyRefusesTheNextStart(t *testing.T) {
	f := newSealedFixture(t, "app")
	key := sealtest.NewKey(t)
	f.sign(key)
	f.mustEnsure()
	s := &policyService{f.role}
	apply := func(policy *agentv1.ImagePolicy, dryRun bool) []*agentv1.RefusedImage {
		t.Helper()
		response, err := s.ApplyImagePolicy(t.Context(), connect.NewRequest(&agentv1.ApplyImagePolicyRequest{Policy: policy, DryRun: dryRun}))
		if err != nil {
			t.Fatal(err)
		}
		return response.Msg.GetRefusedImages()
	}
	// The signature was fetched before a policy required one. From then on it is available without the registry.
	f.server.Close()
	if refused := apply(&agentv1.ImagePolicy{Name: "p", Repositories: []string{registrytest.Repository}, Keys: []string{key.PEM}}, false); len(refused) != 0 {
		t.Errorf("%v", refused)
	}
	f.restart()
	f.mustEnsure()
	stricter := &agentv1.ImagePolicy{Name: "p", Repositories: []string{"registry.test/other"}}
	for _, dryRun := range []bool{true, false} {
		s.role = f.role
		refused := apply(stricter, dryRun)
		if len(refused) != 1 || refused[0].GetReference() != f.reference || refused[0].GetReason() != string(ImageNotAllowed) {
			t.Errorf("%v", refused)
		}
		if _, err := f.ensure(); (err == nil) != dryRun {
			t.Errorf("dry run %v: %v", dryRun, err)
		}
	}
	if _, err := s.DeleteImagePolicy(t.Context(), connect.NewRequest(&agentv1.DeleteImagePolicyRequest{Name: "p"})); err != nil {
		t.Fatal(err)
	}
	f.mustEnsure()
}

func TestPoliciesAreKept(t *testing.T) {
	f := newFixture(t, "app")
	key := sealtest.NewKey(t)
	first := f.declare("b", []string{key.PEM}, "registry.test/z", "registry.test/a", "registry.test/a")
	if first.GetGeneration() != 1 {
		t.Errorf("%v", first)
	}
	// It is equal except for the order and for text around the key.
	if again := f.declare("b", []string{"\n" + key.PEM + "\n"}, "registry.test/a", "registry.test/z"); again.GetGeneration() != 1 {
		t.Errorf("%v", again)
	}
	if changed := f.declare("b", []string{key.PEM}, "registry.test/a"); changed.GetGeneration() != 2 {
		t.Errorf("%v", changed)
	}
	f.declare("a", nil, "registry.test/*")
	f.restart()
	if all := f.role.policies.all(); len(all) != 2 || all[0].GetName() != "a" || all[1].GetName() != "b" || all[1].GetGeneration() != 2 {
		t.Errorf("%v", all)
	}
}

func TestPoliciesAreValidated(t *testing.T) {
	f := newFixture(t, "app")
	encode := func(kind string, der []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	private, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	p384Text := encode("PUBLIC KEY", p384, err)
	rsaDER, err := x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)
	rsaText := encode("PUBLIC KEY", rsaDER, err)
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	privateText := encode("PRIVATE KEY", privateDER, err)
	good := sealtest.NewKey(t).PEM
	for field, policies := range map[string][]*agentv1.ImagePolicy{
		"name": {
			{Name: "", Repositories: []string{registrytest.Repository}}, {Name: "../p", Repositories: []string{registrytest.Repository}}, {Name: "A", Repositories: []string{registrytest.Repository}},
		},
		"repositories": {{Name: "p"}},
		"repositories[0]": {
			{Name: "p", Repositories: []string{"app"}}, {Name: "p", Repositories: []string{"*"}}, {Name: "p", Repositories: []string{"registry.test/*/app"}},
			{Name: "p", Repositories: []string{"registry.test/team*"}}, {Name: "p", Repositories: []string{"registry.test/app:latest"}},
			{Name: "p", Repositories: []string{f.reference}}, {Name: "p", Repositories: []string{"https://registry.test/app"}}, {Name: "p", Repositories: []string{"registry.test/App"}},
		},
		"keys[0]": {
			{Name: "p", Repositories: []string{registrytest.Repository}, Keys: []string{"nonsense"}},
			{Name: "p", Repositories: []string{registrytest.Repository}, Keys: []string{p384Text}},
			{Name: "p", Repositories: []string{registrytest.Repository}, Keys: []string{rsaText}},
			{Name: "p", Repositories: []string{registrytest.Repository}, Keys: []string{privateText}},
			{Name: "p", Repositories: []string{registrytest.Repository}, Keys: []string{good + good}},
		},
	} {
		for _, policy := range policies {
			_, err := f.role.policies.apply(policy, false)
			if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), field+": ") {
				t.Errorf("%s: %v: %v", field, policy, err)
			}
			var failure *connect.Error
			if !errors.As(err, &failure) || len(failure.Details()) != 1 {
				t.Errorf("%s: no field path in the details of %v", field, err)
			}
			if err != nil && strings.Contains(err.Error(), "BEGIN") {
				t.Errorf("an error contains a key: %v", err)
			}
		}
	}
	if len(f.role.policies.all()) != 0 {
		t.Error("a refused policy was kept")
	}
}

// damage changes the record of a policy on the disk.
func (f *fixture) damage(name, content string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.options.DataDirectory, "policies", name+".json"), []byte(content), 0o600); err != nil {
		f.t.Fatal(err)
	}
	f.restart()
}

func TestADamagedPolicyAllowsNothingThatItCouldHaveRefused(t *testing.T) {
	for name, content := range map[string]string{
		"torn":              `{"name":"strict","reposi`,
		"of another policy": `{"name":"other","repositories":["registry.test/*"]}`,
		"invalid":           `{"name":"strict","repositories":["*"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			f := newSealedFixture(t, "app")
			f.damage("strict", content)
			if refusal := f.refused(ImageNotAllowed); !strings.Contains(refusal.Message, "strict.json.1") {
				t.Error(refusal)
			}
			// A policy that asks for no signature does not replace the damaged one, which may ask for one.
			f.declare("open", nil, registrytest.Repository)
			f.refused(ImageNotAllowed)
			// The image is accepted by a signature, whatever the damaged policy said.
			key := sealtest.NewKey(t)
			f.sign(key)
			f.declare("signed", []string{key.PEM}, registrytest.Repository)
			f.mustEnsure()

			host, err := hostService{role: f.role}.GetHost(t.Context(), nil)
			if err != nil || !host.Msg.GetReady() || !strings.Contains(host.Msg.GetReadyMessage(), "strict.json.1") {
				t.Errorf("%v, %v", host, err)
			}
			if policy := f.role.policies.get("strict"); policy == nil || len(policy.GetRepositories()) != 0 {
				t.Errorf("it counts as absent or as intact: %v", policy)
			}
			if err := f.role.policies.remove("signed"); err != nil {
				t.Fatal(err)
			}
			if _, err := f.ensure(); err == nil {
				t.Error("it is accepted by the policy without keys")
			}
			if err := f.role.policies.remove("strict"); err != nil {
				t.Fatal(err)
			}
			f.restart()
			f.mustEnsure()
			if _, err := os.Stat(filepath.Join(f.options.DataDirectory, "policies", "damaged", "strict.json.1.settled")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestADamagedPolicyIsDeclaredAgain(t *testing.T) {
	f := newSealedFixture(t, "app")
	f.damage("strict", "")
	f.refused(ImageNotAllowed)
	f.declare("strict", nil, registrytest.Repository)
	f.mustEnsure()
	f.restart()
	f.mustEnsure()
}

func TestAPolicyThatCannotBeReadIsReadAgain(t *testing.T) {
	f := newSealedFixture(t, "app")
	f.declare("open", nil, registrytest.Repository)
	file := filepath.Join(f.options.DataDirectory, "policies", "open.json")
	// The kernel answers reads of the first page of a process with EIO.
	if err := syscall.Mount("/proc/self/mem", file, "", syscall.MS_BIND, ""); err != nil {
		t.Skip("needs root: a file that cannot be read")
	}
	f.restart()
	refused, err := f.ensure()
	if unmounted := syscall.Unmount(file, 0); unmounted != nil {
		t.Fatal(unmounted)
	}
	if err == nil || !strings.Contains(err.Error(), "input/output error") {
		t.Errorf("%v, %v", refused, err)
	}
	f.mustEnsure()
	if len(f.role.policies.folder.Problems()) != 0 {
		t.Errorf("%v", f.role.policies.folder.Problems())
	}
}
