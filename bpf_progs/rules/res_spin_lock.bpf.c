// SPDX-License-Identifier: GPL-2.0-only
/*
 * bpf_res_spin_lock() may fail, with -EDEADLK or -ETIMEDOUT, and therefore may
 * do what bpf_spin_lock() must not: be taken while another is held.
 *
 * libbpf only, as all that calls kernel functions (kfuncs.h).
 */
#include "res_spin_lock_counters.h"

MAP(ARRAY, others, __u32, struct res_spin_lock_counter, 1)
MAP(HASH, table, __u32, struct res_spin_lock_counter, 2)
MAP(ARRAY, plain, __u32, struct counter, 1)

PRIVATE(A) struct bpf_res_spin_lock lock_a;
PRIVATE(B) struct bpf_res_spin_lock lock_b;

/*
 * Rule: A res_spin_lock that was not taken is not held
 * Topic: res_spin_lock
 * bpf_res_spin_lock() returns 0 when it has the lock. The verifier follows both outcomes: only where
 * the result is known to be 0 is the lock held, and there it must be released.
 * commit 97eb35f3ad42 ("bpf: Introduce rqspinlock kfuncs") (in v6.15)
 * commit 0de2046137f9 ("bpf: Implement verifier support for rqspinlock") (in v6.15)
 */

SEC("tc") __rule("A res_spin_lock that was not taken is not held") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int res_lock_and_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c || bpf_res_spin_lock(&c->lock))
		return 0;
	c->value++;
	bpf_res_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("A res_spin_lock that was not taken is not held") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int res_lock_and_unlock_hash(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter zero = {};
	struct res_spin_lock_counter *c;

	map_update(table, &key, &zero);
	c = map_lookup(table, &key);
	if (!c || bpf_res_spin_lock(&c->lock))
		return 0;
	c->value++;
	bpf_res_spin_unlock(&c->lock);
	return c->value;
}

/*
 * Refusal: res_unlock_without_lock
 * EINVAL "bpf_res_spin_unlock without taking a lock"
 * bpf_res_spin_unlock() where no lock is held.
 */

SEC("tc") __rule("A res_spin_lock that was not taken is not held") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock) __refused(res_unlock_without_lock)
int res_unlock_whatever_lock_returned(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_res_spin_lock(&c->lock);
	c->value++;
	bpf_res_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("A res_spin_lock that was not taken is not held") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock) __refused(res_unlock_without_lock)
int res_unlock_where_lock_failed(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	if (bpf_res_spin_lock(&c->lock)) {
		bpf_res_spin_unlock(&c->lock);
		return 0;
	}
	bpf_res_spin_unlock(&c->lock);
	return 1;
}

SEC("tc") __rule("A res_spin_lock that was not taken is not held") __loader(libbpf)
__needs(bpf_res_spin_lock_irqsave, "6.15") __twin(irqsave_and_restore)
__refused(res_unlock_without_lock)
int irqrestore_where_irqsave_failed(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);
	unsigned long flags;

	if (!c)
		return 0;
	if (bpf_res_spin_lock_irqsave(&c->lock, &flags)) {
		bpf_res_spin_unlock_irqrestore(&c->lock, &flags);
		return 0;
	}
	bpf_res_spin_unlock_irqrestore(&c->lock, &flags);
	return 1;
}

static __always_inline int unlock_where_lock_returned(int error)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);
	int result;

	if (!c)
		return 0;
	result = bpf_res_spin_lock(&c->lock);
	if (!result || result == error)
		bpf_res_spin_unlock(&c->lock);
	return !result;
}

SEC("tc") __rule("A res_spin_lock that was not taken is not held") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int res_unlock_where_lock_returned_no_error(struct __sk_buff *skb)
{
	return unlock_where_lock_returned(0);
}

SEC("tc") __rule("A res_spin_lock that was not taken is not held") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_unlock_where_lock_returned_no_error)
__refused(res_unlock_without_lock)
int res_unlock_where_lock_found_deadlock(struct __sk_buff *skb)
{
	return unlock_where_lock_returned(-EDEADLK);
}

SEC("tc") __rule("A res_spin_lock that was not taken is not held") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_unlock_where_lock_returned_no_error)
__refused(res_unlock_without_lock)
int res_unlock_where_lock_timed_out(struct __sk_buff *skb)
{
	return unlock_where_lock_returned(-ETIMEDOUT);
}

SEC("tc") __rule("No unlock without a lock") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock) __refused(res_unlock_without_lock)
int res_unlock_without_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_res_spin_unlock(&c->lock);
	return 1;
}

