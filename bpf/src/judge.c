/* The policy's verdict alone, without a packet: for tests that compare it with an oracle. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "policy.h"

char _license[] SEC("license") = "GPL";

struct question {
	struct tuple tuple;
	__u32 port;
	__u32 reason;
};

const struct question *unused_question __attribute__((unused));

SEC("syscall")
int judge(struct question *question)
{
	__u32 zero = 0, *active = bpf_map_lookup_elem(&generation, &zero);
	struct packet *p = bpf_map_lookup_elem(&scratch, &zero);

	if (!p || !active)
		return 1;
	p->generation = *active;
	p->judged = question->tuple;
	p->policy_port = question->port;
	question->reason = authorize(p);
	return 0;
}
