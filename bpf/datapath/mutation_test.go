package datapath_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/palisade-host/palisade/test/support/acceptance/row"
)

// mutant is the programs with one condition changed. A condition for a drop never holds, and a condition for passing a
// packet early always does.
type mutant struct {
	file, condition, exit string
	// before and behind are the text of the file around the condition.
	before, behind string
	always         bool
}

func (m mutant) text() string {
	constant := " && 0)"
	if m.always {
		constant = " || 1)"
	}
	return m.before + "((" + m.condition + ")" + constant + m.behind
}

func (m mutant) String() string {
	return fmt.Sprintf("%s:%d: %s for %s", m.file, 1+strings.Count(m.before, "\n"), strings.Join(strings.Fields(m.condition), " "), strings.Join(strings.Fields(m.exit), " "))
}

// exit matches the ways in which a packet ends: a reason, the result of a function, or a verdict without a reason.
var exit = regexp.MustCompile(`^\s*(?:\{[^{}]*?\s)?return ([^;]*\b(?:REASON_\w+|TC_ACT_\w+|reason|short_of)\b[^;]*);`)

// passes are the exits of packets that are not dropped because of their content.
var passes = []string{"REASON_FORWARDED", "REASON_ANSWERED", "REASON_LINK_CHATTER", "TC_ACT_OK"}

// mutants finds `if (a || b) return …`. For a reason it changes a, then b. For an exit that passes it changes both at
// once.
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
		by := exit.FindStringSubmatch(text[end:])
		if by == nil {
			continue
		}
		if slices.Contains(passes, by[1]) {
			found = append(found, mutant{file, text[open : end-len(")")], by[1], text[:open], text[end-len(")"):], true})
			continue
		}
		for i, start := range starts {
			stop := end - len(")")
			if i+1 < len(starts) {
				stop = starts[i+1] - len("||")
			}
			found = append(found, mutant{file, text[start:stop], by[1], text[:start], text[stop:], false})
		}
	}
}

// unreachable are conditions that no packet can make true. The patterns end at the end of the condition.
var unreachable = []struct {
	file    string
	pattern *regexp.Regexp
	why     string
}{
	{"forward.h", regexp.MustCompile(`decrement_ttl\(skb, p\)$`), "it writes into the header that was read"},
	{"nat.h", regexp.MustCompile(`(translate_inner|store_address|store_port)\(.*\)$`), "they write into headers that were read"},
	{"link.h", regexp.MustCompile(`bpf_skb_store_bytes\(.*\)$`), "it writes over what was read"},
	{"neighbour.h", regexp.MustCompile(`bpf_skb_store_bytes\(.*\)$`), "they write over what was read"},
	{"neighbour.h", regexp.MustCompile(`bpf_skb_load_bytes\(skb, p->l3_offset, &header, sizeof\(header\)\)$`), "parse has read that header"},
	{"neighbour.h", regexp.MustCompile(`bpf_skb_change_tail\(.*\)$`), "it fails only without memory: 72 bytes of IPv6 are neither too few nor too many"},
	{"conntrack.h", regexp.MustCompile(`bpf_map_update_elem\(&pending_flows, .*\)$`), "an LRU map makes room, unless other CPUs use all of it"},
	{"nat.h", regexp.MustCompile(`bpf_map_update_elem\(&pending_aliases, .*\)$`), "an LRU map makes room, unless other CPUs use all of it"},
	{"parse.h", regexp.MustCompile(`!read\(cursor, &header\.(tcp|ports|icmp), sizeof\(header\.\w+\)\)$`), "l4_minimum was asked before, and is as much"},
	{"datapath.c", regexp.MustCompile(`start\(skb, &p\); if \(!p$`), "the map of the packet at hand has its one entry from the start"},
	{"datapath.c", regexp.MustCompile(`masquerade\(p, &p->published\); if \(reason != REASON_FORWARDED$`),
		"track has found the flow, and only the endpoint itself is behind the host's address in flows to it"},
}

func (m mutant) unreachable() bool {
	end := strings.Join(strings.Fields(m.before[max(0, len(m.before)-100):]+m.condition), " ")
	for _, exempt := range unreachable {
		if exempt.file == m.file && !m.always && exempt.pattern.MatchString(end) {
			return true
		}
	}
	return false
}

