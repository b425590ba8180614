package datapath_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/bpf/lab"
	"github.com/palisade-host/palisade/test/support/acceptance/row"
)

// rawSocket sends frames unchanged, and receives what reaches the kernel's network stack: a socket for a single
// protocol receives after the programs, unlike one for all protocols.
type rawSocket struct {
	descriptor int
	address    unix.SockaddrLinklayer
}

func openRaw(t *testing.T, node *lab.Node, ifindex int, protocols ...uint16) rawSocket {
	t.Helper()
	protocol := uint16(0)
	if len(protocols) > 0 {
		protocol = protocols[0]<<8 | protocols[0]>>8
	}
	socket := rawSocket{address: unix.SockaddrLinklayer{Protocol: protocol, Ifindex: ifindex}}
	if err := node.Do(func() (err error) {
		if socket.descriptor, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(protocol)); err != nil {
			return err
		}
		return unix.Bind(socket.descriptor, &socket.address)
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(socket.descriptor) })
	return socket
}

func (s rawSocket) send(t *testing.T, p packet) {
	t.Helper()
	// With netkit the sender transmits into the program, so its call fails on a drop.
	if err := unix.Sendto(s.descriptor, p.bytes(), 0, &s.address); err != nil && !errors.Is(err, unix.ENOBUFS) {
		t.Fatal(err)
	}
}

// receives waits for a frame that contains the given bytes.
func (s rawSocket) receives(want []byte, timeout time.Duration) bool {
	deadline := time.Now().Add(timeout)
	buffer := make([]byte, 2048)
	for time.Now().Before(deadline) {
		n, _, err := unix.Recvfrom(s.descriptor, buffer, unix.MSG_DONTWAIT)
		if err == nil && bytes.Contains(buffer[:n], want) {
			return true
		}
		if err != nil {
			time.Sleep(time.Millisecond)
		}
	}
	return false
}

