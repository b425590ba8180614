/* What the active policy says. All precedence was resolved when it was translated: a verdict is two or three look-ups,
 * however many rules there are. */
#pragma once

#include "address.h"
#include "maps.h"
#include "protocol.h"

static __always_inline __u8 rule_protocol(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case PROTOCOL_SCTP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return protocol;
	}
	return 0;
}

/* The verdict on one direction of one subject; `port` in host byte order. A subject that the policy does not know
 * passes nothing. */
static __always_inline enum reason policy_direction(__u32 slot, __u64 subject, __u8 direction, __u32 identity,
						    __u8 protocol, __u16 port)
{
	struct rule_key key = {
	    .subject = subject,
	    .identity = identity,
	    .direction = direction,
	    .protocol = rule_protocol(protocol),
	};
	struct port_key port_key = {.prefix_length = 48, .port = bpf_htons(port)};
	struct rule *rule;
	void *slot_rules, *slot_ports;
	__u32 *found;
	__u32 verdict;

	slot_rules = bpf_map_lookup_elem(&rules, &slot);
	slot_ports = bpf_map_lookup_elem(&ports, &slot);
	if (!slot_rules || !slot_ports)
		return REASON_NO_POLICY;
	rule = bpf_map_lookup_elem(slot_rules, &key);
	if (!rule) {
		key.identity = IDENTITY_ANY;
		rule = bpf_map_lookup_elem(slot_rules, &key);
	}
	if (!rule)
		return REASON_NO_POLICY;
	verdict = rule->verdict;
	if (rule->ports) {
		port_key.set = bpf_htonl(rule->ports);
		found = bpf_map_lookup_elem(slot_ports, &port_key);
		if (found)
			verdict = *found;
	}
	if (verdict == VERDICT_ALLOW)
		return REASON_FORWARDED;
	return verdict == VERDICT_DENY ? REASON_POLICY_DENIED : REASON_POLICY_DEFAULT_DENIED;
}

/* The one identity of an address: its endpoint's, else that of the longest prefix the policy knows. */
static __always_inline __u32 identity_of(__u32 slot, const struct address *address, const struct endpoint *endpoint)
{
	struct rule_key self = {.direction = DIRECTION_NONE};
	struct prefix_key prefix = {.prefix_length = 160};
	struct rule *rule;
	void *inner;
	__u32 *found;

	if (endpoint) {
		if (endpoint->identity)
			return endpoint->identity;
		self.subject = endpoint->subject;
		inner = bpf_map_lookup_elem(&rules, &slot);
		rule = inner ? bpf_map_lookup_elem(inner, &self) : NULL;
		if (rule)
			return rule->ports;
	}
	prefix.family[0] = address_is_ipv4(address) ? 4 : 6;
	memcpy(prefix.address, address, sizeof(prefix.address));
	inner = bpf_map_lookup_elem(&prefixes, &slot);
	found = inner ? bpf_map_lookup_elem(inner, &prefix) : NULL;
	if (found)
		return *found;
	return address_is_ipv4(address) ? IDENTITY_WORLD_IPV4 : IDENTITY_WORLD_IPV6;
}

/* authorize asks the policy for `judged`: egress of a source on this host and ingress of a destination on this host. */
VERIFIED_ONCE enum reason authorize(struct packet *p)
{
	if (!p)
		return REASON_BAD_HEADER;

	struct tuple *judged = &p->judged;
	struct endpoint *source = bpf_map_lookup_elem(&endpoints, &judged->source);
	struct endpoint *destination = bpf_map_lookup_elem(&endpoints, &judged->destination);
	__u32 slot = p->generation & 1;
	enum reason reason;

	/* At an endpoint's link one side is that endpoint: without its address's entry nobody would be asked for it. */
	if (p->link && !(source && source->ifindex == p->link) && !(destination && destination->ifindex == p->link))
		return REASON_UNKNOWN_ENDPOINT;
	p->source_identity = identity_of(slot, &judged->source, source);
	p->destination_identity = identity_of(slot, &judged->destination, destination);
	if (source && source->ifindex) {
		reason = policy_direction(slot, source->subject, DIRECTION_EGRESS, p->destination_identity,
					  judged->protocol, p->policy_port);
		if (reason != REASON_FORWARDED)
			return reason;
	}
	if (destination && destination->ifindex)
		return policy_direction(slot, destination->subject, DIRECTION_INGRESS, p->source_identity,
					judged->protocol, p->policy_port);
	return REASON_FORWARDED;
}
