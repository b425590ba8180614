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

func TestEFIByte(t *testing.T) {
	if got, err := efiByte([]byte{6, 0, 0, 0, 1}); err != nil || got != 1 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, content := range [][]byte{nil, {1}, {6, 0, 0, 0, 1, 1}} {
		if _, err := efiByte(content); err == nil {
			t.Errorf("%v was accepted", content)
		}
	}
}
