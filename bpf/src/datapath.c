/* The four programs: both ends of a container's link, both directions of a device to other machines. */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "conntrack.h"
#include "events.h"
#include "forward.h"
#include "nat.h"
#include "neighbour.h"
#include "parse.h"
#include "policy.h"

char _license[] SEC("license") = "GPL";

/* Types that only the Go side names: this keeps them in BTF. */
const struct event *unused_event __attribute__((unused));
const enum reason *unused_reason __attribute__((unused));
const enum hook *unused_hook __attribute__((unused));
const struct rule_key *unused_rule_key __attribute__((unused));
const struct rule *unused_rule __attribute__((unused));
const struct port_key *unused_port_key __attribute__((unused));
const struct prefix_key *unused_prefix_key __attribute__((unused));

static __always_inline int finish(struct __sk_buff *skb, struct packet *p, enum hook hook, enum reason reason,
				  int action)
{
	if (reason == REASON_FORWARDED && p->fragment == FRAGMENT_FIRST)
		remember_fragment(p);
	tell(skb, p, hook, reason);
	return reason >= REASON_FIRST_DROP || reason == REASON_LINK_CHATTER ? TC_ACT_SHOT : action;
}

/* An ICMP error goes to who sent the packet it tells of, and to nobody else. */
static __always_inline bool misdirected_error(const struct packet *p)
{
	return p->icmp_error && !address_equal(&p->outer_destination, &p->wire.destination);
}

static __always_inline bool is_tunnel(__u8 protocol)
{
	return protocol == PROTOCOL_IPIP || protocol == IPPROTO_IPV6 || protocol == PROTOCOL_GRE;
}

static __always_inline enum reason container_sends(struct __sk_buff *skb, struct packet *p, __be16 type, int *action)
{
	__u32 ifindex = skb->ifindex;
	struct interface *interface = bpf_map_lookup_elem(&interfaces, &ifindex);
	struct endpoint *destination;
	struct address *own;
	enum reason reason;

	if (!interface)
		return REASON_UNKNOWN_ENDPOINT;
	p->link = ifindex;
	if (type == ETHERTYPE_VLAN || type == ETHERTYPE_QINQ)
		return REASON_VLAN;
	if (__builtin_memcmp(p->source_mac, interface->mac, ETH_ALEN))
		return REASON_SPOOFED_MAC;
	if (type == ETHERTYPE_ARP)
		return answer_arp(skb, interface, action);
	if (!p->family)
		return REASON_UNKNOWN_ETHERTYPE;

	reason = parse(skb, p);
	own = p->family == 4 ? &interface->ipv4 : &interface->ipv6;
	if (reason == REASON_FORWARDED && p->protocol == IPPROTO_ICMPV6) {
		reason = answer_icmp6(skb, p, interface, action);
		if (reason != REASON_FORWARDED)
			return reason;
	}
	if (!address_equal(&p->outer_source, own) || address_is_zero(own))
		return reason == REASON_TRUNCATED || reason == REASON_BAD_HEADER ? reason : REASON_SPOOFED_SOURCE;
	if (reason != REASON_FORWARDED)
		return reason;
	if (is_tunnel(p->protocol))
		return REASON_TUNNEL;
	if (address_is_multicast(&p->outer_destination))
		return REASON_MULTICAST;
	if (misdirected_error(p) || (p->icmp_error && !address_equal(&p->outer_source, &p->wire.source)))
		return REASON_ICMP_UNRELATED;

	resolve(p);
	reason = track(p);
	if (reason != REASON_FORWARDED)
		return reason;
	/* An endpoint that reaches itself by its published port: the answer has to come back through here. */
	if (!p->reply_only && !p->icmp_error && !address_is_zero(&p->published) &&
	    address_equal(&p->tuple.source, &p->tuple.destination)) {
		reason = masquerade(p, &p->published);
		if (reason != REASON_FORWARDED)
			return reason;
	}
	reason = translate(skb, p);
	if (reason != REASON_FORWARDED)
		return reason;
	destination = bpf_map_lookup_elem(&endpoints, &p->out.destination);
	if (destination && destination->ifindex) {
		*action = into(skb, destination->ifindex, destination->mac, destination->host_mac, interface->netkit);
		return REASON_FORWARDED;
	}
	if (destination && destination->identity == IDENTITY_HOST)
		return REASON_FORWARDED;
	return leave(skb, p, action);
}

/* Packets that a container sends: attached to ingress of the host's end of its link. */
SEC("tc")
int from_container(struct __sk_buff *skb)
{
	struct packet *p;
	int action = TC_ACT_OK;
	__be16 type = start(skb, &p);

	if (!p)
		return TC_ACT_SHOT;
	/* Who may configure the container's own link could have set it. */
	skb->tc_index = 0;
	return finish(skb, p, HOOK_FROM_CONTAINER, container_sends(skb, p, type, &action), action);
}

