/* Flows. One entry for both directions, under the tuple in terms of endpoints. */
#pragma once

#include "maps.h"
#include "parse.h"
#include "policy.h"

/* Seconds without a packet after which a flow is forgotten. */
#define TIMEOUT_HALF_OPEN 60
#define TIMEOUT_TCP (8 * 3600)
#define TIMEOUT_TCP_CLOSING 10
#define TIMEOUT_OTHER 120

static __always_inline __u64 flow_timeout(const struct flow *flow, __u8 protocol)
{
	if (!(flow->flags & FLOW_ASSURED))
		return TIMEOUT_HALF_OPEN * SECOND;
	if (protocol != IPPROTO_TCP)
		return TIMEOUT_OTHER * SECOND;
	if (flow->flags & (FLOW_RESET | FLOW_FIN_FORWARD | FLOW_FIN_REPLY))
		return (flow->flags & FLOW_RESET) || !(~flow->flags & (FLOW_FIN_FORWARD | FLOW_FIN_REPLY))
			   ? TIMEOUT_TCP_CLOSING * SECOND
			   : TIMEOUT_OTHER * SECOND;
	return TIMEOUT_TCP * SECOND;
}

/* Both sides have said that they are done; its ports may be used anew. */
static __always_inline bool flow_closed(const struct flow *flow)
{
	return (flow->flags & FLOW_RESET) ||
	       (flow->flags & (FLOW_FIN_FORWARD | FLOW_FIN_REPLY)) == (FLOW_FIN_FORWARD | FLOW_FIN_REPLY);
}

static __always_inline struct flow *flow_lookup(const struct tuple *key, __u64 now)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key);

	if (flow && flow->expires > now)
		return flow;
	flow = bpf_map_lookup_elem(&pending_flows, key);
	return flow && flow->expires > now ? flow : NULL;
}

static __always_inline void flow_delete(const struct tuple *key)
{
	bpf_map_delete_elem(&flows, key);
	bpf_map_delete_elem(&pending_flows, key);
}

/* Opens a flow for the packet at hand, whose direction is the flow's. */
static __always_inline __must_check enum reason flow_open(struct packet *p, bool ordered, __u64 now)
{
	enum reason reason;

	if (p->fragment == FRAGMENT_LATER)
		return REASON_FRAGMENT_UNKNOWN;
	if (p->reply_only)
		return REASON_NO_CONNECTION;
	if (p->protocol == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) != TCP_SYN)
		return p->tcp_flags & TCP_SYN && !(p->tcp_flags & TCP_ACK) ? REASON_TCP_INVALID : REASON_NO_CONNECTION;
	if ((p->protocol == IPPROTO_ICMP && p->icmp_type == ICMP_ECHO_REPLY) ||
	    (p->protocol == IPPROTO_ICMPV6 && p->icmp_type == ICMP6_ECHO_REPLY))
		return REASON_NO_CONNECTION;

	/* Whatever policy says of ICMP: an endpoint's only neighbour is the program. */
	if (is_link_message(p->protocol, p->icmp_type))
		return REASON_SPOOFED_NEIGHBOUR;

	p->judged = p->tuple;
	p->policy_port = is_icmp(p->protocol) ? p->icmp_type << 8 | p->icmp_code : bpf_ntohs(p->tuple.destination_port);
	reason = authorize(p);
	if (reason != REASON_FORWARDED)
		return reason;

	p->fresh.expires = now + TIMEOUT_HALF_OPEN * SECOND;
	p->fresh.published = p->published;
	p->fresh.published_port = p->published_port;
	p->fresh.policy_port = p->policy_port;
	p->fresh.flags = ordered ? FLOW_ORDERED : 0;
	p->fresh.generation = p->generation;
	p->fresh.source_identity = p->source_identity;
	p->fresh.destination_identity = p->destination_identity;
	/* A full LRU map makes room among the half-open ones; it fails only when all is in use by other CPUs. */
	if (bpf_map_update_elem(&pending_flows, &p->key, &p->fresh, BPF_ANY))
		return REASON_EXHAUSTED;
	p->opened = 1;
	return REASON_FORWARDED;
}

