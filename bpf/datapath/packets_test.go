package datapath_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/bpf/lab"
	"github.com/palisade-host/palisade/test/support/acceptance/row"
)

// bench runs programs on frames with BPF_PROG_TEST_RUN, and returns how each frame ended.
type bench struct {
	t       *testing.T
	lab     *lab.Lab
	a, b, c *lab.Node
	uplink  net.HardwareAddr
}

func newBench(t *testing.T, description lab.Description) *bench {
	t.Helper()
	description.Endpoints = endpoints()
	// Small maps are created faster, and no test fills them.
	description.Config.Flows, description.Config.PendingFlows = 8192, 16384
	running := newLab(t, description)
	apply(t, running, usualPolicy())
	b := &bench{
		t: t, lab: running, a: running.Nodes["a"], b: running.Nodes["b"], c: running.Nodes["c"],
		uplink: net.HardwareAddr{2, 0, 0, 0, 0, 9},
	}
	for _, endpoint := range description.Endpoints {
		b.silence(endpoint.Name)
	}
	return b
}

// silence sets an endpoint's link down at both ends, because the kernels' own packets would be counted.
func (b *bench) silence(name string) {
	b.t.Helper()
	node, host := b.lab.Nodes[name], b.lab.Nodes[lab.Host]
	inside, err := node.Handle.LinkByName("eth0")
	if err != nil {
		b.t.Fatal(err)
	}
	outside, err := host.Handle.LinkByIndex(node.Endpoint.Interface)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := errors.Join(node.Handle.LinkSetDown(inside), host.Handle.LinkSetDown(outside)); err != nil {
		b.t.Fatal(err)
	}
}

// add connects another endpoint.
func (b *bench) add(endpoint lab.Endpoint, link string) *lab.Node {
	b.t.Helper()
	if err := b.lab.Add(endpoint, link); err != nil {
		b.t.Fatal(err)
	}
	b.silence(endpoint.Name)
	return b.lab.Nodes[endpoint.Name]
}

// reasons returns the counts of a hook since the start, by reason.
func (b *bench) reasons(hook string) map[string]uint64 {
	b.t.Helper()
	counts, err := b.lab.Datapath.Counts()
	if err != nil {
		b.t.Fatal(err)
	}
	sums := map[string]uint64{}
	for _, count := range counts {
		if count.Hook == hook {
			sums[count.Reason] += count.Packets
		}
	}
	return sums
}

// fromA sends as a's interface. It sets the MAC addresses unless the packet has them.
func (b *bench) fromA(p packet) (string, []byte) {
	return b.from(b.a, p)
}

func (b *bench) from(node *lab.Node, p packet) (string, []byte) {
	if p.from == nil {
		p.from = node.Endpoint.MAC
	}
	p.to = node.Endpoint.HostMAC
	return b.run("from_container", node.Endpoint.Interface, p.bytes())
}

func (b *bench) world(p packet) (string, []byte) {
	p.from, p.to = b.uplink, b.uplink
	return b.run("from_device", b.lab.Uplink, p.bytes())
}

// to sends to an endpoint's interface as the host's network stack.
func (b *bench) to(node *lab.Node, p packet) (string, []byte) {
	p.from, p.to = node.Endpoint.HostMAC, node.Endpoint.MAC
	return b.run("to_container", node.Endpoint.Interface, p.bytes())
}

// out sends to other machines as an endpoint: over its link, then over the host's device.
func (b *bench) out(node *lab.Node, p packet) (string, []byte) {
	p.from, p.to = node.Endpoint.MAC, node.Endpoint.HostMAC
	if got, frame := b.from(node, p); got != "forwarded" {
		return got, frame
	}
	return b.run("to_device", b.lab.Uplink, p.bytes())
}

func (b *bench) run(hook string, ifindex int, frame []byte) (reason string, out []byte) {
	b.t.Helper()
	before := b.reasons(hook)
	out, err := b.hand(hook, ifindex, frame)
	if errors.Is(err, unix.EINVAL) && len(frame) < 14+40 {
		// The kernel refuses an IP packet without a whole header.
		return "refused", nil
	}
	if err != nil {
		b.t.Fatalf("%s: %v", hook, err)
	}
	for name, count := range b.reasons(hook) {
		// Packets that the kernel itself sends on a device meanwhile are forwarded.
		if count > before[name] && (reason == "" || reason == "forwarded") {
			reason = name
		}
	}
	return reason, out
}

func (b *bench) hand(hook string, ifindex int, frame []byte) (out []byte, err error) {
	err = b.lab.InHost(func() error {
		hooks := map[string]datapath.Hook{
			"from_container": datapath.FromContainer, "to_container": datapath.ToContainer,
			"from_device": datapath.FromDevice, "to_device": datapath.ToDevice,
		}
		_, out, err = b.lab.Datapath.Run(hooks[hook], ifindex, frame)
		return err
	})
	return out, err
}

// toB returns a packet from a to b.
func (b *bench) toB(protocol uint8, payload []byte) packet {
	return packet{source: b.a.IPv4, destination: b.b.IPv4, protocol: protocol, payload: payload}
}

func (b *bench) toB6(protocol uint8, payload []byte) packet {
	return packet{source: b.a.IPv6, destination: b.b.IPv6, protocol: protocol, payload: payload}
}

var (
	otherMAC  = net.HardwareAddr{2, 0, 0, 0, 0, 66}
	linkLocal = netip.MustParseAddr("fe80::42")
	allNodes  = netip.MustParseAddr("ff02::1")
	gateway6  = netip.MustParseAddr("fe80::1")
)

func arp(operation byte, mac net.HardwareAddr, sender, target netip.Addr) packet {
	payload := []byte{0, 1, 8, 0, 6, 4, 0, operation}
	payload = append(append(payload, mac...), sender.AsSlice()...)
	payload = append(append(payload, 0, 0, 0, 0, 0, 0), target.AsSlice()...)
	return packet{etherType: 0x0806, payload: payload}
}

func neighbour(kind byte, source, target netip.Addr, mac net.HardwareAddr) packet {
	payload := append(icmp(kind, 0, 0, 0, 0, 0), target.AsSlice()...)
	payload = append(append(payload, 1, 1), mac...)
	return packet{source: source, destination: allNodes, protocol: 58, ttl: 255, payload: payload}
}

// changed returns a changed copy of a packet.
func changed(p packet, change func(*packet)) packet {
	change(&p)
	return p
}