static __always_inline enum reason container_receives(struct __sk_buff *skb, struct packet *p, __be16 type)
{
	__u32 ifindex = skb->ifindex;
	struct interface *interface = bpf_map_lookup_elem(&interfaces, &ifindex);
	struct endpoint *source;
	struct address *own;
	enum reason reason;

	if (!interface)
		return REASON_UNKNOWN_ENDPOINT;
	p->link = ifindex;
	if (type == ETHERTYPE_VLAN || type == ETHERTYPE_QINQ)
		return REASON_VLAN;
	/* The host knows its endpoints' addresses by permanent entries. */
	if (type == ETHERTYPE_ARP)
		return REASON_ARP_UNEXPECTED;
	if (!p->family)
		return REASON_UNKNOWN_ETHERTYPE;
	reason = parse(skb, p);
	if (reason != REASON_FORWARDED)
		return reason;
	if (address_is_multicast(&p->outer_destination))
		return p->protocol == IPPROTO_ICMPV6 ? REASON_LINK_CHATTER : REASON_MULTICAST;
	own = p->family == 4 ? &interface->ipv4 : &interface->ipv6;
	if (!address_equal(&p->outer_destination, own))
		return REASON_NOT_FOR_ENDPOINT;
	/* Between endpoints no packet takes the host's stack. */
	source = bpf_map_lookup_elem(&endpoints, &p->outer_source);
	if (source && source->ifindex)
		return REASON_SPOOFED_SOURCE;
	if (is_tunnel(p->protocol))
		return REASON_TUNNEL;
	if (misdirected_error(p))
		return REASON_ICMP_UNRELATED;
	p->tuple = p->wire;
	return track(p);
}

/* Packets of the host's stack to a container: attached to egress of the host's end of its link. */
SEC("tc")
int to_container(struct __sk_buff *skb)
{
	struct packet *p;
	__be16 type;

	if (skb->tc_index == JUDGED)
		return TC_ACT_OK;
	type = start(skb, &p);
	if (!p)
		return TC_ACT_SHOT;
	return finish(skb, p, HOOK_TO_CONTAINER, container_receives(skb, p, type), TC_ACT_OK);
}

static __always_inline enum reason device_receives(struct __sk_buff *skb, struct packet *p, int *action)
{
	struct endpoint *source, *destination;
	enum reason reason = parse(skb, p);

	source = bpf_map_lookup_elem(&endpoints, &p->outer_source);
	if (source && (source->ifindex || source->identity == IDENTITY_HOST))
		return REASON_SPOOFED_SOURCE;
	if (reason != REASON_FORWARDED) {
		destination = bpf_map_lookup_elem(&endpoints, &p->outer_destination);
		/* What the host itself is sent, its own stack judges. */
		return destination && destination->ifindex ? reason : REASON_FORWARDED;
	}
	resolve(p);
	destination = bpf_map_lookup_elem(&endpoints, &p->tuple.destination);
	if (!destination || !destination->ifindex)
		return REASON_FORWARDED;
	if (is_tunnel(p->protocol))
		return REASON_TUNNEL;
	if (misdirected_error(p))
		return REASON_ICMP_UNRELATED;
	reason = track(p);
	if (reason != REASON_FORWARDED)
		return reason;
	reason = translate(skb, p);
	if (reason != REASON_FORWARDED)
		return reason;
	*action = into(skb, destination->ifindex, destination->mac, destination->host_mac, false);
	return REASON_FORWARDED;
}

/* Packets of other machines: attached to ingress of a device. */
SEC("tc")
int from_device(struct __sk_buff *skb)
{
	struct packet *p;
	int action = TC_ACT_OK;
	__be16 type = start(skb, &p);

	if (!p)
		return TC_ACT_SHOT;
	/* Not IP, or of a VLAN: for the host's stack; what that routes to a container meets to_container. */
	if (!p->family || type == ETHERTYPE_VLAN)
		return TC_ACT_OK;
	return finish(skb, p, HOOK_FROM_DEVICE, device_receives(skb, p, &action), action);
}

static __always_inline enum reason device_sends(struct __sk_buff *skb, struct packet *p)
{
	__u32 ifindex = skb->ifindex;
	struct device *device = bpf_map_lookup_elem(&devices, &ifindex);
	struct endpoint *source;
	struct address *address;
	enum reason reason = parse(skb, p);

	source = bpf_map_lookup_elem(&endpoints, &p->outer_source);
	if (!source || !source->ifindex)
		return REASON_FORWARDED;
	if (reason != REASON_FORWARDED)
		return reason;
	if (!device)
		return REASON_UNKNOWN_ENDPOINT;
	address = p->family == 4 ? &device->masquerade_ipv4 : &device->masquerade_ipv6;
	if (address_is_zero(address))
		return REASON_FORWARDED;
	p->tuple = p->wire;
	reason = masquerade(p, address);
	if (reason != REASON_FORWARDED)
		return reason;
	return translate(skb, p);
}

/* Packets to other machines: attached to egress of a device. */
SEC("tc")
int to_device(struct __sk_buff *skb)
{
	struct packet *p;
	__be16 type = start(skb, &p);

	if (!p)
		return TC_ACT_SHOT;
	if (!p->family || type == ETHERTYPE_VLAN)
		return TC_ACT_OK;
	return finish(skb, p, HOOK_TO_DEVICE, device_sends(skb, p), TC_ACT_OK);
}