// N10: what an endpoint forges arrives nowhere and is counted. With the programs detached the same frames arrive.
func TestForgeries(t *testing.T) {
	observation := row.Observe(t, "N10")
	observation.Observed = "source address and MAC, ARP, neighbour and router advertisement, forged reply, VLAN, IP in IP, cut headers: each dropped and counted"
	observation.Control = "with the program detached each arrives"
	running := newLab(t, lab.Description{Endpoints: endpoints()})
	apply(t, running, policyOf(datapath.Subject{Name: "a", Identity: 256}, datapath.Subject{Name: "b", Identity: 257}))
	d, a, b, c, host := running.Datapath, running.Nodes["a"], running.Nodes["b"], running.Nodes["c"], running.Nodes[lab.Host]
	link, err := a.Handle.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	attacker := openRaw(t, a, link.Attrs().Index)
	mark := []byte("palisade-forgery")
	marked := append(udp(1000, 80, ""), mark...)
	ip := packet{source: a.IPv4, destination: b.IPv4, protocol: 17, payload: marked}
	with := func(change func(*packet)) packet {
		p := ip
		change(&p)
		return p
	}
	for _, test := range []struct {
		name, reason string
		protocol     uint16
		forged       packet
		sign         []byte
	}{
		{"source address", "spoofed_source", 0x0800, with(func(p *packet) { p.source = c.IPv4 }), mark},
		{"source address, IPv6", "spoofed_source", 0x86dd,
			packet{source: c.IPv6, destination: b.IPv6, protocol: 17, payload: marked}, mark},
		{"source MAC", "spoofed_mac", 0x0800, with(func(p *packet) { p.from = otherMAC }), mark},
		{"of a VLAN", "vlan", 0x0800, packet{etherType: 0x8100, payload: append([]byte{0, 5, 8, 0}, ip.bytes()[2:]...)}, mark},
		{"IPv4 header cut", "truncated", 0x0800, packet{etherType: 0x0800, payload: mark}, mark},
		{"IPv6 header cut", "truncated", 0x86dd, packet{etherType: 0x86dd, payload: mark}, mark},
		{"IP in IP", "tunnel", 0x0800, with(func(p *packet) { p.protocol = 4 }), mark},
		{"forged reply", "no_connection", 0x0800, with(func(p *packet) { p.protocol, p.payload = 6, append(tcp(80, 1000, syn|ack), mark...) }), mark},
		{"ARP", "spoofed_arp", 0x0806, arp(2, a.Endpoint.MAC, b.IPv4, lab.HostIPv4), append(append([]byte{}, b.IPv4.AsSlice()...), make([]byte, 6)...)},
		{"neighbour advertisement", "spoofed_neighbour", 0x86dd, neighbour(136, b.IPv6, b.IPv6, a.Endpoint.MAC), b.IPv6.AsSlice()},
		{"router advertisement", "router_advertisement", 0x86dd, neighbour(134, linkLocal, gateway6, a.Endpoint.MAC), linkLocal.AsSlice()},
	} {
		t.Run(test.name, func(t *testing.T) {
			forged := test.forged
			if forged.from == nil {
				forged.from = a.Endpoint.MAC
			}
			forged.to = a.Endpoint.HostMAC
			stack := openRaw(t, host, a.Endpoint.Interface, test.protocol)
			victimLink, err := b.Handle.LinkByName("eth0")
			if err != nil {
				t.Fatal(err)
			}
			victim := openRaw(t, b, victimLink.Attrs().Index, test.protocol)
			before := dropped(t, d, test.reason)
			attacker.send(t, forged)
			if stack.receives(test.sign, 30*time.Millisecond) || victim.receives(test.sign, 10*time.Millisecond) {
				t.Error("the forgery arrived")
			}
			if after := dropped(t, d, test.reason); after != before+1 {
				t.Errorf("%s was counted %d times", test.reason, after-before)
			}
			if err := d.Detach(a.Endpoint.Interface, datapath.FromContainer); err != nil {
				t.Fatal(err)
			}
			closeInstead := passInstead(t, running, a.Endpoint)
			attacker.send(t, forged)
			closeInstead()
			if !stack.receives(test.sign, time.Second) {
				t.Error("without the program the forgery does not arrive: this test shows nothing")
			}
			if err := running.InHost(func() error { return d.Reattach(a.Endpoint.Interface, datapath.FromContainer) }); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// passInstead attaches a program that passes everything, because a netkit link without a program drops everything.
func passInstead(t *testing.T, running *lab.Lab, endpoint datapath.Endpoint) (undo func()) {
	t.Helper()
	if endpoint.Kind != datapath.Netkit {
		return func() {}
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	var attached link.Link
	if err := running.InHost(func() (err error) {
		attached, err = link.AttachNetkit(link.NetkitOptions{Interface: endpoint.Interface, Program: program, Attach: ebpf.AttachNetkitPeer})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = attached.Close()
		_ = program.Close()
	}
}

// No machine outside can pretend to be an endpoint.
func TestForgeriesFromOutside(t *testing.T) {
	running := newLab(t, lab.Description{Endpoints: endpoints()})
	apply(t, running, policyOf(datapath.Subject{Name: "a", Identity: 256}, datapath.Subject{Name: "b", Identity: 257, Ingress: enforce(rule("allow", 256, "UDP", 80))}))
	a, b := running.Nodes["a"], running.Nodes["b"]
	uplink, err := running.Nodes[lab.Host].Handle.LinkByName("uplink")
	if err != nil {
		t.Fatal(err)
	}
	outside := openRaw(t, running.Nodes[lab.World], running.WorldLink)
	victimLink, err := b.Handle.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	victim := openRaw(t, b, victimLink.Attrs().Index, 0x0800)
	forged := packet{from: otherMAC, to: uplink.Attrs().HardwareAddr, source: a.IPv4, destination: b.IPv4, protocol: 17, payload: udp(1, 80, "from-a")}
	outside.send(t, forged)
	if victim.receives([]byte("from-a"), 50*time.Millisecond) || dropped(t, running.Datapath, "spoofed_source") == 0 {
		t.Error("an endpoint's address from outside is not refused")
	}
	// The control: the endpoint itself is allowed.
	if result := probe(t, running, "a", "b", 4, "UDP", 80); !result.Allowed {
		t.Errorf("%+v", result)
	}
}

func dropped(t *testing.T, d *datapath.Datapath, reason string) (sum uint64) {
	t.Helper()
	counts, err := d.Counts()
	if err != nil {
		t.Fatal(err)
	}
	for _, count := range counts {
		if count.Reason == reason {
			sum += count.Packets
		}
	}
	return sum
}

// A link without an entry, or an endpoint without a policy, passes nothing.
func TestClosedWhenAbsent(t *testing.T) {
	running := newLab(t, lab.Description{Endpoints: endpoints()})
	for _, to := range []string{"b", lab.Host, lab.World} {
		for _, family := range []int{4, 6} {
			if result := probe(t, running, "a", to, family, "UDP", 80); result.Allowed || result.Reason != "no_policy" {
				t.Errorf("a → %s without a policy: %+v", to, result)
			}
		}
	}
	apply(t, running, usualPolicy())
	if err := running.Datapath.DeleteInterface(running.Nodes["a"].Endpoint.Interface); err != nil {
		t.Fatal(err)
	}
	if connection, err := dial(running.Nodes["a"], "tcp", netip.AddrPortFrom(running.Nodes["b"].IPv4, 80).String()); err == nil {
		connection.Close()
		t.Error("an interface without an entry passes packets")
	} else if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() {
		t.Error(err)
	}
	if dropped(t, running.Datapath, "unknown_endpoint") == 0 {
		t.Error("nothing was counted")
	}
}
