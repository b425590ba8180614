package main

import "testing"

func TestWithoutACapability(t *testing.T) {
	for _, test := range []struct {
		set        string
		capability uint
		want       string
	}{
		{"4294967295\t511\n", 33, "4294967295 509"},
		{"4294967295 511", 0, "4294967294 511"},
		{"0 0", 33, "0 0"},
	} {
		if got, err := without(test.set, test.capability); err != nil || got != test.want {
			t.Errorf("%q without %d: got %q, %v; want %q", test.set, test.capability, got, err, test.want)
		}
	}
	for _, set := range []string{"", "1", "a b"} {
		if got, err := without(set, 33); err == nil {
			t.Errorf("%q: no error, got %q", set, got)
		}
	}
}
