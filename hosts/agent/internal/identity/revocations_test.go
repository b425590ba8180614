package identity

import (
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func openTestRevocations(t *testing.T, directory string) *Revocations {
	t.Helper()
	r, err := openRevocations(directory, newCalls())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRevocationsStay(t *testing.T) {
	f := newFixture(t)
	directory := filepath.Join(t.TempDir(), "revoked")
	r := openTestRevocations(t, directory)
	if err := r.Add([]string{"b0", "a1", "b0"}, f.system); err != nil {
		t.Fatal(err)
	}
	if err := r.Add([]string{"a1"}, f.system); err != nil {
		t.Errorf("a second time: %v", err)
	}
	// The name counts: a damaged content revokes as well. What an interrupted write left is no revocation.
	if err := os.WriteFile(filepath.Join(directory, "c2"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(directory, ".d3.123"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r = openTestRevocations(t, directory)
	if got := r.List(); !slices.Equal(got, []string{"a1", "b0", "c2"}) {
		t.Errorf("%v", got)
	}
	if _, err := os.Stat(filepath.Join(directory, ".d3.123")); !os.IsNotExist(err) {
		t.Errorf("an unfinished file stays: %v", err)
	}
	if !r.contains("a1") || r.contains("a") {
		t.Error("contains does not follow the list")
	}
}

func TestRevocationsRefuse(t *testing.T) {
	f := newFixture(t)
	r := openTestRevocations(t, t.TempDir())
	for _, value := range []string{"", "A1", "0a1", "../a1", "-1", "a1/b0", ".a1", strings.Repeat("f", 41)} {
		var problem *RevocationError
		if err := r.Add([]string{"a1", value}, f.system); !errors.As(err, &problem) || problem.Index != 1 {
			t.Errorf("%q: %v", value, err)
		}
	}
	if got := r.List(); len(got) != 0 {
		t.Errorf("a refused list revokes %v", got)
	}
	if err := r.Add([]string{"0", strings.Repeat("f", 40), SerialNumber(big.NewInt(0x0abc))}, f.system); err != nil {
		t.Error(err)
	}
	many := make([]string, maximumRevoked-2)
	for index := range many {
		many[index] = strconv.FormatInt(int64(index+1), 16)
	}
	if err := r.Add(many, f.system); !errors.Is(err, ErrTooManyRevoked) {
		t.Errorf("%d: %v", len(many)+3, err)
	}
}

func TestRevocationThatIsNotStoredIsAnError(t *testing.T) {
	f := newFixture(t)
	directory := filepath.Join(t.TempDir(), "revoked")
	r := openTestRevocations(t, directory)
	if err := os.RemoveAll(directory); err != nil {
		t.Fatal(err)
	}
	if err := r.Add([]string{"a1"}, f.system); err == nil || len(r.List()) != 0 {
		t.Errorf("%v, %v", err, r.List())
	}
}

func TestEnrollmentRevokes(t *testing.T) {
	f := newFixture(t)
	chain := f.sign(t, f.authority, f.system)
	if _, err := f.identity.Enroll(chain, f.authority.PEM(), f.system, []string{"no"}); err == nil {
		t.Error("a list with no serial number is accepted")
	}
	if certificate, _ := f.identity.Certificate(); certificate != nil {
		t.Error("a refused response gives a certificate")
	}
	if _, err := f.identity.Enroll(chain, f.authority.PEM(), f.system, []string{"a1"}); err != nil {
		t.Fatal(err)
	}
	f.open(t)
	if got := f.identity.Revocations().List(); !slices.Equal(got, []string{"a1"}) {
		t.Errorf("%v", got)
	}
}