/* The policy was replaced since the flow was allowed: is it still? */
static __always_inline __must_check enum reason flow_judge_again(struct packet *p, struct flow *flow, bool reply)
{
	enum reason reason;

	if (reply)
		reverse(&p->tuple, &p->judged);
	else
		p->judged = p->tuple;
	p->policy_port = flow->policy_port;
	reason = authorize(p);
	if (reason != REASON_FORWARDED) {
		flow_delete(&p->key);
		return reason;
	}
	flow->source_identity = p->source_identity;
	flow->destination_identity = p->destination_identity;
	flow->generation = p->generation;
	return REASON_FORWARDED;
}

static __always_inline void flow_update(struct packet *p, struct flow *flow, bool reply, __u64 now)
{
	__u16 flags = flow->flags;
	__u64 expires;

	if (reply)
		flags |= FLOW_REPLIED;
	else if (flags & FLOW_REPLIED)
		flags |= FLOW_ASSURED;
	if (p->protocol == IPPROTO_TCP && p->fragment != FRAGMENT_LATER) {
		if (p->tcp_flags & TCP_FIN)
			flags |= reply ? FLOW_FIN_REPLY : FLOW_FIN_FORWARD;
		if (p->tcp_flags & TCP_RST)
			flags |= FLOW_RESET;
	}
	if (flags != flow->flags) {
		bool promote = (flags & FLOW_ASSURED) && !(flow->flags & FLOW_ASSURED);

		flow->flags = flags;
		flow->expires = now + flow_timeout(flow, p->tuple.protocol);
		if (promote) {
			p->fresh = *flow;
			/* Replaces what has expired there. A full map leaves the flow among the pending ones. */
			if (!bpf_map_update_elem(&flows, &p->key, &p->fresh, BPF_ANY))
				bpf_map_delete_elem(&pending_flows, &p->key);
		}
		return;
	}
	/* Not for every packet: the other direction's CPU reads the entry. */
	expires = now + flow_timeout(flow, p->tuple.protocol);
	if (expires > flow->expires + SECOND)
		flow->expires = expires;
}

/* track finds the packet's flow or opens one, as far as the policy allows. Fills `out` with how the packet leaves: a
 * reply of a published port has that as its source. */
VERIFIED_ONCE enum reason track(struct packet *p)
{
	if (!p)
		return REASON_BAD_HEADER;

	__u64 now = bpf_ktime_get_ns();
	__u32 zero = 0, *active = bpf_map_lookup_elem(&generation, &zero);
	bool ordered = ordered_key(&p->tuple, &p->key), reply;
	struct flow *flow = flow_lookup(&p->key, now);
	enum reason reason;

	p->generation = active ? *active : 0;
	p->out = p->tuple;
	if (flow && p->protocol == IPPROTO_TCP && p->fragment != FRAGMENT_LATER &&
	    (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && flow_closed(flow)) {
		flow_delete(&p->key);
		flow = NULL;
	}
	if (!flow)
		return p->icmp_error ? REASON_ICMP_UNRELATED : flow_open(p, ordered, now);

	/* An exchange of an address and port with itself has no direction; it counts as forward. */
	reply = ordered != !!(flow->flags & FLOW_ORDERED);
	if (flow->generation != p->generation) {
		reason = flow_judge_again(p, flow, reply);
		if (reason != REASON_FORWARDED)
			return reason;
	}
	p->source_identity = flow->source_identity;
	p->destination_identity = flow->destination_identity;
	if (reply) {
		if (!address_is_zero(&flow->published)) {
			p->out.source = flow->published;
			p->out.source_port = flow->published_port;
		}
	} else if (!p->icmp_error &&
		   (!address_equal(&flow->published, &p->published) || flow->published_port != p->published_port)) {
		/* The same client with the same port talks to the endpoint both directly and by a published port. */
		return REASON_NAT_COLLISION;
	}
	if (p->icmp_error)
		return REASON_FORWARDED;
	if (reply && p->protocol == IPPROTO_TCP && p->fragment != FRAGMENT_LATER &&
	    (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return REASON_TCP_INVALID;
	flow_update(p, flow, reply, now);
	return REASON_FORWARDED;
}
