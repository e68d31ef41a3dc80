// SPDX-License-Identifier: GPL-2.0-only
/*
 * Counters in an array that every CPU adds to, from every hook that carries packets. What they add
 * up to must equal what ran; contended_counter.h has the operation and how it is done wrong.
 *
 * These programs are driven by tests/test_serialization.py.
 */
#include "contended_counter.h"
#include "marked_packets.h"

/*
 * Rule: Locked updates of all CPUs are serialized
 * Topic: Running programs
 * Between lock and unlock no other CPU is inside, nor an interrupt of the same CPU: interrupts are
 * off meanwhile. So no update under the lock is lost, whatever hooks the programs run from.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 */

#define ELEMENTS 64

/* The number of each hook's visits and histories; harness/running/experiment.py has them as well. */
#define TEST_RUN 0
#define TC_INGRESS 1
#define TC_EGRESS 2
#define XDP 3
#define CGROUP_INGRESS 4
#define CGROUP_EGRESS 5

MAP(ARRAY, state, __u32, struct shared, ELEMENTS)

static __always_inline void count(__u32 source)
{
	__u32 element = choose(source);
	struct shared *s = map_lookup(state, &element);

	if (s)
		contend(s, element, source);
}

SEC("tc")
int count_test_run(struct __sk_buff *skb)
{
	count(TEST_RUN);
	return 0;
}

SEC("tc")
int count_tc_ingress(struct __sk_buff *skb)
{
	if (!is_marked_frame((void *)(long)skb->data, (void *)(long)skb->data_end))
		return TC_ACT_OK;
	count(TC_INGRESS);
	return TC_ACT_STOLEN;
}

SEC("tc")
int count_tc_egress(struct __sk_buff *skb)
{
	if (!is_marked_frame((void *)(long)skb->data, (void *)(long)skb->data_end))
		return TC_ACT_OK;
	count(TC_EGRESS);
	return TC_ACT_STOLEN;
}

SEC("xdp")
int count_xdp(struct xdp_md *frame)
{
	if (!is_marked_frame((void *)(long)frame->data, (void *)(long)frame->data_end))
		return XDP_PASS;
	count(XDP);
	return XDP_DROP;
}

/* Refused: nobody reads them. */
SEC("cgroup_skb/ingress")
int count_cgroup_skb_ingress(struct __sk_buff *skb)
{
	if (!is_marked_datagram((void *)(long)skb->data, (void *)(long)skb->data_end))
		return 1;
	count(CGROUP_INGRESS);
	return 0;
}

/* The packets go on: to refuse them at egress would be an error for the sender. */
SEC("cgroup_skb/egress")
int count_cgroup_skb_egress(struct __sk_buff *skb)
{
	if (is_marked_datagram((void *)(long)skb->data, (void *)(long)skb->data_end))
		count(CGROUP_EGRESS);
	return 1;
}
