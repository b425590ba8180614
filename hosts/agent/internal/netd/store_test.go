package netd

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
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
