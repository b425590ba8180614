/* What is told to the outside: a count for each hook and reason, and events of flows and drops. */
#pragma once

#include "maps.h"
#include "reason.h"

enum event_level {
	EVENTS_NONE = 0,
	/* Flows that were opened, and drops. */
	EVENTS_FLOWS = 1,
	EVENTS_PACKETS = 2,
};

const volatile __u32 event_level = EVENTS_FLOWS;

static __always_inline void lose_event(void)
{
	__u32 zero = 0;
	__u64 *lost = bpf_map_lookup_elem(&lost_events, &zero);

	if (lost)
		(*lost)++;
}

/* A reader looks at the ring by itself every so often; to wake it for each flow would cost as much as the flow. Drops
 * wake one that has nothing to read, and so does a ring of which an eighth is unread. */
static __always_inline __u64 wakeup(__u32 reason)
{
	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > bpf_ringbuf_query(&events, BPF_RB_RING_SIZE) / 8)
		return BPF_RB_FORCE_WAKEUP;
	return reason >= REASON_FIRST_DROP ? 0 : BPF_RB_NO_WAKEUP;
}

/* tell counts the packet and writes its event. A full ring loses the event and counts that; the packet goes its way. */
VERIFIED_ONCE int tell(struct __sk_buff *skb, struct packet *p, __u8 hook, __u32 reason)
{
	if (!p)
		return 0;

	__u32 index = hook * REASON_COUNT + reason;
	struct count *count = bpf_map_lookup_elem(&counts, &index);
	struct event *event;

	if (count) {
		count->packets++;
		count->bytes += skb->len;
	}
	if (event_level < EVENTS_PACKETS && (event_level == EVENTS_NONE || !(p->opened || reason >= REASON_FIRST_DROP)))
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		lose_event();
		return 0;
	}
	event->time = bpf_ktime_get_ns();
	if (p->tuple.protocol || !address_is_zero(&p->tuple.source)) {
		event->tuple = p->tuple;
	} else {
		event->tuple = p->wire;
		event->tuple.source = p->outer_source;
		event->tuple.destination = p->outer_destination;
		event->tuple.protocol = p->protocol;
	}
	event->source_identity = p->source_identity;
	event->destination_identity = p->destination_identity;
	event->interface = skb->ifindex;
	event->length = skb->len;
	event->reason = reason;
	event->hook = hook;
	event->opened = p->opened;
	memset(event->padding, 0, sizeof(event->padding));
	bpf_ringbuf_submit(event, wakeup(reason));
	return 0;
}
