// SPDX-License-Identifier: GPL-2.0-only
/*
 * A res_spin_lock, interrupts and preemption: interrupts of its owner that want it, and the state of the
 * CPU afterwards.
 *
 * libbpf only, like all programs that call kernel functions (kfuncs.h). These programs are driven by
 * tests/lock/res_spin_lock/test_res_interrupts.py.
 */
#include "res_spin_lock_answers.h"

/*
 * Rule: A res_spin_lock forbids preemption, its irqsave flavour interrupts too, and both end with it
 * Topic: res_spin_lock
 * An interrupt that wants a lock which its CPU holds or waits for gets -EDEADLK at once. After
 * bpf_res_spin_lock_irqsave() no interrupt comes before the unlock; if interrupts were off before the
 * lock, they stay off after the unlock. A refused call leaves interrupts and preemption as they were.
 * commit 97eb35f3ad42 ("bpf: Introduce rqspinlock kfuncs") (in v6.15)
 */

/* The state of each CPU, read by programs that interrupt it. */
struct stage {
	__u64 open; /* nothing is held any more, and time is spent */
	__u64 interrupts;
	__u64 inside; /* of these, while it was open */
};

/* The element whose lock interrupts want. */
MAP(ARRAY, asked_for, __u32, __u32, 1)
MAP(PERCPU_ARRAY, stages, __u32, struct stage, 1)

SEC("tp_btf/local_timer_entry")
int ask_from_interrupt(__u64 *arguments)
{
	struct answers *told_here = answers_of(INTERRUPT);
	__u32 key = 0, *element = map_lookup(asked_for, &key);
	struct stage *stage = map_lookup(stages, &key);
	struct order *order = map_lookup(orders, &key);
	struct res_spin_lock_shared *r;
	unsigned long flags;
	__u64 asked;
	int result;

	if (!told_here || !element || !stage || !order)
		return 0;
	r = map_lookup(state, element);
	if (!r)
		return 0;
	stage->interrupts++;
	stage->inside += READ_ONCE(stage->open);
	told_here->runs++;
	if (!is_worth_it(told_here))
		return 0;
	asked = bpf_ktime_get_ns();
	result = take(r, 1, &flags);
	if (!result) {
		spend(order->turns);
		release(r, 1, &flags);
	}
	note(told_here, result, asked);
	return 0;
}

/* Hold the first lock for a while; with `around`, take and release another one inside first. */
static __always_inline int hold(int irqsave, int around)
{
	__u32 key = 0, own = 1 + bpf_get_smp_processor_id();
	struct answers *told_here = answers_of(HOLD);
	struct order *order = map_lookup(orders, &key);
	struct res_spin_lock_shared *r, *other;
	unsigned long flags, inner;
	__u64 asked;
	int result;

	r = map_lookup(state, &key);
	other = map_lookup(state, &own); /* nobody else's */
	if (!told_here || !order || !r || !other)
		return 0;
	told_here->runs++;
	if (!is_worth_it(told_here))
		return 0;
	asked = bpf_ktime_get_ns();
	result = take(r, irqsave, &flags);
	if (!result) {
		if (around && !take(other, 1, &inner))
			release(other, 1, &inner);
		spend(order->turns);
		release(r, irqsave, &flags);
	}
	note(told_here, result, asked);
	return 0;
}

SEC("tc")
int hold_plain(struct __sk_buff *skb)
{
	return hold(0, 0);
}

SEC("tc")
int hold_irqsave(struct __sk_buff *skb)
{
	return hold(1, 0);
}

SEC("tc")
int hold_irqsave_around(struct __sk_buff *skb)
{
	return hold(1, 1);
}

#define SPENT 500 /* times as long as a lock is held: to be refused takes some milliseconds, too */

/* Burn time with no lock held; with `refused`, after a refused call of the irqsave flavour. */
static __always_inline int go_on(int refused)
{
	struct answers *outer = answers_of(OUTER), *inner = answers_of(INNER);
	struct order *order;
	struct stage *stage;
	struct res_spin_lock_shared *r, *again;
	unsigned long flags;
	__u32 key = 0;
	__u64 asked;
	int result, i;

	order = map_lookup(orders, &key);
	stage = map_lookup(stages, &key);
	r = map_lookup(state, &key);
	again = map_lookup(state, &key);
	if (!outer || !inner || !order || !stage || !r || !again)
		return 0;
	outer->runs++;
	asked = bpf_ktime_get_ns();
	if (bpf_res_spin_lock(&r->lock))
		return 0;
	if (refused) {
		result = take(again, 1, &flags);
		if (!result)
			release(again, 1, &flags);
		bpf_res_spin_unlock(&r->lock);
		note(inner, result, asked);
	} else {
		bpf_res_spin_unlock(&r->lock);
	}
	WRITE_ONCE(stage->open, 1);
	bpf_for(i, 0, SPENT)
		spend(order->turns);
	WRITE_ONCE(stage->open, 0);
	return 0;
}

SEC("tc")
int spend_after_unlock(struct __sk_buff *skb)
{
	return go_on(0);
}

SEC("tc")
int spend_after_refusal(struct __sk_buff *skb)
{
	return go_on(1);
}

/* The preempt count on x86; its highest bit means something else. */
#define PREEMPT_MASK 0x7fffffff

extern const int __preempt_count __ksym __weak;

struct preemption {
	__u64 runs;
	__u64 refused;
	__u64 higher;	  /* a higher count inside */
	__u64 unbalanced; /* another one after unlock, or after refusal */
};

MAP(ARRAY, preemption, __u32, struct preemption, 1)

static __always_inline int read_preempt_count(int irqsave)
{
	__u32 key = 0, before, inside, refused, after;
	struct preemption *p = map_lookup(preemption, &key);
	unsigned long flags, flags_again;
	const volatile int *count;
	struct res_spin_lock_shared *r, *again;
	int result;

	r = map_lookup(state, &key);
	again = map_lookup(state, &key);
	if (!p || !r || !again)
		return 0;
	count = bpf_this_cpu_ptr(&__preempt_count);
	before = *count & PREEMPT_MASK;
	if (take(r, irqsave, &flags))
		return 0;
	inside = *count & PREEMPT_MASK;
	result = take(again, irqsave, &flags_again);
	if (!result)
		release(again, irqsave, &flags_again);
	refused = *count & PREEMPT_MASK;
	release(r, irqsave, &flags);
	after = *count & PREEMPT_MASK;
	p->runs++;
	p->refused += result == -EDEADLK;
	p->higher += inside > before;
	p->unbalanced += refused != inside || after != before;
	return result;
}

SEC("tc")
int read_preempt_count_plain(struct __sk_buff *skb)
{
	return read_preempt_count(0);
}

SEC("tc")
int read_preempt_count_irqsave(struct __sk_buff *skb)
{
	return read_preempt_count(1);
}
