package main

import (
	"strings"
	"testing"
)

const hash = "7d0c1be60c64bf43bff2c99d6d9c2e5ecf565a7d4ef306eb0362748d0b675870"

func TestCommandLineValue(t *testing.T) {
	for _, test := range []struct{ line, key, want string }{
		{"a=1 b=2\n", "b", "2"},
		{"a=1 a=2", "a", "2"},
		{"ipe.enforce=0 enforce=1", "enforce", "1"},
		{"xroothash=1", "roothash", ""},
		{"", "a", ""},
	} {
		if got := commandLineValue(test.line, test.key); got != test.want {
			t.Errorf("%q, %s: got %q, want %q", test.line, test.key, got, test.want)
		}
	}
}

func TestRootHash(t *testing.T) {
	if got, err := rootHash("quiet roothash=" + hash + "\n"); err != nil || got != hash {
		t.Errorf("got %q, %v", got, err)
	}
	for _, line := range []string{"", "roothash=", "roothash=abc", "roothash=" + strings.ToUpper(hash), "roothash=" + hash + "00"} {
		if _, err := rootHash(line); err == nil {
			t.Errorf("%q was accepted", line)
		}
	}
}

func TestCheckCommandLine(t *testing.T) {
	const signed = "console=ttyS0 ipe.enforce=0\n"
	for _, test := range []struct {
		line string
		ok   bool
	}{
		{"roothash=" + hash + " console=ttyS0 ipe.enforce=0\n", true},
		{"console=ttyS0  ipe.enforce=0 roothash=" + hash, true},
		{"console=ttyS0 ipe.enforce=0", false},
		{"roothash=" + hash + " roothash=" + hash + " console=ttyS0 ipe.enforce=0", false},
		{"roothash=" + hash + " console=ttyS0 ipe.enforce=0 init=/bin/sh", false},
		{"roothash=" + hash + " console=ttyS0", false},
		{"roothash=" + hash + " console=ttyS0 ipe.enforce=0 dm_verity.require_signatures=0", false},
	} {
		if err := checkCommandLine(test.line, signed); (err == nil) != test.ok {
			t.Errorf("%q: %v", test.line, err)
		}
	}
}