/*
 * Refusal: res_missing_unlock
 * EINVAL
 *	"BPF_EXIT instruction in main prog cannot be used inside bpf_spin_lock-ed region"
 * The text names neither the function nor the kind of lock.
 */

SEC("tc") __rule("Unlock before return, on every path") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock) __refused(res_missing_unlock)
int res_missing_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c || bpf_res_spin_lock(&c->lock))
		return 0;
	c->value++;
	return 1;
}

SEC("tc") __rule("Unlock before return, on every path") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(two_res_locks)
__description("the outer lock is still held when the inner one could not be taken")
__refused(res_missing_unlock)
int res_return_where_second_lock_failed(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *a = map_lookup(counters, &key);
	struct res_spin_lock_counter *b = map_lookup(others, &key);

	if (!a || !b || bpf_res_spin_lock(&a->lock))
		return 0;
	if (bpf_res_spin_lock(&b->lock))
		return 0;
	bpf_res_spin_unlock(&b->lock);
	bpf_res_spin_unlock(&a->lock);
	return 1;
}

/*
 * Rule: res_spin_locks nest, and are released innermost first
 * Topic: res_spin_lock
 * Where plain locks stop at one, these stack. The kernel keeps a short table of what each CPU holds,
 * to find deadlocks by; that table is a stack, so that the order of unlocking is prescribed.
 * commit 0de2046137f9 ("bpf: Implement verifier support for rqspinlock") (in v6.15)
 * commit ea21771c077c ("bpf: Maintain FIFO property for rqspinlock unlock") (in v6.15)
 */

