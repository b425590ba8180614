// Package netd is the role that owns the host's datapath: it loads the eBPF programs, connects containers on behalf of
// the CNI plugin, and keeps the declared policy and published ports in force. No other process of the host needs
// CAP_BPF or CAP_NET_ADMIN.
package netd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/hosts/agent/internal/service"
)

// eventInterval is the longest time between a flow's event in the kernel and its delivery.
const eventInterval = 100 * time.Millisecond

// Socket is the default path of the socket that the CNI plugin connects to.
const Socket = "/run/palisade/netd.sock"

// Run parses the flags and serves until ctx ends. Containers stay connected after that.
func Run(ctx context.Context, arguments []string, logger *slog.Logger) error {
	flags := flag.NewFlagSet("netd", flag.ContinueOnError)
	socket := flags.String("socket", Socket, "unix socket of the CNI plugin and the role groups")
	group := flags.String("socket-group", "palisade-groups", "group that may connect")
	pins := flags.String("pins", "/sys/fs/bpf/palisade", "folder on a BPF file system for programs and maps")
	state := flags.String("state", "/var/lib/palisade/netd", "folder for what has to survive a restart")
	device := flags.String("device", "", "interface to other machines, whose addresses stand for containers outside (default: each Ethernet device of the machine itself)")
	maintenance := flags.Duration("maintenance", 10*time.Second, "how often expired flows are collected and differences repaired")
	ipv4 := flags.String("ipv4", "10.88.0.0/16", "prefix of the containers' IPv4 addresses")
	ipv6 := flags.String("ipv6", "fd00:88::/112", "prefix of the containers' IPv6 addresses")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	prefixes, err := parsePrefixes(*ipv4, *ipv6)
	if err != nil {
		return err
	}
	network, err := open(*pins, *state, *device, prefixes, logger)
	if err != nil {
		return err
	}
	defer network.close()
	listener, err := service.Listen(*socket, *group)
	if err != nil {
		return err
	}
	events, err := network.datapath.Events(eventInterval)
	if err != nil {
		return err
	}
	defer func() { _ = events.Close() }()
	go network.readFlows(events)
	go network.maintain(ctx, *maintenance)
	logger.Info("serving", "socket", *socket)
	service.Notify("READY=1")
	return service.ServeUnix(ctx, listener, network.handler())
}

