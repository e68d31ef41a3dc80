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
__twin(helpers_before_lock) __failure __errno(EINVAL)
__msg("function calls are not allowed while holding a lock")
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
__twin(helpers_before_lock) __failure __errno(EINVAL)
__msg("function calls are not allowed while holding a lock")
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
__twin(map_calls_before_lock) __failure __errno(EINVAL)
__msg("function calls are not allowed while holding a lock")
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
__twin(map_calls_before_lock) __failure __errno(EINVAL)
__msg("function calls are not allowed while holding a lock")
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
__twin(map_calls_before_lock) __failure __errno(EINVAL)
__msg("function calls are not allowed while holding a lock")
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
__twin(tail_call_after_unlock) __failure __errno(EINVAL)
__msg("function calls are not allowed while holding a lock")
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
__twin(ld_abs_before_lock) __failure __errno(EINVAL)
__msg("BPF_LD_[ABS|IND] cannot be used inside bpf_spin_lock-ed region")
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
__twin(ld_ind_before_lock) __failure __errno(EINVAL)
__msg("BPF_LD_[ABS|IND] cannot be used inside bpf_spin_lock-ed region")
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

/*
 * libbpf only from here to the end of the file: bcc inlines every function, so it has no
 * subprograms, global functions and callbacks, and it has no kfuncs.
 */
#ifndef LOADER_BCC

static __noinline void increment(struct counter *c)
{
	c->value++;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf) __success __retval(1)
int static_subprog_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	increment(c);
	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/*
 * commit a44b1334aadd ("bpf: Allow calling static subprogs while holding a bpf_spin_lock")
 * (in v6.9): the verifier walks into a static subprogram, so it sees what that does with the lock.
 */
SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(static_subprog_before_lock)
__kernel("<6.9") __failure __errno(EINVAL)
		 __msg("function calls are not allowed while holding a lock")
__kernel(">=6.9") __success __retval(1)
int static_subprog_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	increment(c);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

static __noinline void add_clock(struct counter *c)
{
	c->value += !!bpf_ktime_get_ns();
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf) __success __retval(1)
int static_subprog_with_helper_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	add_clock(c);
	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/* Before v6.9 it is the call of the subprogram that is refused, since then the helper's in it. */
SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(static_subprog_with_helper_before_lock) __failure __errno(EINVAL)
__msg("function calls are not allowed while holding a lock")
int static_subprog_with_helper_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	add_clock(c);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/* A global function is verified on its own: the verifier does not know its callers' locks. */
__noinline int global_sum(int a, int b)
{
	return a + b;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf) __success __retval(1)
int global_function_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	int sum;

	if (!c)
		return 0;
	sum = global_sum(skb->mark, 1);
	bpf_spin_lock(&c->lock);
	c->value = sum;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/* Since v6.9 the text begins with "global"; before, it was that of all calls. */
SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(global_function_before_lock) __failure __errno(EINVAL)
__kernel("<6.9") __msg("function calls are not allowed while holding a lock")
__kernel(">=6.9") __msg("global function calls are not allowed while holding a lock")
		  __msg("use static function instead")
int global_function_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	int sum;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	sum = global_sum(skb->mark, 1);
	c->value = sum;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

static __noinline void count_under_lock(struct counter *c)
{
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
}

SEC("tc") __rule("Unlock before return, on every path") __loader(libbpf) __success __retval(1)
int static_subprog_locks_and_unlocks(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	count_under_lock(c);
	return c->value;
}

static __noinline void take_lock(struct counter *c)
{
	bpf_spin_lock(&c->lock);
}

static __noinline void release_lock(struct counter *c)
{
	bpf_spin_unlock(&c->lock);
}