// about returns the ICMP error about a closed port, from a packet's destination to its source.
func about(subject packet) packet {
	kind, code, protocol := byte(3), byte(3), uint8(1)
	if subject.destination.Is6() {
		kind, code, protocol = 1, 4, 58
	}
	return packet{
		source: subject.destination, destination: subject.source, protocol: protocol,
		payload: icmp(kind, code, append(make([]byte, 4), subject.bytes()[2:]...)...),
	}
}

// N4: every reason is reached, by a packet that differs from a valid one only in that.
func TestEveryReasonIsReached(t *testing.T) {
	observation := row.Observe(t, "N4")
	b := newBench(t, lab.Description{Masquerade: true})
	world, host := lab.WorldIPv4, lab.HostIPv4
	good := func() packet { return b.toB(6, tcp(1000, 80, syn)) }
	with := func(change func(*packet)) packet { return changed(good(), change) }
	if err := b.lab.Datapath.Publish(datapath.Published{Address: host, Port: 8080, Protocol: "TCP", Backend: b.b.IPv4, BackendPort: 80}); err != nil {
		t.Fatal(err)
	}
	reached := map[string]bool{}
	check := func(name, want, got string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		reached[got] = true
	}
	for _, test := range []struct {
		name, reason string
		packet       packet
	}{
		{"allowed", "forwarded", good()},
		{"allowed, IPv6", "forwarded", b.toB6(6, tcp(1000, 80, syn))},
		{"ARP for the gateway", "answered", arp(1, b.a.Endpoint.MAC, b.a.IPv4, datapath.GatewayIPv4)},
		{"solicitation of the gateway", "answered", neighbour(135, b.a.IPv6, gateway6, b.a.Endpoint.MAC)},
		{"router solicitation", "link_chatter", packet{source: linkLocal, destination: allNodes, protocol: 58, payload: icmp(133, 0, 0, 0, 0, 0)}},
		{"probe of an own address", "link_chatter", neighbour(135, netip.IPv6Unspecified(), b.a.IPv6, b.a.Endpoint.MAC)},
		{"LLDP", "unknown_ethertype", packet{etherType: 0x88cc, payload: make([]byte, 46)}},
		{"VLAN", "vlan", packet{etherType: 0x8100, payload: make([]byte, 46)}},
		{"QinQ", "vlan", packet{etherType: 0x88a8, payload: make([]byte, 46)}},
		{"TCP header cut", "truncated", b.toB(6, tcp(1000, 80, syn)[:19])},
		{"data offset below five", "bad_header", b.toB(6, append(tcp(1000, 80, syn)[:12], make([]byte, 8)...))},
		{"ICMPv6 in IPv4", "bad_header", b.toB(58, icmp(128, 0, 0, 1, 0, 1))},
		{"mapped address in IPv6", "bad_header", packet{
			source: b.a.IPv6, destination: netip.AddrFrom16(b.b.IPv4.As16()), protocol: 6, payload: tcp(1, 80, syn)}},
		{"authentication header", "extension_headers", b.toB6(51, make([]byte, 24))},
		{"eight options headers", "extension_headers", packet{source: b.a.IPv6, destination: b.b.IPv6, protocol: 60,
			options: slices.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, 8), payload: tcp(1000, 80, syn)}},
		{"routing header", "routing_header", packet{source: b.a.IPv6, destination: b.b.IPv6, protocol: 43,
			options: []byte{6, 0, 0, 0, 0, 0, 0, 0}, payload: tcp(1000, 80, syn)}},
		{"first fragment without a whole header", "fragment_tiny", with(func(p *packet) { p.fragment, p.payload = 0x2000, p.payload[:16] })},
		{"fragment over the header", "fragment_overlap", with(func(p *packet) { p.fragment = 1 })},
		{"fragment beyond the largest packet", "fragment_overlap", with(func(p *packet) { p.fragment = 0x1fff })},
		{"fragment without a first one", "fragment_unknown", with(func(p *packet) { p.fragment, p.id = 100, 9 })},
		{"source MAC of another", "spoofed_mac", with(func(p *packet) { p.from = otherMAC })},
		{"source address of another", "spoofed_source", with(func(p *packet) { p.source = b.c.IPv4 })},
		{"source address of another, IPv6", "spoofed_source", packet{source: b.c.IPv6, destination: b.b.IPv6, protocol: 6, payload: tcp(1, 80, syn)}},
		{"ARP in the name of another", "spoofed_arp", arp(2, b.a.Endpoint.MAC, b.b.IPv4, datapath.GatewayIPv4)},
		{"ARP cut", "truncated", changed(arp(1, b.a.Endpoint.MAC, b.a.IPv4, datapath.GatewayIPv4), func(p *packet) { p.payload = p.payload[:27] })},
		{"ARP with another's MAC", "spoofed_arp", arp(1, otherMAC, b.a.IPv4, datapath.GatewayIPv4)},
		{"ARP for a neighbour", "arp_unexpected", arp(1, b.a.Endpoint.MAC, b.a.IPv4, b.b.IPv4)},
		{"unasked ARP reply", "arp_unexpected", arp(2, b.a.Endpoint.MAC, b.a.IPv4, datapath.GatewayIPv4)},
		{"advertisement in the name of another", "spoofed_neighbour", neighbour(136, b.b.IPv6, b.b.IPv6, b.a.Endpoint.MAC)},
		{"solicitation in the name of another", "spoofed_neighbour", neighbour(135, b.b.IPv6, gateway6, b.a.Endpoint.MAC)},
		{"solicitation by way of a router", "spoofed_neighbour", changed(neighbour(135, b.a.IPv6, gateway6, b.a.Endpoint.MAC), func(p *packet) { p.ttl = 64 })},
		{"solicitation in fragments", "spoofed_neighbour", changed(neighbour(135, b.a.IPv6, gateway6, b.a.Endpoint.MAC), func(p *packet) {
			p.protocol, p.options = 44, []byte{58, 0, 0, 1, 0, 0, 0, 1}
		})},
		{"solicitation of a neighbour on the link", "spoofed_neighbour", neighbour(135, b.a.IPv6, linkLocal, b.a.Endpoint.MAC)},
		{"solicitation of a neighbour behind the gateway", "spoofed_neighbour", neighbour(135, b.a.IPv6, netip.MustParseAddr("2001:db8::1"), b.a.Endpoint.MAC)},
		{"probe of another's address", "spoofed_neighbour", neighbour(135, netip.IPv6Unspecified(), b.b.IPv6, b.a.Endpoint.MAC)},
		{"redirect", "spoofed_neighbour", neighbour(137, linkLocal, gateway6, b.a.Endpoint.MAC)},
		{"router advertisement", "router_advertisement", neighbour(134, linkLocal, gateway6, b.a.Endpoint.MAC)},
		{"IP in IP", "tunnel", with(func(p *packet) { p.protocol = 4 })},
		{"IPv6 in IP", "tunnel", with(func(p *packet) { p.protocol = 41 })},
		{"GRE", "tunnel", with(func(p *packet) { p.protocol = 47 })},
		{"multicast", "multicast", with(func(p *packet) { p.destination = netip.MustParseAddr("224.0.0.251") })},
		{"broadcast", "multicast", with(func(p *packet) { p.destination = netip.MustParseAddr("255.255.255.255") })},
		{"to an endpoint without a policy", "no_policy", with(func(p *packet) { p.destination = b.c.IPv4 })},
		{"denied port", "policy_denied", b.toB(6, tcp(1000, 82, syn))},
		{"port that no rule names", "policy_default_denied", b.toB(6, tcp(1000, 81, syn))},
		{"ICMP type that no rule names", "policy_default_denied", b.toB(1, icmp(13, 0, 0, 1, 0, 1))},
		{"ACK of nothing", "no_connection", b.toB(6, tcp(1001, 80, ack))},
		{"forged SYN ACK", "no_connection", b.toB(6, tcp(1001, 80, syn|ack))},
		{"echo reply to nothing", "no_connection", b.toB(1, icmp(0, 0, 0, 1, 0, 1))},
		{"SYN FIN", "tcp_invalid", b.toB(6, tcp(1001, 80, syn|fin))},
		{"echo reply to nothing, IPv6", "no_connection", b.toB6(58, icmp(129, 0, 0, 1, 0, 1))},
		{"error about nothing", "icmp_unrelated", about(packet{source: b.b.IPv4, destination: b.a.IPv4, protocol: 6, payload: tcp(80, 999, ack)})},
		{"last hop", "ttl_exceeded", with(func(p *packet) { p.destination, p.ttl = world, 1 })},
	} {
		got, _ := b.fromA(test.packet)
		check(test.name, test.reason, got)
	}

	got, _ := b.run("from_container", b.lab.Uplink, good().bytes())
	check("interface without an entry", "unknown_endpoint", got)
	got, _ = b.run("to_container", b.a.Endpoint.Interface, packet{from: otherMAC, to: otherMAC, source: host, destination: b.b.IPv4, protocol: 6, payload: tcp(1, 80, syn)}.bytes())
	check("to another endpoint's interface", "not_for_endpoint", got)
	for _, message := range []packet{
		{source: netip.MustParseAddr("fe80::1"), destination: b.b.IPv6, protocol: 58, ttl: 255, payload: icmp(134, 0, make([]byte, 12)...)},
		{source: world, destination: b.b.IPv4, protocol: 1, payload: icmp(5, 1, make([]byte, 28)...)},
	} {
		got, _ = b.world(message)
		check("a message of neighbours from outside", "spoofed_neighbour", got)
	}
	got, _ = b.world(packet{source: b.a.IPv4, destination: b.b.IPv4, protocol: 6, payload: tcp(1, 80, syn)})
	check("an endpoint's address from outside", "spoofed_source", got)

	direct := packet{source: world, destination: b.b.IPv4, protocol: 6, payload: tcp(5000, 80, syn)}
	got, _ = b.world(direct)
	check("from outside", "forwarded", got)
	published := direct
	published.destination, published.payload = host, tcp(5000, 8080, syn)
	got, _ = b.world(published)
	check("the same client by the published port", "nat_collision", got)

	// Two endpoints use the same source port to the same destination. SCTP cannot get another port, and TCP has a range
	// of them.
	leave := func(node *lab.Node, protocol uint8, payload []byte) string {
		got, _ := b.out(node, packet{source: node.IPv4, destination: world, protocol: protocol, payload: payload})
		return got
	}
	check("SCTP", "forwarded", leave(b.a, 132, sctp(7000, 80)))
	check("SCTP of another endpoint", "nat_unsupported", leave(b.b, 132, sctp(7000, 80)))
	check("source port", "forwarded", leave(b.a, 17, udp(7000, 80, "")))
	for port := 61000; port <= 65535; port++ {
		p := packet{source: b.a.IPv4, destination: world, protocol: 17, payload: udp(uint16(port), 80, ""), from: b.a.Endpoint.MAC, to: b.a.Endpoint.HostMAC}
		for _, step := range []struct {
			hook    string
			ifindex int
		}{{"from_container", b.a.Endpoint.Interface}, {"to_device", b.lab.Uplink}} {
			if _, err := b.hand(step.hook, step.ifindex, p.bytes()); err != nil {
				t.Fatal(err)
			}
		}
	}
	check("no source port left", "exhausted", leave(b.b, 17, udp(7000, 80, "")))

	reasons, err := datapath.Reasons()
	if err != nil {
		t.Fatal(err)
	}
	observation.Observed = fmt.Sprintf("each of %d reasons is reached", len(reasons))
	for _, reason := range reasons {
		if !reached[reason] {
			t.Errorf("no packet of this test ends as %s", reason)
		}
	}
}

