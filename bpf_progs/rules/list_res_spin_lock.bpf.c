// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lists where two locks are held, one of them a res_spin_lock: which of the two is the list's?
 *
 * libbpf only, as all that calls kernel functions (kfuncs.h).
 */
#include "locked_list.h"
#include "res_spin_lock_counters.h"

struct res_spin_lock_list {
	struct bpf_res_spin_lock lock;
	struct bpf_list_head head __contains(item, node);
};

static __always_inline int pop_under_two_locks(struct list *l, struct list *held)
{
	__u32 key = 0;
	struct res_spin_lock_counter *inner = map_lookup(counters, &key);
	struct bpf_list_node *node = 0;

	if (!l || !held || !inner)
		return 0;
	push(l, 5);
	bpf_spin_lock(&held->lock);
	if (!bpf_res_spin_lock(&inner->lock)) {
		node = bpf_list_pop_front(&l->head);
		bpf_res_spin_unlock(&inner->lock);
	}
	bpf_spin_unlock(&held->lock);
	return drop(node);
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(5)
int pop_under_its_lock_and_another(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);

	return pop_under_two_locks(l, l);
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(pop_under_its_lock_and_another)
__refused(other_allocation)
int pop_under_lock_of_other_element_and_another(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1;

	return pop_under_two_locks(map_lookup(lists, &first), map_lookup(lists, &second));
}

/* In an object: a map's value with such a list has a bug of its own, list_under_res_lock. */
static __always_inline int push_under_inner_lock(int before_unlock)
{
	__u32 key = 0;
	struct res_spin_lock_counter *outer = map_lookup(counters, &key);
	struct res_spin_lock_list *l;
	struct item *i;

	if (!outer)
		return 0;
	l = object_new(struct res_spin_lock_list);
	if (!l)
		return 0;
	i = new_item(8);
	if (!i)
		goto drop_list;
	if (bpf_res_spin_lock(&outer->lock))
		goto drop_item;
	if (bpf_res_spin_lock(&l->lock)) {
		bpf_res_spin_unlock(&outer->lock);
		goto drop_item;
	}
	list_push_back(&l->head, &i->node);
	if (before_unlock)
		i->value = 9;
	bpf_res_spin_unlock(&l->lock);
	if (!before_unlock)
		i->value = 9;
	bpf_res_spin_unlock(&outer->lock);
	object_drop(l);
	return 1;
drop_item:
	object_drop(i);
drop_list:
	object_drop(l);
	return 0;
}

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success
int write_pushed_item_under_inner_lock(struct __sk_buff *skb)
{
	return push_under_inner_lock(1);
}

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(write_pushed_item_under_inner_lock)
__description("the outer lock is held on, but the list's is not") __refused(pointer_ended)
int write_pushed_item_after_inner_unlock(struct __sk_buff *skb)
{
	return push_under_inner_lock(0);
}
