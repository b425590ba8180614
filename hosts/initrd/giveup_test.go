package main

import "testing"

func TestWithoutACapability(t *testing.T) {
	for _, test := range []struct {
		set          string
		capabilities []uint
		want         string
	}{
		{"4294967295\t511\n", []uint{33}, "4294967295 509"},
		{"4294967295 511", []uint{0}, "4294967294 511"},
		{"4294967295 511", []uint{33, 16, 17}, "4294770687 509"},
		{"0 0", []uint{33}, "0 0"},
	} {
		if got, err := without(test.set, test.capabilities...); err != nil || got != test.want {
			t.Errorf("%q without %v: got %q, %v; want %q", test.set, test.capabilities, got, err, test.want)
		}
	}
	for _, set := range []string{"", "1", "a b"} {
		if got, err := without(set, 33); err == nil {
			t.Errorf("%q: no error, got %q", set, got)
		}
	}
}
