package records

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func decode(_ string, content []byte) (string, error) {
	if !strings.HasPrefix(string(content), "valid") {
		return "", errors.New("is not valid")
	}
	return string(content), nil
}

func open(t *testing.T, path string) *Folder[string] {
	t.Helper()
	folder, err := Open(path, ".json", decode, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

func load(t *testing.T, folder *Folder[string]) map[string]string {
	t.Helper()
	loaded, err := folder.Load()
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

func TestDamagedRecordsAreSetAsideAndTheOthersAreRead(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"torn":     func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"edited":   func(path string) error { return os.WriteFile(path, []byte("edited"), 0o600) },
		"a folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"a link":   func(path string) error { return os.Symlink("good.json", path) },
		"a pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"too large": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, maximumSize+1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			if err := os.WriteFile(filepath.Join(path, "good.json"), []byte("valid"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := plant(filepath.Join(path, "bad.json")); err != nil {
				t.Fatal(err)
			}
			aside := filepath.Join(path, "damaged", "bad.json.1")
			// The second run finds it where the first one has left it.
			for range 2 {
				folder := open(t, path)
				if loaded := load(t, folder); len(loaded) != 1 || loaded["good"] != "valid" {
					t.Errorf("%v", loaded)
				}
				problem, found := folder.Problem("bad")
				if !found || !problem.Damaged || problem.File != aside || problem.Reason == "" {
					t.Errorf("%v", problem)
				}
				if _, err := os.Lstat(aside); err != nil {
					t.Error(err)
				}
				if _, err := os.Lstat(filepath.Join(path, "bad.json")); err == nil {
					t.Error("it is still there")
				}
			}
		})
	}
}

func TestADamagedRecordIsKeptWhenItIsDeclaredAgain(t *testing.T) {
	path := t.TempDir()
	for number := range 2 {
		if err := os.WriteFile(filepath.Join(path, "bad.json"), []byte("edited"), 0o600); err != nil {
			t.Fatal(err)
		}
		folder := open(t, path)
		load(t, folder)
		if len(folder.Problems()) != 1 {
			t.Errorf("%v", folder.Problems())
		}
		if err := folder.Write("bad", []byte("valid")); err != nil {
			t.Fatal(err)
		}
		folder = open(t, path)
		if loaded := load(t, folder); loaded["bad"] != "valid" || len(folder.Problems()) != 0 {
			t.Errorf("%v, %v", loaded, folder.Problems())
		}
		kept, err := filepath.Glob(filepath.Join(path, "damaged", "bad.json.*.settled"))
		if err != nil || len(kept) != number+1 {
			t.Errorf("%v, %v", kept, err)
		}
	}
}

func TestAReadErrorIsNoDamage(t *testing.T) {
	path := t.TempDir()
	for _, name := range []string{"bad.json", "good.json"} {
		if err := os.WriteFile(filepath.Join(path, name), []byte("valid"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	folder := open(t, path)
	failing := true
	folder.read = func(file string) ([]byte, error) {
		if failing && filepath.Base(file) == "bad.json" {
			return nil, &os.PathError{Op: "read", Path: file, Err: syscall.EIO}
		}
		return readRegular(file)
	}
	if loaded := load(t, folder); len(loaded) != 1 {
		t.Errorf("%v", loaded)
	}
	problem, found := folder.Problem("bad")
	if !found || problem.Damaged || !strings.Contains(problem.Reason, "input/output error") {
		t.Errorf("%v", problem)
	}
	if _, err := os.Stat(filepath.Join(path, "damaged")); err == nil {
		t.Error("it was set aside")
	}
	if retried := folder.Retry(); len(retried) != 0 || len(folder.Problems()) != 1 {
		t.Errorf("%v, %v", retried, folder.Problems())
	}
	failing = false
	if retried := folder.Retry(); retried["bad"] != "valid" || len(folder.Problems()) != 0 {
		t.Errorf("%v, %v", retried, folder.Problems())
	}
}

func TestADamagedRecordThatCannotBeMovedIsNeitherUsedNorOverwritten(t *testing.T) {
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "bad.json"), []byte("edited"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The folder of damaged records cannot be made, as on a full disk.
	if err := os.WriteFile(filepath.Join(path, "damaged"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	folder := open(t, path)
	if loaded := load(t, folder); len(loaded) != 0 {
		t.Errorf("%v", loaded)
	}
	if problem, _ := folder.Problem("bad"); !problem.Damaged || problem.File != filepath.Join(path, "bad.json") {
		t.Errorf("%v", problem)
	}
	if err := folder.Write("bad", []byte("valid")); err == nil {
		t.Error("it was overwritten")
	}
	if err := os.Remove(filepath.Join(path, "damaged")); err != nil {
		t.Fatal(err)
	}
	if err := folder.Write("bad", []byte("valid")); err != nil {
		t.Error(err)
	}
	if content, err := os.ReadFile(filepath.Join(path, "damaged", "bad.json.1.settled")); err != nil || string(content) != "edited" {
		t.Errorf("%q, %v", content, err)
	}
}

func TestWhatAnInterruptedWriteLeftIsRemoved(t *testing.T) {
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, ".web.json.123"), []byte("val"), 0o600); err != nil {
		t.Fatal(err)
	}
	folder := open(t, path)
	if loaded := load(t, folder); len(loaded) != 0 || len(folder.Problems()) != 0 {
		t.Errorf("%v, %v", loaded, folder.Problems())
	}
	if entries, _ := os.ReadDir(path); len(entries) != 0 {
		t.Errorf("%v", entries)
	}
}
