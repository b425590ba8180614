/* Published ports (destination), masquerade (source), and the same inside of ICMP errors. */
#pragma once

#include "conntrack.h"
#include "maps.h"
#include "parse.h"

/* Source ports for masquerade when the endpoint's own is taken. Linux gives local sockets ports below it by default. */
#define MASQUERADE_FIRST 61000
#define MASQUERADE_COUNT (65536 - MASQUERADE_FIRST)
#define MASQUERADE_ATTEMPTS 32

#define IPV4_CHECKSUM 10
#define IPV4_SOURCE 12
#define IPV4_DESTINATION 16
#define IPV6_SOURCE 8
#define IPV6_DESTINATION 24

/* resolve rewrites `tuple` from what is on the wire into terms of endpoints: who is meant by an address of the host. */
VERIFIED_ONCE int resolve(struct packet *p)
{
	if (!p)
		return 0;

	struct endpoint *destination = bpf_map_lookup_elem(&endpoints, &p->wire.destination);
	struct published_key key = {};
	struct published *published;
	struct alias *alias;

	p->tuple = p->wire;
	if (!destination || destination->identity != IDENTITY_HOST)
		return 0;
	ordered_key(&p->wire, &p->key);
	alias = bpf_map_lookup_elem(&aliases, &p->key);
	if (!alias)
		alias = bpf_map_lookup_elem(&pending_aliases, &p->key);
	if (alias) {
		p->tuple.destination = alias->address;
		p->tuple.destination_port = alias->port;
		if (is_icmp(p->wire.protocol))
			p->tuple.source_port = alias->port;
		p->reply_only = 1;
		return 0;
	}
	key.address = p->wire.destination;
	key.port = p->wire.destination_port;
	key.protocol = p->wire.protocol;
	published = bpf_map_lookup_elem(&published_ports, &key);
	if (!published) {
		/* The unspecified address of the destination's family. */
		key.address.high = 0;
		key.address.low = address_is_ipv4(&p->wire.destination) ? MAPPED_PREFIX : 0;
		published = bpf_map_lookup_elem(&published_ports, &key);
	}
	if (published) {
		p->published = p->wire.destination;
		p->published_port = p->wire.destination_port;
		p->tuple.destination = published->address;
		p->tuple.destination_port = published->port;
	}
	return 0;
}

/* masquerade_attempt chooses the source port of `out` for the nth time. REASON_COUNT: another flow has that port. */
VERIFIED_ONCE int masquerade_attempt(struct packet *p, struct flow *flow, __u32 attempt, __u32 hash)
{
	if (!p || !flow)
		return REASON_BAD_HEADER;

	__u64 now = bpf_ktime_get_ns();
	struct alias value = {.address = p->tuple.source, .port = p->tuple.source_port};
	struct tuple owner_key = {};
	struct tuple owner;
	struct alias *taken;
	struct flow *other;

	if (flow->masquerade_port) {
		p->out.source_port = flow->masquerade_port;
	} else if (attempt) {
		if (p->protocol == PROTOCOL_SCTP || (is_icmp(p->out.protocol) && !is_echo_tuple(&p->tuple)))
			return REASON_NAT_UNSUPPORTED;
		p->out.source_port = bpf_htons(MASQUERADE_FIRST + (hash + attempt) % MASQUERADE_COUNT);
	}
	if (is_echo_tuple(&p->tuple))
		p->out.destination_port = p->out.source_port;
	if (p->icmp_error || (flow->flags & FLOW_ALIAS_KEPT))
		return REASON_FORWARDED;
	ordered_key(&p->out, &p->alias_key);
	taken = bpf_map_lookup_elem(&aliases, &p->alias_key);
	if (!taken)
		taken = bpf_map_lookup_elem(&pending_aliases, &p->alias_key);
	if (taken && (!address_equal(&taken->address, &value.address) || taken->port != value.port)) {
		/* Another endpoint's, if its flow is still alive. */
		owner = p->tuple;
		owner.source = taken->address;
		owner.source_port = taken->port;
		if (is_echo_tuple(&p->tuple))
			owner.destination_port = taken->port;
		ordered_key(&owner, &owner_key);
		other = flow_lookup(&owner_key, now);
		if (other && other->masquerade_port == p->out.source_port)
			return flow->masquerade_port ? REASON_NAT_COLLISION : REASON_COUNT;
	}
	if (flow->flags & FLOW_ASSURED) {
		if (!bpf_map_update_elem(&aliases, &p->alias_key, &value, BPF_ANY)) {
			bpf_map_delete_elem(&pending_aliases, &p->alias_key);
			flow->flags |= FLOW_ALIAS_KEPT;
		}
	} else if (!taken || flow->masquerade_port != p->out.source_port) {
		bpf_map_delete_elem(&aliases, &p->alias_key);
		if (bpf_map_update_elem(&pending_aliases, &p->alias_key, &value, BPF_ANY))
			return REASON_EXHAUSTED;
	}
	flow->masquerade_port = p->out.source_port;
	return REASON_FORWARDED;
}

