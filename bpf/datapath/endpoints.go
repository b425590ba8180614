package datapath

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

// The gateways of every endpoint. The programs answer for these addresses, which no interface has.
var (
	GatewayIPv4 = netip.MustParseAddr("169.254.1.1")
	GatewayIPv6 = netip.MustParseAddr("fe80::1")
)

const identityHost = 1

// Endpoint is a container's link, and the addresses that it may send from.
type Endpoint struct {
	// Name is the endpoint's name in policies.
	Name string `json:"name"`
	// Interface is the index of the host's end of the link.
	Interface int `json:"interface"`
	// IPv4 and IPv6 are its only addresses. One of them may be missing.
	IPv4 netip.Addr `json:"ipv4"`
	IPv6 netip.Addr `json:"ipv6"`
	// MAC is the address of the container's end, and HostMAC that of the host's end.
	MAC     net.HardwareAddr `json:"mac"`
	HostMAC net.HardwareAddr `json:"hostMac"`
	// Kind of the link. Default: Veth.
	Kind LinkKind `json:"kind,omitempty"`
}

// Device is an interface to other machines.
type Device struct {
	Interface int `json:"interface"`
	// MasqueradeIPv4 and MasqueradeIPv6 are the host's addresses that replace the endpoints' addresses. Without them
	// packets are routed unchanged.
	MasqueradeIPv4 netip.Addr `json:"masqueradeIpv4"`
	MasqueradeIPv6 netip.Addr `json:"masqueradeIpv6"`
}

// Published is a port of the host that is redirected to a port of an endpoint.
type Published struct {
	// Address is an address of the host. The unspecified address of a family means all of the host's addresses in it.
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
	// Protocol is TCP, UDP or SCTP. SCTP needs the same port on both sides, because its checksum covers the port.
	Protocol string     `json:"protocol"`
	Backend  netip.Addr `json:"backend"`
	// BackendPort is the endpoint's port.
	BackendPort uint16 `json:"backendPort"`
}

// ErrTaken means that another endpoint has the published port or the address. Nothing was changed.
var ErrTaken = errors.New("is taken")

// desired is what was declared. Repair restores it.
type desired struct {
	endpoints map[string]Endpoint
	devices   map[int]Device
	hosts     map[netip.Addr]bool
	remotes   map[netip.Addr]string
	published map[publishedKey]Published
	policy    *Policy
	tables    *tables
}

type publishedKey struct {
	address  netip.Addr
	port     uint16
	protocol string
}

func (p Published) key() publishedKey {
	return publishedKey{p.Address, p.Port, p.Protocol}
}

func newDesired() desired {
	return desired{
		endpoints: map[string]Endpoint{},
		devices:   map[int]Device{},
		hosts:     map[netip.Addr]bool{},
		remotes:   map[netip.Addr]string{},
		published: map[publishedKey]Published{},
	}
}

