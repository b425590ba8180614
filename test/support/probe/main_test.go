package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
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

func TestSeveralAttacks(t *testing.T) {
	folder := t.TempDir()
	made := func(name string) bool {
		_, err := os.Stat(filepath.Join(folder, name))
		return err == nil
	}
	mkdir := func(name string) []string { return []string{"mkdir", filepath.Join(folder, name)} }
	refused := []string{"list", filepath.Join(folder, "absent")}
	if code := attack(slices.Concat(refused, []string{"then"}, mkdir("then"))); code != 1 || made("then") {
		t.Errorf("then: %d", code)
	}
	if code := attack(slices.Concat(refused, []string{"also"}, mkdir("also"))); code != 0 || !made("also") {
		t.Errorf("also: %d", code)
	}
	if code := attack(slices.Concat([]string{"nonsense", "also"}, mkdir("unknown"))); code != 2 || made("unknown") {
		t.Errorf("unknown: %d", code)
	}
}

func TestPrivilegedFilesAreFound(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "privileged")
	if code := attack([]string{"set-id", file}); code != 0 {
		t.Fatal(code)
	}
	before := os.Stdout
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout = writer
	code := attack([]string{"privileged-files", folder})
	os.Stdout = before
	writer.Close()
	output, err := io.ReadAll(reader)
	if err != nil || code != 0 || string(output) != file+"\ndone\n" {
		t.Errorf("%d, %q, %v", code, output, err)
	}
}
