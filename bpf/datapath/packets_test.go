package datapath_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/bpf/lab"
	"github.com/palisade-host/palisade/test/acceptance/row"
)

// bench hands frames to programs by BPF_PROG_TEST_RUN, and tells how each ended.
type bench struct {
	t       *testing.T
	lab     *lab.Lab
	a, b, c *lab.Node
	uplink  net.HardwareAddr
}

func newBench(t *testing.T, description lab.Description) *bench {
	t.Helper()
	description.Endpoints = endpoints()
	running := newLab(t, description)
	apply(t, running, usualPolicy())
	// Their kernels' own packets would be counted, too.
	for _, endpoint := range description.Endpoints {
		handle := running.Nodes[endpoint.Name].Handle
		link, err := handle.LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		if err := handle.LinkSetDown(link); err != nil {
			t.Fatal(err)
		}
	}
	return &bench{
		t: t, lab: running, a: running.Nodes["a"], b: running.Nodes["b"], c: running.Nodes["c"],
		uplink: net.HardwareAddr{2, 0, 0, 0, 0, 9},
	}
}

// reasons counts what met a hook since the start, by reason.
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

// fromA sends as a's interface; its MAC addresses are set unless the packet has some.
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

func (b *bench) run(hook string, ifindex int, frame []byte) (reason string, out []byte) {
	b.t.Helper()
	before := b.reasons(hook)
	out, err := b.hand(hook, ifindex, frame)
	if errors.Is(err, unix.EINVAL) && len(frame) < 14+40 {
		// The kernel makes no packet of IP without a whole header.
		return "refused", nil
	}
	if err != nil {
		b.t.Fatalf("%s: %v", hook, err)
	}
	for name, count := range b.reasons(hook) {
		if count > before[name] {
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

// toB is a packet from a to b.
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

// N4: every way in which a packet can end is reached, by a packet that differs from a good one in that point only.
func TestEveryReasonIsReached(t *testing.T) {
	observation := row.Observe(t, "N4")
	b := newBench(t, lab.Description{Masquerade: true})
	world, host := lab.WorldIPv4, lab.HostIPv4
	good := func() packet { return b.toB(6, tcp(1000, 80, syn)) }
	with := func(change func(*packet)) packet {
		p := good()
		change(&p)
		return p
	}
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
		{"ARP with another's MAC", "spoofed_arp", arp(1, otherMAC, b.a.IPv4, datapath.GatewayIPv4)},
		{"ARP for a neighbour", "arp_unexpected", arp(1, b.a.Endpoint.MAC, b.a.IPv4, b.b.IPv4)},
		{"unasked ARP reply", "arp_unexpected", arp(2, b.a.Endpoint.MAC, b.a.IPv4, datapath.GatewayIPv4)},
		{"advertisement in the name of another", "spoofed_neighbour", neighbour(136, b.b.IPv6, b.b.IPv6, b.a.Endpoint.MAC)},
		{"solicitation in the name of another", "spoofed_neighbour", neighbour(135, b.b.IPv6, gateway6, b.a.Endpoint.MAC)},
		{"redirect", "spoofed_neighbour", neighbour(137, linkLocal, gateway6, b.a.Endpoint.MAC)},
		{"router advertisement", "router_advertisement", neighbour(134, linkLocal, gateway6, b.a.Endpoint.MAC)},
		{"IP in IP", "tunnel", with(func(p *packet) { p.protocol = 4 })},
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
		{"error about nothing", "icmp_unrelated", b.toB(1, icmp(3, 3, append([]byte{0, 0, 0, 0},
			packet{source: b.b.IPv4, destination: b.a.IPv4, protocol: 6, payload: tcp(80, 999, ack)}.bytes()[2:]...)...))},
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

	// Two endpoints with one source port to one destination: SCTP cannot be given another, TCP has a range of them.
	leave := func(node *lab.Node, protocol uint8, payload []byte) string {
		p := packet{source: node.IPv4, destination: world, protocol: protocol, payload: payload, from: node.Endpoint.MAC, to: node.Endpoint.HostMAC}
		if got, _ := b.from(node, p); got != "forwarded" {
			return got
		}
		got, _ := b.run("to_device", b.lab.Uplink, p.bytes())
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

// N5: with any number of options the real ports are judged, wherever a header of 20 bytes would have had them.
func TestHeaderLengths(t *testing.T) {
	observation := row.Observe(t, "N5")
	observation.Observed = "IPv4 headers of 0 to 60 bytes, with options that look like an allowed port: the real port is judged"
	observation.Control = "the same packets to the allowed port pass"
	b := newBench(t, lab.Description{})
	for words := 0; words <= 10; words++ {
		for port, want := range map[uint16]string{80: "forwarded", 81: "policy_default_denied"} {
			p := b.toB(6, tcp(uint16(2000+words), port, syn))
			// Options that look like a TCP header to an allowed port.
			p.options = slices.Repeat(tcp(uint16(2000+words), 161-port, syn), 2)[:words*4]
			if got, _ := b.fromA(p); got != want {
				t.Errorf("header of %d bytes, port %d: %s, want %s", 20+words*4, port, got, want)
			}
		}
	}
	for words := range 5 {
		p := b.toB(6, tcp(1000, 80, syn))
		p.from, p.to = b.a.Endpoint.MAC, b.a.Endpoint.HostMAC
		frame := p.bytes()
		frame[14] = 0x40 | byte(words)
		if got, _ := b.run("from_container", b.a.Endpoint.Interface, frame); got != "bad_header" {
			t.Errorf("header of %d words: %s", words, got)
		}
	}
}

// N5: a packet cut at any byte is never taken for a whole one, whether the IP header says so or not.
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

// N5: fragments follow the verdict on the first one, which has to come first.
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
	// A second "first" fragment with another port does not inherit the verdict on the one before.
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

// instructionBudget is how many instructions the verifier may look at for one program.
const instructionBudget = 30_000

// N17: every program stays within its budget of the verifier's million.
func TestInstructionBudget(t *testing.T) {
	observation := row.Observe(t, "N17")
	running := newLab(t, lab.Description{})
	status, err := running.Datapath.Status()
	if err != nil {
		t.Fatal(err)
	}
	for name, count := range status.Instructions {
		observation.Observed += fmt.Sprintf("%s: %d instructions of %d; ", name, count, instructionBudget)
		if count == 0 || count > instructionBudget {
			t.Errorf("%s: the verifier looked at %d instructions, the budget is %d", name, count, instructionBudget)
		}
	}
}

// Frames as the programs rewrite them have valid checksums.
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

// transportChecksum sums the pseudo header and the payload; zero when the payload has its own right sum in it.
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
