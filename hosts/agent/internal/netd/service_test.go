package netd

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/bpf/lab"
	"github.com/palisade-host/palisade/hosts/agent/internal/service"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
	"github.com/palisade-host/palisade/test/support/acceptance/row"
)

// client returns a client of the role, such as the role groups has.
func (h *host) client() agentv1connect.NetworkServiceClient {
	transport := service.UnixTransport(h.socket)
	h.t.Cleanup(transport.CloseIdleConnections)
	return agentv1connect.NewNetworkServiceClient(&http.Client{Transport: transport}, "http://role")
}

func (h *host) network() *agentv1.GetNetworkResponse {
	h.t.Helper()
	response, err := h.client().GetNetwork(h.t.Context(), connect.NewRequest(&agentv1.GetNetworkRequest{}))
	if err != nil {
		h.t.Fatal(err)
	}
	return response.Msg
}

func (h *host) declare(policy datapath.Policy) (*agentv1.ApplyPolicyResponse, []byte) {
	h.t.Helper()
	compiled, err := policy.Seal()
	if err != nil {
		h.t.Fatal(err)
	}
	parsed, err := datapath.ParsePolicy(compiled)
	if err != nil {
		h.t.Fatal(err)
	}
	request := &agentv1.ApplyPolicyRequest{Policy: compiled, ExpectedHash: parsed.Hash}
	response, err := h.client().ApplyPolicy(h.t.Context(), connect.NewRequest(request))
	if err != nil {
		h.t.Fatal(err)
	}
	return response.Msg, compiled
}

// connect connects a container of that name.
func (h *host) connect(name string) (*lab.Namespace, netip.Addr) {
	h.t.Helper()
	namespace := newNamespace(h.t)
	h.t.Cleanup(namespace.Close)
	result, err := h.plugin("ADD", name, namespace, name)
	if err != nil {
		h.t.Fatal(err)
	}
	return namespace, addressOf(h.t, result)
}

