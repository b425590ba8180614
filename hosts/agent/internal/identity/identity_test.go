package identity

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/palisade-host/palisade/hosts/agent/internal/identity/testca"
)

const life = 30 * 24 * time.Hour

type fixture struct {
	directory string
	system    time.Time
	identity  *Identity
	authority *testca.Authority
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{directory: filepath.Join(t.TempDir(), "api"), system: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	f.authority = testca.New(t, f.system)
	f.open(t)
	return f
}

func (f *fixture) open(t *testing.T) {
	t.Helper()
	identity, err := Open(f.directory, NewClock(func() time.Time { return f.system }))
	if err != nil {
		t.Fatal(err)
	}
	f.identity = identity
}

// sign returns a certificate that is valid from signer on.
func (f *fixture) sign(t *testing.T, authority *testca.Authority, signer time.Time) string {
	t.Helper()
	request, err := f.identity.CertificateRequest()
	if err != nil {
		t.Fatal(err)
	}
	return authority.Host(request, signer.Add(-time.Minute), signer.Add(life))
}

func (f *fixture) enroll(t *testing.T, signer time.Time) {
	t.Helper()
	if _, err := f.identity.Enroll(f.sign(t, f.authority, signer), f.authority.PEM(), signer, nil); err != nil {
		t.Fatal(err)
	}
}

func TestIdentityIsMadeOnceAndPrivate(t *testing.T) {
	f := newFixture(t)
	if f.identity.RequestReason() != ReasonInitial {
		t.Errorf("need %q", f.identity.RequestReason())
	}
	id := f.identity.HostID()
	f.enroll(t, f.system)
	certificate, _ := f.identity.Certificate()
	f.open(t)
	again, authority := f.identity.Certificate()
	if f.identity.HostID() != id || again == nil || !again.Leaf.Equal(certificate.Leaf) || len(authority) != 1 || !authority[0].Equal(f.authority.Certificate) {
		t.Error("another identity after a restart")
	}
	entries, err := os.ReadDir(f.directory)
	if err != nil || len(entries) != 5 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, entry := range entries {
		mode := os.FileMode(0o600)
		if entry.Name() == revokedFolder {
			mode = os.ModeDir | 0o700
		}
		if info, err := entry.Info(); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", entry.Name(), info.Mode(), err)
		}
	}
	if info, err := os.Stat(f.directory); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestNeed(t *testing.T) {
	f := newFixture(t)
	f.enroll(t, f.system)
	for _, test := range []struct {
		after  time.Duration
		reason string
	}{
		{0, ""}, {life * 8 / 10, ""}, {life*9/10 + time.Hour, ReasonRenewal}, {life + time.Second, ReasonExpired}, {-time.Hour, ReasonNotYetValid},
	} {
		start := f.system
		f.system = start.Add(test.after)
		if reason := f.identity.RequestReason(); reason != test.reason {
			t.Errorf("after %s: %q, expected %q", test.after, reason, test.reason)
		}
		f.system = start
	}
}

func TestWrongClockHasAWayBack(t *testing.T) {
	for name, wrong := range map[string]time.Duration{"far behind": -50 * 365 * 24 * time.Hour, "far ahead": 50 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			signer := f.system
			f.system = signer.Add(wrong)
			f.enroll(t, signer)
			if reason := f.identity.RequestReason(); reason != "" {
				t.Errorf("still needs %q", reason)
			}
			f.system = f.system.Add(time.Hour)
			if now := f.identity.Clock().Now(); !now.Equal(signer.Add(time.Hour)) {
				t.Errorf("clock shows %s", now)
			}
			// After a restart the offset is gone, so a new certificate is needed.
			f.open(t)
			if reason := f.identity.RequestReason(); reason != ReasonNotYetValid && reason != ReasonExpired {
				t.Errorf("needs %q", reason)
			}
		})
	}
	t.Run("small differences are the system's business", func(t *testing.T) {
		f := newFixture(t)
		f.enroll(t, f.system.Add(10*time.Second))
		if now := f.identity.Clock().Now(); !now.Equal(f.system) {
			t.Errorf("clock shows %s", now)
		}
	})
}

func TestRefusals(t *testing.T) {
	f := newFixture(t)
	foreign := testca.New(t, f.system)
	other := newFixture(t)
	signer := f.system
	enroll := func(chain, authority string) error {
		_, err := f.identity.Enroll(chain, authority, signer, nil)
		return err
	}
	refused := func(name string, err error, text string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, expected %q", name, err, text)
		}
	}
	refused("not signed by the CA beside it", enroll(f.sign(t, foreign, signer), f.authority.PEM()), "certificate_chain")
	refused("for another key", enroll(other.sign(t, f.authority, signer), f.authority.PEM()), "another key")
	refused("expired", enroll(f.sign(t, f.authority, signer.Add(-2*life)), f.authority.PEM()), "expired")
	refused("no CA", enroll(f.sign(t, f.authority, signer), f.sign(t, f.authority, signer)), "is not a CA")
	refused("no PEM", enroll("", f.authority.PEM()), "no PEM certificate")
	if certificate, authority := f.identity.Certificate(); certificate != nil || authority != nil {
		t.Fatal("something refused was kept")
	}
	if _, err := f.identity.Install(f.sign(t, f.authority, signer)); err == nil {
		t.Error("installed before the first contact")
	}

	f.enroll(t, signer)
	kept, _ := f.identity.Certificate()
	refused("foreign CA", enroll(f.sign(t, foreign, signer), foreign.PEM()), "first contact")
	_, err := f.identity.Install(f.sign(t, foreign, signer))
	refused("install from a foreign CA", err, "unknown authority")
	_, err = f.identity.Install(other.sign(t, f.authority, signer))
	refused("install for another key", err, "another key")
	if now, _ := f.identity.Certificate(); !now.Leaf.Equal(kept.Leaf) {
		t.Error("a refused certificate was kept")
	}
	if notAfter, err := f.identity.Install(f.sign(t, f.authority, signer.Add(time.Hour/2-30*time.Minute))); err != nil || !notAfter.After(signer) {
		t.Errorf("renewal: %v", err)
	}
}

func TestDamagedFiles(t *testing.T) {
	f := newFixture(t)
	f.enroll(t, f.system)
	if err := os.WriteFile(filepath.Join(f.directory, certificateFile), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.open(t)
	if f.identity.RequestReason() != ReasonInitial {
		t.Errorf("need %q", f.identity.RequestReason())
	}
	for _, name := range []string{hostIDFile, keyFile, authorityFile} {
		path := filepath.Join(f.directory, name)
		kept, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(f.directory, NewClock(time.Now)); err == nil {
			t.Errorf("%s: damage was passed over", name)
		}
		if err := os.WriteFile(path, kept, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
