package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Priorities of the rules that choose a routing table in a container's network namespace. The kernel's own rule for the
// table of local addresses has priority 0 and comes first, so it is replaced.
const (
	ruleFromLoopback = 1 + iota
	ruleToItself
	ruleLocal
)

// IFLA_INET_CONF of linux/if_link.h, and IPV4_DEVCONF_ACCEPT_LOCAL of linux/ip.h.
const (
	inetConf           = 1
	devconfAcceptLocal = 23
)

// routeSelfTraffic makes packets that a container sends to its own address pass over its link, where the policy applies
// to them. Otherwise the kernel keeps them in the container's loopback device, past the policy. 127.0.0.0/8 and ::1
// stay on that device.
func routeSelfTraffic(inside *netlink.Handle, container netns.NsHandle, link int, address netip.Addr) error {
	family, loopback := netlink.FAMILY_V4, "127.0.0.0/8"
	if address.Is6() {
		family, loopback = netlink.FAMILY_V6, "::1/128"
	} else if err := acceptLocal(container, link); err != nil {
		return fmt.Errorf("accept packets from its own address: %w", err)
	}
	_, loopbackNet, err := net.ParseCIDR(loopback)
	if err != nil {
		return err
	}
	rule := func(priority, table int) *netlink.Rule {
		rule := netlink.NewRule()
		rule.Family, rule.Priority, rule.Table = family, priority, table
		return rule
	}
	fromLoopback, toItself := rule(ruleFromLoopback, unix.RT_TABLE_LOCAL), rule(ruleToItself, unix.RT_TABLE_MAIN)
	fromLoopback.Src = loopbackNet
	// The kernel gives packets that the container itself sends this incoming interface.
	toItself.IifName = "lo"
	toItself.Dst = single(address)
	for _, added := range []*netlink.Rule{fromLoopback, toItself, rule(ruleLocal, unix.RT_TABLE_LOCAL)} {
		if err := inside.RuleAdd(added); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("routing rule %d: %w", added.Priority, err)
		}
	}
	if err := inside.RuleDel(rule(0, unix.RT_TABLE_LOCAL)); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("routing rule 0: %w", err)
	}
	return nil
}

// acceptLocal makes the kernel accept packets on a link that come from its own address. It uses netlink, because netd
// cannot write to /proc/sys on a host.
func acceptLocal(container netns.NsHandle, index int) error {
	socket, err := nl.GetNetlinkSocketAt(container, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer socket.Close()
	request := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index)
	request.AddData(message)
	families := nl.NewRtAttr(unix.IFLA_AF_SPEC|unix.NLA_F_NESTED, nil)
	families.AddRtAttr(unix.AF_INET|unix.NLA_F_NESTED, nil).
		AddRtAttr(inetConf|unix.NLA_F_NESTED, nil).
		AddRtAttr(devconfAcceptLocal, nl.Uint32Attr(1))
	request.AddData(families)
	_, err = request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
