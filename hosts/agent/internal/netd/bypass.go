package netd

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// findBypasses lists whatever else on the host handles packets. The datapath redirects packets between containers, and
// from and to other machines, without passing the host's network stack. So rules in that stack do not see them, and
// other devices take packets past the datapath.
func findBypasses(handle *netlink.Handle) ([]string, error) {
	var found []string
	tables, err := nftables()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	for _, table := range tables {
		found = append(found, fmt.Sprintf("nftables table %s: its rules see no packet of a container that the datapath forwards, "+
			"only those between containers and the host itself", table))
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := handle.RuleList(family)
		if err != nil {
			return nil, fmt.Errorf("routing rules: %w", err)
		}
		for _, rule := range rules {
			if rule.Table != unix.RT_TABLE_LOCAL && rule.Table != unix.RT_TABLE_MAIN && rule.Table != unix.RT_TABLE_DEFAULT {
				found = append(found, fmt.Sprintf("routing rule %d to table %d: it holds for packets of containers that leave the host, "+
					"not for those between containers", rule.Priority, rule.Table))
			}
		}
	}
	links, err := handle.LinkList()
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		if link.Type() == "wireguard" {
			found = append(found, fmt.Sprintf("WireGuard device %s: it is not one of the datapath's devices; what is routed to it is "+
				"neither masqueraded nor counted", link.Attrs().Name))
		}
	}
	return found, nil
}

// nftables lists the kernel's tables of all families (nfnetlink, NFT_MSG_GETTABLE).
func nftables() ([]string, error) {
	const getTable, tableName = 1, 1
	request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|getTable, unix.NLM_F_DUMP)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC})
	answers, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		// A kernel without this netlink interface has no rules.
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	families := map[uint8]string{1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
	var tables []string
	for _, answer := range answers {
		attributes, err := nl.ParseRouteAttr(answer[nl.SizeofNfgenmsg:])
		if err != nil {
			return nil, err
		}
		for _, attribute := range attributes {
			if attribute.Attr.Type == tableName {
				tables = append(tables, families[answer[0]]+" "+nl.BytesToString(attribute.Value))
			}
		}
	}
	return tables, nil
}
