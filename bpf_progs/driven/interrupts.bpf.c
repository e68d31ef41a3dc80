// SPDX-License-Identifier: GPL-2.0-only
/*
 * The state of interrupts and preemption after unlock, compared with that before the lock.
 *
 * These programs are driven by tests/lock/interrupts/test_interrupts.py, which also decodes their maps.
 */
#include "busy_wait.h"
#include "spinlock.h"

/*
 * Rule: Unlock puts interrupts and preemption back
 * Topic: Running programs
 * The lock turns interrupts off and, since v6.6, preemption as well. Unlock restores both: they are on
 * afterwards if they were on before, else off.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit 5861d1e8dbc4 ("bpf: Allow bpf_spin_{lock,unlock} in sleepable progs") (in v6.6)
 */

#define MOST_COPIES 2000 /* to burn time; the verifier walks every one */
#define COPIED 4096	 /* bytes */

/* Keys of the map `runs`. */
#define LOOKS 0 /* from an interrupt */
#define TEST_RUNS 1
#define NEIGHBOURS 2
#define SOURCES 3

struct order {
	__u32 turns;  /* length of the critical section */
	__u32 locked; /* if not: to show that nothing else stands in the way */
	__u64 burn_ns;
	__u32 every;  /* of so many timer interrupts, one burns time */
	__u32 unused;
};

/* Timer ticks and times of each CPU at the program's first and last run. */
struct span {
	__u64 runs;
	__u64 first_ticks;
	__u64 last_ticks;
	__u64 first_ns;
	__u64 last_ns;
};

/* The state of each CPU, read by programs that interrupt it. */
struct stage {
	__u64 runs;	/* of what burns time */
	__u64 burning;
	__u64 burnt_ns; /* in all */
	__u64 looks;	/* how often something else ran on the CPU */
	__u64 inside;	/* of these, while it was burning */
};

MAP(ARRAY, orders, __u32, struct order, 1)
MAP(ARRAY, state, __u32, struct counter, 2) /* the second is for another CPU */
MAP(PERCPU_ARRAY, ticks, __u32, __u64, 1)
MAP(PERCPU_ARRAY, spans, __u32, struct span, 1)
MAP(PERCPU_ARRAY, stages, __u32, struct stage, 1)
MAP(PERCPU_ARRAY, runs, __u32, __u64, SOURCES)

struct memory {
	char bytes[COPIED];
};

MAP(ARRAY, memories, __u32, struct memory, 2)

static __always_inline void add_one(struct counter *c, const struct order *order)
{
	__u32 turns = order->turns;

	if (order->locked) {
		bpf_spin_lock(&c->lock);
		spend(turns);
		c->value++;
		bpf_spin_unlock(&c->lock);
	} else {
		spend(turns);
		c->value++;
	}
}

static __always_inline void count_run(__u32 source)
{
	__u64 *count = map_lookup(runs, &source);

	if (count)
		(*count)++;
}

/* It takes no lock, so every kernel can load and attach it. */
SEC("tp_btf/local_timer_entry")
int count_tick(__u64 *arguments)
{
	__u32 key = 0;
	__u64 *count = map_lookup(ticks, &key);

	if (count)
		WRITE_ONCE(*count, READ_ONCE(*count) + 1);
	return 0;
}

/* One system call runs it many times; it records how many timer ticks its CPU had meanwhile. */
SEC("tc")
int hold_for_long(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct order *order = map_lookup(orders, &key);
	struct counter *c = map_lookup(state, &key);
	__u64 *count = map_lookup(ticks, &key);
	struct span *span = map_lookup(spans, &key);

	if (!order || !c || !count || !span)
		return 0;
	add_one(c, order);
	span->last_ns = bpf_ktime_get_ns();
	span->last_ticks = READ_ONCE(*count);
	if (!span->runs) {
		span->first_ns = span->last_ns;
		span->first_ticks = span->last_ticks;
	}
	span->runs++;
	count_run(TEST_RUNS);
	return 0;
}

/* Lock and unlock, on another CPU and another lock, where interrupts are on. */
SEC("tc")
int hold_beside(struct __sk_buff *skb)
{
	__u32 key = 0, second = 1;
	struct order *order = map_lookup(orders, &key);
	struct counter *c = map_lookup(state, &second);

	if (order && c)
		add_one(c, order);
	count_run(NEIGHBOURS);
	return 0;
}

/* Lock, unlock, and then burn time; `stages` shows that to programs that interrupt it. */
static __always_inline void burn(struct order *order, struct counter *c, struct stage *stage)
{
	__u64 start = bpf_ktime_get_ns(), now = start;
	__u32 first = 0, second = 1, copy;
	struct memory *from = map_lookup(memories, &first);
	struct memory *to = map_lookup(memories, &second);

	if (!from || !to)
		return;
	WRITE_ONCE(stage->burning, 1);
	add_one(c, order);
	for (copy = 0; copy < MOST_COPIES; copy++) {
		bpf_probe_read_kernel(to, COPIED, from);
		now = bpf_ktime_get_ns();
		if (now - start >= order->burn_ns)
			break;
	}
	WRITE_ONCE(stage->burning, 0);
	stage->burnt_ns += now - start;
	stage->runs++;
}

