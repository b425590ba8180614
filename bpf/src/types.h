/* What programs and the Go loader share. Padding is explicit, as map keys are compared byte by byte. */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

/* An address in network byte order; IPv4 as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2), so that one code path serves both. */
struct address {
	__u64 high;
	__u64 low;
};

/* Ports in network byte order. For ICMP echo both are the identifier, for other
 * messages type and code, and their complement. */
struct tuple {
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 padding[3];
};
_Static_assert(sizeof(struct tuple) == 40, "struct tuple is a map key without holes");

/* A container's interface, by the index of its end on the host. */
struct interface {
	struct address ipv4;
	struct address ipv6;
	/* The first eight bytes of SHA-256 over the endpoint's name: what policies call it. */
	__u64 subject;
	__u8 mac[6];
	__u8 host_mac[6];
	/* Not zero: a netkit pair, whose program runs where the container transmits. A veth pair's runs where the host
	 * receives. */
	__u32 netkit;
};
_Static_assert(sizeof(struct interface) == 56, "struct interface has no holes");

/* An address that belongs to an endpoint or to the host. */
struct endpoint {
	__u64 subject;
	/* The end on the host; zero: the host itself, or an endpoint of another host. */
	__u32 ifindex;
	/* Zero: the active policy knows the identity of the subject. */
	__u32 identity;
	__u8 mac[6];
	__u8 host_mac[6];
	__u32 padding;
};
_Static_assert(sizeof(struct endpoint) == 32, "struct endpoint has no holes");

enum {
	IDENTITY_ANY = 0,
	IDENTITY_HOST = 1,
	IDENTITY_WORLD_IPV4 = 2,
	IDENTITY_WORLD_IPV6 = 3,
};

enum direction {
	DIRECTION_INGRESS = 0,
	DIRECTION_EGRESS = 1,
	/* The identity of a subject, in `ports`. */
	DIRECTION_NONE = 2,
};

enum verdict {
	VERDICT_DEFAULT_DENY = 0,
	VERDICT_ALLOW = 1,
	VERDICT_DENY = 2,
};

struct rule_key {
	__u64 subject;
	__u32 identity;
	__u8 direction;
	/* IP protocol; zero: one that rules cannot name. */
	__u8 protocol;
	__u16 padding;
};

struct rule {
	/* The set of ports with a verdict of their own; zero: none. */
	__u32 ports;
	__u8 verdict;
	__u8 padding[3];
};

/* A key of a longest-prefix match; set and port in network byte order. For ICMP the port is type << 8 | code. */
struct port_key {
	__u32 prefix_length;
	__be32 set;
	__be16 port;
	__u16 padding;
};

/* The family comes first: an IPv6 prefix as short as ::/0 does not mean mapped IPv4 addresses. */
struct prefix_key {
	__u32 prefix_length;
	__u8 family[4];
	__u8 address[16];
};

/* Where a published port lies; an address of zeroes stands for every address of the host. */
struct published_key {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 padding[5];
};

struct published {
	struct address address;
	__be16 port;
	__u8 padding[6];
};

/* A device to other machines. */
struct device {
	/* What endpoints' addresses are replaced by; zeroes: they are routed as they are. */
	struct address masquerade_ipv4;
	struct address masquerade_ipv6;
};

enum flow_flags {
	FLOW_REPLIED = 1 << 0,
	/* The initiator has answered a reply: it is no forged address. */
	FLOW_ASSURED = 1 << 1,
	FLOW_FIN_FORWARD = 1 << 2,
	FLOW_FIN_REPLY = 1 << 3,
	FLOW_RESET = 1 << 4,
	FLOW_ALIAS_KEPT = 1 << 5,
	/* The initiator is the source of the ordered key. */
	FLOW_ORDERED = 1 << 6,
};

/* A connection in both directions: one entry, so that they live and die together. */
struct flow {
	/* CLOCK_MONOTONIC, nanoseconds. */
	__u64 expires;
	/* The destination before a published port was translated; zeroes: it was none. */
	struct address published;
	__be16 published_port;
	/* The source port that stands for the endpoint's outside; zero: not masqueraded. */
	__be16 masquerade_port;
	/* The port that the policy was asked for, host byte order. */
	__u16 policy_port;
	__u16 flags;
	/* The policy that allowed it last. */
	__u32 generation;
	__u32 source_identity;
	__u32 destination_identity;
	__u32 padding;
};
_Static_assert(sizeof(struct flow) == 48, "struct flow has no holes");

/* Who is meant by a masqueraded destination. */
struct alias {
	struct address address;
	__be16 port;
	__u8 padding[6];
};

struct fragment_key {
	struct address source;
	struct address destination;
	__u32 id;
	__u8 protocol;
	__u8 padding[3];
};

struct fragment {
	__u64 expires;
	__be16 source_port;
	__be16 destination_port;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 padding[2];
};

enum hook {
	HOOK_FROM_CONTAINER = 0,
	HOOK_TO_CONTAINER = 1,
	HOOK_FROM_DEVICE = 2,
	HOOK_TO_DEVICE = 3,
	HOOK_COUNT = 4,
};

struct count {
	__u64 packets;
	__u64 bytes;
};

/* What is told of a flow or packet. */
struct event {
	/* CLOCK_MONOTONIC, nanoseconds. */
	__u64 time;
	/* The tuple as the policy sees it. */
	struct tuple tuple;
	__u32 source_identity;
	__u32 destination_identity;
	__u32 interface;
	__u32 length;
	__u8 reason;
	__u8 hook;
	/* The packet opened a flow. */
	__u8 opened;
	__u8 padding[5];
};
_Static_assert(sizeof(struct event) == 72, "struct event has no holes");