// send sends datagrams to a port, always from the same source port.
func send(t *testing.T, from *lab.Namespace, to netip.AddrPort, packets int) {
	t.Helper()
	if err := from.Do(func() error {
		socket, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer socket.Close()
		for range packets {
			if _, err := socket.Write([]byte{0, 0, 0, 1}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// A policy of an operator is applied, read back, kept over a restart, and deleted. An invalid one changes nothing.
func TestDeclaredPolicy(t *testing.T) {
	h := newHost(t)
	client := h.client()
	sender, _ := h.connect("client")
	receiver, server := h.connect("server")
	open, denied := count(t, receiver, server, 80), count(t, receiver, server, 81)
	arrives := func(c *counter, port uint16) bool {
		before := c.get(1)
		send(t, sender, netip.AddrPortFrom(server, port), 1)
		for deadline := time.Now().Add(300 * time.Millisecond); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if c.get(1) > before {
				return true
			}
		}
		return false
	}
	if _, err := client.GetPolicy(t.Context(), connect.NewRequest(&agentv1.GetPolicyRequest{})); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("policy of a host without one: %v", err)
	}
	if found := h.network(); found.GetPolicyDeclared() || found.GetPolicyHash() != "" || !arrives(denied, 81) {
		t.Errorf("without a policy everything passes: %v", found)
	}

	applied, compiled := h.declare(clientAndServer())
	if found := h.network(); !found.GetPolicyDeclared() || found.GetPolicyHash() != applied.GetPolicyHash() || len(applied.GetUnnamedEndpoints()) != 0 {
		t.Errorf("applied %v, the kernel holds %v", applied, found)
	}
	if !arrives(open, 80) || arrives(denied, 81) {
		t.Error("the policy is not in force")
	}
	for _, wrong := range []struct {
		name, says string
		request    *agentv1.ApplyPolicyRequest
	}{
		{"another policy than the caller means", "expected_hash", &agentv1.ApplyPolicyRequest{Policy: compiled, ExpectedHash: "00"}},
		{"a changed one", "policy.hash", &agentv1.ApplyPolicyRequest{
			Policy: bytes.Replace(compiled, []byte(`"allow"`), []byte(`"deny"`), 1), ExpectedHash: applied.GetPolicyHash(),
		}},
		{"no policy", "not a compiled policy", &agentv1.ApplyPolicyRequest{Policy: []byte("x")}},
	} {
		before := h.network().GetGeneration()
		_, err := client.ApplyPolicy(t.Context(), connect.NewRequest(wrong.request))
		if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), wrong.says) || h.network().GetGeneration() != before {
			t.Errorf("%s: %v", wrong.name, err)
		}
	}
	if tried, err := client.ApplyPolicy(t.Context(), connect.NewRequest(&agentv1.ApplyPolicyRequest{
		Policy: compiled, ExpectedHash: applied.GetPolicyHash(), DryRun: true,
	})); err != nil || tried.Msg.GetPolicyHash() != applied.GetPolicyHash() {
		t.Errorf("dry run: %v", err)
	}

	h.kill()
	h.start()
	if answer, err := h.client().GetPolicy(t.Context(), connect.NewRequest(&agentv1.GetPolicyRequest{})); err != nil || !bytes.Equal(answer.Msg.GetPolicy(), compiled) {
		t.Errorf("after a restart of the role: %v", err)
	}
	h.connect("stranger")
	if found := h.network(); found.GetPolicyHash() != applied.GetPolicyHash() || len(found.GetEndpoints()) != 3 ||
		slices.ContainsFunc(found.GetEndpoints(), func(e *agentv1.NetworkEndpoint) bool { return e.GetNamed() == (e.GetName() == "test/stranger") }) {
		t.Errorf("endpoints: %v", found)
	}
	if again, _ := h.declare(clientAndServer()); !slices.Equal(again.GetUnnamedEndpoints(), []string{"test/stranger"}) {
		t.Errorf("unnamed: %v", again)
	}

	for range 2 {
		if _, err := h.client().DeletePolicy(t.Context(), connect.NewRequest(&agentv1.DeletePolicyRequest{})); err != nil {
			t.Fatal(err)
		}
	}
	if found := h.network(); found.GetPolicyDeclared() || !arrives(denied, 81) {
		t.Errorf("after the deletion: %v", found)
	}
}

// N12, as an operator sees it.
func TestBypassesAreTold(t *testing.T) {
	observation := row.Observe(t, "N12")
	observation.Observed = "a routing rule is named to the operator through NetworkService"
	observation.Control = "without it nothing is named"
	h := newHost(t)
	if found := h.network().GetBypasses(); len(found) != 0 {
		t.Errorf("on an empty host: %q", found)
	}
	rule := netlink.NewRule()
	rule.Table, rule.Priority, rule.Family = 77, 700, netlink.FAMILY_V4
	if err := h.lab.Nodes[lab.Host].Handle.RuleAdd(rule); err != nil {
		t.Fatal(err)
	}
	if found := h.network().GetBypasses(); len(found) != 1 || !strings.Contains(found[0], "routing rule 700 to table 77") {
		t.Errorf("with a routing rule: %q", found)
	}
}

// N18, as an operator sees it: the hash of the declared policy is not reported while the maps contain something else.
func TestDriftIsReportedAndRepaired(t *testing.T) {
	observation := row.Observe(t, "N18")
	observation.Observed = "through NetworkService: a pin and the policy's map removed by hand are reported by name, the policy's hash is gone, Repair restores both"
	h := newHost(t)
	h.connect("client")
	applied, _ := h.declare(clientAndServer())
	maps := h.lab.Pins + "/netd/v1/maps/"
	for _, damage := range []struct {
		name, problem string
		hash          string
		do            func() error
	}{
		{"pin of a map", "map flows: its pin is gone", applied.GetPolicyHash(), func() error { return os.Remove(maps + "flows") }},
		{"rules of the policy", "policy", "", func() error {
			rules, err := ebpf.LoadPinnedMap(maps+"rules", nil)
			if err != nil {
				return err
			}
			defer rules.Close()
			return rules.Delete(h.network().GetGeneration() & 1)
		}},
	} {
		if err := damage.do(); err != nil {
			t.Fatalf("%s: %v", damage.name, err)
		}
		found := h.network()
		if len(found.GetProblems()) == 0 || !strings.Contains(found.GetProblems()[0], damage.problem) || found.GetPolicyHash() != damage.hash {
			t.Errorf("%s: %v", damage.name, found)
		}
		repaired, err := h.client().Repair(t.Context(), connect.NewRequest(&agentv1.RepairRequest{}))
		if err != nil || !slices.Equal(repaired.Msg.GetProblems(), found.GetProblems()) {
			t.Errorf("%s: repaired %v, %v", damage.name, repaired, err)
		}
		if found := h.network(); len(found.GetProblems()) != 0 || found.GetPolicyHash() != applied.GetPolicyHash() {
			t.Errorf("%s: after the repair %v", damage.name, found)
		}
	}
}

// followed collects the messages of a stream until the test ends.
type followed struct {
	flows chan *agentv1.Flow
	lost  chan *agentv1.LostFlows
}

func (h *host) follow(request *agentv1.StreamFlowsRequest) followed {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	stream, err := h.client().StreamFlows(ctx, connect.NewRequest(request))
	if err != nil {
		h.t.Fatal(err)
	}
	f := followed{make(chan *agentv1.Flow, 1<<20), make(chan *agentv1.LostFlows, 1<<10)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for stream.Receive() {
			if flow := stream.Msg().GetFlow(); flow != nil {
				f.flows <- flow
			} else {
				f.lost <- stream.Msg().GetLost()
			}
		}
	}()
	h.t.Cleanup(func() {
		cancel()
		<-done
		_ = stream.Close()
	})
	return f
}

// kept returns the messages of a stream that does not follow.
func (h *host) kept(request *agentv1.StreamFlowsRequest) (flows []*agentv1.Flow, err error) {
	stream, err := h.client().StreamFlows(h.t.Context(), connect.NewRequest(request))
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Close() }()
	for stream.Receive() {
		flows = append(flows, stream.Msg().GetFlow())
	}
	return flows, stream.Err()
}

