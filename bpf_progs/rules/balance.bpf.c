// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every lock is unlocked, once, by the program that took it, before it returns; and before another
 * is taken. All of it dates from commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1).
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 * changed the errno of what bpf_spin_lock() and bpf_spin_unlock() say themselves; what is said of
 * calls and of returns was always EINVAL.
 */
#include "spinlock.h"

MAP(ARRAY, counters, __u32, struct counter, 2)
MAP(ARRAY, others, __u32, struct counter, 1)
MAP(HASH, table, __u32, struct counter, 4)

/*
 * Rule: A locked update loads and runs
 * Topic: Lock and unlock
 * Take the lock, change the value, release the lock: what the lock is for must be accepted on
 * every kernel, and what it protects must have changed when the program has run.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 */

/* The example of the commit. */
SEC("tc") __rule("A locked update loads and runs") __success __retval(1)
int lock_increment_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/* Keys as the commit's example has them: a hash map, filled as it is used. */
SEC("tc") __rule("A locked update loads and runs") __success __retval(1)
int lock_increment_unlock_hash(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter zero = {};
	struct counter *c;

	map_update(table, &key, &zero);
	c = map_lookup(table, &key);
	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("A locked update loads and runs") __success __retval(2)
__description("two critical sections, one after the other")
int two_sections(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/*
 * Rule: Unlock before return, on every path
 * Topic: Lock and unlock
 * A program that ended with the lock held would leave every other CPU waiting for ever, with
 * interrupts off. The verifier walks every path to its end, through subprograms and callbacks,
 * and refuses the program if the lock is held there.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit a44b1334aadd ("bpf: Allow calling static subprogs while holding a bpf_spin_lock") (in
 * v6.9)
 * commit d402755ced2e ("bpf: Unify resource leak checks") (in v6.13)
 */

SEC("tc") __rule("Unlock before return, on every path")
__twin(lock_increment_unlock) __refused(missing_unlock)
int missing_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	return 0;
}

SEC("tc") __rule("Unlock before return, on every path") __success __retval(1)
int unlock_on_both_branches(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	if (c->value++) {
		bpf_spin_unlock(&c->lock);
		return 0;
	}
	bpf_spin_unlock(&c->lock);
	return 1;
}

SEC("tc") __rule("Unlock before return, on every path")
__twin(unlock_on_both_branches) __refused(missing_unlock)
int missing_unlock_on_one_branch(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	if (c->value++)
		return 0;
	bpf_spin_unlock(&c->lock);
	return 1;
}

/* A region may hold a loop since commit 2589726d12a1 ("bpf: introduce bounded loops") (in v5.3). */
SEC("tc") __rule("Unlock before return, on every path") __success __retval(3)
int break_in_loop(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	int i;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	for (i = 0; i < 8; i++)
		if (++c->value == 3)
			break;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("Unlock before return, on every path")
__twin(break_in_loop) __refused(missing_unlock)
int return_in_loop(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	int i;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	for (i = 0; i < 8; i++)
		if (++c->value == 3)
			return 3;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/*
 * Rule: No unlock without a lock
 * Topic: Lock and unlock
 * An unlock needs a lock that is held on every path which leads to it; else it would release
 * what another CPU holds.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 */

SEC("tc") __rule("No unlock without a lock")
__twin(lock_increment_unlock) __refused(unlock_without_lock)
int unlock_without_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No unlock without a lock")
__twin(two_sections) __refused(unlock_without_lock)
int unlock_twice(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No unlock without a lock") __success __retval(1)
int lock_on_both_branches(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	if (skb->mark) {
		bpf_spin_lock(&c->lock);
		c->value += 2;
	} else {
		bpf_spin_lock(&c->lock);
		c->value++;
	}
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No unlock without a lock")
__twin(lock_on_both_branches) __refused(unlock_without_lock)
int lock_on_one_branch(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	if (skb->mark) {
		bpf_spin_lock(&c->lock);
		c->value += 2;
	} else {
		c->value++;
	}
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/*
 * Rule: Unlock the lock that was taken
 * Topic: Lock and unlock
 * The lock that is released must be the one that was taken: of the same map, and of the same
 * lookup of it. The verifier knows locks by the identity of the pointer, not by keys, so two
 * lookups of one key are two locks to it.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 * commit 7c884339bbff ("bpf: regsafe() must not skip check_ids()") (in v6.2)
 * commit 71919742c83c ("bpf: Assign lock identity to callback map values") (in v7.3)
 */

SEC("tc") __rule("Unlock the lock that was taken") __success __retval(2)
int two_maps_in_turn(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *a = map_lookup(counters, &key);
	struct counter *b = map_lookup(others, &key);

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	bpf_spin_unlock(&a->lock);
	bpf_spin_lock(&b->lock);
	b->value++;
	bpf_spin_unlock(&b->lock);
	return a->value + b->value;
}

SEC("tc") __rule("Unlock the lock that was taken")
__twin(two_maps_in_turn) __refused(different_lock)
int unlock_of_other_map(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *a = map_lookup(counters, &key);
	struct counter *b = map_lookup(others, &key);

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	bpf_spin_unlock(&b->lock);
	return a->value;
}

SEC("tc") __rule("Unlock the lock that was taken") __success __retval(2)
int two_elements_in_turn(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1;
	struct counter *a = map_lookup(counters, &first);
	struct counter *b = map_lookup(counters, &second);

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	bpf_spin_unlock(&a->lock);
	bpf_spin_lock(&b->lock);
	b->value++;
	bpf_spin_unlock(&b->lock);
	return a->value + b->value;
}

SEC("tc") __rule("Unlock the lock that was taken")
__twin(two_elements_in_turn) __refused(different_lock)
int unlock_of_other_element(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1;
	struct counter *a = map_lookup(counters, &first);
	struct counter *b = map_lookup(counters, &second);

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	bpf_spin_unlock(&b->lock);
	return a->value;
}

/* The verifier tells lookups apart, not keys: each lookup gets an identity of its own. */
SEC("tc") __rule("Unlock the lock that was taken") __success __retval(2)
int same_key_twice_in_turn(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *a = map_lookup(counters, &key);
	struct counter *b = map_lookup(counters, &key);

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	bpf_spin_unlock(&a->lock);
	bpf_spin_lock(&b->lock);
	b->value++;
	bpf_spin_unlock(&b->lock);
	return b->value;
}

SEC("tc") __rule("Unlock the lock that was taken")
__twin(same_key_twice_in_turn) __refused(different_lock)
int unlock_of_same_key_looked_up_again(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *a = map_lookup(counters, &key);
	struct counter *b = map_lookup(counters, &key);

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	bpf_spin_unlock(&b->lock);
	return a->value;
}

/*
 * The verifier walks the path that unlocks the right lock first and must then see that the other
 * path differs only in which lock is unlocked; the assembly keeps clang from turning that order.
 * The verifier remembers a state to compare with only after some jumps and instructions: the empty
 * ones are these.
 */
#define COPY_UNLESS(condition, to, from)          \
	asm volatile(".rept 8\n"                  \
		     "goto +0\n"                  \
		     ".endr\n"                    \
		     "if %[c] != 0 goto +1\n"     \
		     "%[t] = %[f]"                \
		     : [t] "+r"(to)               \
		     : [c] "r"(condition), [f] "r"(from))

SEC("tc") __rule("Unlock the lock that was taken") __success __retval(1)
int same_lock_on_two_paths(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1, mark = skb->mark;
	struct counter *a = map_lookup(counters, &first);
	struct counter *b = map_lookup(counters, &second);
	struct counter *held = a;

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	COPY_UNLESS(mark, held, a);
	bpf_spin_unlock(&held->lock);
	return a->value + b->value;
}

/*
 * commit 7c884339bbff ("bpf: regsafe() must not skip check_ids()") (in v6.2): before it the second
 * path was held to be the same as the first and not looked at.
 */
SEC("tc") __rule("Unlock the lock that was taken") __known_bug("7c884339bbff", "<6.2")
__twin(same_lock_on_two_paths) __refused(different_lock)
int unlock_of_other_lock_on_second_path(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1, mark = skb->mark;
	struct counter *a = map_lookup(counters, &first);
	struct counter *b = map_lookup(counters, &second);
	struct counter *held = b;

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	COPY_UNLESS(mark, held, a);
	bpf_spin_unlock(&held->lock);
	return a->value + b->value;
}

/*
 * Rule: One lock at a time
 * Topic: Lock and unlock
 * Whoever holds one lock may not take another, nor the same again: two locks taken in two orders
 * are a deadlock, and so is one taken twice.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 */

/*
 * bpf_spin_lock() is a helper and helpers may not be called with a lock held, so it is that rule
 * which refuses a second lock; the text on two locks that the verifier also has is never reached.
 */
SEC("tc") __rule("One lock at a time")
__twin(two_sections) __refused(call_under_lock)
int lock_twice(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("One lock at a time")
__twin(two_maps_in_turn) __refused(call_under_lock)
int lock_two_maps(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *a = map_lookup(counters, &key);
	struct counter *b = map_lookup(others, &key);

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	bpf_spin_lock(&b->lock);
	b->value++;
	bpf_spin_unlock(&b->lock);
	bpf_spin_unlock(&a->lock);
	return a->value + b->value;
}

SEC("tc") __rule("One lock at a time")
__twin(two_elements_in_turn) __refused(call_under_lock)
int lock_two_elements(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1;
	struct counter *a = map_lookup(counters, &first);
	struct counter *b = map_lookup(counters, &second);

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	bpf_spin_lock(&b->lock);
	b->value++;
	bpf_spin_unlock(&b->lock);
	bpf_spin_unlock(&a->lock);
	return a->value + b->value;
}

SEC("tc") __rule("One lock at a time") __success __retval(4)
int lock_and_unlock_in_loop(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	int i;

	if (!c)
		return 0;
	for (i = 0; i < 4; i++) {
		bpf_spin_lock(&c->lock);
		c->value++;
		bpf_spin_unlock(&c->lock);
	}
	return c->value;
}

SEC("tc") __rule("One lock at a time")
__twin(lock_and_unlock_in_loop) __refused(call_under_lock)
int lock_in_loop_unlock_after(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	int i;

	if (!c)
		return 0;
	for (i = 0; i < 4; i++) {
		bpf_spin_lock(&c->lock);
		c->value++;
	}
	bpf_spin_unlock(&c->lock);
	return c->value;
}