// N4: packets from the host's network stack to an endpoint.
func TestPacketsToContainer(t *testing.T) {
	b := newBench(t, lab.Description{})
	good := func() packet {
		return packet{source: lab.HostIPv4, destination: b.b.IPv4, protocol: 6, payload: tcp(1000, 80, syn)}
	}
	with := func(change func(*packet)) packet { return changed(good(), change) }
	for _, test := range []struct {
		name, reason string
		packet       packet
	}{
		{"allowed", "forwarded", good()},
		{"LLDP", "unknown_ethertype", packet{etherType: 0x88cc, payload: make([]byte, 46)}},
		{"VLAN", "vlan", packet{etherType: 0x8100, payload: make([]byte, 46)}},
		{"QinQ", "vlan", packet{etherType: 0x88a8, payload: make([]byte, 46)}},
		{"ARP", "arp_unexpected", arp(1, b.b.Endpoint.HostMAC, lab.HostIPv4, b.b.IPv4)},
		{"TCP header cut", "truncated", with(func(p *packet) { p.payload = p.payload[:19] })},
		{"multicast", "multicast", with(func(p *packet) { p.destination = netip.MustParseAddr("224.0.0.251") })},
		{"multicast listener query", "link_chatter", packet{source: gateway6, destination: allNodes, protocol: 58, ttl: 1, payload: icmp(130, 0, make([]byte, 20)...)}},
		{"of another endpoint", "not_for_endpoint", with(func(p *packet) { p.destination = b.c.IPv4 })},
		{"from another endpoint", "spoofed_source", with(func(p *packet) { p.source = b.a.IPv4 })},
		{"IP in IP", "tunnel", with(func(p *packet) { p.protocol = 4 })},
		{"denied port", "policy_denied", with(func(p *packet) { p.payload = tcp(1000, 82, syn) })},
	} {
		if got, _ := b.to(b.b, test.packet); got != test.reason {
			t.Errorf("%s: %s, want %s", test.name, got, test.reason)
		}
	}
}

