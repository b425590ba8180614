package datapath_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/bpf/lab"
	"github.com/palisade-host/palisade/test/support/acceptance/row"
)

// reader is a second, simple parser of what a container sends. It shares nothing with parse.h, and refuses what it does
// not understand. It remembers what has passed, because later packets of a flow and later fragments may follow.
type reader struct {
	from      *lab.Node
	flows     map[readFlow]bool
	fragments map[readFragment]bool
}

type readFlow struct {
	destination netip.Addr
	protocol    byte
	// For echo requests both fields are the identifier.
	source, port uint16
}

type readFragment struct {
	destination netip.Addr
	protocol    byte
	id          uint32
}

// mayPass reports whether a frame may pass: TCP, UDP or SCTP to port 80, echo requests, and what follows them. `passed`
// records that the frame passed.
func (r *reader) mayPass(frame []byte) (may bool, passed func()) {
	if len(frame) < 14 || !slices.Equal(frame[6:12], r.from.Endpoint.MAC) {
		return false, nil
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		return r.ipv4(frame[14:])
	case 0x86dd:
		return r.ipv6(frame[14:])
	}
	return false, nil
}

func (r *reader) ipv4(data []byte) (bool, func()) {
	if len(data) < 20 || data[0]>>4 != 4 {
		return false, nil
	}
	header, total := int(data[0]&15)*4, int(binary.BigEndian.Uint16(data[2:]))
	if header < 20 || total < header || total > len(data) || netip.AddrFrom4([4]byte(data[12:16])) != r.from.IPv4 {
		return false, nil
	}
	field := binary.BigEndian.Uint16(data[6:])
	fragment := readFragment{netip.AddrFrom4([4]byte(data[16:20])), data[9], uint32(binary.BigEndian.Uint16(data[4:]))}
	return r.transport(data[header:total], fragment, int(field&0x1fff)*8, field&0x2000 != 0)
}

func (r *reader) ipv6(data []byte) (bool, func()) {
	if len(data) < 40 || data[0]>>4 != 6 || netip.AddrFrom16([16]byte(data[8:24])) != r.from.IPv6 {
		return false, nil
	}
	length := int(binary.BigEndian.Uint16(data[4:]))
	if length > len(data)-40 {
		return false, nil
	}
	fragment, offset, more := readFragment{destination: netip.AddrFrom16([16]byte(data[24:40])), protocol: data[6]}, 0, false
	rest, fragmented := data[40:40+length], false
	for offset == 0 {
		switch {
		case (fragment.protocol == 0 || fragment.protocol == 60) && len(rest) >= 2:
			size := int(rest[1])*8 + 8
			fragment.protocol = rest[0]
			if size > len(rest) {
				return false, nil
			}
			rest = rest[size:]
			continue
		case fragment.protocol == 44 && len(rest) >= 8 && !fragmented:
			fragmented = true
			field := binary.BigEndian.Uint16(rest[2:])
			offset, more = int(field&0xfff8), field&1 != 0
			fragment.protocol, fragment.id = rest[0], binary.BigEndian.Uint32(rest[4:])
			rest = rest[8:]
			continue
		}
		break
	}
	return r.transport(rest, fragment, offset, more)
}

func (r *reader) transport(data []byte, fragment readFragment, offset int, more bool) (bool, func()) {
	if offset > 0 {
		return r.fragments[fragment] && offset+len(data) <= 65535, func() {}
	}
	flow := readFlow{destination: fragment.destination, protocol: fragment.protocol}
	opens := false
	switch protocol := fragment.protocol; protocol {
	case 6, 17, 132:
		if least := map[byte]int{6: 20, 17: 8, 132: 12}[protocol]; len(data) < least {
			return false, nil
		}
		flow.source, flow.port = binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:])
		opens = flow.port == 80 && (protocol != 6 || (data[12]>>4 >= 5 && data[13]&0x17 == 2))
	case 1, 58:
		request, answer := byte(8), byte(0)
		if protocol == 58 {
			request, answer = 128, 129
		}
		if len(data) < 8 || (protocol == 1) != fragment.destination.Is4() {
			return false, nil
		}
		flow.source = binary.BigEndian.Uint16(data[4:])
		flow.port = flow.source
		opens = data[0] == request
		if !opens && data[0] != answer {
			return r.icmpError(data), func() {}
		}
	default:
		return false, nil
	}
	// What the container sends to itself comes back and is answered.
	if own := flow.destination; own == r.from.IPv4 || own == r.from.IPv6 {
		answered := readFlow{own, flow.protocol, flow.port, flow.source}
		if r.flows[answered] {
			flow = answered
		}
	}
	if opens {
		// The flow exists even when something else stops this packet, such as its hop limit.
		r.flows[flow] = true
	}
	return r.flows[flow], func() {
		if more {
			r.fragments[fragment] = true
		}
	}
}

