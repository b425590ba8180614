package datapath

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Plug describes the link between a container and the host.
type Plug struct {
	// Name is the endpoint's name. Container and Host are the names of the link's two ends.
	Name, Container, Host string
	IPv4, IPv6            netip.Addr
	// MTU is that of both ends; zero means the kernel's default.
	MTU int
	// Kind is the kind of the link. Default: a netkit pair where the kernel supports it, otherwise a veth pair.
	Kind LinkKind
}

// LinkKind is a kind of link between a container and the host.
type LinkKind string

// With a netkit pair (Linux 6.7 and later) the container transmits directly into the program, and without a program
// nothing passes. With a veth pair the program sees what arrives at the host's end, and without a program the packets
// reach the host's network stack.
const (
	Netkit LinkKind = "netkit"
	Veth   LinkKind = "veth"
)

// Connect creates the link with its addresses and routes, and returns the endpoint for AddEndpoint. Both ends are set
// up only after admit has returned, so nothing can be sent before.
//
// On an error nothing of the link remains.
func (p Plug) Connect(host *netlink.Handle, container netns.NsHandle, admit func(Endpoint) error) (err error) {
	inside, err := netlink.NewHandleAt(container, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer inside.Close()
	pair, err := p.addPair(host, container)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, host.LinkDel(pair))
		}
	}()
	hostEnd, err := host.LinkByName(p.Host)
	if err != nil {
		return err
	}
	containerEnd, err := inside.LinkByName(p.Container)
	if err != nil {
		return err
	}
	if p.MTU != 0 {
		if err := inside.LinkSetMTU(containerEnd, p.MTU); err != nil {
			return err
		}
	}
	// With a link-local address the host's end would only send needless packets.
	if err := host.LinkSetIP6AddrGenMode(hostEnd, 1); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("link %s: no link-local address: %w", p.Host, err)
	}
	endpoint := Endpoint{
		Name: p.Name, Interface: hostEnd.Attrs().Index, IPv4: p.IPv4, IPv6: p.IPv6,
		MAC: containerEnd.Attrs().HardwareAddr, HostMAC: hostEnd.Attrs().HardwareAddr,
		Kind: LinkKind(pair.Type()),
	}
	if err := admit(endpoint); err != nil {
		return err
	}
	if err := host.LinkSetUp(hostEnd); err != nil {
		return err
	}
	if err := inside.LinkSetUp(containerEnd); err != nil {
		return err
	}
	for _, address := range endpoint.addresses() {
		if err := p.route(host, hostEnd, inside, containerEnd, address); err != nil {
			return fmt.Errorf("address %s: %w", address, err)
		}
		if err := routeSelfTraffic(inside, container, containerEnd.Attrs().Index, address); err != nil {
			return fmt.Errorf("address %s: %w", address, err)
		}
	}
	return nil
}

// addPair creates the link.
func (p Plug) addPair(host *netlink.Handle, container netns.NsHandle) (netlink.Link, error) {
	var pair netlink.Link
	switch p.Kind {
	case "", Netkit:
		pair = p.netkit(container)
	case Veth:
		pair = p.veth(container)
	default:
		return nil, fmt.Errorf("link %s: kind %q is neither %s nor %s", p.Host, p.Kind, Netkit, Veth)
	}
	err := host.LinkAdd(pair)
	if p.Kind == "" && errors.Is(err, unix.EOPNOTSUPP) {
		pair = p.veth(container)
		err = host.LinkAdd(pair)
	}
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", p.Host, err)
	}
	return pair, nil
}

func (p Plug) netkit(container netns.NsHandle) netlink.Link {
	pair := &netlink.Netkit{
		LinkAttrs: p.attributes(), PeerPolicy: netlink.NETKIT_POLICY_BLACKHOLE,
		Scrub: netlink.NETKIT_SCRUB_DEFAULT, PeerScrub: netlink.NETKIT_SCRUB_DEFAULT,
	}
	pair.SetPeerAttrs(&netlink.LinkAttrs{
		Name: p.Container, MTU: p.MTU, HardwareAddr: newMAC(), Namespace: netlink.NsFd(container),
	})
	return pair
}

func (p Plug) veth(container netns.NsHandle) netlink.Link {
	return &netlink.Veth{
		LinkAttrs: p.attributes(),
		PeerName:  p.Container, PeerHardwareAddr: newMAC(), PeerNamespace: netlink.NsFd(container),
	}
}

// attributes returns those of the host's end. They include the addresses, because udev replaces an address that the
// kernel chose, even while packets are in transit.
func (p Plug) attributes() netlink.LinkAttrs {
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MTU, attributes.HardwareAddr = p.Host, p.MTU, newMAC()
	return attributes
}

// newMAC returns a random, locally administered unicast address.
func newMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	_, _ = rand.Read(mac)
	mac[0] = mac[0]&^1 | 2
	return mac
}

// route gives the container one address and a gateway, and the host a route and a permanent neighbour entry. So the
// host never asks the container for its address.
func (p Plug) route(host *netlink.Handle, hostEnd netlink.Link, inside *netlink.Handle, containerEnd netlink.Link, address netip.Addr) error {
	gateway, family := GatewayIPv4, netlink.FAMILY_V4
	if address.Is6() {
		gateway, family = GatewayIPv6, netlink.FAMILY_V6
	}
	own := &netlink.Addr{IPNet: single(address)}
	if address.Is6() {
		// The prefix gets no route over the link; see routeSelfTraffic.
		own.Flags = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
	}
	if err := inside.AddrAdd(containerEnd, own); err != nil {
		return err
	}
	index := containerEnd.Attrs().Index
	onLink := &netlink.Route{LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: single(gateway)}
	byGateway := &netlink.Route{LinkIndex: index, Gw: gateway.AsSlice(), Family: family}
	for _, route := range []*netlink.Route{onLink, byGateway} {
		if err := inside.RouteAdd(route); err != nil {
			return err
		}
	}
	if err := host.NeighSet(&netlink.Neigh{
		LinkIndex: hostEnd.Attrs().Index, Family: family, State: netlink.NUD_PERMANENT,
		IP: address.AsSlice(), HardwareAddr: containerEnd.Attrs().HardwareAddr,
	}); err != nil {
		return err
	}
	return host.RouteReplace(&netlink.Route{LinkIndex: hostEnd.Attrs().Index, Dst: single(address), Scope: netlink.SCOPE_LINK})
}

// single returns the network of one address.
func single(address netip.Addr) *net.IPNet {
	return &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(address.BitLen(), address.BitLen())}
}