/* masquerade makes `address` the source of `out`, with a port under which replies find back: the endpoint's own, else
 * one by chance. */
VERIFIED_ONCE enum reason masquerade(struct packet *p, const struct address *address)
{
	if (!p || !address)
		return REASON_NAT_UNSUPPORTED;

	bool ordered = ordered_key(&p->tuple, &p->key);
	struct flow *flow = flow_lookup(&p->key, bpf_ktime_get_ns());
	__u32 hash = 0, attempt;
	int reason;

	if (!flow)
		return p->icmp_error ? REASON_ICMP_UNRELATED : REASON_NO_CONNECTION;
	p->source_identity = flow->source_identity;
	p->destination_identity = flow->destination_identity;
	p->out = p->tuple;
	/* Who was asked answers by the address that was asked. */
	if (ordered != !!(flow->flags & FLOW_ORDERED))
		return REASON_FORWARDED;
	p->out.source = *address;
	for (attempt = 0; attempt < MASQUERADE_ATTEMPTS; attempt++) {
		if (attempt == 1)
			hash = bpf_get_prandom_u32();
		reason = masquerade_attempt(p, flow, attempt, hash);
		if (reason != REASON_COUNT)
			return reason;
	}
	return REASON_EXHAUSTED;
}

/* Writes an address at `at`. `ip_checksum` and `checksum` are the offsets of the sums to mend; zero: there is none. */
static __always_inline int store_address(struct __sk_buff *skb, __u32 at, __u32 ip_checksum, __u32 checksum,
					 __u64 flags, const struct address *from, const struct address *to)
{
	__be32 old_words[4], new_words[4];
	__s64 difference;

	if (ip_checksum) {
		old_words[0] = address_ipv4(from);
		new_words[0] = address_ipv4(to);
		if (bpf_l3_csum_replace(skb, ip_checksum, old_words[0], new_words[0], 4))
			return -1;
		if (checksum && bpf_l4_csum_replace(skb, checksum, old_words[0], new_words[0], flags | 4))
			return -1;
		return bpf_skb_store_bytes(skb, at, new_words, 4, 0);
	}
	memcpy(old_words, from, 16);
	memcpy(new_words, to, 16);
	difference = bpf_csum_diff(old_words, 16, new_words, 16, 0);
	if (checksum && bpf_l4_csum_replace(skb, checksum, 0, difference, flags))
		return -1;
	return bpf_skb_store_bytes(skb, at, new_words, 16, 0);
}

static __always_inline int store_port(struct __sk_buff *skb, __u32 at, __u32 checksum, __u64 flags, __be16 from,
				      __be16 to)
{
	if (from == to)
		return 0;
	if (checksum && bpf_l4_csum_replace(skb, checksum, from, to, flags | 2))
		return -1;
	return bpf_skb_store_bytes(skb, at, &to, 2, 0);
}

