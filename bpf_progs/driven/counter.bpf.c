// SPDX-License-Identifier: GPL-2.0-only
/*
 * Counters in an array, which every CPU increments, from every hook that carries packets. The sums must
 * equal the numbers of runs. contended_counter.h has the operation and its broken versions.
 *
 * These programs are driven by tests/lock/serialization/test_serialization.py.
 */
#include "contended_counter.h"
#include "marked_packets.h"

/*
 * Rule: Locked updates of all CPUs are serialized
 * Topic: Running programs
 * Between lock and unlock no other CPU is in the critical section, and no interrupt of the same CPU,
 * because interrupts are off. So no update under the lock is lost, for programs of any hook.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 */

#define ELEMENTS 64

/* The source numbers of the hooks (see contended_counter.h); harness/running/ has them too. */
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

/* Drop the datagrams: no process reads them. */
SEC("cgroup_skb/ingress")
int count_cgroup_skb_ingress(struct __sk_buff *skb)
{
	if (!is_marked_datagram((void *)(long)skb->data, (void *)(long)skb->data_end))
		return 1;
	count(CGROUP_INGRESS);
	return 0;
}

/* Let the packets pass: dropping them at egress would be an error for the sender. */
SEC("cgroup_skb/egress")
int count_cgroup_skb_egress(struct __sk_buff *skb)
{
	if (is_marked_datagram((void *)(long)skb->data, (void *)(long)skb->data_end))
		count(CGROUP_EGRESS);
	return 1;
}