// AddEndpoint connects an endpoint. When it returns, the programs are attached and the entries are written, so the
// policy applies to the first packet.
func (d *Datapath) AddEndpoint(endpoint Endpoint) error {
	if err := endpoint.validate(); err != nil {
		return err
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for _, other := range d.desired.endpoints {
		for _, address := range endpoint.addresses() {
			if other.Name != endpoint.Name && (address == other.IPv4 || address == other.IPv6) {
				return fmt.Errorf("endpoint %q: address %s %w: endpoint %q has it", endpoint.Name, address, ErrTaken, other.Name)
			}
		}
	}
	if err := d.putEndpoint(endpoint); err != nil {
		return fmt.Errorf("endpoint %q: %w", endpoint.Name, err)
	}
	d.desired.endpoints[endpoint.Name] = endpoint
	return nil
}

// recheckFlows makes the programs check every flow against the policy again at its next packet, because an address
// belongs to another endpoint now. The lowest bit of the generation selects the policy's slot, so it stays the same.
func (d *Datapath) recheckFlows() error {
	generation, err := d.generation()
	if err != nil || generation == 0 {
		return err
	}
	if generation += 2; generation < 2 {
		generation += 2
	}
	return d.objects.Generation.Put(uint32(0), generation)
}

func (e Endpoint) validate() error {
	switch {
	case e.Name == "":
		return errors.New("endpoint.name: is empty")
	case e.Interface <= 0:
		return fmt.Errorf("endpoint %q: interface: %d is no index of an interface", e.Name, e.Interface)
	case len(e.addresses()) == 0:
		return fmt.Errorf("endpoint %q: has neither an IPv4 nor an IPv6 address", e.Name)
	case e.IPv4.IsValid() && !e.IPv4.Is4():
		return fmt.Errorf("endpoint %q: ipv4: %s is not of that family", e.Name, e.IPv4)
	case e.IPv6.IsValid() && (!e.IPv6.Is6() || e.IPv6.Is4In6()):
		return fmt.Errorf("endpoint %q: ipv6: %s is not of that family", e.Name, e.IPv6)
	case len(e.MAC) != 6 || len(e.HostMAC) != 6:
		return fmt.Errorf("endpoint %q: mac and hostMac have to be Ethernet addresses", e.Name)
	}
	return nil
}

func (e Endpoint) addresses() (addresses []netip.Addr) {
	for _, address := range []netip.Addr{e.IPv4, e.IPv6} {
		if address.IsValid() {
			addresses = append(addresses, address)
		}
	}
	return addresses
}

func (e Endpoint) interfaceEntry() datapathInterface {
	entry := datapathInterface{
		Ipv4: toAddress(e.IPv4), Ipv6: toAddress(e.IPv6), Subject: subjectOf(e.Name),
		Mac: toMAC(e.MAC), HostMac: toMAC(e.HostMAC),
	}
	if e.Kind == Netkit {
		entry.Netkit = 1
	}
	return entry
}

func (e Endpoint) entry() datapathEndpoint {
	return datapathEndpoint{
		Subject: subjectOf(e.Name), Ifindex: uint32(e.Interface), Mac: toMAC(e.MAC), HostMac: toMAC(e.HostMAC),
	}
}

// putEndpoint attaches the programs first and writes the link's entry last. The programs drop everything until that
// entry exists.
func (d *Datapath) putEndpoint(endpoint Endpoint) error {
	for _, hook := range containerHooks {
		if err := d.attach(attachment{endpoint.Interface, hook}); err != nil {
			return err
		}
	}
	changed := false
	for _, address := range endpoint.addresses() {
		entry := entryOf(d.objects.Endpoints, toAddress(address), endpoint.entry())
		if entry.present() {
			continue
		}
		if err := entry.put(); err != nil {
			return err
		}
		changed = true
	}
	if err := d.objects.Interfaces.Put(uint32(endpoint.Interface), endpoint.interfaceEntry()); err != nil {
		return err
	}
	if changed {
		return d.recheckFlows()
	}
	return nil
}

// RemoveEndpoint forgets an endpoint. It is no error when it is gone. The next endpoint with its address does not
// inherit its flows.
func (d *Datapath) RemoveEndpoint(name string) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	endpoint, known := d.desired.endpoints[name]
	if !known {
		return nil
	}
	delete(d.desired.endpoints, name)
	failures := []error{ignoreNotFound(d.objects.Interfaces.Delete(uint32(endpoint.Interface)))}
	for _, address := range endpoint.addresses() {
		failures = append(failures, ignoreNotFound(d.objects.Endpoints.Delete(toAddress(address))))
	}
	for _, hook := range containerHooks {
		failures = append(failures, d.detach(attachment{endpoint.Interface, hook}))
	}
	return errors.Join(append(failures, d.recheckFlows())...)
}

// ignoreNotFound returns no error when an entry does not exist.
func ignoreNotFound(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// SetHost declares all addresses of this host, and forgets those that were declared before.
func (d *Datapath) SetHost(addresses ...netip.Addr) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	hosts := map[netip.Addr]bool{}
	for _, address := range addresses {
		hosts[address] = true
		if err := d.objects.Endpoints.Put(toAddress(address), datapathEndpoint{Identity: identityHost}); err != nil {
			return err
		}
	}
	for address := range d.desired.hosts {
		if !hosts[address] {
			if err := ignoreNotFound(d.objects.Endpoints.Delete(toAddress(address))); err != nil {
				return err
			}
		}
	}
	d.desired.hosts = hosts
	return nil
}

// AddRemote declares an address of an endpoint on another host.
func (d *Datapath) AddRemote(name string, address netip.Addr) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.desired.remotes[address] = name
	return d.objects.Endpoints.Put(toAddress(address), datapathEndpoint{Subject: subjectOf(name)})
}

