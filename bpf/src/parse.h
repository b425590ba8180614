/* From bytes to struct packet. Headers are copied out by a cursor: that also works when they are not in the linear
 * part, without bpf_skb_pull_data(), which breaks UDP GSO fragment lists. */
#pragma once

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "address.h"
#include "maps.h"
#include "protocol.h"

#define ETHERTYPE_IPV4 bpf_htons(ETH_P_IP)
#define ETHERTYPE_IPV6 bpf_htons(ETH_P_IPV6)
#define ETHERTYPE_ARP bpf_htons(ETH_P_ARP)
#define ETHERTYPE_VLAN bpf_htons(ETH_P_8021Q)
#define ETHERTYPE_QINQ bpf_htons(ETH_P_8021AD)

#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define EXTENSION_HEADERS_LIMIT 6
/* Seconds for all of a packet's fragments to come: that of the kernel's own reassembly. */
#define FRAGMENT_TIMEOUT 30

#define SECOND 1000000000ULL

struct icmp_header {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 id;
	__be16 sequence;
};

struct ports_header {
	__be16 source;
	__be16 destination;
};

struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

struct cursor {
	struct __sk_buff *skb;
	__u32 offset;
	/* Where the IP packet ends; bytes behind it belong to nobody. */
	__u32 end;
};

/* read copies the next bytes out and moves on; false, and zeroes, when the packet ends before. */
static __always_inline __must_check bool read(struct cursor *cursor, void *to, __u32 size)
{
	if (cursor->offset + size > cursor->end) {
		memset(to, 0, size);
		return false;
	}
	if (bpf_skb_load_bytes(cursor->skb, cursor->offset, to, size))
		return false;
	cursor->offset += size;
	return true;
}

static __always_inline __must_check enum reason parse_ipv4(struct cursor *cursor, struct packet *p)
{
	struct iphdr header;
	__u16 total, fragment;

	cursor->end = cursor->skb->len;
	if (!read(cursor, &header, sizeof(header)))
		return REASON_TRUNCATED;
	p->outer_source = address_from_ipv4(header.saddr);
	p->outer_destination = address_from_ipv4(header.daddr);
	if (header.version != 4 || header.ihl < 5)
		return REASON_BAD_HEADER;
	total = bpf_ntohs(header.tot_len);
	p->l4_offset = p->l3_offset + header.ihl * 4;
	if (total < header.ihl * 4)
		return REASON_BAD_HEADER;
	if (p->l3_offset + total > cursor->skb->len)
		return REASON_TRUNCATED;
	cursor->end = p->l3_offset + total;
	cursor->offset = p->l4_offset;
	p->protocol = header.protocol;
	p->ttl = header.ttl;
	fragment = bpf_ntohs(header.frag_off);
	p->fragment_offset = (fragment & IPV4_FRAGMENT_OFFSET) * 8;
	p->fragment_id = header.id;
	if (p->fragment_offset)
		p->fragment = FRAGMENT_LATER;
	else if (fragment & IPV4_MORE_FRAGMENTS)
		p->fragment = FRAGMENT_FIRST;
	return REASON_FORWARDED;
}

static __always_inline __must_check enum reason parse_ipv6(struct cursor *cursor, struct packet *p)
{
	struct ipv6hdr header;
	struct fragment_header fragment;
	/* Next header and its length, of the options headers. */
	__u8 option[2];
	int i;

	cursor->end = cursor->skb->len;
	if (!read(cursor, &header, sizeof(header)))
		return REASON_TRUNCATED;
	p->outer_source = address_from_ipv6(header.saddr.in6_u.u6_addr32);
	p->outer_destination = address_from_ipv6(header.daddr.in6_u.u6_addr32);
	/* A mapped address in IPv6 would stand for an IPv4 endpoint. */
	if (header.version != 6 || address_is_ipv4(&p->outer_source) || address_is_ipv4(&p->outer_destination))
		return REASON_BAD_HEADER;
	if (cursor->offset + bpf_ntohs(header.payload_len) > cursor->skb->len)
		return REASON_TRUNCATED;
	cursor->end = cursor->offset + bpf_ntohs(header.payload_len);
	p->protocol = header.nexthdr;
	p->ttl = header.hop_limit;
	for (i = 0; i <= EXTENSION_HEADERS_LIMIT; i++) {
		p->l4_offset = cursor->offset;
		switch (p->protocol) {
		case IPPROTO_HOPOPTS:
		case PROTOCOL_DESTINATION_OPTIONS:
			if (!read(cursor, option, sizeof(option)))
				return REASON_TRUNCATED;
			cursor->offset += option[1] * 8 + 6;
			p->protocol = option[0];
			break;
		case PROTOCOL_FRAGMENT:
			if (p->fragment)
				return REASON_EXTENSION_HEADERS;
			if (!read(cursor, &fragment, sizeof(fragment)))
				return REASON_TRUNCATED;
			p->fragment_offset = bpf_ntohs(fragment.offset) & 0xfff8;
			p->fragment_id = fragment.id;
			/* An atomic fragment (RFC 6946) is a whole packet. */
			if (p->fragment_offset)
				p->fragment = FRAGMENT_LATER;
			else if (bpf_ntohs(fragment.offset) & 1)
				p->fragment = FRAGMENT_FIRST;
			p->protocol = fragment.next;
			/* What follows in a later fragment is the middle of something. */
			if (p->fragment == FRAGMENT_LATER) {
				p->l4_offset = cursor->offset;
				return REASON_FORWARDED;
			}
			break;
		case IPPROTO_ROUTING:
			return REASON_ROUTING_HEADER;
		case PROTOCOL_AUTHENTICATION:
			return REASON_EXTENSION_HEADERS;
		default:
			return REASON_FORWARDED;
		}
	}
	return REASON_EXTENSION_HEADERS;
}