// N4: packets between other machines and endpoints.
func TestPacketsOfDevices(t *testing.T) {
	b := newBench(t, lab.Description{Masquerade: true})
	good := func() packet {
		return packet{source: lab.WorldIPv4, destination: b.b.IPv4, protocol: 6, payload: tcp(1000, 80, syn)}
	}
	with := func(change func(*packet)) packet { return changed(good(), change) }
	for _, test := range []struct {
		name, reason string
		packet       packet
	}{
		{"allowed", "forwarded", good()},
		{"from an endpoint", "spoofed_source", with(func(p *packet) { p.source = b.a.IPv4 })},
		{"from the host", "spoofed_source", with(func(p *packet) { p.source = lab.HostIPv4 })},
		{"mapped source in IPv6", "bad_header", packet{
			source: netip.AddrFrom16(lab.WorldIPv4.As16()), destination: b.b.IPv6, protocol: 6, payload: tcp(1000, 80, syn)}},
		{"IP in IP", "tunnel", with(func(p *packet) { p.protocol = 4 })},
		{"TCP header cut", "truncated", with(func(p *packet) { p.payload = p.payload[:19] })},
		{"TCP header to the host cut", "forwarded", with(func(p *packet) { p.destination, p.payload = lab.HostIPv4, p.payload[:19] })},
		{"denied port", "policy_denied", with(func(p *packet) { p.payload = tcp(1000, 82, syn) })},
	} {
		if got, _ := b.world(test.packet); got != test.reason {
			t.Errorf("%s: %s, want %s", test.name, got, test.reason)
		}
	}

	leaving := packet{source: b.a.IPv4, destination: lab.WorldIPv4, protocol: 17, payload: udp(1000, 53, "")}
	if got, frame := b.fromA(leaving); got != "forwarded" || frame[22] != 63 {
		t.Errorf("to another machine: %s, for %d hops more", got, frame[22])
	}
	leaving.from, leaving.to = b.a.Endpoint.MAC, b.a.Endpoint.HostMAC
	for _, test := range []struct {
		name, reason string
		packet       packet
	}{
		{"past the endpoint's link", "no_connection", changed(leaving, func(p *packet) { p.payload = udp(1001, 53, "") })},
		{"an error past the endpoint's link", "icmp_unrelated", changed(about(packet{
			source: lab.WorldIPv4, destination: b.a.IPv4, protocol: 17, payload: udp(53, 1001, "")}), func(p *packet) { p.from, p.to = leaving.from, leaving.to })},
		{"UDP header cut", "truncated", changed(leaving, func(p *packet) { p.payload = p.payload[:7] })},
	} {
		if got, _ := b.run("to_device", b.lab.Uplink, test.packet.bytes()); got != test.reason {
			t.Errorf("%s: %s, want %s", test.name, got, test.reason)
		}
	}
}

// N4: headers that differ from valid ones in one field.
func TestPacketHeaders(t *testing.T) {
	b := newBench(t, lab.Description{})
	const ip = 14
	set := func(at int, value ...byte) func([]byte) []byte {
		return func(frame []byte) []byte {
			copy(frame[at:], value)
			return frame
		}
	}
	ipv4, ipv6 := b.toB(17, udp(1000, 80, "palisade")), b.toB6(17, udp(1000, 80, "palisade"))
	unknown := changed(ipv6, func(p *packet) { p.protocol, p.options = 0, []byte{253, 0, 1, 4, 0, 0, 0, 0} })
	fragment := func(options ...byte) packet {
		return changed(ipv6, func(p *packet) { p.protocol, p.options = 44, options })
	}
	for _, test := range []struct {
		name, reason string
		packet       packet
		change       func([]byte) []byte
	}{
		{"IPv4", "forwarded", ipv4, set(0)},
		{"IPv6", "forwarded", ipv6, set(0)},
		{"IPv4 of version 5", "bad_header", ipv4, set(ip, 0x55)},
		{"IPv6 of version 7", "bad_header", ipv6, set(ip, 0x70)},
		{"IPv4 shorter than its header", "bad_header", ipv4, set(ip+2, 0, 19)},
		{"IPv4 longer than the frame", "truncated", ipv4, set(ip+2, 0, 37)},
		{"IPv6 longer than the frame", "truncated", ipv6, set(ip+4, 0, 17)},
		{"mapped source in IPv6", "bad_header", changed(ipv6, func(p *packet) { p.source = netip.AddrFrom16(b.a.IPv4.As16()) }), set(0)},
		// No rule names this protocol, so none of its bytes are parsed.
		{"unknown protocol", "policy_default_denied", unknown, set(0)},
		{"options behind the packet's end", "truncated", unknown, set(ip+40+1, 9)},
		{"options header cut", "truncated", changed(ipv6, func(p *packet) { p.protocol, p.options, p.payload = 60, []byte{17}, nil }), set(0)},
		// Without the check, its first bytes would be parsed as another header.
		{"fragment header cut", "truncated", changed(ipv6, func(p *packet) { p.protocol, p.options, p.payload = 44, []byte{43, 0, 0, 0, 0, 0, 0}, nil }), set(0)},
		{"first fragment", "forwarded", fragment(17, 0, 0, 1, 0, 0, 0, 1), set(0)},
		{"a fragment of a fragment", "extension_headers", fragment(44, 0, 0, 1, 0, 0, 0, 1, 17, 0, 0, 0, 0, 0, 0, 1), set(0)},
	} {
		p := test.packet
		p.from, p.to = b.a.Endpoint.MAC, b.a.Endpoint.HostMAC
		if got, _ := b.run("from_container", b.a.Endpoint.Interface, test.change(p.bytes())); got != test.reason {
			t.Errorf("%s: %s, want %s", test.name, got, test.reason)
		}
	}
}

