package datapath_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/bpf/lab"
	"github.com/palisade-host/palisade/test/support/acceptance/row"
)

// transferred is the number of bytes in each direction of a transfer.
const transferred = 1 << 20

// dialFor connects, and gives up after a duration.
func dialFor(atMost time.Duration, from *lab.Node, to netip.AddrPort) (net.Conn, error) {
	connection, err := dial(from, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return connection, connection.SetDeadline(time.Now().Add(atMost))
}

// transfer sends to an echo and compares what it returns.
func transfer(from *lab.Node, to netip.AddrPort) error {
	connection, err := dialFor(20*time.Second, from, to)
	if err != nil {
		return err
	}
	defer connection.Close()
	sent, received := make([]byte, transferred), make([]byte, transferred)
	_, _ = rand.Read(sent)
	writing := make(chan error, 1)
	go func() {
		_, err := connection.Write(sent)
		writing <- err
	}()
	if n, err := io.ReadFull(connection, received); err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", n, len(received), err)
	}
	if err := <-writing; err != nil {
		return err
	}
	if !bytes.Equal(sent, received) {
		return errors.New("what came back is not what was sent")
	}
	return nil
}

// end is one end of a link.
type end struct {
	in   *lab.Namespace
	name string
}

func (e end) setMTU(t *testing.T, mtu int) {
	t.Helper()
	link, err := e.in.Handle.LinkByName(e.name)
	if err == nil {
		err = e.in.Handle.LinkSetMTU(link, mtu)
	}
	if err != nil {
		t.Fatalf("%s: MTU %d: %v", e.name, mtu, err)
	}
}

// setOffloads enables or disables segmentation, aggregation and checksums of a device (ethtool).
func (e end) setOffloads(t *testing.T, on bool) {
	t.Helper()
	type value struct{ command, data uint32 }
	type request struct {
		name [unix.IFNAMSIZ]byte
		data *value
		_    [16]byte
	}
	err := e.in.Do(func() error {
		socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		commands := []uint32{unix.ETHTOOL_STXCSUM, unix.ETHTOOL_SSG, unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_SGRO}
		for _, command := range commands {
			asked := request{data: &value{command: command}}
			copy(asked.name[:], e.name)
			if on {
				asked.data.data = 1
			}
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(socket), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&asked))); errno != 0 {
				return fmt.Errorf("ethtool command %#x: %w", command, errno)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", e.name, err)
	}
}

// publishEcho serves an echo on port 80 of a, b and the world, and publishes a's as 8080.
func publishEcho(t *testing.T, running *lab.Lab) {
	t.Helper()
	for _, family := range []int{4, 6} {
		for _, name := range []string{"a", "b", lab.World} {
			serveEcho(t, running.Nodes[name], netip.AddrPortFrom(running.Nodes[name].Address(family), 80))
		}
		published := datapath.Published{
			Address: running.Nodes[lab.Host].Address(family), Port: 8080, Protocol: "TCP",
			Backend: running.Nodes["a"].Address(family), BackendPort: 80,
		}
		if err := running.Datapath.Publish(published); err != nil {
			t.Fatal(err)
		}
	}
}

// N11: transfers are complete at every MTU, with and without offloads, between endpoints, masqueraded and through a
// published port.
func TestTransfers(t *testing.T) {
	observation := row.Observe(t, "N11")
	running := newLab(t, lab.Description{Endpoints: endpoints(), Masquerade: true})
	apply(t, running, policyOf(datapath.Subject{Name: "a", Identity: 256}, datapath.Subject{Name: "b", Identity: 257}))
	publishEcho(t, running)
	a, b, host, world := running.Nodes["a"], running.Nodes["b"], running.Nodes[lab.Host], running.Nodes[lab.World]
	ends := []end{
		{a.Namespace, "eth0"}, {b.Namespace, "eth0"}, {host.Namespace, "ep0"}, {host.Namespace, "ep1"},
		{host.Namespace, "uplink"}, {world.Namespace, "uplink"},
	}
	count := 0
	for _, mtu := range []int{1280, 1500, 9000} {
		for _, offloads := range []bool{true, false} {
			for _, linkEnd := range ends {
				linkEnd.setMTU(t, mtu)
				linkEnd.setOffloads(t, offloads)
			}
			for _, family := range []int{4, 6} {
				for name, path := range map[string]struct {
					from *lab.Node
					to   netip.AddrPort
				}{
					"between endpoints": {a, netip.AddrPortFrom(b.Address(family), 80)},
					"masqueraded":       {a, netip.AddrPortFrom(world.Address(family), 80)},
					"published":         {world, netip.AddrPortFrom(host.Address(family), 8080)},
				} {
					if err := transfer(path.from, path.to); err != nil {
						t.Errorf("MTU %d, offloads %t, IPv%d, %s: %v", mtu, offloads, family, name, err)
					}
					count++
				}
			}
		}
	}
	observation.Observed = fmt.Sprintf("%d transfers of %d bytes each way: MTU 1280, 1500 and 9000, offloads on and off, between endpoints, masqueraded, published", count, transferred)
}