SEC("tc")
int burn_in_test_run(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct order *order = map_lookup(orders, &key);
	struct counter *c = map_lookup(state, &key);
	struct stage *stage = map_lookup(stages, &key);

	if (order && c && stage)
		burn(order, c, stage);
	count_run(TEST_RUNS);
	return 0;
}

/* In an interrupt, where interrupts are off. */
SEC("tp_btf/local_timer_entry")
int burn_in_interrupt(__u64 *arguments)
{
	__u32 key = 0;
	struct order *order = map_lookup(orders, &key);
	struct counter *c = map_lookup(state, &key);
	struct stage *stage = map_lookup(stages, &key);
	__u64 *count = map_lookup(ticks, &key);

	if (!order || !c || !stage || !count || bpf_get_smp_processor_id() != 0)
		return 0;
	WRITE_ONCE(*count, READ_ONCE(*count) + 1);
	if (order->every && READ_ONCE(*count) % order->every == 0)
		burn(order, c, stage);
	return 0;
}

/* Runs on a CPU in an IPI that another CPU sends. */
SEC("raw_tp/sys_enter")
int look_from_interrupt(__u64 *arguments)
{
	__u32 key = 0;
	struct stage *stage = map_lookup(stages, &key);

	if (stage) {
		stage->looks++;
		stage->inside += READ_ONCE(stage->burning);
	}
	count_run(LOOKS);
	return 0;
}

/* Return the lock word. A lookup by user space always shows zeros in its place. */
SEC("tc")
int lock_word_of_interrupts(struct __sk_buff *skb)
{
	__u32 key = 0, word = -1;
	struct counter *c = map_lookup(state, &key);

	if (c)
		bpf_probe_read_kernel(&word, 4, (void *)c + offsetof(struct counter, lock));
	return word;
}

#ifndef LOADER_BCC /* kernel functions and variables, by name */

extern void bpf_local_irq_save(unsigned long *flags) __ksym __weak;
extern void bpf_local_irq_restore(unsigned long *flags) __ksym __weak;

SEC("tc")
int burn_with_interrupts_off(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct order *order = map_lookup(orders, &key);
	struct counter *c = map_lookup(state, &key);
	struct stage *stage = map_lookup(stages, &key);
	unsigned long flags;

	if (!order || !c || !stage)
		return 0;
	bpf_local_irq_save(&flags);
	burn(order, c, stage);
	bpf_local_irq_restore(&flags);
	count_run(TEST_RUNS);
	return 0;
}

/*
 * The preempt count on x86; its highest bit means something else. Depending on the kernel, the per-CPU
 * variable stands alone or in a struct.
 */
#define PREEMPT_MASK 0x7fffffff

struct pcpu_hot {
	int preempt_count;
} __attribute__((preserve_access_index));

extern const struct pcpu_hot pcpu_hot __ksym __weak;
extern const int __preempt_count __ksym __weak;

struct preemption {
	__u64 runs;
	__u64 unbalanced; /* another number after unlock than before the lock */
	__u64 higher;	  /* a higher one inside */
	__u32 before, inside, after; /* of the last run */
	__u32 unused;
};

MAP(ARRAY, preemption, __u32, struct preemption, 1)

static __always_inline void note(struct preemption *p, __u32 before, __u32 inside, __u32 after)
{
	p->before = before & PREEMPT_MASK;
	p->inside = inside & PREEMPT_MASK;
	p->after = after & PREEMPT_MASK;
	p->runs++;
	p->unbalanced += p->before != p->after;
	p->higher += p->inside > p->before;
}

SEC("tc")
int read_preempt_count(struct __sk_buff *skb)
{
	__u32 key = 0, before, inside, after;
	struct preemption *p = map_lookup(preemption, &key);
	struct counter *c = map_lookup(state, &key);
	const volatile int *count;

	if (!p || !c)
		return 0;
	count = bpf_this_cpu_ptr(&__preempt_count);
	before = *count;
	bpf_spin_lock(&c->lock);
	inside = *count;
	bpf_spin_unlock(&c->lock);
	after = *count;
	note(p, before, inside, after);
	return 0;
}

SEC("tc")
int read_preempt_count_in_struct(struct __sk_buff *skb)
{
	__u32 key = 0, before, inside, after;
	struct preemption *p = map_lookup(preemption, &key);
	struct counter *c = map_lookup(state, &key);
	const volatile struct pcpu_hot *hot;

	if (!p || !c)
		return 0;
	hot = bpf_this_cpu_ptr(&pcpu_hot);
	before = hot->preempt_count;
	bpf_spin_lock(&c->lock);
	inside = hot->preempt_count;
	bpf_spin_unlock(&c->lock);
	after = hot->preempt_count;
	note(p, before, inside, after);
	return 0;
}

#endif