// AddDevice declares an interface to other machines, and attaches programs to it.
func (d *Datapath) AddDevice(device Device) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if err := d.putDevice(device); err != nil {
		return fmt.Errorf("device %d: %w", device.Interface, err)
	}
	d.desired.devices[device.Interface] = device
	return nil
}

func (d *Datapath) putDevice(device Device) error {
	entry := datapathDevice{
		MasqueradeIpv4: toAddress(device.MasqueradeIPv4),
		MasqueradeIpv6: toAddress(device.MasqueradeIPv6),
	}
	if err := d.objects.Devices.Put(uint32(device.Interface), entry); err != nil {
		return err
	}
	for _, hook := range deviceHooks {
		if err := d.attach(attachment{device.Interface, hook}); err != nil {
			return err
		}
	}
	return nil
}

// RemoveDevice forgets an interface to other machines. It is no error when it is gone.
func (d *Datapath) RemoveDevice(ifindex int) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	delete(d.desired.devices, ifindex)
	failures := []error{ignoreNotFound(d.objects.Devices.Delete(uint32(ifindex)))}
	for _, hook := range deviceHooks {
		failures = append(failures, d.detach(attachment{ifindex, hook}))
	}
	return errors.Join(failures...)
}

// Publish publishes ports of endpoints on the host. It checks all ports before it publishes the first, and returns
// ErrTaken when one is taken.
func (d *Datapath) Publish(ports ...Published) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for i, port := range ports {
		if err := d.checkPublish(port, ports[:i]); err != nil {
			return fmt.Errorf("ports[%d].%w", i, err)
		}
	}
	for _, port := range ports {
		if err := d.objects.PublishedPorts.Put(port.entryKey(), port.entry()); err != nil {
			return err
		}
		d.desired.published[port.key()] = port
	}
	return nil
}

// CheckPublish returns the error that Publish would return for a port together with others. It changes nothing.
func (d *Datapath) CheckPublish(port Published, with ...Published) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.checkPublish(port, with)
}

func (d *Datapath) checkPublish(port Published, with []Published) error {
	if err := port.validate(); err != nil {
		return err
	}
	others := slices.AppendSeq(slices.Clone(with), maps.Values(d.desired.published))
	for _, other := range others {
		if port.collides(other) && port != other {
			return fmt.Errorf("port: %s port %d of %s %w: it leads to %s; publish another port", port.Protocol,
				port.Port, port.Address, ErrTaken, netip.AddrPortFrom(other.Backend, other.BackendPort))
		}
	}
	return nil
}

// validate returns an error that begins with the name of the wrong field.
func (p Published) validate() error {
	switch {
	case p.Port == 0 || p.BackendPort == 0:
		return fmt.Errorf("port: %d to %d: zero is no port", p.Port, p.BackendPort)
	case p.Protocol != "TCP" && p.Protocol != "UDP" && p.Protocol != "SCTP":
		return fmt.Errorf("protocol: %q is not TCP, UDP or SCTP", p.Protocol)
	case p.Protocol == "SCTP" && p.Port != p.BackendPort:
		return fmt.Errorf("port: %d for port %d of SCTP, whose checksum covers it; publish the same port", p.Port, p.BackendPort)
	case !p.Address.IsValid() || !p.Backend.IsValid() || p.Address.Is4() != p.Backend.Is4():
		return fmt.Errorf("address: %s and %s are not of one family", p.Address, p.Backend)
	}
	return nil
}

// collides reports whether two ports overlap. The unspecified address overlaps with all addresses of its family.
func (p Published) collides(other Published) bool {
	return p.Port == other.Port && strings.EqualFold(p.Protocol, other.Protocol) && p.Address.Is4() == other.Address.Is4() &&
		(p.Address == other.Address || p.Address.IsUnspecified() || other.Address.IsUnspecified())
}

func (p Published) entryKey() datapathPublishedKey {
	return datapathPublishedKey{Address: toAddress(p.Address), Port: toPort(p.Port), Protocol: protocolNumbers[p.Protocol]}
}

func (p Published) entry() datapathPublished {
	return datapathPublished{Address: toAddress(p.Backend), Port: toPort(p.BackendPort)}
}

// Unpublish removes published ports, which ends the flows through them. It is no error when they are gone.
func (d *Datapath) Unpublish(ports ...Published) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for _, port := range ports {
		delete(d.desired.published, port.key())
		if err := ignoreNotFound(d.objects.PublishedPorts.Delete(port.entryKey())); err != nil {
			return err
		}
	}
	return nil
}
