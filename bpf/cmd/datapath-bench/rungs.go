package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/bpf/lab"
)

// rung is one way for packets to go. build sets it up.
type rung struct {
	name  string
	rules int
	build func() (built, error)
}

var (
	clientAddress = netip.MustParseAddr("10.1.0.1")
	serverAddress = netip.MustParseAddr("10.1.0.2")
)

func ladder() []rung {
	return []rung{
		{"loopback", 0, loopback},
		{"veth pair", 0, bareVeth},
		{"veth, forwarded by the kernel", 0, func() (built, error) { return between(false, nil) }},
		{"bridge and iptables", 2, func() (built, error) { return between(true, iptables(2)) }},
		{"bridge and nft sets", 2, func() (built, error) { return between(true, nft(2)) }},
		{"palisade, no policy", 0, func() (built, error) { return palisade(0, datapath.EventsNone, datapath.Veth) }},
		{"palisade, policy and events", 2, func() (built, error) { return palisade(2, datapath.EventsFlows, datapath.Veth) }},
		{"palisade on netkit", 2, func() (built, error) { return palisade(2, datapath.EventsFlows, datapath.Netkit) }},
	}
}

func scaling(most int) (rungs []rung) {
	for rules := 10; rules <= most; rules *= 10 {
		rungs = append(rungs,
			rung{"iptables", rules, func() (built, error) { return between(true, iptables(rules)) }},
			rung{"nft sets", rules, func() (built, error) { return between(true, nft(rules)) }},
			rung{"palisade", rules, func() (built, error) { return palisade(rules, datapath.EventsFlows, datapath.Veth) }},
		)
	}
	return rungs
}

func loopback() (built, error) {
	namespace, err := lab.NewNamespace()
	if err != nil {
		return built{}, err
	}
	return built{client: namespace, server: namespace, address: netip.MustParseAddr("127.0.0.1"), close: namespace.Close}, nil
}

// namespaces creates network namespaces, and closes them when one fails.
func namespaces(count int) (created []*lab.Namespace, closeAll func(), err error) {
	closeAll = func() {
		for _, namespace := range created {
			namespace.Close()
		}
	}
	for range count {
		namespace, err := lab.NewNamespace()
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		created = append(created, namespace)
	}
	return created, closeAll, nil
}

// join connects two namespaces by a veth pair. An end without an address is a bridge port.
func join(a *lab.Namespace, nameA, addressA string, b *lab.Namespace, nameB, addressB string) error {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = nameA
	if err := a.Handle.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: nameB, PeerNamespace: netlink.NsFd(b.NS)}); err != nil {
		return err
	}
	for _, end := range []struct {
		in            *lab.Namespace
		name, address string
	}{{a, nameA, addressA}, {b, nameB, addressB}} {
		link, err := end.in.Handle.LinkByName(end.name)
		if err != nil {
			return err
		}
		if end.address != "" {
			address, err := netlink.ParseAddr(end.address)
			if err != nil {
				return err
			}
			if err := end.in.Handle.AddrAdd(link, address); err != nil {
				return err
			}
		}
		if err := end.in.Handle.LinkSetUp(link); err != nil {
			return err
		}
	}
	return nil
}

func bareVeth() (built, error) {
	created, closeAll, err := namespaces(2)
	if err != nil {
		return built{}, err
	}
	if err := join(created[0], "eth0", clientAddress.String()+"/24", created[1], "eth0", serverAddress.String()+"/24"); err != nil {
		closeAll()
		return built{}, err
	}
	return built{client: created[0], server: created[1], address: serverAddress, close: closeAll}, nil
}

