package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/palisade-host/palisade/hosts/agent/internal/identity/testca"
)

// chains are those of a client certificate of an authority.
func chains(f *fixture, authority *testca.Authority) [][]*x509.Certificate {
	leaf := authority.Client("operator", x509.ExtKeyUsageClientAuth, f.system, f.system.Add(time.Hour)).Leaf
	return [][]*x509.Certificate{{leaf, authority.Certificate}}
}

func TestCallsEndWithWhatTheyDependOn(t *testing.T) {
	f := newFixture(t)
	f.enroll(t, f.system)
	next := testca.New(t, f.system)
	roots := []*x509.Certificate{f.authority.Certificate, next.Certificate}
	if err := f.identity.SetAuthorities([]string{f.authority.PEM(), next.PEM()}, roots[:1]); err != nil {
		t.Fatal(err)
	}
	call := func(chains [][]*x509.Certificate) (context.Context, context.CancelFunc) {
		ctx, end, err := f.identity.Call(context.Background(), chains)
		if err != nil {
			t.Fatal(err)
		}
		return ctx, end
	}
	old, lost, kept := chains(f, f.authority), chains(f, next), chains(f, next)
	ended, end := call(lost)
	end()
	first, endFirst := call(old)
	second, endSecond := call(lost)
	third, endThird := call(kept)
	if err := f.identity.Revocations().Add([]string{SerialNumber(lost[0][0].SerialNumber)}, f.system); err != nil {
		t.Fatal(err)
	}
	if cause := context.Cause(ended); !errors.Is(cause, context.Canceled) {
		t.Errorf("a call that had ended: %v", cause)
	}
	if cause := context.Cause(second); !errors.Is(cause, ErrRevoked) {
		t.Errorf("a call with a revoked certificate: %v", cause)
	}
	if err := first.Err(); err != nil {
		t.Errorf("a call of another client: %v", err)
	}
	if _, _, err := f.identity.Call(context.Background(), lost); !errors.Is(err, ErrRevoked) || !strings.Contains(err.Error(), SerialNumber(lost[0][0].SerialNumber)) {
		t.Errorf("%v", err)
	}

	if _, err := f.identity.Install(f.sign(t, next, f.system)); err != nil {
		t.Fatal(err)
	}
	if err := f.identity.SetAuthorities([]string{next.PEM()}, roots[1:]); err != nil {
		t.Fatal(err)
	}
	if cause := context.Cause(first); !errors.Is(cause, ErrAuthorityNotAccepted) {
		t.Errorf("a call with a certificate of a dropped CA: %v", cause)
	}
	if _, _, err := f.identity.Call(context.Background(), old); !errors.Is(err, ErrAuthorityNotAccepted) {
		t.Errorf("%v", err)
	}
	if err := third.Err(); err != nil {
		t.Errorf("the control: %v", err)
	}
	for _, end := range []context.CancelFunc{endFirst, endSecond, endThird} {
		end()
	}
	if len(f.identity.calls.byKey) != 0 {
		t.Errorf("calls that have ended are kept: %v", f.identity.calls.byKey)
	}

	// The new CA is the only one after a restart and for the signer.
	f.open(t)
	if got := f.identity.Authorities(); !slices.Equal(got, []string{Fingerprint(next.Certificate)}) {
		t.Errorf("%v", got)
	}
	if certificate, _ := f.identity.Certificate(); certificate == nil {
		t.Error("the certificate of the new CA is lost")
	}
	if _, err := f.identity.Enroll(f.sign(t, f.authority, f.system), f.authority.PEM(), f.system, nil); err == nil {
		t.Error("the dropped CA signs")
	}
	if _, err := f.identity.Install(f.sign(t, f.authority, f.system)); err == nil {
		t.Error("a certificate of the dropped CA is installed")
	}
	if _, err := f.identity.Enroll(f.sign(t, next, f.system), next.PEM(), f.system, nil); err != nil {
		t.Errorf("the control: %v", err)
	}
}

func TestAuthoritiesThatLockOutAreRefused(t *testing.T) {
	f := newFixture(t)
	f.enroll(t, f.system)
	next := testca.New(t, f.system)
	old, both := []*x509.Certificate{f.authority.Certificate}, []string{f.authority.PEM(), next.PEM()}
	leaf := f.sign(t, f.authority, f.system)
	for name, test := range map[string]struct {
		contents []string
		callers  []*x509.Certificate
		lockout  bool
		text     string
	}{
		"none":                      {nil, old, false, "certificate_authorities: 1 to 4 CAs"},
		"too many":                  {[]string{"", "", "", "", ""}, old, false, "certificate_authorities: 1 to 4 CAs"},
		"no certificate":            {[]string{f.authority.PEM(), "x"}, old, false, "certificate_authorities[1]: no PEM"},
		"no CA":                     {[]string{f.authority.PEM(), leaf}, old, false, "is not a CA"},
		"two in one":                {[]string{f.authority.PEM() + next.PEM()}, old, false, "certificate_authorities[0]: 2 certificates"},
		"one twice":                 {[]string{f.authority.PEM(), f.authority.PEM()}, old, false, "[1]: \"test authority\" is in the list"},
		"without the caller's":      {[]string{next.PEM()}, old, true, "the CA of this call is missing"},
		"without the host's":        {[]string{next.PEM()}, []*x509.Certificate{next.Certificate}, true, "the host's own certificate is missing"},
		"of a caller of another CA": {both, []*x509.Certificate{testca.New(t, f.system).Certificate}, true, "the CA of this call"},
	} {
		t.Run(name, func(t *testing.T) {
			err := f.identity.SetAuthorities(test.contents, test.callers)
			var problem *AuthoritiesError
			if err == nil || errors.Is(err, ErrLockout) != test.lockout || errors.As(err, &problem) == test.lockout || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%v", err)
			}
			if got := f.identity.Authorities(); !slices.Equal(got, []string{Fingerprint(f.authority.Certificate)}) {
				t.Errorf("a refused list is in use: %v", got)
			}
		})
	}
	if err := f.identity.SetAuthorities(both, old); err != nil {
		t.Errorf("the control: %v", err)
	}
}
