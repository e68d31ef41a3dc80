// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a res_spin_lock leaves of interrupts and preemption where it is taken and released, and where it is
 * refused; of both flavours; in a task and in a timer interrupt. CPU 0 asks and then burns time, while
 * another CPU interrupts it.
 *
 * libbpf only, like all programs that call kernel functions (kfuncs.h). These programs are driven by
 * tests/lock/res_spin_lock/test_res_state.py. The rule is that of res_spin_lock_interrupts.bpf.c.
 */
#include "res_spin_lock_answers.h"

#define TAKEN 0
#define REFUSED 1   /* its own CPU holds it */

struct asking {
	__u32 outcome; /* that user space wants */
	__u32 every; /* in interrupts: one of so many asks */
};

/* Counts of CPU 0. */
struct stage {
	__u64 burning; /* nothing is held, and time is spent */
	__u64 burns;
	__u64 ticks;
	__u64 looks;  /* interrupts by another CPU */
	__u64 inside; /* of these, while it was burning */
	__u64 unbalanced; /* another preempt count after it than before */
};

MAP(ARRAY, asks, __u32, struct asking, 1)
MAP(ARRAY, stages, __u32, struct stage, 1)
MAP(PERCPU_ARRAY, counted, __u32, __u64, 3) /* runs of each driver; nobody waits for them */

#define PREEMPT_MASK 0x7fffffff /* of the count on x86: its highest bit means something else */

extern const int __preempt_count __ksym __weak;

#define BURN 60 /* times `turns` of the order */

static __always_inline struct order *order_of_run(void)
{
	__u32 key = 0;

	return map_lookup(orders, &key);
}

/* Ask for the lock in a way that has the wanted outcome. */
static __always_inline int ask(const struct asking *asking, int irqsave)
{
	__u32 key = 0;
	struct res_spin_lock_shared *held = map_lookup(state, &key), *r = map_lookup(state, &key);
	unsigned long flags;
	int result;

	if (!held || !r)
		return 0;
	if (asking->outcome != REFUSED) {
		result = take(r, irqsave, &flags);
		if (!result)
			release(r, irqsave, &flags);
		return result;
	}
	result = bpf_res_spin_lock(&held->lock);
	if (result)
		return result;
	result = take(r, irqsave, &flags);
	if (!result)
		release(r, irqsave, &flags);
	bpf_res_spin_unlock(&held->lock);
	return result;
}

static __always_inline int ask_and_burn(struct asking *asking, struct stage *stage, __u32 kind, int irqsave)
{
	struct order *order = order_of_run();
	struct answers *a = answers_of(kind);
	const volatile int *count = bpf_this_cpu_ptr(&__preempt_count);
	int result, before, i;
	__u64 asked;

	if (!a || !order)
		return 0;
	a->runs++;
	asked = bpf_ktime_get_ns();
	before = *count & PREEMPT_MASK;
	result = ask(asking, irqsave);
	stage->unbalanced += (*count & PREEMPT_MASK) != before;
	note(a, result, asked);
	WRITE_ONCE(stage->burning, 1);
	bpf_for(i, 0, BURN)
		spend(order->turns);
	WRITE_ONCE(stage->burning, 0);
	stage->burns++;
	return 0;
}

static __always_inline int ask_in_task(int irqsave)
{
	__u32 key = 0;
	struct asking *asking = map_lookup(asks, &key);
	struct stage *stage = map_lookup(stages, &key);

	return asking && stage ? ask_and_burn(asking, stage, OUTER, irqsave) : 0;
}

SEC("tc")
int ask_in_task_plain(struct __sk_buff *skb)
{
	return ask_in_task(0);
}

SEC("tc")
int ask_in_task_irqsave(struct __sk_buff *skb)
{
	return ask_in_task(1);
}

/* A timer interrupt of CPU 0 asks. */
static __always_inline int ask_in_interrupt(int irqsave)
{
	__u32 key = 0;
	struct asking *asking = map_lookup(asks, &key);
	struct stage *stage = map_lookup(stages, &key);

	if (!asking || !stage || bpf_get_smp_processor_id())
		return 0;
	if (stage->ticks++ % (asking->every ? asking->every : 1))
		return 0;
	return ask_and_burn(asking, stage, INTERRUPT, irqsave);
}

SEC("tp_btf/local_timer_entry")
int ask_in_interrupt_plain(__u64 *arguments)
{
	return ask_in_interrupt(0);
}

SEC("tp_btf/local_timer_entry")
int ask_in_interrupt_irqsave(__u64 *arguments)
{
	return ask_in_interrupt(1);
}

/* Keep CPU 0 busy: an idle CPU has no timer interrupts. */
SEC("tc")
int keep_busy(struct __sk_buff *skb)
{
	struct order *order = order_of_run();

	if (order)
		spend(order->turns);
	return 0;
}

/* Runs on CPU 0 in an IPI that another CPU sends. */
SEC("raw_tp/sys_enter")
int look(__u64 *arguments)
{
	__u32 key = 0;
	struct stage *stage = map_lookup(stages, &key);

	if (stage) {
		stage->looks++;
		stage->inside += READ_ONCE(stage->burning);
	}
	return 0;
}
