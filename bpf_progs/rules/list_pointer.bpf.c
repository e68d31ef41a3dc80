// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pointers that come from a list: they end with the section, or are dropped after it.
 *
 * libbpf only, as all that calls kernel functions (kfuncs.h).
 */
#include "locked_list.h"

/*
 * Rule: A pointer into a list or tree ends with the section
 * Topic: Lists and trees
 * What has been pushed, added or peeked at belongs to the list or tree. The program may still use
 * it, but only until the lock is released: then another CPU may take and free it.
 * commit 534e86bc6c66 ("bpf: Add 'release on unlock' logic for bpf_list_push_{front,back}") (in v6.2)
 * commit 6a3cd3318ff6 ("bpf: Migrate release_on_unlock logic to non-owning ref semantics") (in v6.3)
 */

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __success __retval(9)
int write_pushed_item_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);
	struct item *i;

	if (!l)
		return 0;
	i = new_item(8);
	if (!i)
		return 0;
	bpf_spin_lock(&l->lock);
	list_push_back(&l->head, &i->node);
	i->value = 9;
	bpf_spin_unlock(&l->lock);
	return pop(l);
}

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(write_pushed_item_under_lock)
__refused(pointer_ended)
int write_pushed_item_after_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);
	struct item *i;

	if (!l)
		return 0;
	i = new_item(8);
	if (!i)
		return 0;
	bpf_spin_lock(&l->lock);
	list_push_back(&l->head, &i->node);
	bpf_spin_unlock(&l->lock);
	i->value = 9;
	return pop(l);
}

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(write_pushed_item_under_lock)
__refused(not_an_object)
int push_twice(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);
	struct item *i;

	if (!l)
		return 0;
	i = new_item(8);
	if (!i)
		return 0;
	bpf_spin_lock(&l->lock);
	list_push_back(&l->head, &i->node);
	list_push_back(&l->head, &i->node);
	bpf_spin_unlock(&l->lock);
	return pop(l);
}

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(write_pushed_item_under_lock) __failure
__errno(EINVAL)
__kernel("<7.2") __msg("must be referenced")
__kernel(">=7.2") __msg("release kfunc bpf_obj_drop_impl expects referenced PTR_TO_BTF_ID")
int drop_pushed_item(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);
	struct item *i;

	if (!l)
		return 0;
	i = new_item(8);
	if (!i)
		return 0;
	bpf_spin_lock(&l->lock);
	list_push_back(&l->head, &i->node);
	bpf_spin_unlock(&l->lock);
	object_drop(i);
	return pop(l);
}

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_list_front, "6.16") __twin(peek_at_both_ends) __refused(pointer_ended)
int use_peeked_item_after_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);
	struct bpf_list_node *node;

	if (!l)
		return 0;
	push(l, 1);
	bpf_spin_lock(&l->lock);
	node = bpf_list_front(&l->head);
	bpf_spin_unlock(&l->lock);
	return node ? container_of(node, struct item, node)->value : 0;
}

/* With the list in an object, it is the object's lock that ends the section. */
static __always_inline int push_to_objects_list(int before_unlock)
{
	struct list *l = object_new(struct list);
	struct item *i;

	if (!l)
		return 0;
	i = new_item(8);
	if (!i) {
		object_drop(l);
		return 0;
	}
	bpf_spin_lock(&l->lock);
	list_push_back(&l->head, &i->node);
	if (before_unlock)
		i->value = 9;
	bpf_spin_unlock(&l->lock);
	if (!before_unlock)
		i->value = 9;
	object_drop(l);
	return 1;
}

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __success __retval(1)
int write_item_of_objects_list_under_lock(struct __sk_buff *skb)
{
	return push_to_objects_list(1);
}

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(write_item_of_objects_list_under_lock)
__refused(pointer_ended)
int write_item_of_objects_list_after_unlock(struct __sk_buff *skb)
{
	return push_to_objects_list(0);
}

/*
 * The pointer is the program's, but it is a subprogram that ends the section.
 * commit a44b1334aadd ("bpf: Allow calling static subprogs while holding a bpf_spin_lock") (in v6.9)
 */
static __noinline void unlock_list(struct list *l)
{
	bpf_spin_unlock(&l->lock);
}

static __always_inline int push_and_unlock_in_subprogram(int before_unlock)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);
	struct item *i;

	if (!l)
		return 0;
	i = new_item(8);
	if (!i)
		return 0;
	bpf_spin_lock(&l->lock);
	list_push_back(&l->head, &i->node);
	if (before_unlock)
		i->value = 9;
	unlock_list(l);
	if (!before_unlock)
		i->value = 9;
	return pop(l);
}

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(write_pushed_item_under_lock)
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __success __retval(9)
int write_pushed_item_before_subprogram_unlocks(struct __sk_buff *skb)
{
	return push_and_unlock_in_subprogram(1);
}

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_arena_alloc_pages, "6.9") __twin(write_pushed_item_before_subprogram_unlocks)
__refused(pointer_ended)
int write_pushed_item_after_subprogram_unlocks(struct __sk_buff *skb)
{
	return push_and_unlock_in_subprogram(0);
}

/*
 * Rule: What is popped or removed is dropped after the section
 * Topic: Lists and trees
 * The program owns again what it takes out, and may keep it beyond the lock; but dropping is a call
 * that may not be made under it.
 * commit 8cab76ec6349 ("bpf: Introduce single ownership BPF linked list API") (in v6.2)
 */

SEC("tc") __rule("What is popped or removed is dropped after the section") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __success __retval(1)
int drop_popped_item_after_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);
	struct bpf_list_node *node;

	if (!l)
		return 0;
	push(l, 1);
	bpf_spin_lock(&l->lock);
	node = bpf_list_pop_front(&l->head);
	bpf_spin_unlock(&l->lock);
	return drop(node);
}

SEC("tc") __rule("What is popped or removed is dropped after the section") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __twin(drop_popped_item_after_unlock) __refused(call_under_lock)
int drop_popped_item_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0, value;
	struct list *l = map_lookup(lists, &key);
	struct bpf_list_node *node;

	if (!l)
		return 0;
	push(l, 1);
	bpf_spin_lock(&l->lock);
	node = bpf_list_pop_front(&l->head);
	value = drop(node);
	bpf_spin_unlock(&l->lock);
	return value;
}

SEC("tc") __rule("What is popped or removed is dropped after the section") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __twin(drop_popped_item_after_unlock) __refused(unreleased_reference)
int popped_item_never_dropped(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);
	struct bpf_list_node *node;

	if (!l)
		return 0;
	push(l, 1);
	bpf_spin_lock(&l->lock);
	node = bpf_list_pop_front(&l->head);
	bpf_spin_unlock(&l->lock);
	return !!node;
}
