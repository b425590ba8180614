package datapath_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-host/palisade/test/acceptance/row"
)

// mutant is the programs with one condition, under which a packet is dropped, that never holds.
type mutant struct {
	file, condition, reason string
	// from and to are the condition's place in the file.
	from, to int
}

func (m mutant) String() string {
	return fmt.Sprintf("%s: %s for %s", m.file, strings.Join(strings.Fields(m.condition), " "), m.reason)
}

var dropExit = regexp.MustCompile(`^\s*return (REASON_\w+);`)

// mutants finds `if (a || b) return REASON_…` and takes a, then b.
func mutants(file, text string) (found []mutant) {
	for at := 0; ; {
		next := strings.Index(text[at:], "if (")
		if next < 0 {
			return found
		}
		open := at + next + len("if (")
		at = open
		depth, starts := 1, []int{open}
		end := open
		for ; depth > 0; end++ {
			switch text[end] {
			case '(':
				depth++
			case ')':
				depth--
			case '|':
				if depth == 1 && text[end+1] == '|' {
					starts = append(starts, end+len("||"))
				}
			}
		}
		exit := dropExit.FindStringSubmatch(text[end:])
		if exit == nil || slices.Contains([]string{"REASON_FORWARDED", "REASON_ANSWERED", "REASON_LINK_CHATTER"}, exit[1]) {
			continue
		}
		for i, start := range starts {
			stop := end - len(")")
			if i+1 < len(starts) {
				stop = starts[i+1] - len("||")
			}
			found = append(found, mutant{file, text[start:stop], exit[1], start, stop})
		}
	}
}

// unreachable conditions are there for a helper that fails where nothing a packet says can make it fail.
var unreachable = regexp.MustCompile(`bpf_skb_store_bytes|bpf_map_update_elem|store_address|store_port|translate_inner|decrement_ttl|^\s*!device\s*$`)

// N4: without any one of the conditions that drop a packet, a test of this package fails, or the verifier refuses the programs.
func TestEveryConditionIsNeeded(t *testing.T) {
	only := os.Getenv("PALISADE_MUTATE")
	if only == "" {
		t.Skip("takes minutes and clang-19: PALISADE_MUTATE=1, or the name of one file of bpf/src")
	}
	observation := row.Observe(t, "N4")
	if only != "1" {
		observation.Missing = "all files but " + only
	}
	sources, err := filepath.Glob("../src/*.[ch]")
	if err != nil {
		t.Fatal(err)
	}
	count, refused := 0, 0
	for _, source := range sources {
		if only != "1" && only != filepath.Base(source) {
			continue
		}
		content, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, each := range mutants(filepath.Base(source), string(content)) {
			if unreachable.MatchString(each.condition) {
				continue
			}
			count++
			object := compile(t, each, string(content))
			output, err := runWith(object)
			if err == nil {
				t.Errorf("no test needs %s", each)
			} else if strings.Contains(output, "verifier refuses") {
				refused++
			}
		}
	}
	observation.Observed = fmt.Sprintf("%d conditions left out, one at a time: %d times the verifier refuses the programs, else a test fails", count, refused)
	observation.Control = "with all conditions the tests pass"
}

// compile makes the programs of a mutant.
func compile(t *testing.T, of mutant, text string) string {
	t.Helper()
	folder := t.TempDir()
	if err := os.CopyFS(folder, os.DirFS("../src")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, of.file), []byte(text[:of.from]+"(("+of.condition+") && 0)"+text[of.to:]), 0o644); err != nil {
		t.Fatal(err)
	}
	object := filepath.Join(folder, "mutant.o")
	command := exec.Command("clang-19", "-O2", "-g", "-target", "bpfel", "-I/usr/include/x86_64-linux-gnu", "-c", "datapath.c", "-o", object)
	command.Dir = folder
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", of, err, output)
	}
	if output, err := exec.Command("llvm-strip-19", "-g", object).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", of, err, output)
	}
	return object
}

// runWith runs this package's other tests on other programs, until one fails.
func runWith(object string) (string, error) {
	command := exec.Command(os.Args[0], "-test.failfast", "-test.short",
		"-test.skip", "^(TestEveryConditionIsNeeded|TestVerdictsEqualTheOracle|TestInstructionBudget)$")
	command.Env = append(os.Environ(), "PALISADE_BPF_OBJECT="+object, "PALISADE_MUTATE=")
	output, err := command.CombinedOutput()
	return string(output), err
}