static __always_inline int count_under_both(struct res_spin_lock_counter *a,
					    struct res_spin_lock_counter *b)
{
	if (!a || !b || bpf_res_spin_lock(&a->lock))
		return 0;
	if (bpf_res_spin_lock(&b->lock)) {
		bpf_res_spin_unlock(&a->lock);
		return 0;
	}
	a->value++;
	b->value++;
	bpf_res_spin_unlock(&b->lock);
	bpf_res_spin_unlock(&a->lock);
	return a->value + b->value;
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(2)
int two_res_locks(struct __sk_buff *skb)
{
	__u32 key = 0;

	return count_under_both(map_lookup(counters, &key), map_lookup(others, &key));
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(2)
int two_res_locks_of_one_map(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1;

	return count_under_both(map_lookup(counters, &first), map_lookup(counters, &second));
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(2)
int three_res_locks(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1;
	struct res_spin_lock_counter *outermost = map_lookup(others, &first);
	struct res_spin_lock_counter *a = map_lookup(counters, &first);
	struct res_spin_lock_counter *b = map_lookup(counters, &second);
	int sum;

	if (!outermost || bpf_res_spin_lock(&outermost->lock))
		return 0;
	sum = count_under_both(a, b);
	bpf_res_spin_unlock(&outermost->lock);
	return sum;
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int two_global_res_locks(struct __sk_buff *skb)
{
	if (bpf_res_spin_lock(&lock_a))
		return 0;
	if (bpf_res_spin_lock(&lock_b)) {
		bpf_res_spin_unlock(&lock_a);
		return 0;
	}
	bpf_res_spin_unlock(&lock_b);
	bpf_res_spin_unlock(&lock_a);
	return 1;
}

static __always_inline int unlock_outer_first(struct res_spin_lock_counter *a,
					      struct res_spin_lock_counter *b)
{
	if (!a || !b || bpf_res_spin_lock(&a->lock))
		return 0;
	if (bpf_res_spin_lock(&b->lock)) {
		bpf_res_spin_unlock(&a->lock);
		return 0;
	}
	bpf_res_spin_unlock(&a->lock);
	bpf_res_spin_unlock(&b->lock);
	return 1;
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(two_res_locks) __refused(res_unlock_out_of_order)
int res_unlock_outer_first(struct __sk_buff *skb)
{
	__u32 key = 0;

	return unlock_outer_first(map_lookup(counters, &key), map_lookup(others, &key));
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(two_res_locks_of_one_map)
__refused(res_unlock_out_of_order)
int res_unlock_outer_first_of_one_map(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1;

	return unlock_outer_first(map_lookup(counters, &first), map_lookup(counters, &second));
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(two_res_locks) __refused(different_res_spin_lock)
int res_unlock_of_other_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *a = map_lookup(counters, &key);
	struct res_spin_lock_counter *b = map_lookup(others, &key);

	if (!a || !b || bpf_res_spin_lock(&a->lock))
		return 0;
	bpf_res_spin_unlock(&b->lock);
	return 1;
}

/*
 * Rule: A deadlock with oneself is refused, or found when it runs
 * Topic: res_spin_lock
 * What the verifier knows to be held already may not be taken again. Two lookups of one key are two
 * locks to it: there the second call returns -EDEADLK, and the program goes on.
 * commit 0de2046137f9 ("bpf: Implement verifier support for rqspinlock") (in v6.15)
 */

/*
 * Refusal: same_res_spin_lock_again
 * EINVAL "Acquiring the same lock again, AA deadlock detected"
 * The verifier knows that the program holds the lock already.
 */

SEC("tc") __rule("A deadlock with oneself is refused, or found when it runs") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(two_res_locks) __refused(same_res_spin_lock_again)
int res_lock_twice(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *a = map_lookup(counters, &key);

	if (!a || bpf_res_spin_lock(&a->lock))
		return 0;
	if (bpf_res_spin_lock(&a->lock)) {
		bpf_res_spin_unlock(&a->lock);
		return 0;
	}
	bpf_res_spin_unlock(&a->lock);
	bpf_res_spin_unlock(&a->lock);
	return 1;
}

SEC("tc") __rule("A deadlock with oneself is refused, or found when it runs") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(two_global_res_locks) __refused(same_res_spin_lock_again)
int res_lock_global_twice(struct __sk_buff *skb)
{
	if (bpf_res_spin_lock(&lock_a))
		return 0;
	if (bpf_res_spin_lock(&lock_a)) {
		bpf_res_spin_unlock(&lock_a);
		return 0;
	}
	bpf_res_spin_unlock(&lock_a);
	bpf_res_spin_unlock(&lock_a);
	return 1;
}

static __always_inline int lock_inside_irqsave(struct res_spin_lock_counter *a,
					       struct res_spin_lock_counter *b)
{
	unsigned long flags;
	int taken = 0;

	if (!a || !b || bpf_res_spin_lock_irqsave(&a->lock, &flags))
		return 0;
	if (!bpf_res_spin_lock(&b->lock)) {
		bpf_res_spin_unlock(&b->lock);
		taken = 1;
	}
	bpf_res_spin_unlock_irqrestore(&a->lock, &flags);
	return taken;
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock_irqsave, "6.15") __success __retval(1)
int res_lock_inside_irqsave(struct __sk_buff *skb)
{
	__u32 key = 0;

	return lock_inside_irqsave(map_lookup(counters, &key), map_lookup(others, &key));
}

/* Taken in either way, it is one lock. */
SEC("tc") __rule("A deadlock with oneself is refused, or found when it runs") __loader(libbpf)
__needs(bpf_res_spin_lock_irqsave, "6.15") __twin(res_lock_inside_irqsave)
__refused(same_res_spin_lock_again)
int res_lock_of_same_inside_irqsave(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *a = map_lookup(counters, &key);

	return lock_inside_irqsave(a, a);
}

/* It recovers: the third lock, after the first has been released, is taken. */
SEC("tc") __rule("A deadlock with oneself is refused, or found when it runs") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(35)
int res_lock_twice_by_two_lookups(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *a = map_lookup(counters, &key);
	struct res_spin_lock_counter *b = map_lookup(counters, &key);
	int error;

	if (!a || !b || bpf_res_spin_lock(&a->lock))
		return 0;
	error = bpf_res_spin_lock(&b->lock);
	if (!error)
		bpf_res_spin_unlock(&b->lock);
	bpf_res_spin_unlock(&a->lock);
	if (bpf_res_spin_lock(&b->lock))
		return 1;
	bpf_res_spin_unlock(&b->lock);
	return -error;
}

SEC("tc") __rule("A deadlock with oneself is refused, or found when it runs") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(35)
__description("the same with interrupts off")
int res_lock_twice_by_two_lookups_irqsave(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *a = map_lookup(counters, &key);
	struct res_spin_lock_counter *b = map_lookup(counters, &key);
	unsigned long outer, inner;
	int error;

	if (!a || !b || bpf_res_spin_lock_irqsave(&a->lock, &outer))
		return 0;
	error = bpf_res_spin_lock_irqsave(&b->lock, &inner);
	if (!error)
		bpf_res_spin_unlock_irqrestore(&b->lock, &inner);
	bpf_res_spin_unlock_irqrestore(&a->lock, &outer);
	return -error;
}

/*
 * Rule: The two kinds of lock do not mix on one lock
 * Topic: res_spin_lock
 * Each kind has its own type and functions. One of each may be held, if the plain one is taken first:
 * bpf_spin_lock() is a helper, and no helper is called with a lock of either kind held.
 * commit 0de2046137f9 ("bpf: Implement verifier support for rqspinlock") (in v6.15)
 */

SEC("tc") __rule("The two kinds of lock do not mix on one lock") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_inside_plain_lock) __refused(call_under_lock)
int plain_lock_inside_res_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *r = map_lookup(counters, &key);
	struct counter *c = map_lookup(plain, &key);

	if (!r || !c || bpf_res_spin_lock(&r->lock))
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	r->value++;
	bpf_spin_unlock(&c->lock);
	bpf_res_spin_unlock(&r->lock);
	return c->value + r->value;
}

SEC("tc") __rule("The two kinds of lock do not mix on one lock") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(2)
int res_lock_inside_plain_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *r = map_lookup(counters, &key);
	struct counter *c = map_lookup(plain, &key);

	if (!r || !c)
		return 0;
	bpf_spin_lock(&c->lock);
	if (bpf_res_spin_lock(&r->lock)) {
		bpf_spin_unlock(&c->lock);
		return 0;
	}
	c->value++;
	r->value++;
	bpf_res_spin_unlock(&r->lock);
	bpf_spin_unlock(&c->lock);
	return c->value + r->value;
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_inside_plain_lock) __failure __errno(EINVAL)
__msg("bpf_spin_unlock cannot be out of order")
int plain_unlock_before_inner_res_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *r = map_lookup(counters, &key);
	struct counter *c = map_lookup(plain, &key);

	if (!r || !c)
		return 0;
	bpf_spin_lock(&c->lock);
	if (bpf_res_spin_lock(&r->lock)) {
		bpf_spin_unlock(&c->lock);
		return 0;
	}
	bpf_spin_unlock(&c->lock);
	bpf_res_spin_unlock(&r->lock);
	return 1;
}

SEC("tc") __rule("The two kinds of lock do not mix on one lock") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock) __refused(no_lock_in_value)
int plain_lock_of_res_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock((void *)&c->lock);
	bpf_spin_unlock((void *)&c->lock);
	return 1;
}

