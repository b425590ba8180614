package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/bpf/datapath"
)

// Addresses of the host and of the machine on the same network.
var (
	HostIPv4  = netip.MustParseAddr("192.0.2.1")
	HostIPv6  = netip.MustParseAddr("2001:db8:0:2::1")
	WorldIPv4 = netip.MustParseAddr("192.0.2.2")
	WorldIPv6 = netip.MustParseAddr("2001:db8:0:2::2")
)

// Host and World are the names of the host and of that machine in probes.
const (
	Host  = "host"
	World = "world"
)

// Description describes a lab.
type Description struct {
	Endpoints []Endpoint `json:"endpoints"`
	// Policy is a compiled policy; without one nothing passes.
	Policy json.RawMessage `json:"policy,omitempty"`
	// Masquerade replaces the endpoints' addresses by the host's.
	Masquerade bool `json:"masquerade,omitempty"`
	// Links is the kind of the links between endpoints and the host.
	Links datapath.LinkKind `json:"links,omitempty"`
	// TimeoutSeconds is the timeout of a probe that is neither answered nor dropped visibly; zero means Timeout.
	TimeoutSeconds uint `json:"timeoutSeconds,omitempty"`
	// Config is that of the datapath, except for its pins.
	Config datapath.Config `json:"-"`
	// Unwatched labs read no events and run no probes.
	Unwatched bool `json:"-"`
}

// Endpoint is an endpoint of a lab. Its identity is in the policy; an identity given here must be the same.
type Endpoint struct {
	Name     string     `json:"name"`
	Identity uint32     `json:"identity,omitempty"`
	IPv4     netip.Addr `json:"ipv4"`
	IPv6     netip.Addr `json:"ipv6"`
}

// Node is a network namespace with its addresses.
type Node struct {
	*Namespace
	Name       string
	IPv4, IPv6 netip.Addr
	// Endpoint is the declared endpoint; empty for the host and the world.
	Endpoint datapath.Endpoint

	mutex   sync.Mutex
	servers map[string]func()
}

// Address returns the address of a family: 4 or 6.
func (n *Node) Address(family int) netip.Addr {
	if family == 4 {
		return n.IPv4
	}
	return n.IPv6
}

// Lab is a running lab.
type Lab struct {
	Datapath *datapath.Datapath
	Nodes    map[string]*Node
	// Uplink is the index of the host's device to the world, and WorldLink that of its other end.
	Uplink, WorldLink int
	// Pins is the folder of the datapath's pins.
	Pins string

	description Description
	pins        *os.File
	watcher     *watcher
}

// New creates a lab and applies its policy. It needs root.
func New(description Description) (lab *Lab, err error) {
	lab = &Lab{Nodes: map[string]*Node{}, description: description}
	defer func() {
		if err != nil {
			lab.Close()
		}
	}()
	if lab.pins, err = bpfFileSystem(); err != nil {
		return lab, err
	}
	lab.Pins = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), lab.pins.Fd())
	config := description.Config
	config.Pins = lab.Pins
	if config.Events == datapath.EventsNone && !description.Unwatched {
		config.Events = datapath.EventsFlows
	}
	if err = lab.network(); err != nil {
		return lab, err
	}
	if err = lab.awaitNetwork(); err != nil {
		return lab, err
	}
	// Links can be attached only in the host's namespace.
	if lab.Datapath, err = datapath.Open(config); err != nil {
		return lab, err
	}
	if err = lab.devices(); err != nil {
		return lab, err
	}
	if len(description.Policy) != 0 {
		if err = lab.Apply(description.Policy); err != nil {
			return lab, err
		}
	}
	for i, endpoint := range description.Endpoints {
		if err = lab.Add(endpoint, fmt.Sprintf("ep%d", i)); err != nil {
			return lab, err
		}
	}
	if !description.Unwatched {
		lab.watcher, err = watch(lab.Datapath)
	}
	return lab, err
}

