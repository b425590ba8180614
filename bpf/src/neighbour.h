/* ARP and IPv6 neighbour discovery. An endpoint has one neighbour, its gateway, for which the program answers; nothing
 * that an endpoint says reaches another's or the host's neighbour table. */
#pragma once

#include "link.h"
#include "maps.h"
#include "parse.h"

/* 169.254.1.1 and fe80::1: the gateway of every endpoint. */
#define GATEWAY_IPV4 bpf_htonl(0xa9fe0101)
#define GATEWAY_IPV6_HIGH ((__u64)bpf_htonl(0xfe800000))
#define GATEWAY_IPV6_LOW ((__u64)bpf_htonl(1) << 32)

#define ARP_REQUEST bpf_htons(1)
#define ARP_REPLY bpf_htons(2)

struct arp_packet {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
};

struct neighbour_message {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	__be32 target[4];
	__u8 option_type;
	__u8 option_length;
	__u8 mac[6];
};

/* Sends the frame back to where it came from. */
static __always_inline int reflect(struct __sk_buff *skb, const struct interface *interface)
{
	return into(skb, skb->ifindex, interface->mac, interface->host_mac, interface->netkit);
}

static __always_inline enum reason answer_arp(struct __sk_buff *skb, const struct interface *interface, int *action)
{
	struct arp_packet arp;
	__be32 sender, target, own = address_ipv4(&interface->ipv4), gateway = GATEWAY_IPV4;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)))
		return REASON_TRUNCATED;
	memcpy(&sender, arp.sender, 4);
	memcpy(&target, arp.target, 4);
	/* A probe of an own address has no sender yet (RFC 5227). */
	if (__builtin_memcmp(arp.sender_mac, interface->mac, 6) || (sender && sender != own) ||
	    address_is_zero(&interface->ipv4))
		return REASON_SPOOFED_ARP;
	if (target == own)
		return REASON_LINK_CHATTER;
	if (arp.operation != ARP_REQUEST || target != gateway)
		return REASON_ARP_UNEXPECTED;
	arp.operation = ARP_REPLY;
	memcpy(arp.target_mac, interface->mac, 6);
	memcpy(arp.target, &sender, 4);
	memcpy(arp.sender_mac, interface->host_mac, 6);
	memcpy(arp.sender, &gateway, 4);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &arp, sizeof(arp), 0))
		return REASON_TRUNCATED;
	*action = reflect(skb, interface);
	return REASON_ANSWERED;
}

/* Sum over an IPv6 pseudo header and a message of 32 bytes. */
static __always_inline __be16 neighbour_checksum(struct neighbour_message *message, const struct address *source,
						 const struct address *destination)
{
	__be32 words[4];
	__u64 sum;

	memcpy(words, source, 16);
	sum = bpf_csum_diff(NULL, 0, words, 16, 0);
	memcpy(words, destination, 16);
	sum = bpf_csum_diff(NULL, 0, words, 16, sum);
	words[0] = bpf_htonl(sizeof(*message));
	words[1] = bpf_htonl(IPPROTO_ICMPV6);
	sum = bpf_csum_diff(NULL, 0, words, 8, sum);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)message, sizeof(*message), sum);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline enum reason answer_solicitation(struct __sk_buff *skb, struct packet *p,
						       const struct interface *interface, int *action)
{
	struct neighbour_message message;
	struct address target;
	struct ipv6hdr header;

	/* A hop limit of 255 shows that it crossed no router (RFC 4861, 7.1). */
	if (p->ttl != 255 || bpf_skb_load_bytes(skb, p->l4_offset, &message, 24))
		return REASON_SPOOFED_NEIGHBOUR;
	target = address_from_ipv6(message.target);
	/* Duplicate address detection. */
	if (address_is_zero(&p->outer_source))
		return address_equal(&target, &interface->ipv6) || address_is_link_local(&target)
			   ? REASON_LINK_CHATTER
			   : REASON_SPOOFED_NEIGHBOUR;
	if (!address_equal(&p->outer_source, &interface->ipv6) && !address_is_link_local(&p->outer_source))
		return REASON_SPOOFED_NEIGHBOUR;
	if (target.high != GATEWAY_IPV6_HIGH || target.low != GATEWAY_IPV6_LOW)
		return REASON_SPOOFED_NEIGHBOUR;
	/* Probes of a known neighbour come without the option; then there is no room for the answer's. */
	if (bpf_skb_change_tail(skb, p->l4_offset + sizeof(message), 0) ||
	    bpf_skb_load_bytes(skb, p->l3_offset, &header, sizeof(header)))
		return REASON_TRUNCATED;
	header.payload_len = bpf_htons(sizeof(message));
	memcpy(&header.saddr, &target, 16);
	memcpy(&header.daddr, &p->outer_source, 16);
	message.type = ICMP6_NEIGHBOUR_ADVERTISEMENT;
	message.code = 0;
	message.checksum = 0;
	/* Router, solicited, override. */
	message.flags = bpf_htonl(0xe0000000);
	message.option_type = 2;
	message.option_length = 1;
	memcpy(message.mac, interface->host_mac, 6);
	message.checksum = neighbour_checksum(&message, &target, &p->outer_source);
	if (bpf_skb_store_bytes(skb, p->l3_offset, &header, sizeof(header), 0) ||
	    bpf_skb_store_bytes(skb, p->l4_offset, &message, sizeof(message), 0))
		return REASON_TRUNCATED;
	*action = reflect(skb, interface);
	return REASON_ANSWERED;
}

/* Messages of ICMPv6 that belong to the link. REASON_FORWARDED: it is none. */
VERIFIED_ONCE enum reason answer_icmp6(struct __sk_buff *skb, struct packet *p, const struct interface *interface,
				       int *action)
{
	/* What belongs to the link is never fragmented (RFC 6980). */
	if (!p || !interface || !action || (p->fragment && is_link_message(p->protocol, p->icmp_type)))
		return REASON_SPOOFED_NEIGHBOUR;
	switch (p->icmp_type) {
	case ICMP6_ROUTER_SOLICITATION:
	case ICMP6_MLD_QUERY ... ICMP6_MLD_DONE:
	case ICMP6_MLD2_REPORT:
		return REASON_LINK_CHATTER;
	case ICMP6_ROUTER_ADVERTISEMENT:
		return REASON_ROUTER_ADVERTISEMENT;
	case ICMP6_NEIGHBOUR_SOLICITATION:
		return answer_solicitation(skb, p, interface, action);
	case ICMP6_NEIGHBOUR_ADVERTISEMENT:
		/* Its own addresses at the start; the answers of others' are never asked for. */
		return address_equal(&p->outer_source, &interface->ipv6) || address_is_link_local(&p->outer_source)
			   ? REASON_LINK_CHATTER
			   : REASON_SPOOFED_NEIGHBOUR;
	case ICMP6_REDIRECT:
		return REASON_SPOOFED_NEIGHBOUR;
	}
	return REASON_FORWARDED;
}
