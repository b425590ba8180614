package identity

import (
	"context"
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
	r, err := openRevocations(directory)
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
	if _, _, err := r.Call(context.Background(), "a1"); !errors.Is(err, ErrRevoked) || !strings.Contains(err.Error(), "a1") {
		t.Errorf("%v", err)
	}
}

func TestRevocationEndsCallsInProgress(t *testing.T) {
	f := newFixture(t)
	r := openTestRevocations(t, t.TempDir())
	call := func(number string) (context.Context, context.CancelFunc) {
		ctx, end, err := r.Call(context.Background(), number)
		if err != nil {
			t.Fatal(err)
		}
		return ctx, end
	}
	first, endFirst := call("a1")
	second, endSecond := call("a1")
	other, endOther := call("b0")
	endFirst()
	if err := r.Add([]string{"a1"}, f.system); err != nil {
		t.Fatal(err)
	}
	if cause := context.Cause(first); !errors.Is(cause, context.Canceled) {
		t.Errorf("a call that had ended: %v", cause)
	}
	if cause := context.Cause(second); !errors.Is(cause, ErrRevoked) {
		t.Errorf("a call in progress: %v", cause)
	}
	if err := other.Err(); err != nil {
		t.Errorf("the control, a call of another client: %v", err)
	}
	endSecond()
	endOther()
	if len(r.calls) != 0 {
		t.Errorf("calls that have ended are kept: %v", r.calls)
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