func parsePrefixes(texts ...string) (prefixes []netip.Prefix, err error) {
	for i, name := range []string{"ipv4", "ipv6"} {
		prefix, err := netip.ParsePrefix(texts[i])
		if err != nil || prefix != prefix.Masked() || prefix.Addr().Is4() != (name == "ipv4") {
			return nil, fmt.Errorf("-%s: %q is not a prefix of that family in its shortest form", name, texts[i])
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}

// open loads the datapath and restores what was connected before.
func open(pins, state, device string, prefixes []netip.Prefix, logger *slog.Logger) (*network, error) {
	stored, err := readStore(state, logger)
	if err != nil {
		return nil, err
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	loaded, err := datapath.Open(datapath.Config{Pins: pins, Events: datapath.EventsFlows})
	if err != nil {
		return nil, err
	}
	n := &network{
		datapath: loaded, handle: handle, store: stored, prefixes: prefixes, device: device, devices: map[int]bool{}, logger: logger,
		flows: newFlowHub(),
	}
	if err := n.restore(); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *network) close() {
	_ = n.datapath.Close()
	n.handle.Close()
}

// restore declares the stored state to the datapath. The policy comes first, so that no packet passes without it.
func (n *network) restore() error {
	if err := n.forgetDisconnected(); err != nil {
		return err
	}
	if len(n.store.Policy) == 0 {
		if err := n.enforceDefault(); err != nil {
			return err
		}
	} else {
		policy, err := datapath.ParsePolicy(n.store.Policy)
		if err != nil {
			return err
		}
		if err := n.datapath.Apply(policy); err != nil {
			return err
		}
		n.policy = policy
	}
	if err := n.readHost(); err != nil {
		return err
	}
	for _, attached := range n.store.Attachments {
		if err := n.datapath.AddEndpoint(attached.Endpoint); err != nil {
			return err
		}
		if err := n.datapath.Publish(attached.Published...); err != nil {
			return err
		}
	}
	if err := n.removeUnknownLinks(); err != nil {
		return err
	}
	return n.datapath.Prune()
}

// removeUnknownLinks removes the links of containers that are not in the record, because the policy is not enforced on
// them. There are such links after damage to the record.
func (n *network) removeUnknownLinks() error {
	known := map[string]bool{}
	for _, attached := range n.store.Attachments {
		known[attached.HostInterface] = true
	}
	links, err := n.handle.LinkList()
	if err != nil {
		return err
	}
	for _, link := range links {
		name := link.Attrs().Name
		if known[name] || !hostInterfacePattern.MatchString(name) {
			continue
		}
		n.logger.Warn("a link of an unknown container is removed", "interface", name)
		// Links also disappear with their network namespaces.
		if err := n.handle.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	return nil
}

// readHost declares the host's own addresses and its devices to other machines.
func (n *network) readHost() error {
	links, err := n.handle.LinkList()
	if err != nil {
		return err
	}
	var host []netip.Addr
	devices := map[int]bool{}
	mtu := 0
	for _, link := range links {
		addresses, err := n.handle.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		device := datapath.Device{Interface: link.Attrs().Index}
		for _, assigned := range addresses {
			address, ok := netip.AddrFromSlice(assigned.IP)
			if address = address.Unmap(); !ok || address.IsLoopback() || address.IsLinkLocalUnicast() {
				continue
			}
			host = append(host, address)
			if address.Is4() && !device.MasqueradeIPv4.IsValid() {
				device.MasqueradeIPv4 = address
			}
			if address.Is6() && !device.MasqueradeIPv6.IsValid() {
				device.MasqueradeIPv6 = address
			}
		}
		if n.isUplink(link) {
			devices[device.Interface] = true
			if own := link.Attrs().MTU; mtu == 0 || own < mtu {
				mtu = own
			}
			if err := n.datapath.AddDevice(device); err != nil {
				return err
			}
		}
	}
	for ifindex := range n.devices {
		if !devices[ifindex] {
			if err := n.datapath.RemoveDevice(ifindex); err != nil {
				return err
			}
		}
	}
	n.devices, n.mtu = devices, mtu
	return n.datapath.SetHost(host...)
}

// isUplink reports whether a link is a device to other machines. Devices of the machine itself have no kind, unlike
// those of containers.
func (n *network) isUplink(link netlink.Link) bool {
	attributes := link.Attrs()
	if n.device != "" {
		return attributes.Name == n.device
	}
	return link.Type() == "device" && attributes.EncapType == "ether" && attributes.Flags&net.FlagLoopback == 0
}

// maintain keeps the datapath in step with the host's addresses, and repairs and collects periodically. Addresses
// change while the role runs; at a boot the host gets its first ones after the role has started.
func (n *network) maintain(ctx context.Context, period time.Duration) {
	timer := time.NewTimer(period)
	defer timer.Stop()
	changes := n.watchAddresses(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case _, watching := <-changes:
			if !watching {
				// The kernel dropped updates because there were too many at once. The next round reads the addresses
				// and subscribes again.
				changes = nil
			}
			n.refresh(n.readHost, "read the host's addresses")
		case <-timer.C:
			started := time.Now()
			if changes == nil {
				changes = n.watchAddresses(ctx)
			}
			// Repair comes first: reading the host also attaches missing programs, but does not report them.
			n.refresh(n.repair, "repair the datapath")
			n.refresh(n.readHost, "read the host's addresses")
			n.refresh(n.collect, "collect expired flows")
			// Reading back a large policy takes time. The interval keeps the load below a twentieth of one CPU.
			timer.Reset(max(period, 20*time.Since(started)))
		}
	}
}

func (n *network) watchAddresses(ctx context.Context) <-chan netlink.AddrUpdate {
	changes := make(chan netlink.AddrUpdate)
	if err := netlink.AddrSubscribe(changes, ctx.Done()); err != nil {
		n.logger.Error("watch the host's addresses", "error", err)
		return nil
	}
	return changes
}

func (n *network) refresh(do func() error, what string) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if err := do(); err != nil {
		n.logger.Error(what, "error", err)
	}
}

func (n *network) collect() error {
	_, err := n.datapath.Collect()
	return err
}

func (n *network) repair() error {
	if err := n.forgetDisconnected(); err != nil {
		return err
	}
	if err := n.store.rewrite(); err != nil {
		return err
	}
	problems, err := n.datapath.Repair()
	for _, problem := range problems {
		n.logger.Warn("repaired", "problem", problem.String())
	}
	return err
}
