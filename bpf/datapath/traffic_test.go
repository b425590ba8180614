package datapath_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/bpf/lab"
	"github.com/palisade-host/palisade/test/support/acceptance/row"
)

func probe(t *testing.T, running *lab.Lab, from, to string, family int, protocol string, port uint16) lab.Result {
	t.Helper()
	result, err := running.Probe(lab.Probe{From: from, To: to, Family: family, Protocol: protocol, Port: port})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// Real traffic of all protocols in both families, between all kinds of peers.
func TestTraffic(t *testing.T) {
	for _, masquerade := range []bool{false, true} {
		t.Run(fmt.Sprintf("masquerade %t", masquerade), func(t *testing.T) {
			running := newLab(t, lab.Description{Endpoints: endpoints(), Masquerade: masquerade})
			apply(t, running, usualPolicy())
			for _, protocol := range []string{"TCP", "UDP", "SCTP", "ICMP"} {
				for _, family := range []int{4, 6} {
					for _, test := range []struct {
						from, to string
						port     uint16
						reason   string
					}{
						{"a", "b", 80, ""},
						{"a", "b", 81, "policy_default_denied"},
						{"b", "a", 80, ""},
						{"a", "c", 80, "no_policy"},
						{"c", "a", 80, "no_policy"},
						{"a", lab.World, 80, ""},
						{"a", lab.Host, 80, ""},
						{lab.World, "b", 80, ""},
						{lab.World, "b", 81, "policy_default_denied"},
						{lab.Host, "b", 80, ""},
						{lab.Host, "b", 81, "policy_default_denied"},
						{"a", "a", 80, ""},
						{"b", "b", 80, ""},
						{"b", "b", 81, "policy_default_denied"},
						{"c", "c", 80, "no_policy"},
					} {
						if protocol == "ICMP" {
							if test.port == 81 {
								continue
							}
							test.port = 0
						}
						result := probe(t, running, test.from, test.to, family, protocol, test.port)
						if result.Allowed != (test.reason == "") || result.Reason != test.reason {
							t.Errorf("%s → %s %s port %d, IPv%d: %+v, want %q", test.from, test.to, protocol, test.port, family, result, test.reason)
						}
					}
				}
			}
		})
	}
}

// What a container sends to its loopback addresses stays in it, whatever the policy says.
func TestLoopbackIsNobodysBusiness(t *testing.T) {
	running := newLab(t, lab.Description{Endpoints: endpoints()})
	apply(t, running, policyOf(datapath.Subject{Name: "b", Identity: 257, Ingress: enforce(), Egress: enforce()}))
	own := running.Nodes["b"]
	for _, test := range []struct{ from, to string }{
		{"127.0.0.1", "127.0.0.1"}, {"127.0.0.1", own.IPv4.String()}, {"::1", "::1"}, {"::1", own.IPv6.String()},
	} {
		to := netip.AddrPortFrom(netip.MustParseAddr(test.to), 8080)
		stop, err := own.Answer(to.String(), func(net.Conn) {})
		if err != nil {
			t.Fatal(err)
		}
		err = own.Do(func() error {
			dialer := net.Dialer{Timeout: lab.Timeout, LocalAddr: &net.TCPAddr{IP: net.ParseIP(test.from)}}
			connection, err := dialer.Dial("tcp", to.String())
			if err == nil {
				_ = connection.Close()
			}
			return err
		})
		if err != nil {
			t.Errorf("from %s: %v", test.from, err)
		}
		stop()
	}
	if result := probe(t, running, "b", "b", 4, "TCP", 80); result.Reason != "policy_default_denied" {
		t.Errorf("from its own address: %+v", result)
	}
}

// whoami answers every connection with the peer's address.
func whoami(t *testing.T, node *lab.Node, address netip.AddrPort) {
	t.Helper()
	serve(t, node, address, func(connection net.Conn) {
		fmt.Fprint(connection, connection.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
	})
}

func dial(node *lab.Node, network, address string) (connection net.Conn, err error) {
	err = node.Do(func() error {
		connection, err = (&net.Dialer{Timeout: time.Second, FallbackDelay: -1}).Dial(network, address)
		return err
	})
	return connection, err
}

func ask(t *testing.T, node *lab.Node, address netip.AddrPort) string {
	t.Helper()
	connection, err := dial(node, "tcp", address.String())
	if err != nil {
		return err.Error()
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(2 * time.Second))
	answer, err := io.ReadAll(connection)
	if err != nil {
		return err.Error()
	}
	return string(answer)
}

// N13: published ports from outside, from another endpoint and from the endpoint itself; masquerade; collisions.
func TestPublishedPorts(t *testing.T) {
	observation := row.Observe(t, "N13")
	observation.Observed = "from outside, from another endpoint and from itself, IPv4 and IPv6; masqueraded; a taken port is refused as a whole"
	observation.Control = "before it is published and afterwards the port is closed"
	running := newLab(t, lab.Description{Endpoints: endpoints(), Masquerade: true})
	apply(t, running, policyOf(datapath.Subject{Name: "a", Identity: 256}, datapath.Subject{Name: "b", Identity: 257}))
	a, b, world := running.Nodes["a"], running.Nodes["b"], running.Nodes[lab.World]
	for _, family := range []int{4, 6} {
		host, any := lab.HostIPv4, netip.IPv4Unspecified()
		if family == 6 {
			host, any = lab.HostIPv6, netip.IPv6Unspecified()
		}
		published := datapath.Published{Address: any, Port: 8080, Protocol: "TCP", Backend: a.Address(family), BackendPort: 80}
		if got := ask(t, world, netip.AddrPortFrom(host, 8080)); !strings.Contains(got, "refused") {
			t.Errorf("before it is published: %s", got)
		}
		if err := running.Datapath.Publish(published); err != nil {
			t.Fatal(err)
		}
		whoami(t, a, netip.AddrPortFrom(a.Address(family), 80))
		whoami(t, world, netip.AddrPortFrom(world.Address(family), 80))
		for _, test := range []struct {
			name string
			node *lab.Node
			to   netip.AddrPort
			want netip.Addr
		}{
			{"from outside", world, netip.AddrPortFrom(host, 8080), world.Address(family)},
			{"from another endpoint", b, netip.AddrPortFrom(host, 8080), b.Address(family)},
			{"from itself", a, netip.AddrPortFrom(host, 8080), host},
			{"masquerade", b, netip.AddrPortFrom(world.Address(family), 80), host},
		} {
			for range 3 {
				if got := ask(t, test.node, test.to); got != test.want.String() {
					t.Errorf("IPv%d %s: seen as %s, want %s", family, test.name, got, test.want)
				}
			}
		}

		// A request with a collision is refused as a whole: its first port is not published either.
		free := datapath.Published{Address: host, Port: 9090, Protocol: "TCP", Backend: b.Address(family), BackendPort: 80}
		taken := datapath.Published{Address: host, Port: 8080, Protocol: "TCP", Backend: b.Address(family), BackendPort: 80}
		if err := running.Datapath.Publish(free, taken); !errors.Is(err, datapath.ErrTaken) {
			t.Errorf("a taken port: %v", err)
		}
		if got := ask(t, world, netip.AddrPortFrom(host, 9090)); !strings.Contains(got, "refused") {
			t.Errorf("IPv%d: after the refusal port 9090 is published: %s", family, got)
		}
		if err := running.Datapath.Unpublish(published); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, world, netip.AddrPortFrom(host, 8080)); !strings.Contains(got, "refused") {
			t.Errorf("after it was unpublished: %s", got)
		}
	}
}

// N11: ICMP errors pass back through masquerade and published ports, so a closed UDP port is refused and does not time
// out.
func TestErrorsThroughTranslation(t *testing.T) {
	observation := row.Observe(t, "N11")
	observation.Observed = "a closed UDP port is refused through masquerade and through a published port, IPv4 and IPv6"
	running := newLab(t, lab.Description{Endpoints: endpoints(), Masquerade: true})
	apply(t, running, policyOf(datapath.Subject{Name: "a", Identity: 256}, datapath.Subject{Name: "b", Identity: 257}))
	a, world := running.Nodes["a"], running.Nodes[lab.World]
	for _, family := range []int{4, 6} {
		host := running.Nodes[lab.Host].Address(family)
		if err := running.Datapath.Publish(datapath.Published{Address: host, Port: 5353, Protocol: "UDP", Backend: a.Address(family), BackendPort: 53}); err != nil {
			t.Fatal(err)
		}
		for name, test := range map[string]struct {
			from *lab.Node
			to   netip.AddrPort
		}{
			"masqueraded": {a, netip.AddrPortFrom(world.Address(family), 5300)},
			"published":   {world, netip.AddrPortFrom(host, 5353)},
		} {
			connection, err := dial(test.from, "udp", test.to.String())
			if err != nil {
				t.Fatal(err)
			}
			connection.SetDeadline(time.Now().Add(2 * time.Second))
			connection.Write([]byte("anybody?"))
			if _, err := connection.Read(make([]byte, 8)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("IPv%d %s: %v, want that it is refused", family, name, err)
			}
			connection.Close()
		}
	}
}

// echo keeps a connection open and exchanges lines on it.
type echo struct{ connection net.Conn }

func (e echo) exchange() error {
	e.connection.SetDeadline(time.Now().Add(time.Second))
	if _, err := e.connection.Write([]byte("palisade")); err != nil {
		return err
	}
	_, err := io.ReadFull(e.connection, make([]byte, 8))
	return err
}

func serveEcho(t *testing.T, node *lab.Node, address netip.AddrPort) {
	t.Helper()
	serve(t, node, address, func(connection net.Conn) { _, _ = io.Copy(connection, connection) })
}

func connect(t *testing.T, from *lab.Node, address netip.AddrPort) echo {
	t.Helper()
	connection, err := dial(from, "tcp", address.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	made := echo{connection}
	if err := made.exchange(); err != nil {
		t.Fatal(err)
	}
	return made
}

// N9: half-open flows replace each other and never established ones, and memory does not grow.
func TestSYNFlood(t *testing.T) {
	observation := row.Observe(t, "N9")
	config := datapath.Config{Flows: 4096, PendingFlows: 4096}
	running := newLab(t, lab.Description{Endpoints: endpoints(), Config: config})
	apply(t, running, usualPolicy())
	a, b, world := running.Nodes["a"], running.Nodes["b"], running.Nodes[lab.World]
	address := netip.AddrPortFrom(b.IPv4, 80)
	serveEcho(t, b, address)
	var established []echo
	for i := range 100 {
		from := a
		if i%2 == 0 {
			from = world
		}
		established = append(established, connect(t, from, address))
	}
	socket := openRaw(t, world, running.WorldLink)
	uplink, err := running.Nodes[lab.Host].Handle.LinkByName("uplink")
	if err != nil {
		t.Fatal(err)
	}
	flood := 2 * int(config.Flows+config.PendingFlows)
	for i := range flood {
		source := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
		socket.send(t, packet{from: otherMAC, to: uplink.Attrs().HardwareAddr, source: source, destination: b.IPv4, protocol: 6, payload: tcp(uint16(1024+i), 80, syn)})
	}
	counts, err := running.Datapath.CountFlows()
	if err != nil {
		t.Fatal(err)
	}
	if counts.Established < len(established) || counts.Pending > int(config.PendingFlows) || counts.Pending < int(config.PendingFlows)/2 {
		t.Errorf("after %d half-open flows there are %+v", flood, counts)
	}
	observation.Observed = fmt.Sprintf("%d SYNs from as many addresses; %d half-open flows are left of at most %d, %d established ones all answer",
		flood, counts.Pending, config.PendingFlows, len(established))
	observation.Control = "the flood did evict half-open flows"
	for i, connection := range established {
		if err := connection.exchange(); err != nil {
			t.Errorf("established flow %d: %v", i, err)
		}
	}
	connect(t, a, address)
}

// N7: a policy is replaced atomically, for all endpoints at once.
func TestPolicySwapUnderLoad(t *testing.T) {
	observation := row.Observe(t, "N7")
	running := newLab(t, lab.Description{Endpoints: endpoints()})
	open, closed := datapath.Direction{}, enforce()
	subjects := func(aEgress, bIngress datapath.Direction) datapath.Policy {
		return policyOf(
			datapath.Subject{Name: "a", Identity: 256, Egress: aEgress},
			datapath.Subject{Name: "b", Identity: 257, Ingress: bIngress},
		)
	}
	apply(t, running, subjects(closed, open))
	a, b := running.Nodes["a"], running.Nodes["b"]
	var received atomic.Int64
	var sink *net.UDPConn
	if err := b.Do(func() (err error) {
		sink, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.IPv4, 80)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	go func() {
		for {
			if _, _, err := sink.ReadFromUDPAddrPort(make([]byte, 64)); err != nil {
				return
			}
			received.Add(1)
		}
	}()
	stop := make(chan struct{})
	var sent atomic.Int64
	var senders sync.WaitGroup
	senders.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			// Each packet has a new socket, so that the policy applies to each.
			connection, err := dial(a, "udp", netip.AddrPortFrom(b.IPv4, 80).String())
			if err != nil {
				return
			}
			if _, err := connection.Write([]byte("x")); err == nil {
				sent.Add(1)
			}
			connection.Close()
		}
	})
	// Each of the two policies denies the packet at another end. A mixture of both would let it pass.
	for i := range 40 {
		if i%2 == 0 {
			apply(t, running, subjects(open, closed))
		} else {
			apply(t, running, subjects(closed, open))
		}
	}
	mixtures, during := received.Load(), sent.Load()
	// The control: the packets do arrive as soon as one policy allows them.
	apply(t, running, subjects(open, open))
	time.Sleep(50 * time.Millisecond)
	close(stop)
	senders.Wait()
	if mixtures != 0 {
		t.Errorf("%d of %d packets passed that no policy allows", mixtures, sent.Load())
	}
	if received.Load() == 0 {
		t.Error("no packet passed under the policy that allows them")
	}
	// Some packets have to arrive during each replacement.
	if during < 40*10 {
		t.Errorf("only %d packets were sent while policies were replaced", during)
	}
	observation.Observed = fmt.Sprintf("40 policies replaced under %d packets: none followed a mixture", during)
	observation.Control = fmt.Sprintf("with the open half of both policies %d packets arrive", received.Load())
}

