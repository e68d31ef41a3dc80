/* SPDX-License-Identifier: GPL-2.0-only */
/* Calls of bpf_res_spin_lock(), and counts of their results. */
#ifndef RES_SPIN_LOCK_ANSWERS_H
#define RES_SPIN_LOCK_ANSWERS_H

#include "kfuncs.h"
#include "contended_counter.h"

#define ELEMENTS 64
#define MOST_TIMEOUTS 12 /* per CPU; after that a CPU does not try any more, as timeouts take long */

/* struct shared with a bpf_res_spin_lock in place of the bpf_spin_lock. */
struct res_spin_lock_shared {
	struct bpf_res_spin_lock lock;
	__u32 last_cpu;
	__u64 count;
	__u64 inverse;
	__u64 handovers;
	__u64 doubled;
};

/* Results of bpf_res_spin_lock() on one CPU. */
struct answers {
	__u64 runs; /* of the program, with any result; first, because drivers read it there */
	__u64 taken;
	__u64 deadlocks;
	__u64 timeouts;
	__u64 others;
	__u64 untried;
	__u64 longest_ns; /* longest time until a refusal */
	__u64 at_once;	  /* refusals within a millisecond */
};

/* Keys of the map `told`, by the call that is counted. */
#define COUNT 0
#define OUTER 1
#define INNER 2
#define ROUTE 3
#define HOLD 4
#define WAIT 5
#define NEST 6
#define INTERRUPT 7
#define KINDS 8

MAP(ARRAY, state, __u32, struct res_spin_lock_shared, ELEMENTS)
MAP(PERCPU_ARRAY, told, __u32, struct answers, KINDS)

static __always_inline struct answers *answers_of(__u32 kind)
{
	return map_lookup(told, &kind);
}

static __always_inline void note(struct answers *a, int result, __u64 asked_ns)
{
	__u64 waited = bpf_ktime_get_ns() - asked_ns;

	if (!result)
		a->taken++;
	else if (result == -EDEADLK)
		a->deadlocks++;
	else if (result == -ETIMEDOUT)
		a->timeouts++;
	else
		a->others++;
	if (result && waited > a->longest_ns)
		a->longest_ns = waited;
	a->at_once += result && waited < 1000000;
}

/* Return whether to try the lock; if not, count that. */
static __always_inline int is_worth_it(struct answers *a)
{
	if (a->timeouts < MOST_TIMEOUTS)
		return 1;
	a->untried++;
	return 0;
}

static __always_inline int take(struct res_spin_lock_shared *r, int irqsave, unsigned long *flags)
{
	return irqsave ? bpf_res_spin_lock_irqsave(&r->lock, flags) : bpf_res_spin_lock(&r->lock);
}

static __always_inline void release(struct res_spin_lock_shared *r, int irqsave, unsigned long *flags)
{
	if (irqsave)
		bpf_res_spin_unlock_irqrestore(&r->lock, flags);
	else
		bpf_res_spin_unlock(&r->lock);
}

#endif