/* The packet in an ICMP error, which travelled the other way: its source is our destination. */
VERIFIED_ONCE int translate_inner(struct __sk_buff *skb, struct packet *p)
{
	if (!p)
		return -1;

	bool ipv4 = p->family == 4;
	__u32 l3 = p->inner_l3_offset, l4 = p->inner_l4_offset, sum = p->l4_offset + 2;
	__u32 ip_sum = ipv4 ? l3 + IPV4_CHECKSUM : 0;
	/* A change of an IPv4 header with its own sum leaves sums over it as they were. */
	__u32 outer_sum = ipv4 ? 0 : sum;
	struct tuple *wire = &p->wire, *out = &p->out;

	if (!address_equal(&wire->destination, &out->destination) &&
	    store_address(skb, l3 + (ipv4 ? IPV4_SOURCE : IPV6_SOURCE), ip_sum, outer_sum, 0, &wire->destination,
			  &out->destination))
		return -1;
	if (!address_equal(&wire->source, &out->source) &&
	    store_address(skb, l3 + (ipv4 ? IPV4_DESTINATION : IPV6_DESTINATION), ip_sum, outer_sum, 0, &wire->source,
			  &out->source))
		return -1;
	if (is_icmp(wire->protocol))
		return store_port(skb, l4 + 4, sum, 0, wire->destination_port, out->destination_port);
	if (store_port(skb, l4, sum, 0, wire->destination_port, out->destination_port))
		return -1;
	return store_port(skb, l4 + 2, sum, 0, wire->source_port, out->source_port);
}

/* translate rewrites the packet from `wire` to `out`. */
VERIFIED_ONCE enum reason translate(struct __sk_buff *skb, struct packet *p)
{
	if (!p)
		return REASON_BAD_HEADER;

	bool ipv4 = p->family == 4, echo = is_icmp(p->protocol);
	__u32 l3 = p->l3_offset, l4 = p->l4_offset, sum = 0;
	__u32 ip_sum = ipv4 ? l3 + IPV4_CHECKSUM : 0;
	__u64 pseudo = BPF_F_PSEUDO_HDR, plain = 0;
	struct tuple *wire = &p->wire, *out = &p->out;
	bool change_source = !address_equal(&wire->source, &out->source);
	bool change_destination = !address_equal(&wire->destination, &out->destination);
	bool change_ports = wire->source_port != out->source_port || wire->destination_port != out->destination_port;

	if (!change_source && !change_destination && !change_ports)
		return REASON_FORWARDED;
	if (p->icmp_error) {
		change_source = change_source && address_equal(&p->outer_source, &wire->source);
		if (translate_inner(skb, p))
			return REASON_TRUNCATED;
	} else if (p->protocol == PROTOCOL_SCTP && change_ports) {
		/* Its checksum is a CRC over the whole packet. */
		return REASON_NAT_UNSUPPORTED;
	}
	if (p->fragment != FRAGMENT_LATER) {
		switch (p->protocol) {
		case IPPROTO_TCP:
			sum = l4 + 16;
			break;
		case IPPROTO_UDP:
			sum = l4 + 6;
			pseudo |= BPF_F_MARK_MANGLED_0;
			plain |= BPF_F_MARK_MANGLED_0;
			break;
		case IPPROTO_ICMP:
			pseudo = 0;
			break;
		case IPPROTO_ICMPV6:
			sum = l4 + 2;
			break;
		}
	}
	if (change_source && store_address(skb, l3 + (ipv4 ? IPV4_SOURCE : IPV6_SOURCE), ip_sum, sum, pseudo,
					   &wire->source, &out->source))
		return REASON_TRUNCATED;
	if (change_destination && store_address(skb, l3 + (ipv4 ? IPV4_DESTINATION : IPV6_DESTINATION), ip_sum, sum,
						pseudo, &wire->destination, &out->destination))
		return REASON_TRUNCATED;
	if (!change_ports || p->icmp_error || p->fragment == FRAGMENT_LATER)
		return REASON_FORWARDED;
	if (echo)
		return store_port(skb, l4 + 4, l4 + 2, plain, wire->source_port, out->source_port) ? REASON_TRUNCATED
												   : REASON_FORWARDED;
	if (store_port(skb, l4, sum, plain, wire->source_port, out->source_port) ||
	    store_port(skb, l4 + 2, sum, plain, wire->destination_port, out->destination_port))
		return REASON_TRUNCATED;
	return REASON_FORWARDED;
}