// N4: an ICMP error passes when it is about a packet of its receiver in an existing flow.
func TestPacketErrors(t *testing.T) {
	b := newBench(t, lab.Description{})
	a, c, world, host := b.a, b.c, b.lab.Nodes[lab.World], b.lab.Nodes[lab.Host]
	for _, family := range []int{4, 6} {
		of := func(from, to *lab.Node, protocol uint8, payload []byte) packet {
			return packet{source: from.Address(family), destination: to.Address(family), protocol: protocol, payload: payload}
		}
		echo, other, headers := uint8(1), icmp(13, 0, 0, 0, 0, 0), 20
		request := icmp(8, 0, 0, 5, 0, 0)
		if family == 6 {
			echo, other, headers = 58, icmp(139, 0, 0, 0, 0, 0), 40
			request = icmp(128, 0, 0, 5, 0, 0)
		}
		// These are the flows.
		first, published := of(a, b.b, 6, tcp(1000, 80, syn)), of(world, b.b, 6, tcp(5000, 80, syn))
		query := of(a, world, 17, udp(9000, 53, ""))
		ping, strange := of(a, b.b, echo, request), of(b.b, a, echo, other)
		// Its ports are the bytes of a's address, at which an inner header of 16 bytes would have its ports.
		odd := of(b.b, a, 17, udp(0x0a01, 1, ""))
		for name, got := range map[string]func() (string, []byte){
			"to b":            func() (string, []byte) { return b.fromA(first) },
			"from outside":    func() (string, []byte) { return b.world(published) },
			"to outside":      func() (string, []byte) { return b.fromA(query) },
			"echo":            func() (string, []byte) { return b.fromA(ping) },
			"unknown request": func() (string, []byte) { return b.from(b.b, strange) },
			"odd ports":       func() (string, []byte) { return b.from(b.b, odd) },
		} {
			if got, _ := got(); got != "forwarded" {
				t.Fatalf("IPv%d, %s: %s", family, name, got)
			}
		}
		const inner = 8
		set := func(subject packet, at int, value ...byte) packet {
			return changed(about(subject), func(p *packet) { copy(p.payload[inner+at:], value) })
		}
		cut := func(subject packet, length int) packet {
			return changed(about(subject), func(p *packet) { p.payload = p.payload[:inner+length] })
		}
		elsewhere := func(p packet, to *lab.Node) packet {
			return changed(p, func(p *packet) { p.destination = to.Address(family) })
		}
		answer := of(b.b, a, 6, tcp(80, 1000, ack))
		for _, test := range []struct {
			name, reason string
			send         func(packet) (string, []byte)
			packet       packet
		}{
			{"about a packet", "forwarded", func(p packet) (string, []byte) { return b.from(b.b, p) }, about(first)},
			{"about an echo request", "forwarded", func(p packet) (string, []byte) { return b.from(b.b, p) }, about(ping)},
			{"about an answer", "forwarded", b.fromA, about(answer)},
			{"to who did not send it", "icmp_unrelated", b.fromA, elsewhere(about(answer), c)},
			{"about a packet from outside", "forwarded", func(p packet) (string, []byte) { return b.from(b.b, p) }, about(published)},
			{"about a packet to outside", "forwarded", b.world, about(query)},
			{"about a packet to outside, to who did not send it", "icmp_unrelated", b.world, elsewhere(about(query), b.b)},
			{"about a packet to another", "icmp_unrelated", b.fromA, changed(about(of(b.b, world, 6, tcp(80, 5000, ack))), func(p *packet) { p.source = a.Address(family) })},
			{"of the host about an answer", "forwarded", func(p packet) (string, []byte) { return b.to(b.b, p) },
				changed(about(answer), func(p *packet) { p.source = host.Address(family) })},
			{"of the host, to who did not send it", "icmp_unrelated", func(p packet) (string, []byte) { return b.to(b.b, p) },
				elsewhere(changed(about(first), func(p *packet) { p.source = host.Address(family) }), b.b)},
			{"inner header cut", "truncated", func(p packet) (string, []byte) { return b.from(b.b, p) }, cut(first, headers-1)},
			{"inner ports cut", "truncated", func(p packet) (string, []byte) { return b.from(b.b, p) }, cut(first, headers+7)},
			{"inner version", "icmp_unrelated", func(p packet) (string, []byte) { return b.from(b.b, p) }, set(first, 0, 0x75)},
			{"about an ICMP message that opens no flow", "icmp_unrelated", b.fromA, about(strange)},
			{"about another message with an echo's identifier", "icmp_unrelated", func(p packet) (string, []byte) { return b.from(b.b, p) }, set(ping, headers, 15)},
		} {
			if got, _ := test.send(test.packet); got != test.reason {
				t.Errorf("IPv%d, error %s: %s, want %s", family, test.name, got, test.reason)
			}
		}
		if family == 6 {
			continue
		}
		for _, test := range []struct {
			name, reason string
			packet       packet
		}{
			{"about a packet of odd ports", "forwarded", about(odd)},
			{"with an inner header of 16 bytes", "icmp_unrelated", set(odd, 0, 0x44)},
			{"about an answer's first fragment", "forwarded", set(answer, 6, 0x20, 0)},
			{"about an answer's later fragment", "icmp_unrelated", set(answer, 6, 0, 1)},
		} {
			if got, _ := b.fromA(test.packet); got != test.reason {
				t.Errorf("error %s: %s, want %s", test.name, got, test.reason)
			}
		}
	}
}

// N4: an endpoint without addresses of a family sends and receives nothing of that family.
func TestPacketsOfOneFamily(t *testing.T) {
	b := newBench(t, lab.Description{})
	four := b.add(lab.Endpoint{Name: "four", IPv4: netip.MustParseAddr("10.1.0.4")}, "ep4")
	six := b.add(lab.Endpoint{Name: "six", IPv6: netip.MustParseAddr("fd00::6")}, "ep6")
	apply(t, b.lab, policyOf(
		datapath.Subject{Name: "a", Identity: 256}, datapath.Subject{Name: "four", Identity: 258}, datapath.Subject{Name: "six", Identity: 259},
	))
	none := netip.IPv6Unspecified()
	for _, test := range []struct {
		name, reason string
		node         *lab.Node
		packet       packet
	}{
		{"IPv4", "forwarded", four, packet{source: four.IPv4, destination: b.a.IPv4, protocol: 6, payload: tcp(1000, 80, syn)}},
		{"IPv6", "forwarded", six, packet{source: six.IPv6, destination: b.a.IPv6, protocol: 6, payload: tcp(1000, 80, syn)}},
		{"IPv6 from nobody", "spoofed_source", four, packet{source: none, destination: b.a.IPv6, protocol: 6, payload: tcp(1000, 80, syn)}},
		{"ARP from nobody", "spoofed_arp", six, arp(1, six.Endpoint.MAC, netip.IPv4Unspecified(), datapath.GatewayIPv4)},
		{"solicitation of nobody", "spoofed_neighbour", four, changed(neighbour(135, none, none, four.Endpoint.MAC), func(p *packet) { p.payload = p.payload[:8] })},
	} {
		if got, _ := b.from(test.node, test.packet); got != test.reason {
			t.Errorf("%s: %s, want %s", test.name, got, test.reason)
		}
	}
}