func TestFlows(t *testing.T) {
	h := newHost(t)
	began := time.Now()
	client, clientAddress := h.connect("client")
	_, server := h.connect("server")
	h.declare(clientAndServer())
	live := h.follow(&agentv1.StreamFlowsRequest{Group: "server", Direction: agentv1.FlowDirection_FLOW_DIRECTION_INGRESS, Port: 80, Follow: true})
	send(t, client, netip.AddrPortFrom(server, 80), 1)
	send(t, client, netip.AddrPortFrom(server, 81), 1)
	select {
	case flow := <-live.flows:
		if flow.GetVerdict() != agentv1.FlowVerdict_FLOW_VERDICT_FORWARDED || flow.GetProtocol() != "UDP" ||
			flow.GetSource().GetEndpoint() != "test/client" || flow.GetSource().GetAddress() != clientAddress.String() ||
			flow.GetSource().GetIdentity() != 256 || flow.GetDestination().GetEndpoint() != "test/server" ||
			flow.GetDestination().GetPort() != 80 || flow.GetTime().AsTime().Before(began) || flow.GetTime().AsTime().After(time.Now()) {
			t.Errorf("live: %v", flow)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("no flow")
	}

	type request = agentv1.StreamFlowsRequest
	const dropped, egress = agentv1.FlowVerdict_FLOW_VERDICT_DROPPED, agentv1.FlowDirection_FLOW_DIRECTION_EGRESS
	for _, test := range []struct {
		name    string
		request *request
		ports   []uint32
	}{
		{"dropped", &request{Verdict: dropped, Group: "test/client"}, []uint32{81}},
		{"a reason", &request{Reason: "policy_default_denied", Group: "client"}, []uint32{81}},
		{"from a group", &request{Group: "client", Direction: egress, Address: server.String()}, []uint32{80, 81}},
		{"from the other group", &request{Group: "server", Direction: egress, Address: server.String()}, nil},
		{"an unknown group", &request{Group: "ver"}, nil},
		{"a prefix", &request{Address: netip.PrefixFrom(server, 32).String(), Port: 81}, []uint32{81}},
		{"another prefix", &request{Address: "192.0.2.0/24"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var ports []uint32
			for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
				flows, err := h.kept(test.request)
				if err != nil {
					t.Fatal(err)
				}
				ports = nil
				for _, flow := range flows {
					if flow.GetProtocol() == "UDP" {
						ports = append(ports, flow.GetDestination().GetPort())
					}
				}
				if slices.Equal(ports, test.ports) {
					return
				}
			}
			t.Errorf("ports %v, want %v", ports, test.ports)
		})
	}
	for says, wrong := range map[string]*request{
		"there are forwarded,": {Reason: "bad_luck"},
		"neither an address":   {Address: "web"},
		"above 65535":          {Port: 1 << 16},
	} {
		if _, err := h.kept(wrong); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: %v", wrong, err)
		}
	}
}

