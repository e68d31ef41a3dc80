// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loops around the lock and under it, of every kind that the verifier knows: bounded by what it can
 * count, by an iterator (bpf_for, bpf_repeat), by may_goto, or by bpf_loop(). The lock is balanced
 * over each turn, or held over all of them; nothing else.
 *
 * libbpf only: bcc knows no kernel functions and no callbacks.
 */
#include "spinlock.h"

MAP(ARRAY, counters, __u32, struct counter, 1)

/* Headers older than libbpf 1.2 do not declare these. */
#ifndef bpf_for
struct bpf_iter_num {
	__u64 state;
};
extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __weak __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __weak __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __weak __ksym;
#endif

/* A constant that the verifier does not know to be one, or it would unroll the loop. */
#define UNKNOWN(number) ((skb->mark & 7) + (number))

/*
 * Rule: The lock is balanced over each turn of a loop, or held over all
 * Topic: Later programs, calls and places
 * What a turn begins with, the next must begin with as well. A loop that takes the lock and leaves it
 * to the next turn takes it twice; one that is left in the middle of a section keeps it.
 * commit 2589726d12a1 ("bpf: introduce bounded loops") (in v5.3)
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit 6018e1f407cc ("bpf: implement numbers iterator") (in v6.4)
 * commit 011832b97b31 ("bpf: Introduce may_goto instruction") (in v6.9)
 * commit 512816403ece ("bpf: Allow bpf_for/bpf_repeat calls while holding a spinlock") (in v6.14)
 */

SEC("tc") __rule("The lock is balanced over each turn of a loop, or held over all") __loader(libbpf)
__needs(bpf_iter_num_new, "6.4") __success __retval(4)
int iterator_turns_lock_and_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	struct bpf_iter_num it;

	if (!c)
		return 0;
	bpf_iter_num_new(&it, 0, UNKNOWN(4));
	while (bpf_iter_num_next(&it)) {
		bpf_spin_lock(&c->lock);
		c->value++;
		bpf_spin_unlock(&c->lock);
	}
	bpf_iter_num_destroy(&it);
	return c->value;
}

/* The path without a turn is walked first, and has no lock to release. */
SEC("tc") __rule("The lock is balanced over each turn of a loop, or held over all") __loader(libbpf)
__needs(bpf_iter_num_new, "6.4") __twin(iterator_turns_lock_and_unlock)
__refused(unlock_without_lock)
int iterator_turns_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	struct bpf_iter_num it;

	if (!c)
		return 0;
	bpf_iter_num_new(&it, 0, UNKNOWN(4));
	while (bpf_iter_num_next(&it)) {
		bpf_spin_lock(&c->lock);
		c->value++;
	}
	bpf_iter_num_destroy(&it);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("The lock is balanced over each turn of a loop, or held over all") __loader(libbpf)
__needs(bpf_iter_num_new, "6.4") __twin(iterator_turns_lock_and_unlock)
__description("left by a break with the lock held, unlocked after the loop")
__kernel("<6.14") __refused(call_under_lock)
__kernel(">=6.14") __success __retval(1)
int iterator_break_locked_unlock_after(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	struct bpf_iter_num it;
	int locked = 0;

	if (!c)
		return 0;
	bpf_iter_num_new(&it, 0, UNKNOWN(4));
	while (bpf_iter_num_next(&it)) {
		bpf_spin_lock(&c->lock);
		if (c->value++ != 7) {
			locked = 1;
			break;
		}
		bpf_spin_unlock(&c->lock);
	}
	bpf_iter_num_destroy(&it);
	if (locked)
		bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("The lock is balanced over each turn of a loop, or held over all") __loader(libbpf)
__needs(bpf_iter_num_new, "6.4") __twin(iterator_turns_lock_and_unlock)
__kernel("<6.14") __refused(call_under_lock)
__kernel(">=6.14") __refused(missing_unlock)
int iterator_break_locked(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	struct bpf_iter_num it;

	if (!c)
		return 0;
	bpf_iter_num_new(&it, 0, UNKNOWN(4));
	while (bpf_iter_num_next(&it)) {
		bpf_spin_lock(&c->lock);
		if (c->value++ != 7)
			break;
		bpf_spin_unlock(&c->lock);
	}
	bpf_iter_num_destroy(&it);
	return c->value;
}

SEC("tc") __rule("The lock is balanced over each turn of a loop, or held over all") __loader(libbpf)
__needs(bpf_iter_num_new, "6.4") __twin(iterator_turns_lock_and_unlock)
__kernel("<6.14") __refused(call_under_lock)
__kernel(">=6.14") __refused(missing_unlock)
int lock_before_iterator_turns_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	struct bpf_iter_num it;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	bpf_iter_num_new(&it, 0, UNKNOWN(4));
	while (bpf_iter_num_next(&it)) {
		c->value++;
		bpf_spin_unlock(&c->lock);
	}
	bpf_iter_num_destroy(&it);
	return c->value;
}

