// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which list a node is in: objects that have several nodes or several references.
 *
 * libbpf only, as all that calls kernel functions (kfuncs.h).
 */
#include "kfuncs.h"

/* An object with two nodes, for a list each. */
struct twofold {
	struct bpf_list_node first;
	struct bpf_list_node second;
	__u64 value;
};

struct lists_by_node {
	struct bpf_spin_lock lock;
	struct bpf_list_head first __contains(twofold, first);
	struct bpf_list_head second __contains(twofold, second);
};
MAP(ARRAY, lists_by_node_map, __u32, struct lists_by_node, 1)

SEC("tc") __rule("Lists and trees are changed under the lock by these functions") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __success __retval(6)
int push_by_node_of_list(struct __sk_buff *skb)
{
	__u32 key = 0, value;
	struct lists_by_node *l = map_lookup(lists_by_node_map, &key);
	struct bpf_list_node *node;
	struct twofold *t;

	if (!l)
		return 0;
	t = object_new(struct twofold);
	if (!t)
		return 0;
	t->value = 6;
	bpf_spin_lock(&l->lock);
	list_push_back(&l->second, &t->second);
	node = bpf_list_pop_front(&l->second);
	bpf_spin_unlock(&l->lock);
	if (!node)
		return 0;
	t = container_of(node, struct twofold, second);
	value = t->value;
	object_drop(t);
	return value;
}

SEC("tc") __rule("Lists and trees are changed under the lock by these functions") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_by_node_of_list) __failure __errno(EINVAL)
__msg("but expected bpf_list_node at offset=")
int push_by_node_of_other_list(struct __sk_buff *skb)
{
	__u32 key = 0, value;
	struct lists_by_node *l = map_lookup(lists_by_node_map, &key);
	struct bpf_list_node *node;
	struct twofold *t;

	if (!l)
		return 0;
	t = object_new(struct twofold);
	if (!t)
		return 0;
	t->value = 6;
	bpf_spin_lock(&l->lock);
	list_push_back(&l->second, &t->first);
	node = bpf_list_pop_front(&l->second);
	bpf_spin_unlock(&l->lock);
	if (!node)
		return 0;
	t = container_of(node, struct twofold, second);
	value = t->value;
	object_drop(t);
	return value;
}

/*
 * Objects that count their references. A node is in one list at a time: pushed once more, through
 * another reference, the object stays where it is, and that reference is dropped.
 * commit c3c510ce431c ("bpf: Add 'owner' field to bpf_{list,rb}_node") (in v6.6)
 */
struct counted {
	struct bpf_list_node node;
	struct bpf_refcount references;
	__u64 value;
};

struct counted_lists {
	struct bpf_spin_lock lock;
	struct bpf_list_head first __contains(counted, node);
	struct bpf_list_head second __contains(counted, node);
};
MAP(ARRAY, counted_list_map, __u32, struct counted_lists, 1)

static __always_inline __u64 drop_counted(struct bpf_list_node *node)
{
	struct counted *c;
	__u64 value;

	if (!node)
		return 0;
	c = container_of(node, struct counted, node);
	value = c->value;
	object_drop(c);
	return value;
}

SEC("tc") __rule("Lists and trees stay whole under their lock") __loader(libbpf)
__needs(bpf_refcount_acquire_impl, "6.4") __success __retval(40)
__description("the second push fails; pop from the second list, then from the first")
int push_to_second_list_through_other_reference(struct __sk_buff *skb)
{
	__u32 key = 0, sum;
	struct counted_lists *l = map_lookup(counted_list_map, &key);
	struct bpf_list_node *from_first, *from_second;
	struct counted *a, *b;
	int first, second;

	if (!l)
		return 0;
	a = object_new(struct counted);
	if (!a)
		return 0;
	a->value = 4;
	b = object_acquire(a);
	bpf_spin_lock(&l->lock);
	first = list_push_back(&l->first, &a->node);
	second = list_push_back(&l->second, &b->node);
	from_second = bpf_list_pop_front(&l->second);
	from_first = bpf_list_pop_front(&l->first);
	bpf_spin_unlock(&l->lock);
	sum = drop_counted(from_second);
	sum += drop_counted(from_first) * 10;
	if (first || second != -22 /* EINVAL */)
		return 1000 + sum;
	return sum;
}

