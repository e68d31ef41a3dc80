// SPDX-License-Identifier: GPL-2.0-only
/*
 * Exceptions: bpf_throw() ends the program from wherever it is called, and nothing after it runs, no
 * unlock either. What libbpf's headers call bpf_assert() is a comparison and that call.
 *
 * libbpf only: bcc calls no kernel functions.
 */
#include "spinlock.h"

MAP(ARRAY, counters, __u32, struct counter, 1)

extern void bpf_throw(__u64 cookie) __weak __ksym;

#define ASSERT(condition)         \
	do {                      \
		if (!(condition)) \
			bpf_throw(0); \
	} while (0)

/*
 * Rule: No exception while holding the lock
 * Topic: Later programs, calls and places
 * bpf_throw() unwinds the stack of the program, but releases nothing. So the call is refused while the
 * lock is held, in every frame.
 * commit f18b03fabaa9 ("bpf: Implement BPF exceptions") (in v6.7)
 * commit a44b1334aadd ("bpf: Allow calling static subprogs while holding a bpf_spin_lock") (in v6.9)
 */

static __noinline int assert_small(struct counter *c)
{
	ASSERT(c->value < 100);
	return c->value;
}

SEC("tc") __rule("No exception while holding the lock") __loader(libbpf)
__needs(bpf_throw, "6.7") __success __retval(1)
int assert_before_and_after_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	ASSERT(c->value < 100);
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	ASSERT(c->value < 100);
	return c->value;
}

SEC("tc") __rule("No exception while holding the lock") __loader(libbpf)
__needs(bpf_throw, "6.7") __twin(assert_before_and_after_lock) __refused(call_under_lock)
int assert_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	ASSERT(c->value < 100);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/* What is thrown is what the program returns. */
SEC("tc") __rule("No exception while holding the lock") __loader(libbpf)
__needs(bpf_throw, "6.7") __success __retval(7)
int always_throws_after_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	bpf_throw(7);
	return c->value;
}

SEC("tc") __rule("No exception while holding the lock") __loader(libbpf)
__needs(bpf_throw, "6.7") __twin(always_throws_after_unlock)
__description("there is nothing that could unlock after it") __refused(call_under_lock)
int always_throws_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_throw(7);
	return c->value;
}

SEC("tc") __rule("No exception while holding the lock") __loader(libbpf)
__needs(bpf_throw, "6.7") __success __retval(1)
int static_subprog_asserts_after_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return assert_small(c);
}

/* Before v6.9 it is the call of the subprogram that is refused, with the same text. */
SEC("tc") __rule("No exception while holding the lock") __loader(libbpf)
__needs(bpf_throw, "6.7") __twin(static_subprog_asserts_after_unlock) __refused(call_under_lock)
int static_subprog_asserts_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	int value;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	value = assert_small(c);
	bpf_spin_unlock(&c->lock);
	return value;
}

static long lock_in_turn(__u32 index, struct counter **context)
{
	struct counter *c = *context;

	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return 0;
}

static long assert_after_unlock_in_turn(__u32 index, struct counter **context)
{
	struct counter *c = *context;

	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	ASSERT(c->value < 100);
	return 0;
}

static long assert_under_lock_in_turn(__u32 index, struct counter **context)
{
	struct counter *c = *context;

	bpf_spin_lock(&c->lock);
	c->value++;
	ASSERT(c->value < 100);
	bpf_spin_unlock(&c->lock);
	return 0;
}

SEC("tc") __rule("No exception while holding the lock") __loader(libbpf)
__needs(bpf_throw, "6.7") __success __retval(4)
int callback_without_assertion(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_loop(4, lock_in_turn, &c, 0);
	ASSERT(c->value < 100);
	return c->value;
}

/* No callback may throw, with the lock or without; that is looked for when all paths were walked. */
SEC("tc") __rule("No exception while holding the lock") __loader(libbpf)
__needs(bpf_throw, "6.7") __twin(callback_without_assertion) __failure __errno(EINVAL)
__msg("cannot be called from callback subprog")
int callback_asserts_after_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_loop(4, assert_after_unlock_in_turn, &c, 0);
	return c->value;
}

SEC("tc") __rule("No exception while holding the lock") __loader(libbpf)
__needs(bpf_throw, "6.7") __twin(callback_without_assertion) __refused(call_under_lock)
int callback_asserts_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_loop(4, assert_under_lock_in_turn, &c, 0);
	return c->value;
}
