package main

import "testing"

func TestSelected(t *testing.T) {
	for line, want := range map[string]string{
		"none [integrity] confidentiality\n": "integrity", "[none] integrity confidentiality": "none", "none": "", "": "", "a [b": "",
	} {
		if got := selected(line); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}
