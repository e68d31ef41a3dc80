// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs in interrupts that want a lock which is held. On one CPU a cgroup program takes the lock, and
 * programs that interrupt that CPU want it too. The interrupts must wait until the unlock, else the CPU
 * would wait for itself. On several CPUs an interrupt waits for a program on another CPU.
 *
 * These programs are driven by tests/lock/interrupts/test_nesting.py, which also decodes their maps.
 */
#include "busy_wait.h"
#include "marked_packets.h"

/*
 * Rule: Interrupts wait while the lock is held
 * Topic: Running programs
 * The lock turns interrupts off on its CPU. So until the unlock no received packet and no timer runs a
 * program there that could want the lock. The same holds while user space copies with BPF_F_LOCK.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit 96049f3afd50 ("bpf: introduce BPF_F_LOCK flag") (in v5.1)
 */

/* Keys of the map `runs`. */
#define OUTER 0
#define INNER 1
#define CALLS 2
#define SOURCES 3

#define LOCKS 256 /* of a run that does nothing else */
#define LARGE (128 * 1024)

struct order {
	__u32 turns; /* length of the critical section */
	__u32 bare;  /* without the lock: to show what it keeps away */
};

/* Counts of the timer program that looks at the large value. */
struct looks {
	__u64 runs;
	__u64 torn; /* its first field differed from its last */
};

struct shared {
	struct bpf_spin_lock lock;
	__u32 unused;
	__u64 count;
};

/* The state of a CPU's outer program, read by programs that interrupt it. */
struct stage {
	__u64 active; /* it runs */
	__u64 region; /* it is between lock and unlock */
};

/* Counts of one hook on one CPU. */
struct visits {
	__u64 runs;
	__u64 active; /* came in between while the outer program ran */
	__u64 region; /* came in between lock and unlock */
};

/* A copy of this value takes so long that interrupts come meanwhile. */
struct large {
	struct bpf_spin_lock lock;
	__u32 first;
	char between[LARGE - 12];
	__u32 last;
};

MAP(ARRAY, larges, __u32, struct large, 1)
MAP(ARRAY, looks, __u32, struct looks, 1)
MAP(ARRAY, orders, __u32, struct order, 1)
MAP(ARRAY, state, __u32, struct shared, 1)
MAP(PERCPU_ARRAY, stages, __u32, struct stage, 1)
MAP(PERCPU_ARRAY, runs, __u32, struct visits, SOURCES)

static __always_inline void add_one(struct shared *s, __u32 turns)
{
	__u64 count = READ_ONCE(s->count);

	spend(turns);
	WRITE_ONCE(s->count, count + 1);
}

static __always_inline void outer(void)
{
	__u32 key = 0, source = OUTER;
	struct order *order = map_lookup(orders, &key);
	struct shared *s = map_lookup(state, &key);
	struct stage *stage = map_lookup(stages, &key);
	struct visits *v = map_lookup(runs, &source);
	__u32 turns;

	if (!order || !s || !stage || !v)
		return;
	turns = order->turns;
	WRITE_ONCE(stage->active, 1);
	if (order->bare) {
		WRITE_ONCE(stage->region, 1);
		add_one(s, turns);
		WRITE_ONCE(stage->region, 0);
	} else {
		bpf_spin_lock(&s->lock);
		WRITE_ONCE(stage->region, 1);
		add_one(s, turns);
		WRITE_ONCE(stage->region, 0);
		bpf_spin_unlock(&s->lock);
	}
	WRITE_ONCE(stage->active, 0);
	v->runs++;
}

static __always_inline void inner(void)
{
	__u32 key = 0, source = INNER;
	struct order *order = map_lookup(orders, &key);
	struct shared *s = map_lookup(state, &key);
	struct stage *stage = map_lookup(stages, &key);
	struct visits *v = map_lookup(runs, &source);

	if (!order || !s || !stage || !v)
		return;
	v->active += READ_ONCE(stage->active);
	v->region += READ_ONCE(stage->region);
	if (order->bare) {
		add_one(s, 0);
	} else {
		bpf_spin_lock(&s->lock);
		add_one(s, 0);
		bpf_spin_unlock(&s->lock);
	}
	v->runs++;
}

SEC("cgroup_skb/egress")
int hold_at_egress(struct __sk_buff *skb)
{
	if (is_marked_datagram((void *)(long)skb->data, (void *)(long)skb->data_end))
		outer();
	return 1;
}

SEC("tc")
int want_at_tc(struct __sk_buff *skb)
{
	if (!is_marked_frame((void *)(long)skb->data, (void *)(long)skb->data_end))
		return TC_ACT_OK;
	inner();
	return TC_ACT_STOLEN;
}

SEC("xdp")
int want_at_xdp(struct xdp_md *frame)
{
	if (!is_marked_frame((void *)(long)frame->data, (void *)(long)frame->data_end))
		return XDP_PASS;
	inner();
	return XDP_DROP;
}

/* A timer on the CPU of the outer program: the program runs in its interrupt. */
SEC("tp_btf/local_timer_entry")
int want_at_timer(__u64 *arguments)
{
	if (bpf_get_smp_processor_id() == 0)
		inner();
	return 0;
}