// N16: while the reader stands still, the ring buffer fills. Packets still pass, and the caller receives the number of
// lost events.
func TestLostFlowsAreTold(t *testing.T) {
	observation := row.Observe(t, "N16")
	h := newHost(t)
	client, _ := h.connect("client")
	receiver, server := h.connect("server")
	h.declare(clientAndServer())
	arrived := count(t, receiver, server, 80)
	live := h.follow(&agentv1.StreamFlowsRequest{Group: "client", Port: 81, Follow: true})
	// A flow arrives, so the stream is connected.
	send(t, client, netip.AddrPortFrom(server, 81), 1)
	select {
	case <-live.flows:
	case <-time.After(5 * time.Second):
		t.Fatal("no flow")
	}
	if err := h.daemon.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	const packets = 20_000
	send(t, client, netip.AddrPortFrom(server, 81), packets)
	send(t, client, netip.AddrPortFrom(server, 80), 1)
	for deadline := time.Now().Add(time.Second); arrived.get(1) == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if arrived.get(1) != 1 {
		t.Error("with a full ring an allowed packet does not arrive")
	}
	if err := h.daemon.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	var seen uint64
	lost := &agentv1.LostFlows{}
	for deadline := time.After(10 * time.Second); seen+lost.GetRing()+lost.GetCaller() < packets; {
		select {
		case <-live.flows:
			seen++
		case lost = <-live.lost:
		case <-deadline:
			t.Fatalf("%d seen, %v lost, of %d", seen, lost, packets)
		}
	}
	// The ring buffer may also have lost the event of the allowed packet, and events of what kernels send on new links.
	if all := seen + lost.GetRing() + lost.GetCaller(); all > packets+50 || lost.GetRing() == 0 {
		t.Errorf("%d seen, %v lost, of %d", seen, lost, packets)
	}
	if total := h.network().GetLostEvents(); total != lost.GetRing() {
		t.Errorf("the status reports %d lost events", total)
	}
	observation.Observed = fmt.Sprintf("ring full: %d flows seen by the caller + %d lost in the ring + %d for which it was slow = %d packets; an allowed packet arrives",
		seen, lost.GetRing(), lost.GetCaller(), packets)
	observation.Control = "before, every packet is seen"
}

// A caller that does not read delays nobody, and its losses are counted.
func TestSlowCaller(t *testing.T) {
	hub := newFlowHub()
	all := func(observedFlow) bool { return true }
	_, slow := hub.follow(all)
	_, none := hub.follow(func(observedFlow) bool { return false })
	const flows = queuedFlows + keptFlows + 7
	for i := range flows {
		hub.add(observedFlow{Flow: datapath.Flow{Length: uint32(i)}})
	}
	if lost := hub.lostBy(slow); lost != flows-queuedFlows {
		t.Errorf("%d lost", lost)
	}
	if lost := hub.lostBy(none); lost != 0 {
		t.Errorf("%d lost of what was not asked for", lost)
	}
	kept, late := hub.follow(all)
	if len(kept) != keptFlows || kept[0].Length != flows-keptFlows || kept[keptFlows-1].Length != flows-1 {
		t.Errorf("%d kept, %v to %v", len(kept), kept[0].Length, kept[len(kept)-1].Length)
	}
	hub.unfollow(slow)
	hub.unfollow(late)
	hub.add(observedFlow{})
	if lost := hub.lostBy(slow); lost != flows-queuedFlows {
		t.Error("one that has left still loses")
	}
}