// N4: each condition that decides whether a packet is dropped is needed. Without it a test of this package fails, or
// the verifier refuses the programs.
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
	var all []mutant
	for _, source := range sources {
		if only != "1" && only != filepath.Base(source) {
			continue
		}
		content, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, changed := range mutants(filepath.Base(source), string(content)) {
			if !changed.unreachable() {
				all = append(all, changed)
			}
		}
	}
	// The unchanged programs have to pass the tests, because otherwise a failure below shows nothing.
	whole, err := compile(t.TempDir(), mutant{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tests := range []string{"-test.run=" + packetTests, "-test.skip=" + otherTests} {
		if output, err := runWith(whole, tests); err != nil {
			t.Fatalf("with all conditions: %v\n%s", err, output)
		}
	}
	var refused atomic.Int64
	survivors := make([]string, len(all))
	folder, work := t.TempDir(), make(chan int)
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			for i := range work {
				object, err := compile(filepath.Join(folder, strconv.Itoa(i)), all[i])
				if err != nil {
					t.Error(err)
					continue
				}
				switch by := kills(object, "-test.run="+packetTests); by {
				case "":
					survivors[i] = object
				case verifier:
					refused.Add(1)
				}
			}
		})
	}
	for i := range all {
		work <- i
	}
	close(work)
	workers.Wait()
	// Mutants that only real traffic detects are tested one at a time, because the tests depend on timing.
	left := 0
	for i, object := range survivors {
		if object == "" {
			continue
		}
		by := kills(object, "-test.skip="+otherTests)
		if by == "" {
			t.Errorf("no test needs %s", all[i])
		}
		t.Logf("no packet needs %s, but %q", all[i], by)
		left++
	}
	observation.Observed = fmt.Sprintf("%d conditions left out, one at a time: %d times the verifier refuses the programs, %d times real traffic shows it, else a single packet does",
		len(all), refused.Load(), left)
	observation.Control = "with all conditions the tests pass"
}

// compile compiles the programs of a mutant in a new folder.
func compile(folder string, of mutant) (object string, err error) {
	if err := os.CopyFS(folder, os.DirFS("../src")); err != nil {
		return "", err
	}
	if of.file != "" {
		if err := os.WriteFile(filepath.Join(folder, of.file), []byte(of.text()), 0o644); err != nil {
			return "", err
		}
	}
	object = filepath.Join(folder, "mutant.o")
	for _, line := range [][]string{
		{"clang-19", "-O2", "-g", "-target", "bpfel", "-I/usr/include/x86_64-linux-gnu", "-c", "datapath.c", "-o", object},
		{"llvm-strip-19", "-g", object},
	} {
		command := exec.Command(line[0], line[1:]...)
		command.Dir = folder
		if output, err := command.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", of, err, output)
		}
	}
	return object, nil
}

const (
	// packetTests run the programs on one packet at a time, so their results depend only on the programs.
	packetTests = "^(TestEveryReasonIsReached|TestPacket.*|TestHeaderLengths|TestTruncation|TestFragments|TestRewrittenChecksums)$"
	// otherTests do not run the programs, do not depend on what they drop, or depend on chance.
	otherTests = "^(TestEveryConditionIsNeeded|TestVerdictsEqualTheOracle|TestInstructionBudget|TestParserEqualsAnotherReader)$"
)

// verifier stands for a mutant that the kernel does not load.
const verifier = "the kernel's verifier"

var failed = regexp.MustCompile(`--- FAIL: (\w+)`)

// kills returns the test that fails on other programs, also when it runs alone, or nothing when all pass.
func kills(object, tests string) string {
	output, err := runWith(object, tests)
	if err == nil {
		return ""
	}
	if strings.Contains(output, "verifier refuses") {
		return verifier
	}
	name := failed.FindStringSubmatch(output)
	if name == nil {
		return ""
	}
	if _, err := runWith(object, "-test.run=^"+name[1]+"$"); err == nil {
		return ""
	}
	return name[1]
}

// runWith runs tests of this package on other programs until one fails.
func runWith(object string, tests string) (string, error) {
	command := exec.Command(os.Args[0], "-test.failfast", "-test.short", tests)
	command.Env = append(os.Environ(), "PALISADE_BPF_OBJECT="+object, "PALISADE_MUTATE=", "PALISADE_FUZZ=")
	output, err := command.CombinedOutput()
	return string(output), err
}
