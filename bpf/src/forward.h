/* Where a packet goes. */
#pragma once

#include "link.h"
#include "maps.h"
#include "nat.h"
#include "parse.h"

#define AF_INET 2
#define AF_INET6 10

static __always_inline int decrement_ttl(struct __sk_buff *skb, const struct packet *p)
{
	__u8 ttl = p->ttl - 1;

	if (p->family == 6)
		return bpf_skb_store_bytes(skb, p->l3_offset + 7, &ttl, 1, 0);
	if (bpf_l3_csum_replace(skb, p->l3_offset + IPV4_CHECKSUM, bpf_htons(p->ttl << 8), bpf_htons(ttl << 8), 2))
		return -1;
	return bpf_skb_store_bytes(skb, p->l3_offset + 8, &ttl, 1, 0);
}

/* leave sends the packet out of the device that the host's routes name. What has no such route, or is too large for it,
 * goes to the host's own stack, which answers with the right ICMP error. */
VERIFIED_ONCE enum reason leave(struct __sk_buff *skb, struct packet *p, int *action)
{
	if (!p || !action)
		return REASON_BAD_HEADER;

	struct bpf_fib_lookup route = {};
	__u32 device;

	*action = TC_ACT_OK;
	if (p->ttl <= 1)
		return REASON_TTL_EXCEEDED;
	route.ifindex = skb->ifindex;
	route.l4_protocol = p->protocol;
	if (p->family == 4) {
		route.family = AF_INET;
		route.ipv4_src = address_ipv4(&p->out.source);
		route.ipv4_dst = address_ipv4(&p->out.destination);
	} else {
		route.family = AF_INET6;
		memcpy(route.ipv6_src, &p->out.source, 16);
		memcpy(route.ipv6_dst, &p->out.destination, 16);
	}
	switch (bpf_fib_lookup(skb, &route, sizeof(route), 0)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		break;
	default:
		return REASON_FORWARDED;
	}
	device = route.ifindex;
	if (!bpf_map_lookup_elem(&devices, &device))
		return REASON_FORWARDED;
	if (decrement_ttl(skb, p))
		return REASON_TRUNCATED;
	*action = bpf_redirect_neigh(device, NULL, 0, 0);
	return REASON_FORWARDED;
}