// N4: the verdicts of a policy on what an endpoint sends, and on flows that an earlier policy allowed.
func TestPacketsUnderPolicies(t *testing.T) {
	b := newBench(t, lab.Description{})
	flow := b.toB(6, tcp(1000, 80, syn))
	subjects := func(egress datapath.Direction) datapath.Policy {
		return policyOf(datapath.Subject{Name: "a", Identity: 256, Egress: egress}, datapath.Subject{Name: "b", Identity: 257})
	}
	check := func(name, want string, p packet) {
		t.Helper()
		if got, _ := b.fromA(p); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	check("under the first policy", "forwarded", flow)
	if got, _ := b.from(b.b, packet{source: b.b.IPv4, destination: b.a.IPv4, protocol: 6, payload: tcp(80, 1000, syn)}); got != "tcp_invalid" {
		t.Errorf("a reply that opens: %s", got)
	}
	apply(t, b.lab, subjects(enforce(rule("allow", 0, "TCP", 80))))
	check("under one that allows it", "forwarded", flow)
	check("another port", "policy_default_denied", b.toB(6, tcp(1000, 81, syn)))
	check("another port of another machine", "policy_default_denied", packet{source: b.a.IPv4, destination: lab.WorldIPv4, protocol: 6, payload: tcp(1000, 81, syn)})
	pieces := b.toB(17, append(udp(1000, 80, ""), make([]byte, 8)...))
	pieces.fragment, pieces.id = 0x2000, 1
	rest := changed(pieces, func(p *packet) { p.fragment = 2 })
	apply(t, b.lab, subjects(datapath.Direction{}))
	check("first fragment", "forwarded", pieces)
	check("later fragment", "forwarded", rest)
	apply(t, b.lab, subjects(enforce()))
	for range 2 {
		check("under one that does not", "policy_default_denied", flow)
	}
	check("later fragment under one that does not", "policy_default_denied", rest)
	check("later fragment of a flow that was cut", "fragment_unknown", rest)
}

// N4: an endpoint whose interface is known and whose address is not passes nothing. This is its state for a moment
// while it is removed.
func TestPacketsOfHalfAnEndpoint(t *testing.T) {
	b := newBench(t, lab.Description{})
	sent := packet{source: b.a.IPv4, destination: lab.WorldIPv4, protocol: 17, payload: udp(1000, 80, "")}
	received := packet{source: lab.HostIPv4, destination: b.b.IPv4, protocol: 17, payload: udp(1000, 80, "")}
	check := func(want string) {
		t.Helper()
		if got, _ := b.fromA(sent); got != want {
			t.Errorf("to another machine: %s, want %s", got, want)
		}
		if got, _ := b.to(b.b, received); got != want {
			t.Errorf("from the host: %s, want %s", got, want)
		}
	}
	check("forwarded")
	for _, address := range []netip.Addr{b.a.IPv4, b.b.IPv4} {
		if err := b.lab.Datapath.DeleteAddress(address); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, b.lab, usualPolicy())
	check("unknown_endpoint")
}

// N4: entries that remain of ended flows do not redirect later packets.
func TestPacketsTranslated(t *testing.T) {
	b := newBench(t, lab.Description{Masquerade: true})
	open := policyOf(datapath.Subject{Name: "a", Identity: 256}, datapath.Subject{Name: "b", Identity: 257})
	apply(t, b.lab, open)
	query := func(node *lab.Node, port uint16) packet {
		return packet{source: node.IPv4, destination: lab.WorldIPv4, protocol: 17, payload: udp(port, 53, "")}
	}
	reply := func(port uint16) packet {
		return packet{source: lab.WorldIPv4, destination: lab.HostIPv4, protocol: 17, payload: udp(53, port, "")}
	}
	// reaches returns where a packet from outside is delivered.
	reaches := func(p packet) (string, netip.Addr) {
		got, out := b.world(p)
		return got, netip.AddrFrom4([4]byte(out[30:34]))
	}
	leave := func(node *lab.Node, port uint16) {
		t.Helper()
		if got, _ := b.out(node, query(node, port)); got != "forwarded" {
			t.Fatalf("%s: query from port %d: %s", node.Name, port, got)
		}
	}

	leave(b.a, 7000)
	if got, to := reaches(reply(7000)); got != "forwarded" || to != b.a.IPv4 {
		t.Errorf("the reply is %s, to %s", got, to)
	}
	got, frame := b.world(about(packet{source: lab.HostIPv4, destination: lab.WorldIPv4, protocol: 17, payload: udp(7000, 53, "")}))
	if outer, inner := frame[30:34], frame[42+12:42+16]; got != "forwarded" || !bytes.Equal(outer, b.a.IPv4.AsSlice()) || !bytes.Equal(inner, outer) {
		t.Errorf("an error about the query is %s, to %d about a packet of %d", got, outer, inner)
	}
	// Other half-open flows have used the room.
	leave(b.a, 7001)
	if err := b.lab.Datapath.ForgetAliases(); err != nil {
		t.Fatal(err)
	}
	if got, to := reaches(reply(7001)); to != lab.HostIPv4 {
		t.Errorf("a reply that nobody is known for is %s, to %s", got, to)
	}
	leave(b.a, 7001)
	if got, to := reaches(reply(7001)); got != "forwarded" || to != b.a.IPv4 {
		t.Errorf("after the next query the reply is %s, to %s", got, to)
	}
	// SCTP keeps its ports, so the second endpoint waits until the first one's flow ends.
	associate := func(node *lab.Node, want string) {
		t.Helper()
		p := packet{source: node.IPv4, destination: lab.WorldIPv4, protocol: 132, payload: sctp(7003, 80)}
		if got, _ := b.out(node, p); got != want {
			t.Errorf("%s: SCTP is %s, want %s", node.Name, got, want)
		}
	}
	associate(b.a, "forwarded")
	associate(b.b, "nat_unsupported")
	// The flow is cut, but its outside port is still known.
	leave(b.a, 7002)
	apply(t, b.lab, policyOf(datapath.Subject{Name: "a", Identity: 256, Egress: enforce()}, datapath.Subject{Name: "b", Identity: 257}))
	for _, want := range []string{"policy_default_denied", "no_connection"} {
		if got, _ := b.world(reply(7002)); got != want {
			t.Errorf("the reply to a flow that was cut: %s, want %s", got, want)
		}
	}
	leave(b.b, 7002)
	if got, to := reaches(reply(7002)); got != "forwarded" || to != b.b.IPv4 {
		t.Errorf("the reply to who has the port now is %s, to %s", got, to)
	}
	associate(b.a, "policy_default_denied")
	associate(b.b, "forwarded")

	apply(t, b.lab, open)
	if err := b.lab.Datapath.PublishByHand(datapath.Published{Address: lab.HostIPv4, Port: 9000, Protocol: "SCTP", Backend: b.b.IPv4, BackendPort: 80}); err != nil {
		t.Fatal(err)
	}
	published := packet{source: lab.WorldIPv4, destination: lab.HostIPv4, protocol: 132, payload: sctp(5000, 9000)}
	if got, _ := b.world(published); got != "nat_unsupported" {
		t.Errorf("SCTP to another port from outside: %s", got)
	}
	published.source = b.a.IPv4
	if got, _ := b.fromA(published); got != "nat_unsupported" {
		t.Errorf("SCTP to another port from an endpoint: %s", got)
	}

	// An endpoint uses its own published port. The answer must pass the datapath as well.
	if err := b.lab.Datapath.Publish(datapath.Published{Address: lab.HostIPv4, Port: 8080, Protocol: "TCP", Backend: b.a.IPv4, BackendPort: 80}); err != nil {
		t.Fatal(err)
	}
	got, frame = b.fromA(packet{source: b.a.IPv4, destination: lab.HostIPv4, protocol: 6, payload: tcp(6000, 8080, syn)})
	if source, destination := frame[26:30], frame[30:34]; got != "forwarded" || !bytes.Equal(source, lab.HostIPv4.AsSlice()) || !bytes.Equal(destination, b.a.IPv4.AsSlice()) {
		t.Errorf("to itself: %s, from %d to %d", got, source, destination)
	}

	// Two endpoints use the same identifier.
	ping := func(node *lab.Node) (id uint16) {
		t.Helper()
		p := packet{source: node.IPv4, destination: lab.WorldIPv4, protocol: 1, payload: icmp(8, 0, 0, 7, 0, 1)}
		binary.BigEndian.PutUint16(p.payload[2:], checksum(p.payload))
		got, out := b.out(node, p)
		if sum := checksum(out[34:42]); got != "forwarded" || sum != 0 {
			t.Fatalf("%s: echo request is %s, its checksum is off by %#x", node.Name, got, sum)
		}
		return binary.BigEndian.Uint16(out[38:])
	}
	if id := ping(b.a); id != 7 {
		t.Errorf("the first one's identifier is %d outside", id)
	}
	id := ping(b.b)
	if id == 7 {
		t.Error("the second one's identifier is the first one's outside")
	}
	p := packet{source: lab.WorldIPv4, destination: lab.HostIPv4, protocol: 1, payload: icmp(0, 0, byte(id>>8), byte(id), 0, 1)}
	if got, to := reaches(p); got != "forwarded" || to != b.b.IPv4 {
		t.Errorf("the second one's reply is %s, to %s", got, to)
	}
	// Other messages contain nothing that shows to whom the answer belongs.
	timestamp := func(node *lab.Node, want string) {
		t.Helper()
		p := packet{source: node.IPv4, destination: lab.WorldIPv4, protocol: 1, payload: icmp(13, 0, 0, 7, 0, 1)}
		if got, _ := b.out(node, p); got != want {
			t.Errorf("%s: timestamp request is %s, want %s", node.Name, got, want)
		}
	}
	timestamp(b.a, "forwarded")
	timestamp(b.b, "nat_unsupported")
}

// N5: with any number of options the policy applies to the real ports, not to the bytes where a header of 20 bytes
// would have them.
func TestHeaderLengths(t *testing.T) {
	observation := row.Observe(t, "N5")
	observation.Observed = "IPv4 headers of 0 to 60 bytes, with options that look like an allowed port: the real port is judged"
	observation.Control = "the same packets to the allowed port pass"
	b := newBench(t, lab.Description{})
	for words := 0; words <= 10; words++ {
		for port, want := range map[uint16]string{80: "forwarded", 81: "policy_default_denied"} {
			p := b.toB(6, tcp(uint16(2000+words), port, syn))
			// These options look like a TCP header with an allowed port.
			p.options = slices.Repeat(tcp(uint16(2000+words), 161-port, syn), 2)[:words*4]
			if got, _ := b.fromA(p); got != want {
				t.Errorf("header of %d bytes, port %d: %s, want %s", 20+words*4, port, got, want)
			}
		}
	}
	for words := range 5 {
		// This is UDP, because bytes that are parsed as TCP there have no valid length.
		p := b.toB(17, udp(1000, 80, ""))
		p.from, p.to = b.a.Endpoint.MAC, b.a.Endpoint.HostMAC
		frame := p.bytes()
		frame[14] = 0x40 | byte(words)
		if got, _ := b.run("from_container", b.a.Endpoint.Interface, frame); got != "bad_header" {
			t.Errorf("header of %d words: %s", words, got)
		}
	}
}

// N5: a packet that is cut at any byte is never parsed as a whole one, whatever its IP header says.
func TestTruncation(t *testing.T) {
	observation := row.Observe(t, "N5")
	observation.Observed = "cut at each byte, with an honest and a lying length: dropped"
	observation.Control = "the whole packets pass"
	b := newBench(t, lab.Description{})
	extension := packet{source: b.a.IPv6, destination: b.b.IPv6, protocol: 0, options: []byte{60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0},
		payload: tcp(3000, 80, syn)}
	for name, p := range map[string]packet{
		"TCP": b.toB(6, tcp(3000, 80, syn)), "UDP": b.toB(17, udp(3000, 80, "")), "ICMP": b.toB(1, icmp(8, 0, 0, 1, 0, 1)),
		"TCP over IPv6": b.toB6(6, tcp(3000, 80, syn)), "extension headers": extension,
		"atomic fragment": {source: b.a.IPv6, destination: b.b.IPv6, protocol: 44, options: []byte{17, 0, 0, 0, 0, 0, 0, 1}, payload: udp(3000, 80, "")},
	} {
		p.from, p.to = b.a.Endpoint.MAC, b.a.Endpoint.HostMAC
		whole := p.bytes()
		ipv4 := p.destination.Is4()
		for length := 14; length < len(whole); length++ {
			for _, honest := range []bool{false, true} {
				frame := slices.Clone(whole[:length])
				if honest && ipv4 && length >= 34 {
					binary.BigEndian.PutUint16(frame[16:], uint16(length-14))
				} else if honest && !ipv4 && length >= 54 {
					binary.BigEndian.PutUint16(frame[18:], uint16(length-54))
				}
				got, _ := b.run("from_container", b.a.Endpoint.Interface, frame)
				if got == "forwarded" || got == "answered" {
					t.Errorf("%s cut to %d of %d bytes (header says so: %t) is %s", name, length, len(whole), honest, got)
				}
			}
		}
		if got, _ := b.run("from_container", b.a.Endpoint.Interface, whole); got != "forwarded" {
			t.Errorf("%s: the whole packet is %s", name, got)
		}
	}
}

// N5: fragments follow the verdict on the first one, which must arrive first.
func TestFragments(t *testing.T) {
	observation := row.Observe(t, "N5")
	observation.Observed = "tiny, overlapping, out-of-order and second first fragments: dropped where the policy denies"
	observation.Control = "fragments to the allowed port pass"
	b := newBench(t, lab.Description{})
	pieces := func(id uint16, port uint16) (first, later packet) {
		first = b.toB(17, append(udp(4000, port, ""), make([]byte, 24)...))
		first.fragment, first.id = 0x2000, id
		later = b.toB(17, make([]byte, 32))
		later.fragment, later.id = 4, id
		return first, later
	}
	allowedFirst, allowedLater := pieces(1, 80)
	deniedFirst, deniedLater := pieces(2, 81)
	for _, step := range []struct {
		name, want string
		packet     packet
	}{
		{"later before first", "fragment_unknown", allowedLater},
		{"allowed first", "forwarded", allowedFirst},
		{"allowed later", "forwarded", allowedLater},
		{"denied first", "policy_default_denied", deniedFirst},
		{"denied later", "fragment_unknown", deniedLater},
	} {
		if got, _ := b.fromA(step.packet); got != step.want {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
	}
	if err := b.lab.Datapath.ExpireFragments(); err != nil {
		t.Fatal(err)
	}
	if got, _ := b.fromA(allowedLater); got != "fragment_unknown" {
		t.Errorf("later fragment of a first one that is too old: %s", got)
	}
	// A second "first" fragment with another port does not inherit the verdict of the earlier one.
	second, _ := pieces(1, 81)
	if got, _ := b.fromA(second); got != "policy_default_denied" {
		t.Errorf("second first fragment: %s", got)
	}
	fragment := func(offset uint16, more byte, payload []byte) packet {
		header := []byte{17, 0, byte(offset >> 8), byte(offset) | more, 0, 0, 0, 7}
		return packet{source: b.a.IPv6, destination: b.b.IPv6, protocol: 44, options: header, payload: payload}
	}
	for _, step := range []struct {
		name, want string
		packet     packet
	}{
		{"IPv6 later before first", "fragment_unknown", fragment(32, 0, make([]byte, 32))},
		{"IPv6 tiny", "fragment_tiny", fragment(0, 1, make([]byte, 7))},
		{"IPv6 first", "forwarded", fragment(0, 1, append(udp(4000, 80, ""), make([]byte, 24)...))},
		{"IPv6 later", "forwarded", fragment(32, 0, make([]byte, 32))},
		{"IPv6 atomic, denied", "policy_default_denied", fragment(0, 0, udp(4000, 81, ""))},
		{"IPv6 atomic, allowed", "forwarded", fragment(0, 0, udp(4001, 80, ""))},
	} {
		if got, _ := b.fromA(step.packet); got != step.want {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
	}
}

// instructionBudget is how many instructions the verifier may process for one program.
const instructionBudget = 30_000

// N17: the programs load in every configuration. Each stays within its budget of the verifier's million instructions.
func TestInstructionBudget(t *testing.T) {
	observation := row.Observe(t, "N17")
	largest := map[string]uint32{}
	configurations := 0
	for _, events := range []datapath.EventLevel{datapath.EventsNone, datapath.EventsFlows, datapath.EventsPackets} {
		// The smallest maps, the default ones, and large ones.
		for _, flows := range []uint32{1, 0, 1 << 18} {
			configurations++
			t.Run(fmt.Sprintf("events %d, %d flows", events, flows), func(t *testing.T) {
				running := newLab(t, lab.Description{Config: datapath.Config{Events: events, Flows: flows, PendingFlows: flows}})
				status, err := running.Datapath.Status()
				if err != nil {
					t.Fatal(err)
				}
				if len(status.Instructions) != 4 {
					t.Errorf("%d programs are loaded, want 4", len(status.Instructions))
				}
				for name, count := range status.Instructions {
					largest[name] = max(largest[name], count)
					if count == 0 || count > instructionBudget {
						t.Errorf("%s: the verifier looked at %d instructions, the budget is %d", name, count, instructionBudget)
					}
				}
			})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(largest)) {
		observation.Observed += fmt.Sprintf("%s: at most %d instructions of %d; ", name, largest[name], instructionBudget)
	}
	observation.Observed += fmt.Sprintf("%d configurations", configurations)
	observation.Evidence = "verified_insns as the kernel reports them of each program"
}

// Frames that the programs have rewritten have valid checksums.
func TestRewrittenChecksums(t *testing.T) {
	b := newBench(t, lab.Description{Masquerade: true})
	p := packet{source: b.a.IPv4, destination: lab.WorldIPv4, protocol: 17, payload: udp(9000, 53, "query"), from: b.a.Endpoint.MAC, to: b.a.Endpoint.HostMAC}
	binary.BigEndian.PutUint16(p.payload[6:], transportChecksum(p))
	if got, _ := b.fromA(p); got != "forwarded" {
		t.Fatal(got)
	}
	got, out := b.run("to_device", b.lab.Uplink, p.bytes())
	if got != "forwarded" {
		t.Fatal(got)
	}
	if sum := checksum(out[14:34]); sum != 0 {
		t.Errorf("IPv4 checksum is off by %#x", sum)
	}
	sent := packet{source: lab.HostIPv4, destination: lab.WorldIPv4, protocol: 17, payload: out[34:len(p.bytes())]}
	if source := netip.AddrFrom4([4]byte(out[26:30])); source != lab.HostIPv4 {
		t.Errorf("source is %s", source)
	}
	if sum := transportChecksum(sent); sum != 0 {
		t.Errorf("UDP checksum is off by %#x", sum)
	}
}

// transportChecksum returns the sum over the pseudo header and the payload. It is zero when the payload contains the
// right checksum.
func transportChecksum(p packet) uint16 {
	data := append(p.source.AsSlice(), p.destination.AsSlice()...)
	data = append(data, 0, p.protocol)
	data = binary.BigEndian.AppendUint16(data, uint16(len(p.payload)))
	data = append(data, p.payload...)
	if len(data)%2 == 1 {
		data = append(data, 0)
	}
	return checksum(data)
}