SEC("tc") __rule("The two kinds of lock do not mix on one lock") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock) __refused(no_res_spin_lock_in_value)
int res_lock_of_plain_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(plain, &key);

	if (!c || bpf_res_spin_lock((void *)&c->lock))
		return 0;
	bpf_res_spin_unlock((void *)&c->lock);
	return 1;
}

/*
 * Rule: Interrupt flags go back to the lock that saved them
 * Topic: res_spin_lock
 * bpf_res_spin_lock_irqsave() leaves the flags in a slot of the program's stack, which is the
 * verifier's until the matching call reads it.
 * commit 97eb35f3ad42 ("bpf: Introduce rqspinlock kfuncs") (in v6.15)
 * commit 0de2046137f9 ("bpf: Implement verifier support for rqspinlock") (in v6.15)
 */

SEC("tc") __rule("Interrupt flags go back to the lock that saved them") __loader(libbpf)
__needs(bpf_res_spin_lock_irqsave, "6.15") __success __retval(1)
int irqsave_and_restore(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);
	unsigned long flags;

	if (!c || bpf_res_spin_lock_irqsave(&c->lock, &flags))
		return 0;
	c->value++;
	bpf_res_spin_unlock_irqrestore(&c->lock, &flags);
	return c->value;
}

SEC("tc") __rule("Interrupt flags go back to the lock that saved them") __loader(libbpf)
__needs(bpf_res_spin_lock_irqsave, "6.15") __success __retval(1)
int two_irqsave_locks(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *a = map_lookup(counters, &key);
	struct res_spin_lock_counter *b = map_lookup(others, &key);
	unsigned long outer, inner;

	if (!a || !b || bpf_res_spin_lock_irqsave(&a->lock, &outer))
		return 0;
	if (bpf_res_spin_lock_irqsave(&b->lock, &inner)) {
		bpf_res_spin_unlock_irqrestore(&a->lock, &outer);
		return 0;
	}
	bpf_res_spin_unlock_irqrestore(&b->lock, &inner);
	bpf_res_spin_unlock_irqrestore(&a->lock, &outer);
	return 1;
}

SEC("tc") __rule("Interrupt flags go back to the lock that saved them") __loader(libbpf)
__needs(bpf_res_spin_lock_irqsave, "6.15") __twin(two_irqsave_locks)
__refused(irq_state_out_of_order)
int flags_of_two_locks_swapped(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *a = map_lookup(counters, &key);
	struct res_spin_lock_counter *b = map_lookup(others, &key);
	unsigned long outer, inner;

	if (!a || !b || bpf_res_spin_lock_irqsave(&a->lock, &outer))
		return 0;
	if (bpf_res_spin_lock_irqsave(&b->lock, &inner)) {
		bpf_res_spin_unlock_irqrestore(&a->lock, &outer);
		return 0;
	}
	bpf_res_spin_unlock_irqrestore(&b->lock, &outer);
	bpf_res_spin_unlock_irqrestore(&a->lock, &inner);
	return 1;
}