// between sets up a host between client and server that routes or bridges, and sets rules on it.
func between(bridge bool, rules func(host *lab.Namespace) error) (result built, err error) {
	created, closeAll, err := namespaces(3)
	if err != nil {
		return built{}, err
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	client, host, server := created[0], created[1], created[2]
	result = built{client: client, server: server, address: serverAddress, close: closeAll}
	if bridge {
		err = bridged(client, host, server)
	} else {
		err = routed(client, host, server)
		result.address = netip.MustParseAddr("10.2.0.2")
	}
	if err == nil && rules != nil {
		err = rules(host)
	}
	return result, err
}

func bridged(client, host, server *lab.Namespace) error {
	if err := join(client, "eth0", clientAddress.String()+"/24", host, "a", ""); err != nil {
		return err
	}
	if err := join(server, "eth0", serverAddress.String()+"/24", host, "b", ""); err != nil {
		return err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = "bridge"
	bridge := &netlink.Bridge{LinkAttrs: attributes}
	if err := host.Handle.LinkAdd(bridge); err != nil {
		return err
	}
	for _, name := range []string{"a", "b"} {
		port, err := host.Handle.LinkByName(name)
		if err != nil {
			return err
		}
		if err := host.Handle.LinkSetMaster(port, bridge); err != nil {
			return err
		}
	}
	if err := host.Handle.LinkSetUp(bridge); err != nil {
		return err
	}
	return host.Sysctl("net/bridge/bridge-nf-call-iptables", "1")
}

func routed(client, host, server *lab.Namespace) error {
	if err := join(client, "eth0", "10.1.0.1/24", host, "a", "10.1.0.254/24"); err != nil {
		return err
	}
	if err := join(server, "eth0", "10.2.0.2/24", host, "b", "10.2.0.254/24"); err != nil {
		return err
	}
	for gateway, namespace := range map[string]*lab.Namespace{"10.1.0.254": client, "10.2.0.254": server} {
		link, err := namespace.Handle.LinkByName("eth0")
		if err != nil {
			return err
		}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: netip.MustParseAddr(gateway).AsSlice()}
		if err := namespace.Handle.RouteAdd(route); err != nil {
			return err
		}
	}
	return host.Sysctl("net/ipv4/ip_forward", "1")
}

// source returns the n-th address that rules allow, besides the client's own.
func source(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{172, byte(16 + n>>16), byte(n >> 8), byte(n)})
}

// iptables sets one rule that accepts established connections, and then one rule for each source. The client's rule is
// the last.
func iptables(rules int) func(*lab.Namespace) error {
	return func(host *lab.Namespace) error {
		var text strings.Builder
		text.WriteString("*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n")
		for n := range rules - 1 {
			fmt.Fprintf(&text, "-A FORWARD -s %s/32 -p tcp --dport %d -j ACCEPT\n", source(n), port)
		}
		fmt.Fprintf(&text, "-A FORWARD -s %s/32 -p tcp --dport %d -j ACCEPT\nCOMMIT\n", clientAddress, port)
		return runIn(host, text.String(), "iptables-restore")
	}
}

// nft sets the same rules with one set of sources and ports.
func nft(rules int) func(*lab.Namespace) error {
	return func(host *lab.Namespace) error {
		var text strings.Builder
		text.WriteString("table ip bench {\n set allowed { type ipv4_addr . inet_service; elements = {\n")
		for n := range rules - 1 {
			fmt.Fprintf(&text, "%s . %d,\n", source(n), port)
		}
		fmt.Fprintf(&text, "%s . %d } }\n chain forward {\n type filter hook forward priority 0; policy drop;\n", clientAddress, port)
		text.WriteString("ct state established,related accept\n ip saddr . tcp dport @allowed accept\n }\n}\n")
		return runIn(host, text.String(), "nft", "-f", "-")
	}
}

func runIn(namespace *lab.Namespace, input, program string, arguments ...string) error {
	command := exec.Command(program, arguments...)
	command.Stdin = strings.NewReader(input)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := namespace.Do(command.Start); err != nil {
		return err
	}
	if err := command.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, &output)
	}
	return nil
}

// palisade sets as many rules on the server's ingress, one for each identity, including the client's. Without rules no
// policy is enforced.
func palisade(rules int, events datapath.EventLevel, links datapath.LinkKind) (built, error) {
	policy := datapath.Policy{Version: 1, Endpoints: []datapath.Subject{{Name: "client", Identity: 256}, {Name: "server", Identity: 257}}}
	allow := func(identity uint32) datapath.Rule {
		return datapath.Rule{Precedence: 1, Action: "allow", Identity: identity, Protocol: "TCP", PortStart: port, PortEnd: port}
	}
	if rules > 0 {
		ingress := datapath.Direction{Enforce: true, Rules: []datapath.Rule{allow(256)}}
		for n := range rules - 1 {
			id := uint32(0x01000000 + n)
			policy.Identities = append(policy.Identities, datapath.PrefixIdentity{ID: id, CIDR: source(n).String() + "/32"})
			ingress.Rules = append(ingress.Rules, allow(id))
		}
		policy.Endpoints[1].Ingress = ingress
	}
	sealed, err := policy.Seal()
	if err != nil {
		return built{}, err
	}
	running, err := lab.New(lab.Description{
		Endpoints: []lab.Endpoint{{Name: "client", IPv4: clientAddress}, {Name: "server", IPv4: serverAddress}},
		Links:     links, Policy: sealed, Config: datapath.Config{Events: events}, Unwatched: events == datapath.EventsNone,
	})
	if err != nil {
		return built{}, err
	}
	return built{
		client: running.Nodes["client"].Namespace, server: running.Nodes["server"].Namespace, address: serverAddress,
		close: running.Close, datapath: running.Datapath,
	}, nil
}