/* Ports and flags of a whole packet or first fragment. */
static __always_inline __must_check enum reason parse_l4(struct cursor *cursor, struct packet *p)
{
	union {
		struct tcphdr tcp;
		struct icmp_header icmp;
		struct ports_header ports;
	} header;
	enum reason short_of = p->fragment == FRAGMENT_FIRST ? REASON_FRAGMENT_TINY : REASON_TRUNCATED;

	if (cursor->offset > cursor->end || cursor->end - cursor->offset < l4_minimum(p->protocol))
		return short_of;
	switch (p->protocol) {
	case IPPROTO_TCP:
		if (!read(cursor, &header.tcp, sizeof(header.tcp)))
			return short_of;
		if (header.tcp.doff < 5)
			return REASON_BAD_HEADER;
		p->wire.source_port = header.tcp.source;
		p->wire.destination_port = header.tcp.dest;
		p->tcp_flags = ((__u8 *)&header.tcp)[13];
		break;
	case IPPROTO_UDP:
	case PROTOCOL_SCTP:
		if (!read(cursor, &header.ports, sizeof(header.ports)))
			return short_of;
		p->wire.source_port = header.ports.source;
		p->wire.destination_port = header.ports.destination;
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (!read(cursor, &header.icmp, sizeof(header.icmp)))
			return short_of;
		/* ICMP of the other family has no meaning (RFC 4443, 1). */
		if ((p->protocol == IPPROTO_ICMP) != (p->family == 4))
			return REASON_BAD_HEADER;
		p->icmp_type = header.icmp.type;
		p->icmp_code = header.icmp.code;
		if (is_icmp_echo(p->protocol, p->icmp_type)) {
			p->wire.source_port = header.icmp.id;
			p->wire.destination_port = header.icmp.id;
		} else {
			/* A flow of its own for each message, which no echo has: no other one allows it. */
			p->wire.source_port = bpf_htons(header.icmp.type << 8 | header.icmp.code);
			p->wire.destination_port = ~p->wire.source_port;
		}
		p->icmp_error = is_icmp_error(p->protocol, p->icmp_type);
		break;
	}
	return REASON_FORWARDED;
}

static __always_inline struct fragment_key fragment_key(const struct packet *p)
{
	return (struct fragment_key){
	    .source = p->outer_source,
	    .destination = p->outer_destination,
	    .id = p->fragment_id,
	    .protocol = p->protocol,
	};
}

/* remember_fragment keeps the ports of a first fragment, which has passed, for the later ones, which have none. */
static __always_inline void remember_fragment(const struct packet *p)
{
	struct fragment_key key = fragment_key(p);
	struct fragment value = {
	    .expires = bpf_ktime_get_ns() + FRAGMENT_TIMEOUT * SECOND,
	    .source_port = p->wire.source_port,
	    .destination_port = p->wire.destination_port,
	    .icmp_type = p->icmp_type,
	    .icmp_code = p->icmp_code,
	};

	bpf_map_update_elem(&fragments, &key, &value, BPF_ANY);
}

static __always_inline __must_check enum reason parse_later_fragment(struct packet *p, __u16 length)
{
	struct fragment_key key = fragment_key(p);
	struct fragment *first;

	/* It would overwrite the header that the first one was judged by (RFC 1858, RFC 3128). */
	if (p->fragment_offset < l4_minimum(p->protocol) || p->fragment_offset + length > 65535)
		return REASON_FRAGMENT_OVERLAP;
	first = bpf_map_lookup_elem(&fragments, &key);
	if (!first || first->expires < bpf_ktime_get_ns())
		return REASON_FRAGMENT_UNKNOWN;
	p->wire.source_port = first->source_port;
	p->wire.destination_port = first->destination_port;
	p->icmp_type = first->icmp_type;
	p->icmp_code = first->icmp_code;
	return REASON_FORWARDED;
}

