// SPDX-License-Identifier: GPL-2.0-only
/*
 * Subprograms around the lock and under it: the verifier walks into a static one and sees what it
 * does with the lock; a global one it verifies on its own.
 *
 * libbpf only: bcc inlines every function.
 */
#include "spinlock.h"

MAP(ARRAY, counters, __u32, struct counter, 2)

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
__kernel("<6.9") __refused(call_under_lock)
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
__twin(static_subprog_with_helper_before_lock) __refused(call_under_lock)
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
__twin(global_function_before_lock)
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __refused(global_call_under_lock)
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

static __noinline int sum_by_global_function(int a)
{
	int sum = global_sum(a, 1);

	asm volatile("");
	return sum;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf) __success __retval(1)
int static_subprog_calls_global_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	int sum;

	if (!c)
		return 0;
	sum = sum_by_global_function(skb->mark);
	bpf_spin_lock(&c->lock);
	c->value = sum;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/* A static subprogram calls the global function, with the lock of its caller held. */
SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(static_subprog_calls_global_before_lock)
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __refused(global_call_under_lock)
int static_subprog_calls_global_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	int sum;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	sum = sum_by_global_function(skb->mark);
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
__kernel("<6.9") __refused(missing_unlock)
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
__kernel("<6.9") __refused(call_under_lock)
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
__twin(static_subprog_locks_and_unlocks) __refused(missing_unlock)
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
__twin(global_function_locks_and_unlocks) __refused(missing_unlock)
int global_function_returns_locked(struct __sk_buff *skb)
{
	return global_locks(0);
}

/*
 * Subprograms in subprograms; the lock is followed through all of them.
 */
static __noinline void innermost(struct counter *c)
{
	c->value++;
}

static __noinline void inner(struct counter *c)
{
	innermost(c);
	asm volatile("");
}

static __noinline void outer(struct counter *c)
{
	inner(c);
	asm volatile("");
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf) __success __retval(1)
int three_static_subprogs_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	outer(c);
	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(three_static_subprogs_before_lock)
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __success __retval(1)
int three_static_subprogs_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	outer(c);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

static __noinline __u64 innermost_clock(struct counter *c)
{
	c->value++;
	return bpf_ktime_get_ns();
}

static __noinline __u64 inner_clock(struct counter *c)
{
	__u64 now = innermost_clock(c);

	asm volatile("");
	return now;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf) __success __retval(1)
int helper_in_second_subprog_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c || !inner_clock(c))
		return 0;
	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(helper_in_second_subprog_before_lock) __refused(call_under_lock)
int helper_in_second_subprog_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	__u64 now;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	now = inner_clock(c);
	bpf_spin_unlock(&c->lock);
	return c->value + !now;
}

static __noinline int unlock_on_both_paths(struct counter *c, __u32 mark)
{
	if (mark) {
		bpf_spin_unlock(&c->lock);
		return 2;
	}
	c->value++;
	bpf_spin_unlock(&c->lock);
	return 1;
}

static __noinline int unlock_on_one_path(struct counter *c, __u32 mark)
{
	if (mark)
		return 2;
	c->value++;
	bpf_spin_unlock(&c->lock);
	return 1;
}

SEC("tc") __rule("Unlock before return, on every path") __loader(libbpf)
__twin(three_static_subprogs_before_lock)
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __success __retval(1)
int static_subprog_unlocks_on_both_paths(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	return unlock_on_both_paths(c, skb->mark);
}

SEC("tc") __rule("Unlock before return, on every path") __loader(libbpf)
__needs(bpf_arena_alloc_pages, "6.9") __twin(static_subprog_unlocks_on_both_paths)
__refused(missing_unlock)
int static_subprog_unlocks_on_one_path(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	return unlock_on_one_path(c, skb->mark);
}

/* The caller learns from the result which path it was, and so does the verifier. */
SEC("tc") __rule("Unlock before return, on every path") __loader(libbpf)
__twin(three_static_subprogs_before_lock)
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __success __retval(1)
int caller_unlocks_what_static_subprog_left(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	int path;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	path = unlock_on_one_path(c, skb->mark);
	if (path == 2)
		bpf_spin_unlock(&c->lock);
	return path;
}
