// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pointers that come from a list: they end with the section, or are dropped after it.
 *
 * libbpf only, as all that calls kernel functions (experimental.h).
 */
#include "experimental.h"

struct item {
	struct bpf_list_node node;
	__u64 value;
};

struct list {
	struct bpf_spin_lock lock;
	struct bpf_list_head head __contains(item, node);
};

MAP(ARRAY, lists, __u32, struct list, 2)

static __always_inline struct item *new_item(__u64 value)
{
	struct item *i = object_new(struct item);

	if (i)
		i->value = value;
	return i;
}

static __always_inline void push(struct list *l, __u64 value)
{
	struct item *i = new_item(value);

	if (!i)
		return;
	bpf_spin_lock(&l->lock);
	list_push_back(&l->head, &i->node);
	bpf_spin_unlock(&l->lock);
}

/* Drop what came from a list and return its value. */
static __always_inline __u64 drop(struct bpf_list_node *node)
{
	struct item *i;
	__u64 value;

	if (!node)
		return 0;
	i = container_of(node, struct item, node);
	value = i->value;
	object_drop(i);
	return value;
}

static __always_inline __u64 pop(struct list *l)
{
	struct bpf_list_node *node;

	bpf_spin_lock(&l->lock);
	node = bpf_list_pop_front(&l->head);
	bpf_spin_unlock(&l->lock);
	return drop(node);
}

/*
 * Rule: A pointer into a list or tree ends with the section
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
__needs(bpf_list_push_back_impl, "6.4") __twin(write_pushed_item_under_lock) __failure
__errno(EACCES) __msg("invalid mem access 'scalar'")
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
__needs(bpf_list_push_back_impl, "6.4") __twin(write_pushed_item_under_lock) __failure
__errno(EINVAL) __msg("expected pointer to allocated object")
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
__needs(bpf_list_front, "6.16") __twin(peek_at_both_ends) __failure
__errno(EACCES) __msg("invalid mem access 'scalar'")
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

/*
 * Rule: What is popped or removed is dropped after the section
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
__needs(bpf_list_pop_front, "6.2") __twin(drop_popped_item_after_unlock) __failure __errno(EINVAL)
__msg("function calls are not allowed while holding a lock")
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
__needs(bpf_list_pop_front, "6.2") __twin(drop_popped_item_after_unlock) __failure __errno(EINVAL)
__msg("Unreleased reference")
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