SEC("tc") __rule("Lists and trees stay whole under their lock") __loader(libbpf)
__needs(bpf_refcount_acquire_impl, "6.4") __success __retval(4)
__description("the second push fails; pop twice")
int push_to_same_list_through_other_reference(struct __sk_buff *skb)
{
	__u32 key = 0, sum;
	struct counted_lists *l = map_lookup(counted_list_map, &key);
	struct bpf_list_node *once, *again;
	struct counted *a, *b;
	int first, second;

	if (!l)
		return 0;
	a = object_new(struct counted);
	if (!a)
		return 0;
	a->value = 4;
	b = object_acquire(a);
	bpf_spin_lock(&l->lock);
	first = list_push_back(&l->first, &a->node);
	second = list_push_front(&l->first, &b->node);
	once = bpf_list_pop_front(&l->first);
	again = bpf_list_pop_front(&l->first);
	bpf_spin_unlock(&l->lock);
	sum = drop_counted(once);
	sum += drop_counted(again) * 10;
	if (first || second != -22 /* EINVAL */)
		return 1000 + sum;
	return sum;
}

static __always_inline struct counted *new_counted(__u64 value)
{
	struct counted *c = object_new(struct counted);

	if (c)
		c->value = value;
	return c;
}

SEC("tc") __rule("Lists and trees stay whole under their lock") __loader(libbpf)
__needs(bpf_list_del, "7.2") __success __retval(45)
__description("the list that it is not in does not give it; then each gives its own")
int delete_from_list_that_node_is_not_in(struct __sk_buff *skb)
{
	__u32 key = 0, sum;
	struct counted_lists *l = map_lookup(counted_list_map, &key);
	struct bpf_list_node *wrong, *from_first, *from_second;
	struct counted *a, *b;

	if (!l)
		return 0;
	a = new_counted(4);
	if (!a)
		return 0;
	b = new_counted(5);
	if (!b) {
		object_drop(a);
		return 0;
	}
	bpf_spin_lock(&l->lock);
	list_push_back(&l->first, &a->node);
	list_push_back(&l->second, &b->node);
	wrong = bpf_list_del(&l->second, &a->node);
	from_first = bpf_list_pop_front(&l->first);
	from_second = bpf_list_pop_front(&l->second);
	bpf_spin_unlock(&l->lock);
	sum = drop_counted(wrong) * 100;
	sum += drop_counted(from_first) * 10;
	return sum + drop_counted(from_second);
}

SEC("tc") __rule("Lists and trees stay whole under their lock") __loader(libbpf)
__needs(bpf_list_add, "7.2") __success __retval(40)
__description("the add fails; pop from the second list, then from the first")
int add_behind_node_of_other_list(struct __sk_buff *skb)
{
	__u32 key = 0, sum;
	struct counted_lists *l = map_lookup(counted_list_map, &key);
	struct bpf_list_node *from_first, *from_second;
	struct counted *a, *b;
	int result;

	if (!l)
		return 0;
	a = new_counted(4);
	if (!a)
		return 0;
	b = new_counted(5);
	if (!b) {
		object_drop(a);
		return 0;
	}
	bpf_spin_lock(&l->lock);
	list_push_back(&l->first, &a->node);
	result = bpf_list_add(&l->second, &b->node, &a->node);
	from_second = bpf_list_pop_front(&l->second);
	from_first = bpf_list_pop_front(&l->first);
	bpf_spin_unlock(&l->lock);
	sum = drop_counted(from_second);
	sum += drop_counted(from_first) * 10;
	return result == -22 /* EINVAL */ ? sum : 1000 + sum;
}
