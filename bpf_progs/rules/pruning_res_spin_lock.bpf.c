// SPDX-License-Identifier: GPL-2.0-only
/*
 * State pruning must not forget which res_spin_locks are held, of which there may be several, nor
 * whose interrupt flags are where. As in pruning.bpf.c, the second path is the one that is wrong.
 *
 * libbpf only, as all that calls kernel functions (kfuncs.h).
 */
#include "res_spin_lock_counters.h"
#include "joining_paths.h"

MAP(ARRAY, others, __u32, struct res_spin_lock_counter, 1)

static __always_inline int outer_of_two(struct __sk_buff *skb, int right)
{
	__u32 first = 0, second = 1, mark = skb->mark;
	struct res_spin_lock_counter *a = map_lookup(counters, &first);
	struct res_spin_lock_counter *b = map_lookup(counters, &second);
	struct res_spin_lock_counter *inner = map_lookup(others, &first);
	struct res_spin_lock_counter *outer = a;

	if (!a || !b || !inner)
		return 0;
	REPLACE_IF(mark, outer, right ? a : b);
	if (bpf_res_spin_lock(&outer->lock))
		return 0;
	if (bpf_res_spin_lock(&inner->lock)) {
		bpf_res_spin_unlock(&outer->lock);
		return 0;
	}
	a->value++;
	asm volatile(EMPTY_JUMPS);
	bpf_res_spin_unlock(&inner->lock);
	bpf_res_spin_unlock(&a->lock);
	return a->value;
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int same_outer_lock_on_two_paths(struct __sk_buff *skb)
{
	return outer_of_two(skb, 1);
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(same_outer_lock_on_two_paths)
__refused(different_res_spin_lock)
int other_outer_lock_on_second_path(struct __sk_buff *skb)
{
	return outer_of_two(skb, 0);
}

static __always_inline int flags_of_two(struct __sk_buff *skb, int right)
{
	__u32 first = 0, second = 1, mark = skb->mark;
	struct res_spin_lock_counter *a = map_lookup(counters, &first);
	struct res_spin_lock_counter *b = map_lookup(counters, &second);
	unsigned long one, two, *outer = &one, *inner = &two;

	if (!a || !b)
		return 0;
	EXCHANGE_IF(mark, outer, inner);
	if (bpf_res_spin_lock_irqsave(&a->lock, outer))
		return 0;
	if (bpf_res_spin_lock_irqsave(&b->lock, inner)) {
		bpf_res_spin_unlock_irqrestore(&a->lock, outer);
		return 0;
	}
	a->value++;
	asm volatile(EMPTY_JUMPS);
	bpf_res_spin_unlock_irqrestore(&b->lock, right ? inner : &two);
	bpf_res_spin_unlock_irqrestore(&a->lock, right ? outer : &one);
	return a->value;
}

SEC("tc") __rule("Interrupt flags go back to the lock that saved them") __loader(libbpf)
__needs(bpf_res_spin_lock_irqsave, "6.15") __success __retval(1)
int flags_change_places_before_locks(struct __sk_buff *skb)
{
	return flags_of_two(skb, 1);
}

SEC("tc") __rule("Interrupt flags go back to the lock that saved them") __loader(libbpf)
__needs(bpf_res_spin_lock_irqsave, "6.15") __twin(flags_change_places_before_locks)
__refused(irq_state_out_of_order)
int flags_in_other_places_on_second_path(struct __sk_buff *skb)
{
	return flags_of_two(skb, 0);
}