/* QEMU's emulation takes interrupts only at branches, so this is one, to the next instruction. */
static __always_inline void add_branching(struct shared *s, __u32 anything)
{
	__u64 count = READ_ONCE(s->count);

	asm volatile("if %0 == 0x7fffffff goto +0" : : "r"(anything));
	asm volatile("if %0 == 0x7ffffffe goto +0" : : "r"(anything));
	WRITE_ONCE(s->count, count + 1);
}

/*
 * Lock and unlock, and hardly anything else. So interrupts come at every instruction of both, also
 * between taking the lock and turning interrupts off, if a kernel has that (wrong) order.
 */
SEC("tc")
int lock_over_and_over(struct __sk_buff *skb)
{
	__u32 key = 0, source = OUTER, i;
	struct order *order = map_lookup(orders, &key);
	struct shared *s = map_lookup(state, &key);
	struct stage *stage = map_lookup(stages, &key);
	struct visits *v = map_lookup(runs, &source);

	if (!order || !s || !stage || !v)
		return 0;
	WRITE_ONCE(stage->active, 1);
	for (i = 0; i < LOCKS; i++) {
		if (order->bare) {
			WRITE_ONCE(stage->region, 1);
			add_branching(s, order->turns);
			WRITE_ONCE(stage->region, 0);
		} else {
			bpf_spin_lock(&s->lock);
			WRITE_ONCE(stage->region, 1);
			add_branching(s, order->turns);
			WRITE_ONCE(stage->region, 0);
			bpf_spin_unlock(&s->lock);
		}
	}
	WRITE_ONCE(stage->active, 0);
	v->runs++;
	return 0;
}

/*
 * Runs in the IPI by which another CPU calls a function on this one. The kernel makes such calls on its
 * own as well; all count while the outer program runs.
 */
SEC("tp_btf/call_function_single_entry")
int want_at_call(__u64 *arguments)
{
	__u32 key = 0;
	struct stage *stage = map_lookup(stages, &key);

	if (stage && READ_ONCE(stage->active))
		inner();
	return 0;
}

/* The program that the other CPU runs on this one, by an IPI. */
SEC("raw_tp")
int be_called(__u64 *arguments)
{
	__u32 source = CALLS;
	struct visits *v = map_lookup(runs, &source);

	if (v)
		v->runs++;
	return 0;
}

/* A timer on the CPU where user space copies: only an interrupt can run there in between. */
SEC("tp_btf/local_timer_entry")
int look_at_timer(__u64 *arguments)
{
	__u32 key = 0, first, last;
	struct order *order = map_lookup(orders, &key);
	struct large *l = map_lookup(larges, &key);
	struct looks *seen = map_lookup(looks, &key);

	if (!order || !l || !seen || bpf_get_smp_processor_id() != 0)
		return 0;
	if (order->bare) {
		first = READ_ONCE(l->first);
		last = READ_ONCE(l->last);
	} else {
		bpf_spin_lock(&l->lock);
		first = READ_ONCE(l->first);
		last = READ_ONCE(l->last);
		bpf_spin_unlock(&l->lock);
	}
	seen->torn += first != last;
	seen->runs++;
	return 0;
}

/* Timers and test runs on several CPUs: counts of CPUs that were inside at the same time. */
struct crossing {
	struct bpf_spin_lock lock;
	__u32 inside; /* CPU + 1 of who went in last */
};

struct crossed {
	__u64 runs;
	__u64 met; /* another CPU was inside at the same time */
};

MAP(ARRAY, crossings, __u32, struct crossing, 1)
MAP(PERCPU_ARRAY, timers_crossed, __u32, struct crossed, 1)
MAP(PERCPU_ARRAY, runs_crossed, __u32, struct crossed, 1)

/* Stay inside for `turns` turns; return whether another CPU entered meanwhile. */
static __always_inline int stay(volatile __u32 *inside, __u32 me, __u32 turns)
{
	*inside = me;
	spend(turns);
	return *inside != me;
}

static __always_inline void cross(struct crossed *crossed)
{
	__u32 key = 0, me = bpf_get_smp_processor_id() + 1, turns;
	struct order *order = map_lookup(orders, &key);
	struct crossing *c = map_lookup(crossings, &key);
	int met;

	if (!order || !c || !crossed)
		return;
	turns = order->turns;
	if (order->bare) {
		met = stay(&c->inside, me, turns);
	} else {
		bpf_spin_lock(&c->lock);
		met = stay(&c->inside, me, turns);
		bpf_spin_unlock(&c->lock);
	}
	crossed->runs++;
	crossed->met += met;
}

SEC("tp_btf/local_timer_entry")
int cross_at_timer(__u64 *arguments)
{
	__u32 key = 0;

	cross(map_lookup(timers_crossed, &key));
	return 0;
}

SEC("tc")
int cross_in_test_run(struct __sk_buff *skb)
{
	__u32 key = 0;

	cross(map_lookup(runs_crossed, &key));
	return 0;
}

/* Return the lock word. A lookup by user space always shows zeros in its place. */
SEC("tc")
int lock_word_of_nesting(struct __sk_buff *skb)
{
	__u32 key = 0, word = -1;
	struct shared *s = map_lookup(state, &key);

	if (s)
		bpf_probe_read_kernel(&word, 4, (void *)s + offsetof(struct shared, lock));
	return word;
}
