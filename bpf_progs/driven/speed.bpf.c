// SPDX-License-Identifier: GPL-2.0-only
/*
 * The speed of counting on all CPUs, at each hook. Every CPU has a counter of its own, or all share one
 * and increment it atomically, under a lock, or without protection. The way is chosen at run time, so
 * nothing else differs.
 *
 * These programs are driven by `spinlock bench`; harness/studies/bench.py reads their structures.
 */
#include "marked_packets.h"

#define PER_CPU 0
#define ATOMIC 1
#define UNLOCKED 2
#define LOCKED 3

/* One arrival in so many looks whether the lock is held: looking costs more than locking. */
#define LOOK_EVERY 64

struct visits {
	__u64 runs;
	__u64 looks;
	__u64 busy; /* the lock was held */
};

struct total {
	struct bpf_spin_lock lock;
	__u32 unused;
	__u64 value;
};

MAP(ARRAY, orders, __u32, __u32, 1) /* the kind of counter */
MAP(PERCPU_ARRAY, runs, __u32, struct visits, 1)
MAP(PERCPU_ARRAY, own, __u32, __u64, 1)
MAP(ARRAY, totals, __u32, struct total, 1)

static __always_inline void count(void)
{
	__u32 key = 0, word = 0, *kind = map_lookup(orders, &key);
	struct visits *v = map_lookup(runs, &key);
	struct total *t = map_lookup(totals, &key);
	__u64 *mine = map_lookup(own, &key);

	if (!kind || !v || !t || !mine)
		return;
	if (!(v->runs % LOOK_EVERY)) {
		bpf_probe_read_kernel(&word, sizeof(word), t);
		v->looks++;
		v->busy += word != 0;
	}
	v->runs++;
	if (*kind == PER_CPU) {
		*mine += 1;
	} else if (*kind == ATOMIC) {
		__sync_fetch_and_add(&t->value, 1);
	} else if (*kind == UNLOCKED) {
		t->value++;
	} else {
		bpf_spin_lock(&t->lock);
		t->value++;
		bpf_spin_unlock(&t->lock);
	}
}

/* An empty program, to measure the cost of a run itself. */
SEC("tc")
int speed_of_nothing(struct __sk_buff *skb)
{
	return 0;
}

SEC("tc")
int speed_of_test_run(struct __sk_buff *skb)
{
	count();
	return 0;
}

SEC("tc")
int speed_of_tc_ingress(struct __sk_buff *skb)
{
	if (!is_marked_frame((void *)(long)skb->data, (void *)(long)skb->data_end))
		return TC_ACT_OK;
	count();
	return TC_ACT_STOLEN;
}

SEC("tc")
int speed_of_tc_egress(struct __sk_buff *skb)
{
	if (!is_marked_frame((void *)(long)skb->data, (void *)(long)skb->data_end))
		return TC_ACT_OK;
	count();
	return TC_ACT_STOLEN;
}

SEC("xdp")
int speed_of_xdp(struct xdp_md *frame)
{
	if (!is_marked_frame((void *)(long)frame->data, (void *)(long)frame->data_end))
		return XDP_PASS;
	count();
	return XDP_DROP;
}

SEC("cgroup_skb/ingress")
int speed_of_cgroup_skb_ingress(struct __sk_buff *skb)
{
	if (!is_marked_datagram((void *)(long)skb->data, (void *)(long)skb->data_end))
		return 1;
	count();
	return 0;
}

SEC("cgroup_skb/egress")
int speed_of_cgroup_skb_egress(struct __sk_buff *skb)
{
	if (is_marked_datagram((void *)(long)skb->data, (void *)(long)skb->data_end))
		count();
	return 1;
}