SEC("tc") __rule("The lock is balanced over each turn of a loop, or held over all") __loader(libbpf)
__needs(bpf_iter_num_new, "6.4") __twin(iterator_turns_lock_and_unlock)
__description("each turn releases the lock that it began with, and takes it again")
__kernel("<6.14") __refused(call_under_lock)
__kernel(">=6.14") __success __retval(4)
int iterator_turns_unlock_and_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	struct bpf_iter_num it;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	bpf_iter_num_new(&it, 0, UNKNOWN(4));
	while (bpf_iter_num_next(&it)) {
		c->value++;
		bpf_spin_unlock(&c->lock);
		bpf_spin_lock(&c->lock);
	}
	bpf_iter_num_destroy(&it);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

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
__kernel("<6.14") __refused(call_under_lock)
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

#if UNIT(may_goto)
/*
 * Goes on or, when the kernel has had enough, leaves the loop; clang has no word for it yet. It came
 * in v6.9, as arenas did, by whose function's name the kernels are told.
 */
#define MAY_BREAK                                               \
	({                                                      \
		__label__ leave, go_on;                         \
		asm volatile goto("1: .byte 0xe5\n"             \
				  ".byte 0\n"                   \
				  ".long ((%l[leave] - 1b - 8) / 8) & 0xffff\n" \
				  ".short 0" : : : : leave);    \
		goto go_on;                                     \
	leave:                                                  \
		break;                                          \
	go_on:;                                                 \
	})

SEC("tc") __rule("The lock is balanced over each turn of a loop, or held over all") __loader(libbpf)
__needs(bpf_arena_alloc_pages, "6.9") __success __retval(4)
int may_goto_turns_lock_and_unlock(struct __sk_buff *skb)
{
	__u32 key = 0, turns = UNKNOWN(4), i;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	for (i = 0; i < turns; i++) {
		MAY_BREAK;
		bpf_spin_lock(&c->lock);
		c->value++;
		bpf_spin_unlock(&c->lock);
	}
	return c->value;
}

/* It is no call, so that nothing is said against it. */
SEC("tc") __rule("The lock is balanced over each turn of a loop, or held over all") __loader(libbpf)
__needs(bpf_arena_alloc_pages, "6.9") __success __retval(4)
int may_goto_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0, turns = UNKNOWN(4), i;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	for (i = 0; i < turns; i++) {
		MAY_BREAK;
		c->value++;
	}
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("The lock is balanced over each turn of a loop, or held over all") __loader(libbpf)
__needs(bpf_arena_alloc_pages, "6.9") __twin(may_goto_turns_lock_and_unlock)
__refused(missing_unlock)
int may_goto_leaves_locked(struct __sk_buff *skb)
{
	__u32 key = 0, turns = UNKNOWN(4), i;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	for (i = 0; i < turns; i++) {
		bpf_spin_lock(&c->lock);
		c->value++;
		MAY_BREAK;
		bpf_spin_unlock(&c->lock);
	}
	return c->value;
}

SEC("tc") __rule("The lock is balanced over each turn of a loop, or held over all") __loader(libbpf)
__needs(bpf_arena_alloc_pages, "6.9") __twin(may_goto_turns_lock_and_unlock)
__refused(call_under_lock)
int may_goto_turns_lock(struct __sk_buff *skb)
{
	__u32 key = 0, turns = UNKNOWN(4), i;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	for (i = 0; i < turns + 1; i++) {
		bpf_spin_lock(&c->lock);
		c->value++;
		MAY_BREAK;
	}
	bpf_spin_unlock(&c->lock);
	return c->value;
}
#endif
