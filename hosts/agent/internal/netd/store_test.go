package netd

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/palisade-host/palisade/bpf/datapath"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// recorded writes a record with two containers and a policy, with a change to its JSON.
func recorded(t *testing.T, change func(content string) string) string {
	t.Helper()
	folder := t.TempDir()
	s, err := readStore(folder, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for index, name := range []string{"test/a", "test/b"} {
		address := netip.AddrFrom4([4]byte{10, 7, 0, byte(index + 1)})
		s.Attachments[name] = attachment{HostInterface: "pal", Endpoint: datapath.Endpoint{
			Name: name, Interface: index + 1, IPv4: address, MAC: make([]byte, 6), HostMAC: make([]byte, 6),
		}}
	}
	policy := datapath.Policy{Version: 1}
	if s.Policy, err = policy.Seal(); err != nil {
		t.Fatal(err)
	}
	if err := s.write(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "state.json")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(change(string(content))), 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}

func TestWhatIsDamagedOfTheRecordIsNotUsed(t *testing.T) {
	for name, test := range map[string]struct {
		change        func(string) string
		attachments   int
		policyDamaged bool
		problems      int
	}{
		"intact":                      {func(content string) string { return content }, 2, false, 0},
		"torn":                        {func(content string) string { return content[:len(content)/2] }, 0, true, 1},
		"empty":                       {func(string) string { return "" }, 0, true, 1},
		"another policy":              {func(content string) string { return strings.Replace(content, `"version":1`, `"version":9`, 1) }, 2, true, 1},
		"an attachment without index": {func(content string) string { return strings.Replace(content, `"interface":1`, `"interface":0`, 1) }, 1, false, 1},
		"an attachment as another":    {func(content string) string { return strings.Replace(content, "10.7.0.2", "10.7.0.1", 1) }, 1, false, 1},
		"an attachment of no type":    {func(content string) string { return strings.Replace(content, `"test/b":{`, `"test/b":[],"x":{`, 1) }, 2, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			folder := recorded(t, test.change)
			// The second start finds what the first one has left.
			for range 2 {
				s, err := readStore(folder, slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				if len(s.Attachments) != test.attachments || s.PolicyDamaged != test.policyDamaged || test.policyDamaged == (len(s.Policy) > 0) {
					t.Errorf("%v", s.state)
				}
				problems := s.folder.Problems()
				if len(problems) != test.problems {
					t.Errorf("%v", problems)
				}
				for _, problem := range problems {
					if _, err := os.Stat(problem.File); err != nil || problem.File == filepath.Join(folder, "state.json") || problem.Reason == "" {
						t.Errorf("%v, %v", problem, err)
					}
				}
				// Connecting a container does not end the report.
				if err := s.write(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// fill mounts a small file system at a folder. It returns a function that fills it, and one that makes room again.
func fill(t *testing.T, folder string) (full, empty func()) {
	t.Helper()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("needs root: a small file system")
	}
	t.Cleanup(func() { _ = syscall.Unmount(folder, 0) })
	filler := filepath.Join(folder, "filler")
	return func() {
			if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
		}, func() {
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
		}
}

func TestOnAFullDiskARemovalIsStoredLater(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "state")
	full, empty := fill(t, folder)
	count := func() int {
		s, err := readStore(folder, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return len(s.Attachments)
	}
	s, err := readStore(folder, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.Attachments["test/a"] = attachment{HostInterface: "pal", Endpoint: datapath.Endpoint{
		Name: "test/a", Interface: 1, IPv4: netip.AddrFrom4([4]byte{10, 7, 0, 1}), MAC: make([]byte, 6), HostMAC: make([]byte, 6),
	}}
	if err := s.write(); err != nil {
		t.Fatal(err)
	}
	full()
	if err := s.write(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a container whose addresses are not stored: %v", err)
	}
	delete(s.Attachments, "test/a")
	for range 2 {
		if err := errors.Join(s.writeRemoval(), s.rewrite()); err != nil {
			t.Fatal(err)
		}
	}
	if found := count(); found != 1 {
		t.Errorf("%d attachments", found)
	}
	empty()
	if err := s.rewrite(); err != nil {
		t.Fatal(err)
	}
	if found := count(); found != 0 {
		t.Errorf("%d attachments", found)
	}
}

// After a reboot all links are gone, and the role forgets all containers at its start.
func TestNetdStartsOnAFullDisk(t *testing.T) {
	h := newHost(t)
	h.kill()
	full, empty := fill(t, filepath.Join(filepath.Dir(h.socket), "state"))
	h.start()
	gone, _ := h.connect("gone")
	another := newNamespace(t)
	t.Cleanup(another.Close)
	stays, _ := h.connect("stays")
	h.declare(clientAndServer())
	full()
	if _, err := h.plugin("ADD", "another", another, "another"); err == nil {
		t.Error("a container is connected whose addresses are not stored")
	}
	h.kill()
	link, err := gone.Handle.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Handle.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	h.start()
	if endpoints := h.network().GetEndpoints(); len(endpoints) != 1 || endpoints[0].GetName() != "test/stays" {
		t.Errorf("%v", endpoints)
	}
	if found := h.network(); !found.GetPolicyDeclared() || found.GetPolicyHash() == "" {
		t.Errorf("%v", found)
	}
	if _, err := h.plugin("DEL", "stays", stays, "stays"); err != nil {
		t.Error(err)
	}
	if endpoints := h.network().GetEndpoints(); len(endpoints) != 0 {
		t.Errorf("%v", endpoints)
	}
	empty()
	if _, err := h.plugin("ADD", "another", another, "another"); err != nil {
		t.Error(err)
	}
}

// After damage to the record nothing is allowed until the policy is declared again.
func TestADamagedPolicyAllowsNothing(t *testing.T) {
	for name, damage := range map[string]func(content string) string{
		"torn record":   func(content string) string { return content[:len(content)/2] },
		"edited policy": func(content string) string { return strings.Replace(content, `"allow"`, `"deny"`, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.connect("before")
			_, compiled := h.declare(clientAndServer())
			h.kill()
			file := filepath.Join(filepath.Dir(h.socket), "state", "state.json")
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(damage(string(content))), 0o600); err != nil {
				t.Fatal(err)
			}
			h.start()
			sender, _ := h.connect("client")
			receiver, server := h.connect("server")
			received := count(t, receiver, server, 80)
			arrives := func() bool {
				before := received.get(1)
				send(t, sender, netip.AddrPortFrom(server, 80), 1)
				for deadline := time.Now().Add(300 * time.Millisecond); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
					if received.get(1) > before {
						return true
					}
				}
				return false
			}
			if arrives() {
				t.Error("without the policy something passes")
			}
			found := h.network()
			if !found.GetPolicyDeclared() || found.GetPolicyHash() != "" || !strings.Contains(strings.Join(found.GetProblems(), ""), "state.json.1") {
				t.Errorf("%v", found)
			}
			if _, err := h.client().GetPolicy(t.Context(), connect.NewRequest(&agentv1.GetPolicyRequest{})); connect.CodeOf(err) != connect.CodeDataLoss {
				t.Errorf("%v", err)
			}
			h.declare(clientAndServer())
			if !arrives() {
				t.Error("the policy that is declared again is not in force")
			}
			if found := h.network(); len(found.GetProblems()) != 0 {
				t.Errorf("%v", found)
			}
			h.kill()
			h.start()
			answer, err := h.client().GetPolicy(t.Context(), connect.NewRequest(&agentv1.GetPolicyRequest{}))
			if err != nil || !json.Valid(compiled) || string(answer.Msg.GetPolicy()) != string(compiled) {
				t.Errorf("%v, %v", answer, err)
			}
		})
	}
}
