/* What is known of the packet at hand. */
#pragma once

#include "types.h"

enum fragment_kind {
	FRAGMENT_NONE = 0,
	FRAGMENT_FIRST,
	FRAGMENT_LATER,
};

/* A function that the verifier looks at once, for any argument, and not anew on each way to each of its calls. It has
 * external linkage, and has to expect a null pointer. */
#define VERIFIED_ONCE __attribute__((noinline))

struct packet {
	/* As it came. For an ICMP error: the reverse of the packet that it tells of, which is the direction it travels
	 * in. */
	struct tuple wire;
	/* As the policy sees it: in terms of endpoints. */
	struct tuple tuple;
	/* As it leaves. */
	struct tuple out;
	/* The tuple in the direction of the flow's first packet, which the policy is asked for. */
	struct tuple judged;
	struct tuple key;
	struct tuple alias_key;
	struct flow fresh;

	/* Addresses of the IP header; other than those of `wire` for ICMP errors. */
	struct address outer_source;
	struct address outer_destination;

	struct address published;
	__be16 published_port;

	/* The endpoint's interface at whose link the packet is; zero: it is at a device. */
	__u32 link;
	__u32 generation;
	__u32 source_identity;
	__u32 destination_identity;

	__u16 policy_port;
	__u16 l3_offset;
	__u16 l4_offset;
	__u16 inner_l3_offset;
	__u16 inner_l4_offset;
	/* Bytes of the fragment's offset in its packet. */
	__u16 fragment_offset;
	__u16 l4_length;
	__u32 fragment_id;

	__u8 source_mac[6];
	__u8 destination_mac[6];

	__u8 family;
	/* Of the outer header; that of `wire` is the inner one's for ICMP errors. */
	__u8 protocol;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 fragment;
	__u8 icmp_error;
	__u8 ttl;
	/* Set when the packet answers a flow that has to exist. */
	__u8 reply_only;
	__u8 opened;
};