/*
 * Refusal: irq_flag_of_other_kind
 * EINVAL "irq flag"
 * Flags that were saved by something else, or not at all.
 */

SEC("tc") __rule("Interrupt flags go back to the lock that saved them") __loader(libbpf)
__needs(bpf_res_spin_lock_irqsave, "6.15") __twin(irqsave_and_restore)
__refused(irq_flag_of_other_kind)
int flags_never_saved(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);
	unsigned long flags, other = 0;

	if (!c || bpf_res_spin_lock_irqsave(&c->lock, &flags))
		return 0;
	bpf_res_spin_unlock_irqrestore(&c->lock, &other);
	return 1;
}

SEC("tc") __rule("Interrupt flags go back to the lock that saved them") __loader(libbpf)
__needs(bpf_res_spin_lock_irqsave, "6.15") __twin(irqsave_and_restore)
__refused(irq_flag_of_other_kind)
int flags_not_on_stack(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c || bpf_res_spin_lock_irqsave(&c->lock, (unsigned long *)&c->value))
		return 0;
	bpf_res_spin_unlock_irqrestore(&c->lock, (unsigned long *)&c->value);
	return 1;
}

SEC("tc") __rule("Interrupt flags go back to the lock that saved them") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(irqsave_and_restore)
__description("taken without, released with interrupts saved") __refused(different_res_spin_lock)
int res_lock_then_irqrestore(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);
	unsigned long flags = 0;

	if (!c || bpf_res_spin_lock(&c->lock))
		return 0;
	bpf_res_spin_unlock_irqrestore(&c->lock, &flags);
	return 1;
}

SEC("tc") __rule("Interrupt flags go back to the lock that saved them") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(irqsave_and_restore)
__description("taken with interrupts saved, released without") __refused(different_res_spin_lock)
int irqsave_then_res_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);
	unsigned long flags;

	if (!c || bpf_res_spin_lock_irqsave(&c->lock, &flags))
		return 0;
	bpf_res_spin_unlock(&c->lock);
	return 1;
}

/* Any other call is refused, as under a plain lock, and with the same words. */
SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock) __refused(call_under_lock)
int helper_under_res_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c || bpf_res_spin_lock(&c->lock))
		return 0;
	c->value += !!bpf_ktime_get_ns();
	bpf_res_spin_unlock(&c->lock);
	return 1;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock) __refused(call_under_lock)
int kernel_function_under_res_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c || bpf_res_spin_lock(&c->lock))
		return 0;
	bpf_rcu_read_lock();
	bpf_rcu_read_unlock();
	bpf_res_spin_unlock(&c->lock);
	return 1;
}

static __noinline int add_one(struct res_spin_lock_counter *c)
{
	return ++c->value;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int subprogram_under_res_lock(struct __sk_buff *skb)
{
	__u32 key = 0, value;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c || bpf_res_spin_lock(&c->lock))
		return 0;
	value = add_one(c);
	bpf_res_spin_unlock(&c->lock);
	return value;
}

__noinline int global_sum(int a, int b)
{
	return a + b;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(subprogram_under_res_lock)
__refused(global_call_under_lock)
int global_function_under_res_lock(struct __sk_buff *skb)
{
	__u32 key = 0, value;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c || bpf_res_spin_lock(&c->lock))
		return 0;
	value = global_sum(skb->mark, 1);
	bpf_res_spin_unlock(&c->lock);
	return value;
}

/* A load that fails would end the program with the lock held. */
SEC("tc") __rule("No LD_ABS or LD_IND while holding the lock") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int ld_abs_before_res_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);
	__u64 byte;

	if (!c)
		return 0;
	byte = load_byte(skb, 12);
	if (bpf_res_spin_lock(&c->lock))
		return 0;
	c->value += byte < 256;
	bpf_res_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No LD_ABS or LD_IND while holding the lock") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(ld_abs_before_res_lock) __refused(ld_abs_under_lock)
int ld_abs_under_res_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);
	__u64 byte;

	if (!c || bpf_res_spin_lock(&c->lock))
		return 0;
	byte = load_byte(skb, 12);
	c->value += byte < 256;
	bpf_res_spin_unlock(&c->lock);
	return c->value;
}