// icmpError reports whether a message is about an answer to what has passed. It ignores the checksums.
func (r *reader) icmpError(data []byte) bool {
	if !slices.Contains([]byte{3, 11, 12, 1, 2, 4}, data[0]) {
		return false
	}
	inner := data[8:]
	flow := readFlow{}
	switch {
	case len(inner) >= 28 && inner[0]>>4 == 4:
		flow.destination, flow.protocol = netip.AddrFrom4([4]byte(inner[12:16])), inner[9]
		inner = inner[min(int(inner[0]&15)*4, len(inner)):]
	case len(inner) >= 48 && inner[0]>>4 == 6:
		flow.destination, flow.protocol = netip.AddrFrom16([16]byte(inner[8:24])), inner[6]
		inner = inner[40:]
	}
	if len(inner) < 8 {
		return false
	}
	// The answer travels in the opposite direction.
	flow.source, flow.port = binary.BigEndian.Uint16(inner[2:]), binary.BigEndian.Uint16(inner)
	if flow.protocol == 1 || flow.protocol == 58 {
		flow.source = binary.BigEndian.Uint16(inner[4:])
		flow.port = flow.source
	}
	return r.flows[flow]
}

// N5: the programs parse every frame of a container as the other parser does.
func TestParserEqualsAnotherReader(t *testing.T) {
	observation := row.Observe(t, "N5")
	frames := 60_000
	if os.Getenv("PALISADE_FUZZ") != "" {
		frames = 3_000_000
	}
	seed := seedOf(t)
	random := rand.New(rand.NewPCG(seed, 1))
	b := newBench(t, lab.Description{})
	allowed := enforce(
		rule("allow", 0, "TCP", 80), rule("allow", 0, "UDP", 80), rule("allow", 0, "SCTP", 80),
		rule("allow", 0, "ICMP", 8), rule("allow", 0, "ICMPv6", 128),
	)
	apply(t, b.lab, policyOf(datapath.Subject{Name: "a", Identity: 256, Egress: allowed}, datapath.Subject{Name: "b", Identity: 257}))
	reader := &reader{from: b.a, flows: map[readFlow]bool{}, fragments: map[readFragment]bool{}}
	passed, understood := 0, 0
	err := b.lab.InHost(func() error {
		for range frames {
			frame := b.anyFrame(random)
			action, _, err := b.lab.Datapath.Run(datapath.FromContainer, b.a.Endpoint.Interface, frame)
			if err != nil {
				// The kernel refuses an IP packet without a whole header.
				continue
			}
			may, record := reader.mayPass(frame)
			if may {
				understood++
			}
			if action == 2 {
				continue
			}
			if !may && !isNeighbours(frame) {
				return fmt.Errorf("PALISADE_SEED=%d: passed with action %d: %x", seed, action, frame)
			}
			if may {
				passed++
				record()
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// Otherwise the frames show nothing.
	if passed < frames/20 || passed > frames*19/20 {
		t.Errorf("%d of %d frames have passed", passed, frames)
	}
	observation.Observed = "random and damaged frames: none passed that another reading of it does not allow"
	observation.Control = "of the frames that it allows most have passed"
	t.Logf("%d frames, %d allowed, %d passed", frames, understood, passed)
}

// An allowed echo request, with any identifier, does not allow any other kind of message.
func TestOneKindOfICMPAllowsNoOther(t *testing.T) {
	b := newBench(t, lab.Description{})
	for _, id := range []byte{0, 1} {
		for _, test := range []struct {
			name, want string
			packet     packet
		}{
			{"echo request", "forwarded", b.toB(1, icmp(8, 0, 0, id, 0, 1))},
			{"redirect", "spoofed_neighbour", b.toB(1, icmp(5, 0, 0, 0, 0, id))},
			{"timestamp request", "policy_default_denied", b.toB(1, icmp(13, 0, 0, id, 0, 1))},
			{"echo request, IPv6", "forwarded", b.toB6(58, icmp(128, 0, 0, id, 0, 1))},
			{"node information query", "policy_default_denied", b.toB6(58, icmp(139, 0, 0, id, 0, 1))},
		} {
			if got, _ := b.fromA(test.packet); got != test.want {
				t.Errorf("identifier %d, %s: %s, want %s", id, test.name, got, test.want)
			}
		}
	}
}

// A dropped first fragment says nothing about later ones, in particular one with a forged source.
func TestDroppedFirstFragmentIsForgotten(t *testing.T) {
	b := newBench(t, lab.Description{})
	first := b.toB(17, append(udp(4000, 80, ""), make([]byte, 24)...))
	first.fragment, first.id = 0x2000, 9
	later := b.toB(17, make([]byte, 32))
	later.fragment, later.id = 4, 9
	if got, _ := b.fromA(first); got != "forwarded" {
		t.Fatalf("first fragment: %s", got)
	}
	forged := first
	forged.payload = append(udp(4000, 81, ""), make([]byte, 24)...)
	if got, _ := b.from(b.b, forged); got != "spoofed_source" {
		t.Errorf("forged first fragment: %s", got)
	}
	if got, _ := b.fromA(later); got != "forwarded" {
		t.Errorf("later fragment after another's forgery: %s", got)
	}
	first.id, later.id = 10, 10
	first.payload = append(udp(4000, 81, ""), make([]byte, 24)...)
	if got, _ := b.fromA(first); got != "policy_default_denied" {
		t.Errorf("denied first fragment: %s", got)
	}
	if got, _ := b.fromA(later); got != "fragment_unknown" {
		t.Errorf("later fragment of a denied one: %s", got)
	}
}

// A large echo request in IPv6 arrives in fragments. A fragment of a message for the link does not pass.
func TestFragmentsOfICMPv6(t *testing.T) {
	b := newBench(t, lab.Description{})
	fragment := func(kind, id, more byte, offset uint16) packet {
		p := b.toB6(44, append(icmp(kind, 0, 0, 5, 0, 1), make([]byte, 24)...))
		p.options = []byte{58, 0, byte(offset >> 8), byte(offset) | more, 0, 0, 0, id}
		return p
	}
	for _, test := range []struct {
		name, want string
		packet     packet
	}{
		{"first", "forwarded", fragment(128, 1, 1, 0)},
		{"later", "forwarded", fragment(128, 1, 0, 32)},
		{"neighbour advertisement", "spoofed_neighbour", fragment(136, 2, 1, 0)},
		{"its later fragment", "fragment_unknown", fragment(136, 2, 0, 32)},
	} {
		if got, _ := b.fromA(test.packet); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

// isNeighbours reports whether the program itself answers a frame.
func isNeighbours(frame []byte) bool {
	kind := binary.BigEndian.Uint16(frame[12:])
	return kind == 0x0806 || (kind == 0x86dd && len(frame) >= 62 && slices.Contains(frame[54:], 135))
}

// anyFrame returns a valid frame of a, usually with some damage. It uses few addresses, ports and identifiers, so that
// frames match flows and fragments of others.
func (b *bench) anyFrame(random *rand.Rand) []byte {
	small := func(choices ...uint16) uint16 { return choices[random.IntN(len(choices))] }
	v6 := random.IntN(2) == 0
	p := packet{from: b.a.Endpoint.MAC, to: b.a.Endpoint.HostMAC}
	node := []*lab.Node{b.a, b.b, b.b, b.c, b.lab.Nodes[lab.Host], b.lab.Nodes[lab.World]}[random.IntN(6)]
	p.source, p.destination = b.a.IPv4, node.IPv4
	if v6 {
		p.source, p.destination = b.a.IPv6, node.IPv6
	}
	source, port := small(0, 1, 80, 4000), small(80, 80, 80, 81, 0)
	switch random.IntN(6) {
	case 0:
		p.protocol, p.payload = 6, tcp(source, port, byte(small(syn, syn, ack, syn|ack, rst, fin|ack)))
	case 1:
		p.protocol, p.payload = 17, udp(source, port, "palisade")
	case 2:
		p.protocol, p.payload = 132, sctp(source, port)
	case 3, 4:
		p.protocol = 1
		kind := byte(small(8, 8, 0, 5, 13, 3, 11, 17))
		if v6 {
			p.protocol = 58
			kind = byte(small(128, 128, 129, 137, 134, 136, 1, 2, 139))
		}
		p.payload = icmp(kind, 0, 0, byte(small(0, 0, 1)), 0, byte(small(0, 1)))
		if kind == 3 || kind == 11 || (v6 && kind < 5) {
			inner := packet{source: p.destination, destination: p.source, protocol: 17, payload: udp(80, source, "")}
			p.payload = append(p.payload, inner.bytes()[14:]...)
		}
	case 5:
		p.protocol, p.payload = byte(random.IntN(256)), make([]byte, random.IntN(40))
	}
	if random.IntN(4) == 0 {
		b.fragment(random, &p, v6)
	}
	frame := p.bytes()
	for range small(0, 0, 1, 1, 2, 4) {
		// Most decisions depend on the first bytes after the addresses.
		at := 12 + random.IntN(min(len(frame)-12, 60))
		frame[at] ^= 1 << random.IntN(8)
	}
	if random.IntN(8) == 0 {
		frame = frame[:14+random.IntN(len(frame)-14)]
	}
	return frame
}

func (b *bench) fragment(random *rand.Rand, p *packet, v6 bool) {
	offset, more := uint16(random.IntN(2)*random.IntN(6)), uint16(random.IntN(2))
	id := uint16(random.IntN(3))
	if !v6 {
		p.fragment, p.id = more<<13|offset, id
		return
	}
	field := offset<<3 | more
	p.options = []byte{p.protocol, 0, byte(field >> 8), byte(field), 0, 0, 0, byte(id)}
	p.protocol = 44
	if random.IntN(3) == 0 {
		p.options = append([]byte{44, 0, 1, 4, 0, 0, 0, 0}, p.options...)
		p.protocol = 60
	}
}
