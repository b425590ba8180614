/* Into a container, from whichever program has judged the packet. */
#pragma once

#include <bpf/bpf_helpers.h>

#include "types.h"

#define TC_ACT_OK 0
#define TC_ACT_SHOT 2

/* In tc_index of what goes from a container's netkit pair to a container of this host. Only programs of tc can write
 * that: unlike a mark, no process can set it on what it sends. */
#define JUDGED 0x7061

/* into hands the frame to the container at the other end of `ifindex`, past the host's end. Where a container transmits
 * (netkit) the kernel cannot do that: there the frame takes the host's end, where to_container knows that it is judged.
 */
static __always_inline int into(struct __sk_buff *skb, __u32 ifindex, const __u8 *mac, const __u8 *host_mac,
				bool netkit)
{
	__u8 macs[12];

	memcpy(macs, mac, 6);
	memcpy(macs + 6, host_mac, 6);
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return TC_ACT_SHOT;
	if (!netkit)
		return bpf_redirect_peer(ifindex, 0);
	skb->tc_index = JUDGED;
	return bpf_redirect(ifindex, 0);
}