/* The packet that an ICMP error tells of; `wire` becomes its reverse, the direction in which the error travels. */
static __always_inline __must_check enum reason parse_inner(struct cursor *cursor, struct packet *p)
{
	struct iphdr ipv4;
	struct ipv6hdr ipv6;
	struct icmp_header icmp;
	struct tuple *wire = &p->wire;

	p->inner_l3_offset = cursor->offset;
	if (p->family == 4) {
		if (!read(cursor, &ipv4, sizeof(ipv4)))
			return REASON_TRUNCATED;
		/* A later fragment has no ports to be known by. */
		if (ipv4.version != 4 || ipv4.ihl < 5 || (bpf_ntohs(ipv4.frag_off) & IPV4_FRAGMENT_OFFSET))
			return REASON_ICMP_UNRELATED;
		cursor->offset += ipv4.ihl * 4 - sizeof(ipv4);
		wire->source = address_from_ipv4(ipv4.daddr);
		wire->destination = address_from_ipv4(ipv4.saddr);
		wire->protocol = ipv4.protocol;
	} else {
		if (!read(cursor, &ipv6, sizeof(ipv6)))
			return REASON_TRUNCATED;
		if (ipv6.version != 6)
			return REASON_ICMP_UNRELATED;
		wire->source = address_from_ipv6(ipv6.daddr.in6_u.u6_addr32);
		wire->destination = address_from_ipv6(ipv6.saddr.in6_u.u6_addr32);
		wire->protocol = ipv6.nexthdr;
	}
	p->inner_l4_offset = cursor->offset;
	/* ICMP carries at least eight bytes of what it tells of (RFC 792); an identifier lies where the first four
	 * ports' are not. */
	if (!read(cursor, &icmp, sizeof(icmp)))
		return REASON_TRUNCATED;
	if (is_icmp(wire->protocol)) {
		if (!is_icmp_echo(wire->protocol, icmp.type))
			return REASON_ICMP_UNRELATED;
		wire->source_port = wire->destination_port = icmp.id;
	} else if (l4_minimum(wire->protocol)) {
		wire->source_port = *(__be16 *)&icmp.checksum;
		wire->destination_port = *(__be16 *)&icmp.type;
	}
	return REASON_FORWARDED;
}

/* parse fills `p` from an IP packet behind its Ethernet header. The outer addresses are set as soon as they are known.
 */
VERIFIED_ONCE enum reason parse(struct __sk_buff *skb, struct packet *p)
{
	if (!p)
		return REASON_BAD_HEADER;

	struct cursor cursor = {.skb = skb, .offset = ETH_HLEN};
	enum reason reason;

	p->l3_offset = ETH_HLEN;
	reason = p->family == 4 ? parse_ipv4(&cursor, p) : parse_ipv6(&cursor, p);
	if (reason != REASON_FORWARDED)
		return reason;
	p->wire.source = p->outer_source;
	p->wire.destination = p->outer_destination;
	p->wire.protocol = p->protocol;
	if (p->fragment == FRAGMENT_LATER)
		return parse_later_fragment(p, cursor.end - p->l4_offset);
	reason = parse_l4(&cursor, p);
	if (reason == REASON_FORWARDED && p->icmp_error && p->fragment == FRAGMENT_NONE)
		return parse_inner(&cursor, p);
	return reason;
}

/* start clears the scratch packet and reads the Ethernet header. Returns its type; zero: there is none. */
static __always_inline __be16 start(struct __sk_buff *skb, struct packet **packet)
{
	__u32 zero = 0;
	struct ethhdr ethernet;
	struct packet *p = bpf_map_lookup_elem(&scratch, &zero);

	*packet = p;
	if (!p)
		return 0;
	memset(p, 0, sizeof(*p));
	if (bpf_skb_load_bytes(skb, 0, &ethernet, sizeof(ethernet)))
		return 0;
	memcpy(p->source_mac, ethernet.h_source, ETH_ALEN);
	memcpy(p->destination_mac, ethernet.h_dest, ETH_ALEN);
	p->family = ethernet.h_proto == ETHERTYPE_IPV4 ? 4 : ethernet.h_proto == ETHERTYPE_IPV6 ? 6 : 0;
	return skb->vlan_present ? ETHERTYPE_VLAN : ethernet.h_proto;
}