// N7: flows that the new policy does not allow are cut, others are not.
func TestRevokedFlows(t *testing.T) {
	observation := row.Observe(t, "N7")
	observation.Observed = "a flow that the new policy does not allow is cut with its next packet"
	observation.Control = "a flow that both policies allow goes on"
	running := newLab(t, lab.Description{Endpoints: endpoints()})
	apply(t, running, usualPolicy())
	a, b := running.Nodes["a"], running.Nodes["b"]
	serveEcho(t, b, netip.AddrPortFrom(b.IPv4, 80))
	serveEcho(t, a, netip.AddrPortFrom(a.IPv4, 80))
	revoked, kept := connect(t, a, netip.AddrPortFrom(b.IPv4, 80)), connect(t, b, netip.AddrPortFrom(a.IPv4, 80))
	apply(t, running, policyOf(
		datapath.Subject{Name: "a", Identity: 256},
		datapath.Subject{Name: "b", Identity: 257, Ingress: enforce()},
	))
	if err := kept.exchange(); err != nil {
		t.Errorf("a flow that both policies allow: %v", err)
	}
	if err := revoked.exchange(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a flow that is allowed no more: %v", err)
	}
}

// The flows of an address end when it belongs to another endpoint.
func TestAddressReused(t *testing.T) {
	running := newLab(t, lab.Description{Endpoints: endpoints()})
	apply(t, running, usualPolicy())
	a, b := running.Nodes["a"], running.Nodes["b"]
	serveEcho(t, b, netip.AddrPortFrom(b.IPv4, 80))
	flow := connect(t, a, netip.AddrPortFrom(b.IPv4, 80))
	again := b.Endpoint
	if err := running.InHost(func() error { return running.Datapath.AddEndpoint(again) }); err != nil {
		t.Fatal(err)
	}
	if err := flow.exchange(); err != nil {
		t.Errorf("the same endpoint declared again: %v", err)
	}
	if err := running.Datapath.RemoveEndpoint("b"); err != nil {
		t.Fatal(err)
	}
	again.Name = "another"
	if err := running.InHost(func() error { return running.Datapath.AddEndpoint(again) }); err != nil {
		t.Fatal(err)
	}
	if err := flow.exchange(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the flow of the endpoint before: %v", err)
	}
	if dropped(t, running.Datapath, "no_policy") == 0 {
		t.Error("nothing was counted")
	}
}