// Addresses of a machine beyond the world.
var (
	farIPv4, farIPv6       = netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8:0:3::2")
	routerIPv4, routerIPv6 = netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:0:3::1")
)

// newFar makes the world a router to one more machine. The router's path to it has a small MTU that the machine does
// not know, so only the router's ICMP errors report it.
func newFar(t *testing.T, running *lab.Lab, mtu int) *lab.Node {
	t.Helper()
	host, world := running.Nodes[lab.Host], running.Nodes[lab.World]
	namespace, err := lab.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(namespace.Close)
	far := &lab.Node{Namespace: namespace, Name: "far", IPv4: farIPv4, IPv6: farIPv6}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = "narrow"
	must(world.Handle.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: "wide", PeerNamespace: netlink.NsFd(namespace.NS)}))
	for _, side := range []struct {
		in        *lab.Namespace
		name      string
		addresses []netip.Addr
	}{
		{world.Namespace, "narrow", []netip.Addr{routerIPv4, routerIPv6}}, {namespace, "wide", []netip.Addr{farIPv4, farIPv6}},
	} {
		link, err := side.in.Handle.LinkByName(side.name)
		must(err)
		for _, address := range side.addresses {
			added := &netlink.Addr{IPNet: &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(address.BitLen()-8, address.BitLen())}}
			if address.Is6() {
				added.Flags = unix.IFA_F_NODAD
			}
			must(side.in.Handle.AddrAdd(link, added))
		}
		must(side.in.Handle.LinkSetUp(link))
	}
	end{world.Namespace, "narrow"}.setMTU(t, mtu)
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		must(world.Sysctl(name, "1"))
	}
	wide, err := namespace.Handle.LinkByName("wide")
	must(err)
	for _, way := range []struct {
		in      *netlink.Handle
		index   int
		gateway netip.Addr
	}{
		{host.Handle, running.Uplink, lab.WorldIPv4}, {host.Handle, running.Uplink, lab.WorldIPv6},
		{namespace.Handle, wide.Attrs().Index, routerIPv4}, {namespace.Handle, wide.Attrs().Index, routerIPv6},
	} {
		family := netlink.FAMILY_V4
		if way.gateway.Is6() {
			family = netlink.FAMILY_V6
		}
		must(way.in.RouteAdd(&netlink.Route{LinkIndex: way.index, Gw: way.gateway.AsSlice(), Family: family}))
	}
	// IPv6 of a new link works a moment after the link is up.
	for _, family := range []int{4, 6} {
		serve(t, far, netip.AddrPortFrom(far.Address(family), 7), func(net.Conn) {})
		deadline := time.Now().Add(10 * time.Second)
		for {
			connection, err := dial(host, "tcp", netip.AddrPortFrom(far.Address(family), 7).String())
			if err == nil {
				connection.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	return far
}

// N11: the ICMP errors of a router about a small MTU reach the endpoint through masquerade and through a published
// port.
func TestPathMTUDiscovery(t *testing.T) {
	observation := row.Observe(t, "N11")
	const narrow = 1300
	running := newLab(t, lab.Description{Endpoints: endpoints(), Masquerade: true})
	apply(t, running, policyOf(datapath.Subject{Name: "a", Identity: 256}, datapath.Subject{Name: "b", Identity: 257}))
	publishEcho(t, running)
	far := newFar(t, running, narrow)
	a, host := running.Nodes["a"], running.Nodes[lab.Host]
	for _, family := range []int{4, 6} {
		serveSink(t, far, netip.AddrPortFrom(far.Address(family), 80))
		if err := upload(a, netip.AddrPortFrom(far.Address(family), 80)); err != nil {
			t.Errorf("IPv%d, masqueraded: %v", family, err)
		}
		if mtu, err := pathMTU(a, far.Address(family)); err != nil || mtu != narrow {
			t.Errorf("IPv%d: the endpoint takes the path for %d bytes wide (%v), it is %d", family, mtu, err, narrow)
		}
		// A path MTU is stored per endpoint and destination. The published port is b's, and b has not received an
		// error.
		serveSource(t, running.Nodes["b"], netip.AddrPortFrom(running.Nodes["b"].Address(family), 81))
		published := datapath.Published{
			Address: host.Address(family), Port: 8081, Protocol: "TCP", Backend: running.Nodes["b"].Address(family), BackendPort: 81,
		}
		if err := running.Datapath.Publish(published); err != nil {
			t.Fatal(err)
		}
		if err := download(far, netip.AddrPortFrom(host.Address(family), 8081)); err != nil {
			t.Errorf("IPv%d, published: %v", family, err)
		}
		if mtu, err := pathMTU(running.Nodes["b"], far.Address(family)); err != nil || mtu != narrow {
			t.Errorf("IPv%d: the endpoint of the published port takes the path for %d bytes wide (%v), it is %d", family, mtu, err, narrow)
		}
	}
	observation.Observed = fmt.Sprintf("a path of %d bytes behind a link of 1500: both ends learn it through masquerade and published port, and %d bytes arrive", narrow, transferred)
}

// pathMTU returns the MTU that a node's kernel assumes for a path.
func pathMTU(node *lab.Node, to netip.Addr) (mtu int, err error) {
	err = node.Do(func() error {
		domain, level, option := unix.AF_INET, unix.IPPROTO_IP, unix.IP_MTU
		var address unix.Sockaddr
		if to.Is4() {
			address = &unix.SockaddrInet4{Port: 9, Addr: to.As4()}
		} else {
			domain, level, option = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_MTU
			address = &unix.SockaddrInet6{Port: 9, Addr: to.As16()}
		}
		socket, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		if err := unix.Connect(socket, address); err != nil {
			return err
		}
		mtu, err = unix.GetsockoptInt(socket, level, option)
		return err
	})
	return mtu, err
}

// serve calls `do` with each connection to a port.
func serve(t *testing.T, node *lab.Node, address netip.AddrPort, do func(net.Conn)) {
	t.Helper()
	stop, err := node.Answer(address.String(), do)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
}

// serveSink reads everything and answers with a word.
func serveSink(t *testing.T, node *lab.Node, address netip.AddrPort) {
	t.Helper()
	serve(t, node, address, func(connection net.Conn) {
		if _, err := io.CopyN(io.Discard, connection, transferred); err == nil {
			_, _ = io.WriteString(connection, "all")
		}
	})
}

// serveSource sends.
func serveSource(t *testing.T, node *lab.Node, address netip.AddrPort) {
	t.Helper()
	serve(t, node, address, func(connection net.Conn) { _, _ = connection.Write(make([]byte, transferred)) })
}

func upload(from *lab.Node, to netip.AddrPort) error {
	connection, err := dialFor(20*time.Second, from, to)
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := connection.Write(make([]byte, transferred)); err != nil {
		return err
	}
	word, err := io.ReadAll(connection)
	if err == nil && string(word) != "all" {
		err = fmt.Errorf("the answer is %q", word)
	}
	return err
}

func download(to *lab.Node, from netip.AddrPort) error {
	connection, err := dialFor(20*time.Second, to, from)
	if err != nil {
		return err
	}
	defer connection.Close()
	n, err := io.Copy(io.Discard, connection)
	if err == nil && n != transferred {
		err = fmt.Errorf("%d of %d bytes", n, transferred)
	}
	return err
}
