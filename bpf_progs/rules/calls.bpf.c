// SPDX-License-Identifier: GPL-2.0-only
/*
 * What may be called while the lock is held: nothing, said commit d83525ca62cf ("bpf: introduce
 * bpf_spin_lock") (in v5.1); later ones, named below, allowed static subprograms and some kfuncs.
 */
#include "spinlock.h"

MAP(ARRAY, counters, __u32, struct counter, 2)
MAP(HASH, table, __u32, __u64, 4)
MAP(PROG_ARRAY, programs, __u32, __u32, 1)

/*
 * Rule: No calls while holding the lock
 * Topic: Under the lock
 * A region runs with interrupts off and must be short, and what is called could take a lock or
 * sleep. So helpers, tail calls and functions that are verified on their own are refused in it;
 * later kernels let in what the verifier can see through or has checked by hand: static
 * subprograms and some kfuncs.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit a44b1334aadd ("bpf: Allow calling static subprogs while holding a bpf_spin_lock") (in
 * v6.9)
 * commit 512816403ece ("bpf: Allow bpf_for/bpf_repeat calls while holding a spinlock") (in
 * v6.14)
 */

SEC("tc") __rule("No calls while holding the lock") __success __retval(1)
int helpers_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	__u64 now;
	__u32 cpu;

	if (!c)
		return 0;
	now = bpf_ktime_get_ns();
	cpu = bpf_get_smp_processor_id();
	bpf_spin_lock(&c->lock);
	c->value += now && cpu + 1;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock")
__twin(helpers_before_lock) __refused(call_under_lock)
int ktime_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	__u64 now;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	now = bpf_ktime_get_ns();
	c->value += !!now;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock")
__twin(helpers_before_lock) __refused(call_under_lock)
int processor_id_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	__u32 cpu;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	cpu = bpf_get_smp_processor_id();
	c->value += !!(cpu + 1);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock") __success __retval(1)
int map_calls_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 one = 1, *found;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	map_update(table, &key, &one);
	found = map_lookup(table, &key);
	map_delete(table, &key);
	bpf_spin_lock(&c->lock);
	c->value += !!found;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock")
__twin(map_calls_before_lock) __refused(call_under_lock)
int lookup_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 *found;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	found = map_lookup(table, &key);
	c->value += !!found;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock")
__twin(map_calls_before_lock) __refused(call_under_lock)
int update_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 one = 1;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	map_update(table, &key, &one);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock")
__twin(map_calls_before_lock) __refused(call_under_lock)
int delete_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	map_delete(table, &key);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/* The array of programs is empty: the tail call comes back. */
SEC("tc") __rule("No calls while holding the lock") __success __retval(1)
int tail_call_after_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	map_tail_call(skb, programs, 0);
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock")
__twin(tail_call_after_unlock) __refused(call_under_lock)
int tail_call_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	map_tail_call(skb, programs, 0);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

static __always_inline __u32 plus_one(__u32 n)
{
	return n + 1;
}

/* What clang inlines is no call. */
SEC("tc") __rule("No calls while holding the lock") __success __retval(1)
int inline_function_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value = plus_one(c->value);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/* Nor is a loop; commit 2589726d12a1 ("bpf: introduce bounded loops") (in v5.3). */
SEC("tc") __rule("No calls while holding the lock") __success __retval(100)
int loop_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	int i;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	for (i = 0; i < 100; i++) {
		c->value++;
		barrier();
	}
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/*
 * Rule: No LD_ABS or LD_IND while holding the lock
 * Topic: Under the lock
 * The classic packet loads end the program where the packet is too short, which is a return that
 * nothing in the program shows; with the lock held it would never be released.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 */

/*
 * The classic packet loads read through skb_copy_bits() and may end the program: offset 12 and,
 * where the mark is added, an offset the verifier does not know, for the two forms of the load.
 */
SEC("tc") __rule("No LD_ABS or LD_IND while holding the lock") __success __retval(1)
int ld_abs_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	__u64 byte;

	if (!c)
		return 0;
	byte = load_byte(skb, 12);
	bpf_spin_lock(&c->lock);
	c->value += byte < 256;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No LD_ABS or LD_IND while holding the lock")
__twin(ld_abs_before_lock) __refused(ld_abs_under_lock)
int ld_abs_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	__u64 byte;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	byte = load_byte(skb, 12);
	c->value += byte < 256;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No LD_ABS or LD_IND while holding the lock") __success __retval(1)
int ld_ind_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0, mark = skb->mark;
	struct counter *c = map_lookup(counters, &key);
	__u64 byte;

	if (!c)
		return 0;
	byte = load_byte(skb, 12 + mark);
	bpf_spin_lock(&c->lock);
	c->value += byte < 256;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No LD_ABS or LD_IND while holding the lock")
__twin(ld_ind_before_lock) __refused(ld_abs_under_lock)
int ld_ind_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0, mark = skb->mark;
	struct counter *c = map_lookup(counters, &key);
	__u64 byte;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	byte = load_byte(skb, 12 + mark);
	c->value += byte < 256;
	bpf_spin_unlock(&c->lock);
	return c->value;
}
