package datapath_test

import (
	"encoding/binary"
	"flag"
	"net"
	"net/netip"
	"testing"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/bpf/lab"
)

var links = flag.String("links", string(datapath.Veth), "kind of the labs' links: veth, or netkit where the kernel has it")

func newLab(t *testing.T, description lab.Description) *lab.Lab {
	t.Helper()
	datapath.RequireRoot(t)
	description.Links = datapath.LinkKind(*links)
	running, err := lab.New(description)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(running.Close)
	return running
}

func apply(t *testing.T, running *lab.Lab, policy datapath.Policy) {
	t.Helper()
	sealed, err := policy.Seal()
	if err != nil {
		t.Fatal(err)
	}
	if err := running.Apply(sealed); err != nil {
		t.Fatal(err)
	}
}

// endpoints are those of most labs: a and b are in the policy, c is not.
func endpoints() []lab.Endpoint {
	return []lab.Endpoint{
		{Name: "a", IPv4: netip.MustParseAddr("10.1.0.1"), IPv6: netip.MustParseAddr("fd00::1")},
		{Name: "b", IPv4: netip.MustParseAddr("10.1.0.2"), IPv6: netip.MustParseAddr("fd00::2")},
		{Name: "c", IPv4: netip.MustParseAddr("10.1.0.3"), IPv6: netip.MustParseAddr("fd00::3")},
	}
}

func rule(action string, identity uint32, protocol string, ports ...uint16) datapath.Rule {
	made := datapath.Rule{Precedence: 10, Action: action, Identity: identity, Protocol: protocol, PortEnd: 65535}
	if len(ports) > 0 {
		made.PortStart, made.PortEnd = ports[0], ports[len(ports)-1]
	}
	return made
}

func enforce(rules ...datapath.Rule) datapath.Direction {
	return datapath.Direction{Enforce: true, Rules: rules}
}

func policyOf(subjects ...datapath.Subject) datapath.Policy {
	return datapath.Policy{Version: 1, Endpoints: subjects}
}

// usualPolicy allows everything to a. It allows port 80 and echo requests to b, and denies port 82.
func usualPolicy() datapath.Policy {
	return policyOf(
		datapath.Subject{Name: "a", Identity: 256},
		datapath.Subject{Name: "b", Identity: 257, Ingress: enforce(
			rule("allow", 0, "TCP", 80), rule("allow", 0, "UDP", 80), rule("allow", 0, "SCTP", 80), rule("deny", 0, "TCP", 82),
			rule("allow", 0, "ICMP", 8), rule("allow", 0, "ICMPv6", 128),
		)},
	)
}

// packet builds frames byte by byte. Fields that are not set get valid values.
type packet struct {
	from, to    net.HardwareAddr
	etherType   uint16
	source      netip.Addr
	destination netip.Addr
	protocol    uint8
	// options follow the IPv4 header, or are the IPv6 extension headers that `protocol` starts.
	options  []byte
	ttl      uint8
	fragment uint16
	id       uint16
	payload  []byte
}

func (p packet) bytes() []byte {
	frame := append([]byte{}, p.to...)
	frame = append(frame, p.from...)
	etherType, ttl := p.etherType, p.ttl
	if ttl == 0 {
		ttl = 64
	}
	switch {
	case etherType != 0:
	case p.destination.Is4():
		etherType = 0x0800
	default:
		etherType = 0x86dd
	}
	frame = binary.BigEndian.AppendUint16(frame, etherType)
	switch {
	case !p.destination.IsValid():
		return append(frame, p.payload...)
	case p.destination.Is4():
		header := make([]byte, 20, 60)
		header = append(header, p.options...)
		header[0] = 0x40 | byte(len(header)/4)
		binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(p.payload)))
		binary.BigEndian.PutUint16(header[4:], p.id)
		binary.BigEndian.PutUint16(header[6:], p.fragment)
		header[8], header[9] = ttl, p.protocol
		copy(header[12:], p.source.AsSlice())
		copy(header[16:], p.destination.AsSlice())
		binary.BigEndian.PutUint16(header[10:], checksum(header))
		frame = append(frame, header...)
	default:
		header := make([]byte, 40)
		header[0] = 0x60
		binary.BigEndian.PutUint16(header[4:], uint16(len(p.options)+len(p.payload)))
		header[6], header[7] = p.protocol, ttl
		copy(header[8:], p.source.AsSlice())
		copy(header[24:], p.destination.AsSlice())
		frame = append(append(frame, header...), p.options...)
	}
	return append(frame, p.payload...)
}

func checksum(data []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

const (
	syn = 0x02
	ack = 0x10
	fin = 0x01
	rst = 0x04
)

func tcp(source, destination uint16, flags byte) []byte {
	header := make([]byte, 20)
	binary.BigEndian.PutUint16(header, source)
	binary.BigEndian.PutUint16(header[2:], destination)
	header[12], header[13] = 5<<4, flags
	return header
}

func udp(source, destination uint16, data string) []byte {
	header := make([]byte, 8)
	binary.BigEndian.PutUint16(header, source)
	binary.BigEndian.PutUint16(header[2:], destination)
	binary.BigEndian.PutUint16(header[4:], uint16(8+len(data)))
	return append(header, data...)
}

func sctp(source, destination uint16) []byte {
	header := make([]byte, 32)
	binary.BigEndian.PutUint16(header, source)
	binary.BigEndian.PutUint16(header[2:], destination)
	header[12] = 1
	return header
}

func icmp(kind, code byte, rest ...byte) []byte {
	return append([]byte{kind, code, 0, 0}, rest...)
}