/* Since v6.9 the lock may go up and down the call stack; only the program must not keep it. */
SEC("tc") __rule("Unlock before return, on every path") __loader(libbpf)
__twin(static_subprog_locks_and_unlocks)
__kernel("<6.9") __failure __errno(EINVAL) __msg("bpf_spin_unlock is missing")
__kernel(">=6.9") __success __retval(1)
int static_subprog_locks_caller_unlocks(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	take_lock(c);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("Unlock before return, on every path") __loader(libbpf)
__twin(static_subprog_locks_and_unlocks)
__kernel("<6.9") __failure __errno(EINVAL)
		 __msg("function calls are not allowed while holding a lock")
__kernel(">=6.9") __success __retval(1)
int caller_locks_static_subprog_unlocks(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	release_lock(c);
	return c->value;
}

SEC("tc") __rule("Unlock before return, on every path") __loader(libbpf)
__twin(static_subprog_locks_and_unlocks) __failure __errno(EINVAL)
__kernel("<6.13") __msg("bpf_spin_unlock is missing")
__kernel(">=6.13") __msg("BPF_EXIT instruction")
		   __msg("cannot be used inside bpf_spin_lock-ed region")
int static_subprog_locks_nobody_unlocks(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	take_lock(c);
	c->value++;
	return c->value;
}

__noinline int global_locks_and_unlocks(__u32 key)
{
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return 1;
}

SEC("tc") __rule("Unlock before return, on every path") __loader(libbpf) __success __retval(1)
int global_function_locks_and_unlocks(struct __sk_buff *skb)
{
	return global_locks_and_unlocks(0);
}

__noinline int global_locks(__u32 key)
{
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	return 1;
}

SEC("tc") __rule("Unlock before return, on every path") __loader(libbpf)
__twin(global_function_locks_and_unlocks) __failure __errno(EINVAL)
__kernel("<6.13") __msg("bpf_spin_unlock is missing")
__kernel(">=6.13") __msg("BPF_EXIT instruction")
		   __msg("cannot be used inside bpf_spin_lock-ed region")
int global_function_returns_locked(struct __sk_buff *skb)
{
	return global_locks(0);
}

/* commit e6f2dd0f8067 ("bpf: Add bpf_loop helper") (in v5.17); its context is on the stack. */
static long locked_turn(__u32 index, struct counter **context)
{
	struct counter *c = *context;

	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return 0;
}

static long plain_turn(__u32 index, struct counter **context)
{
	struct counter *c = *context;

	c->value++;
	return 0;
}

static long returns_locked(__u32 index, struct counter **context)
{
	struct counter *c = *context;

	bpf_spin_lock(&c->lock);
	c->value++;
	return 0;
}

SEC("tc") __rule("A locked update loads and runs") __loader(libbpf)
__needs(BPF_FUNC_loop, "5.17") __success __retval(8)
int bpf_loop_callback_locks_and_unlocks(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_loop(8, locked_turn, &c, 0);
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(BPF_FUNC_loop, "5.17") __success __retval(8)
int bpf_loop_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_loop(8, plain_turn, &c, 0);
	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(bpf_loop_before_lock)
__needs(BPF_FUNC_loop, "5.17") __failure __errno(EINVAL)
__msg("function calls are not allowed while holding a lock")
int bpf_loop_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	bpf_loop(8, plain_turn, &c, 0);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/* The next turn would begin with the lock held: since v6.9 it is that call which is refused. */
SEC("tc") __rule("Unlock before return, on every path") __loader(libbpf)
__twin(bpf_loop_callback_locks_and_unlocks) __failure __errno(EINVAL)
__needs(BPF_FUNC_loop, "5.17")
__kernel("<6.9") __msg("bpf_spin_unlock is missing")
__kernel(">=6.9") __msg("function calls are not allowed while holding a lock")
int bpf_loop_callback_returns_locked(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_loop(8, returns_locked, &c, 0);
	return 0;
}

/*
 * The value that bpf_for_each_map_elem() passes to its callback had no identity, so up to v6.1 its
 * lock was not tracked at all: a program that kept it was accepted, one that released it was not.
 * What is accepted there must only be loaded, as it would hang. Since commit d0d78c1df9b1 ("bpf:
 * Allow locking bpf_spin_lock global variables") (in v6.2) a lock is known by its map as well.
 */
static long count_element(void *map, __u32 *key, struct counter *c, __u32 *sum)
{
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	*sum += c->value;
	return 0;
}

SEC("tc") __rule("A locked update loads and runs") __loader(libbpf)
__needs(BPF_FUNC_for_each_map_elem, "5.13") __known_bug("d0d78c1df9b1", "<6.2")
__success __retval(2)
int for_each_callback_locks_and_unlocks(struct __sk_buff *skb)
{
	__u32 sum = 0;

	bpf_for_each_map_elem(&counters, count_element, &sum, 0);
	return sum;
}

static long lock_element(void *map, __u32 *key, struct counter *c, void *unused)
{
	bpf_spin_lock(&c->lock);
	c->value++;
	return 0;
}

SEC("tc") __rule("Unlock before return, on every path") __loader(libbpf)
__twin(for_each_callback_locks_and_unlocks) __failure __errno(EINVAL)
__needs(BPF_FUNC_for_each_map_elem, "5.13") __known_bug("d0d78c1df9b1", "<6.2")
__kernel("<6.9") __msg("bpf_spin_unlock is missing")
__kernel(">=6.9") __msg("function calls are not allowed while holding a lock")
int for_each_callback_returns_locked(struct __sk_buff *skb)
{
	bpf_for_each_map_elem(&counters, lock_element, 0, 0);
	return 0;
}

static long count_before_lock(void *map, __u32 *key, struct counter *c, __u32 *sum)
{
	*sum += !!bpf_ktime_get_ns();
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return 0;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(BPF_FUNC_for_each_map_elem, "5.13") __known_bug("d0d78c1df9b1", "<6.2")
__success __retval(2)
int for_each_callback_calls_before_lock(struct __sk_buff *skb)
{
	__u32 sum = 0;

	bpf_for_each_map_elem(&counters, count_before_lock, &sum, 0);
	return sum;
}

static long clock_under_lock(void *map, __u32 *key, struct counter *c, __u32 *sum)
{
	bpf_spin_lock(&c->lock);
	*sum += !!bpf_ktime_get_ns();
	c->value++;
	bpf_spin_unlock(&c->lock);
	return 0;
}

/* v6.1 lets the call pass and refuses the unlock after it, so it has nothing to say of the call. */
SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(BPF_FUNC_for_each_map_elem, "5.13")
__twin(for_each_callback_calls_before_lock)
__kernel(">=6.2") __failure __errno(EINVAL)
		  __msg("function calls are not allowed while holding a lock")
int for_each_callback_calls_under_lock(struct __sk_buff *skb)
{
	__u32 sum = 0;

	bpf_for_each_map_elem(&counters, clock_under_lock, &sum, 0);
	return sum;
}

struct outer_value {
	struct counter *counter;
};

static long lock_outer_value(void *map, __u32 *key, struct counter *inner, struct outer_value *o)
{
	struct counter *outer = o->counter;

	bpf_spin_lock(&outer->lock);
	outer->value++;
	bpf_spin_unlock(&outer->lock);
	return 0;
}

static long lock_in_nested_callback(void *map, __u32 *key, struct counter *c, void *unused)
{
	struct outer_value o = { .counter = c };

	bpf_for_each_map_elem(&counters, lock_outer_value, &o, 0);
	return 0;
}

static long unlock_inner_value(void *map, __u32 *key, struct counter *inner, struct outer_value *o)
{
	struct counter *outer = o->counter;

	bpf_spin_lock(&outer->lock);
	outer->value++;
	bpf_spin_unlock(&inner->lock);
	return 0;
}

static long unlock_in_nested_callback(void *map, __u32 *key, struct counter *c, void *unused)
{
	struct outer_value o = { .counter = c };

	bpf_for_each_map_elem(&counters, unlock_inner_value, &o, 0);
	return 0;
}

/* Two elements, each of which is counted once for itself and once for the other. */
SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(BPF_FUNC_for_each_map_elem, "5.13") __known_bug("d0d78c1df9b1", "<6.2")
__success __retval(2)
int unlock_of_same_callback_value(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c;

	bpf_for_each_map_elem(&counters, lock_in_nested_callback, 0, 0);
	c = map_lookup(counters, &key);
	return c ? c->value : 0;
}

/*
 * commit 71919742c83c ("bpf: Assign lock identity to callback map values") (in v7.3): until then
 * all values of a map that callbacks get passed for one and the same. v6.1 refuses any unlock here,
 * see above, and so has nothing to say.
 */
SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__known_bug("71919742c83c", "<7.3") __twin(unlock_of_same_callback_value)
__needs(BPF_FUNC_for_each_map_elem, "5.13")
__kernel(">=6.2") __failure __errno(EINVAL) __msg("bpf_spin_unlock of different lock")
int unlock_of_other_callback_value(struct __sk_buff *skb)
{
	bpf_for_each_map_elem(&counters, unlock_in_nested_callback, 0, 0);
	return 0;
}

#endif

/* Weak, or a kernel without one of these kfuncs refused all programs of the object. */
#if UNIT(kfuncs)
extern void bpf_rcu_read_lock(void) __weak __ksym;
extern void bpf_rcu_read_unlock(void) __weak __ksym;
extern void bpf_preempt_disable(void) __weak __ksym;
extern void bpf_preempt_enable(void) __weak __ksym;
extern void bpf_throw(__u64 cookie) __weak __ksym;

/* commit 9bb00b2895cb ("bpf: Add kfunc bpf_rcu_read_lock/unlock()") (in v6.2). */
SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(bpf_rcu_read_lock, "6.2") __success __retval(1)
int lock_inside_rcu_section(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_rcu_read_lock();
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	bpf_rcu_read_unlock();
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(lock_inside_rcu_section)
__needs(bpf_rcu_read_lock, "6.2") __failure __errno(EINVAL)
__msg("function calls are not allowed while holding a lock")
int rcu_section_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	bpf_rcu_read_lock();
	c->value++;
	bpf_rcu_read_unlock();
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/* commit fc7566ad0a82 ("bpf: Introduce bpf_preempt_[disable,enable] kfuncs") (in v6.10). */
SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(bpf_preempt_disable, "6.10") __success __retval(1)
int lock_with_preemption_disabled(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_preempt_disable();
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	bpf_preempt_enable();
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(lock_with_preemption_disabled)
__needs(bpf_preempt_disable, "6.10") __failure __errno(EINVAL)
__msg("function calls are not allowed while holding a lock")
int preempt_disable_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	bpf_preempt_disable();
	c->value++;
	bpf_preempt_enable();
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/* commit f18b03fabaa9 ("bpf: Implement BPF exceptions") (in v6.7). */
SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(bpf_throw, "6.7") __success __retval(1)
int throw_after_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	if (c->value != 1)
		bpf_throw(0);
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(throw_after_unlock)
__needs(bpf_throw, "6.7") __failure __errno(EINVAL)
__msg("function calls are not allowed while holding a lock")
int throw_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	if (c->value != 1)
		bpf_throw(0);
	bpf_spin_unlock(&c->lock);
	return c->value;
}
#endif

#if UNIT(open_coded_loop)
/*
 * The iterator behind bpf_for() is three kfuncs: commit 6018e1f407cc ("bpf: implement numbers
 * iterator") (in v6.4). Headers older than libbpf 1.2 do not declare them.
 */
#ifndef bpf_for
struct bpf_iter_num {
	__u64 state;
};
extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __weak __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __weak __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __weak __ksym;
#endif

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(bpf_iter_num_new, "6.4") __success __retval(8)
int open_coded_loop_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0, turns = 0;
	struct counter *c = map_lookup(counters, &key);
	struct bpf_iter_num it;

	if (!c)
		return 0;
	bpf_iter_num_new(&it, 0, 8);
	while (bpf_iter_num_next(&it))
		turns++;
	bpf_iter_num_destroy(&it);
	bpf_spin_lock(&c->lock);
	c->value += turns;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/*
 * commit 512816403ece ("bpf: Allow bpf_for/bpf_repeat calls while holding a spinlock") (in v6.14).
 */
SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(open_coded_loop_before_lock)
__needs(bpf_iter_num_new, "6.4")
__kernel("<6.14") __failure __errno(EINVAL)
		  __msg("function calls are not allowed while holding a lock")
__kernel(">=6.14") __success __retval(8)
int open_coded_loop_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0, turns = 0;
	struct counter *c = map_lookup(counters, &key);
	struct bpf_iter_num it;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	bpf_iter_num_new(&it, 0, 8);
	while (bpf_iter_num_next(&it))
		turns++;
	bpf_iter_num_destroy(&it);
	c->value += turns;
	bpf_spin_unlock(&c->lock);
	return c->value;
}
#endif
