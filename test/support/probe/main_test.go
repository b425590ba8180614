package main

import (
	"bytes"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

func answers(t *testing.T, requests string) []response {
	t.Helper()
	var out bytes.Buffer
	if err := serve(strings.NewReader(requests), &out); err != io.EOF {
		t.Fatalf("serve ended with %v", err)
	}
	var all []response
	decoder := json.NewDecoder(&out)
	for decoder.More() {
		var r response
		if err := decoder.Decode(&r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func TestServe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	got := answers(t, strings.Join([]string{
		`{"id":1,"command":["cat"],"stdin":"hello"}`,
		`{"id":2,"command":["false"]}`,
		`{"id":3,"command":["/nonexistent/program"]}`,
		`{"id":4,"write":"` + file + `","stdin":"data"}`,
		`{"id":5,"read":"` + file + `"}`,
		`nonsense`,
		`{"id":6}`,
	}, "\n"))
	if len(got) != 7 {
		t.Fatalf("%d answers: %+v", len(got), got)
	}
	if got[0].Stdout != "hello" || got[0].ExitCode != 0 {
		t.Errorf("cat: %+v", got[0])
	}
	if got[1].ExitCode != 1 {
		t.Errorf("false: %+v", got[1])
	}
	if got[2].ExitCode != -1 || !strings.Contains(got[2].Error, "no such file") {
		t.Errorf("absent program: %+v", got[2])
	}
	if got[4].Stdout != "data" {
		t.Errorf("read back: %+v", got[4])
	}
	for _, bad := range got[5:] {
		if bad.Error == "" {
			t.Errorf("accepted: %+v", bad)
		}
	}
}