// Without the agent the kernel continues on its own. The next agent replaces the programs under running flows.
func TestAgentGone(t *testing.T) {
	observation := row.Observe(t, "N8")
	observation.Observed = "without a process the policy holds; programs replaced under an open connection"
	observation.Missing = "killed at each step, map layout bumped, downgrade, 1,000 flows"
	running := newLab(t, lab.Description{Endpoints: endpoints()})
	apply(t, running, usualPolicy())
	a, b := running.Nodes["a"], running.Nodes["b"]
	serveEcho(t, b, netip.AddrPortFrom(b.IPv4, 80))
	flow := connect(t, a, netip.AddrPortFrom(b.IPv4, 80))
	if err := running.Datapath.Close(); err != nil {
		t.Fatal(err)
	}
	if err := flow.exchange(); err != nil {
		t.Errorf("without the agent: %v", err)
	}
	if connection, err := dial(a, "tcp", netip.AddrPortFrom(b.IPv4, 81).String()); err == nil || strings.Contains(err.Error(), "refused") {
		t.Errorf("without the agent a denied port answers: %v %v", connection, err)
	}
	next, err := datapath.Open(datapath.Config{Pins: running.Pins})
	if err != nil {
		t.Fatal(err)
	}
	running.Datapath = next
	for _, node := range []*lab.Node{a, b} {
		if err := running.InHost(func() error { return next.AddEndpoint(node.Endpoint) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := flow.exchange(); err != nil {
		t.Errorf("with the next agent: %v", err)
	}
	status, err := next.Status()
	if err != nil || len(status.Problems) != 0 || status.Generation == 0 {
		t.Errorf("%+v, %v", status, err)
	}
}

// With netkit, a container cannot send even after its program was detached by hand.
func TestNetkitWithoutProgramIsClosed(t *testing.T) {
	running := newLab(t, lab.Description{Endpoints: endpoints()})
	if *links != string(datapath.Netkit) {
		t.Skip("a veth pair passes packets on without a program")
	}
	apply(t, running, usualPolicy())
	a := running.Nodes["a"].Endpoint.Interface
	reaches := func() lab.Result { return probe(t, running, "a", lab.World, 4, "UDP", 80) }
	if result := reaches(); !result.Allowed {
		t.Fatalf("with its program: %+v", result)
	}
	if err := running.Datapath.Detach(a, datapath.FromContainer); err != nil {
		t.Fatal(err)
	}
	if result := reaches(); result.Reason != "timeout" {
		t.Errorf("without its program: %+v", result)
	}
	if err := running.InHost(func() error { return running.Datapath.Reattach(a, datapath.FromContainer) }); err != nil {
		t.Fatal(err)
	}
	if result := reaches(); !result.Allowed {
		t.Errorf("with its program again: %+v", result)
	}
}

// N18: what is removed or changed by hand is reported by name, and repaired.
func TestStatusAndRepair(t *testing.T) {
	observation := row.Observe(t, "N18")
	observation.Observed = "pins of a program and a map, a program, an interface's entry, a rule: each reported by name and repaired"
	running := newLab(t, lab.Description{Endpoints: endpoints()})
	apply(t, running, usualPolicy())
	d, a := running.Datapath, running.Nodes["a"].Endpoint
	reaches := func(port uint16) bool { return probe(t, running, "a", "b", 4, "TCP", port).Allowed }
	fromContainer, toContainer := string(datapath.FromContainer), string(datapath.ToContainer)
	applied, err := d.Status()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		problem datapath.Problem
		damage  func() error
	}{
		{"pin of a program", datapath.Problem{Kind: datapath.LinkPinMissing, Interface: a.Interface, Program: fromContainer},
			func() error { return os.Remove(d.LinkPin(a.Interface, datapath.FromContainer)) }},
		{"pin of a map", datapath.Problem{Kind: datapath.MapPinMissing, Map: "flows"},
			func() error { return os.Remove(running.Pins + "/v1/maps/flows") }},
		{"program", datapath.Problem{Kind: datapath.ProgramDetached, Interface: a.Interface, Program: toContainer},
			func() error { return d.Detach(a.Interface, datapath.ToContainer) }},
		{"map entry of an interface", datapath.Problem{Kind: datapath.EndpointEntryWrong, Endpoint: "a"},
			func() error { return d.DeleteInterface(a.Interface) }},
		{"rule of the policy",
			datapath.Problem{Kind: datapath.PolicyEntriesChanged, AppliedHash: applied.PolicyHash, FoundHash: applied.PolicyHash},
			func() error { return d.AllowByHand("b") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := test.damage(); err != nil {
				t.Fatal(err)
			}
			status, err := d.Status()
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(status.Problems, []datapath.Problem{test.problem}) {
				t.Errorf("problems: %v, want only %v", status.Problems, test.problem)
			}
			if err := running.InHost(func() error {
				_, err := d.Repair()
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if status, err = d.Status(); err != nil || len(status.Problems) != 0 {
				t.Errorf("after the repair: %v, %v", status.Problems, err)
			}
			if !reaches(80) || reaches(81) {
				t.Error("after the repair the policy is not in force")
			}
		})
	}
}

// N16: received and lost events together are all packets, and a full ring buffer delays no packet.
func TestEvents(t *testing.T) {
	observation := row.Observe(t, "N16")
	running := newLab(t, lab.Description{Endpoints: endpoints(), Config: datapath.Config{Events: datapath.EventsPackets, Ring: 4096}})
	apply(t, running, usualPolicy())
	watched := running.StopWatching()
	a, b := running.Nodes["a"], running.Nodes["b"]
	connection, err := dial(a, "udp", netip.AddrPortFrom(b.IPv4, 80).String())
	if err != nil {
		t.Fatal(err)
	}
	var sink *net.UDPConn
	if err := b.Do(func() (err error) {
		sink, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.IPv4, 80)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	const packets = 500
	for i := range packets {
		if _, err := connection.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		sink.SetReadDeadline(time.Now().Add(time.Second))
		if _, _, err := sink.ReadFromUDPAddrPort(make([]byte, 8)); err != nil {
			t.Fatalf("packet %d did not arrive: %v", i, err)
		}
	}
	// Nothing may send while the counters are read.
	for _, node := range running.Nodes {
		for _, name := range []string{"eth0", "uplink"} {
			if link, err := node.Handle.LinkByName(name); err == nil {
				_ = node.Handle.LinkSetDown(link)
			}
		}
	}
	events, err := running.Datapath.Events(time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	var read, toB uint64
	for {
		events.SetDeadline(time.Now().Add(100 * time.Millisecond))
		flow, err := events.Next()
		if datapath.IsDeadline(err) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		read++
		if flow.Destination == netip.AddrPortFrom(b.IPv4, 80) {
			if flow.SourceIdentity != 256 || flow.DestinationIdentity != 257 || flow.Reason != "forwarded" || flow.Hook != "from_container" {
				t.Errorf("%+v", flow)
			}
			toB++
		}
	}
	lost, err := running.Datapath.LostEvents()
	if err != nil {
		t.Fatal(err)
	}
	counts, err := running.Datapath.Counts()
	if err != nil {
		t.Fatal(err)
	}
	var all uint64
	for _, count := range counts {
		all += count.Packets
	}
	if read+lost+watched != all || lost == 0 || toB == 0 {
		t.Errorf("%d read before, %d read, %d lost, of %d packets", watched, read, lost, all)
	}
	observation.Observed = fmt.Sprintf("%d events and %d lost ones are all %d packets; every packet arrived", read+watched, lost, all)
	observation.Control = "the ring was full"
	var metrics bytes.Buffer
	if err := running.Datapath.WriteMetrics(&metrics); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("palisade_datapath_lost_events_total %d\n", lost); !strings.Contains(metrics.String(), want) {
		t.Errorf("metrics lack %q", want)
	}
	// There is at most one line for each hook and reason: no address, port or name is a label.
	if lines := strings.Count(metrics.String(), "\n"); lines > 2*4*40+8 {
		t.Errorf("%d lines of metrics", lines)
	}
}