// bpfFileSystem mounts a BPF file system and detaches it at once. It exists as long as the file is open.
func bpfFileSystem() (*os.File, error) {
	folder, err := os.MkdirTemp("", "palisade-lab-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(folder) }()
	if err := unix.Mount("bpf", folder, "bpf", 0, ""); err != nil {
		return nil, fmt.Errorf("mount a BPF file system: %w", err)
	}
	opened, err := os.Open(folder)
	if detachError := unix.Unmount(folder, unix.MNT_DETACH); err == nil {
		err = detachError
	}
	return opened, err
}

// network creates the host, the world, and the link between them.
func (l *Lab) network() error {
	for _, node := range []*Node{
		{Name: Host, IPv4: HostIPv4, IPv6: HostIPv6},
		{Name: World, IPv4: WorldIPv4, IPv6: WorldIPv6},
	} {
		namespace, err := NewNamespace()
		if err != nil {
			return err
		}
		node.Namespace, node.servers = namespace, map[string]func(){}
		l.Nodes[node.Name] = node
	}
	host, world := l.Nodes[Host], l.Nodes[World]
	attributes := netlink.NewLinkAttrs()
	attributes.Name = "uplink"
	if err := host.Handle.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: "uplink", PeerNamespace: netlink.NsFd(world.NS)}); err != nil {
		return err
	}
	for _, node := range []*Node{host, world} {
		link, err := node.Handle.LinkByName("uplink")
		if err != nil {
			return err
		}
		for address, bits := range map[netip.Addr]int{node.IPv4: 24, node.IPv6: 64} {
			parsed, err := netlink.ParseIPNet(netip.PrefixFrom(address, bits).String())
			if err != nil {
				return err
			}
			added := &netlink.Addr{IPNet: parsed}
			if address.Is6() {
				added.Flags = unix.IFA_F_NODAD
			}
			if err := node.Handle.AddrAdd(link, added); err != nil {
				return err
			}
		}
		if err := node.Handle.LinkSetUp(link); err != nil {
			return err
		}
		if node == host {
			l.Uplink = link.Attrs().Index
		} else {
			l.WorldLink = link.Attrs().Index
		}
	}
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := host.Sysctl(name, "1"); err != nil {
			return err
		}
	}
	// The world sends everything that is not on the link to the host.
	link, err := world.Handle.LinkByName("uplink")
	if err != nil {
		return err
	}
	for _, gateway := range []netip.Addr{HostIPv4, HostIPv6} {
		family := netlink.FAMILY_V4
		if gateway.Is6() {
			family = netlink.FAMILY_V6
		}
		if err := world.Handle.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice(), Family: family}); err != nil {
			return err
		}
	}
	return nil
}

// awaitNetwork waits until packets pass between host and world, which takes a moment after the link is up.
func (l *Lab) awaitNetwork() error {
	for _, to := range []netip.Addr{WorldIPv4, WorldIPv6} {
		var err error
		for range 50 {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			err = l.Nodes[Host].exchangeEcho(ctx, to)
			cancel()
			if err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil {
			return fmt.Errorf("the host does not reach %s: %w", to, err)
		}
	}
	return nil
}

func (l *Lab) devices() error {
	device := datapath.Device{Interface: l.Uplink}
	if l.description.Masquerade {
		device.MasqueradeIPv4, device.MasqueradeIPv6 = HostIPv4, HostIPv6
	}
	if err := l.Datapath.SetHost(HostIPv4, HostIPv6); err != nil {
		return err
	}
	return l.InHost(func() error { return l.Datapath.AddDevice(device) })
}

// InHost runs a function that attaches programs. The kernel looks interfaces up in the namespace of the thread.
func (l *Lab) InHost(do func() error) error {
	return l.Nodes[Host].Do(do)
}

// Add connects another endpoint; link is the name of the host's end.
func (l *Lab) Add(endpoint Endpoint, link string) error {
	if _, taken := l.Nodes[endpoint.Name]; taken || endpoint.Name == "" {
		return fmt.Errorf("endpoints: name %q is empty or there twice", endpoint.Name)
	}
	namespace, err := NewNamespace()
	if err != nil {
		return err
	}
	node := &Node{Namespace: namespace, Name: endpoint.Name, IPv4: endpoint.IPv4, IPv6: endpoint.IPv6, servers: map[string]func(){}}
	l.Nodes[endpoint.Name] = node
	plug := datapath.Plug{
		Name: endpoint.Name, Container: "eth0", Host: link, IPv4: endpoint.IPv4, IPv6: endpoint.IPv6,
		Kind: l.description.Links,
	}
	return plug.Connect(l.Nodes[Host].Handle, namespace.NS, func(admitted datapath.Endpoint) error {
		node.Endpoint = admitted
		return l.InHost(func() error { return l.Datapath.AddEndpoint(admitted) })
	})
}

// Apply replaces the policy.
func (l *Lab) Apply(compiled []byte) error {
	policy, err := datapath.ParsePolicy(compiled)
	if err != nil {
		return err
	}
	identities := map[string]uint32{}
	for _, subject := range policy.Endpoints {
		identities[subject.Name] = subject.Identity
	}
	for i, endpoint := range l.description.Endpoints {
		if found := identities[endpoint.Name]; endpoint.Identity != 0 && found != endpoint.Identity {
			return fmt.Errorf("endpoints[%d].identity: %d, but the policy has %d for %q", i, endpoint.Identity, found, endpoint.Name)
		}
	}
	return l.Datapath.Apply(policy)
}

// StopWatching gives the ring buffer to another reader. From then on probes do not see drops.
func (l *Lab) StopWatching() (read uint64) {
	l.watcher.close()
	return l.watcher.read
}

// Close removes the lab.
func (l *Lab) Close() {
	if l.watcher != nil {
		l.watcher.close()
	}
	for _, node := range l.Nodes {
		node.mutex.Lock()
		for _, stop := range node.servers {
			stop()
		}
		node.mutex.Unlock()
	}
	if l.Datapath != nil {
		_ = l.Datapath.Close()
	}
	for _, node := range l.Nodes {
		if node.Namespace != nil {
			node.Close()
		}
	}
	if l.pins != nil {
		_ = l.pins.Close()
	}
}
