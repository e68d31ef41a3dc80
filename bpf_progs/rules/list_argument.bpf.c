// SPDX-License-Identifier: GPL-2.0-only
/*
 * Heads and nodes as arguments: the functions of lists take the head and the node that the BTF tag of
 * the head promises, at their own constant offsets, and nothing else.
 *
 * libbpf only, as all that calls kernel functions (kfuncs.h).
 */
#include "locked_list.h"

/* Of another type than the items of the list. */
struct other_item {
	struct bpf_list_node node;
	__u64 value, more;
};

struct other_list {
	struct bpf_spin_lock lock;
	struct bpf_list_head head __contains(other_item, node);
};
MAP(ARRAY, other_lists, __u32, struct other_list, 1)

/* Lists in the values of inner maps. */
struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct list);
};
struct inner inner_a SEC(".maps");
struct inner inner_b SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = { .values = { &inner_a, &inner_b } };

/*
 * Rule: A list's functions take its own heads and nodes
 * Topic: Lists and trees
 * The tag of a head names the type of the items and which member of them is the node. A pointer to the
 * node or head of another type, to another place of the right type, or to a place that is known only
 * when the program runs is refused.
 * commit 8cab76ec6349 ("bpf: Introduce single ownership BPF linked list API") (in v6.2)
 */

/* Push what `node` is computed from an item, behind the head at an offset from that of the list. */
#define PUSH(head_pointer, node_pointer)                             \
	do {                                                         \
		__u32 key = 0;                                       \
		struct list *l = map_lookup(lists, &key);            \
		struct item *i;                                      \
		struct bpf_list_node *node;                          \
		struct bpf_list_head *head;                          \
								     \
		if (!l)                                              \
			return 0;                                    \
		i = new_item(5);                                     \
		if (!i)                                              \
			return 0;                                    \
		head = (void *)(head_pointer);                       \
		node = (void *)(node_pointer);                       \
		bpf_spin_lock(&l->lock);                             \
		list_push_back(head, node);                          \
		bpf_spin_unlock(&l->lock);                           \
		return pop(l);                                       \
	} while (0)

/*
 * Refusal: maybe_null
 * EACCES "Possibly NULL pointer passed to trusted"
 * A function that wants a pointer is given one that may be NULL.
 */

/*
 * Refusal: no_head_there
 * EINVAL "bpf_list_head not found at offset=0"
 * Another field of the value or object than its list head.
 */

/*
 * Refusal: node_accessed
 * EACCES "direct access to bpf_list_node is disallowed"
 * A load or store that touches a list node of an allocated object.
 */

/*
 * Refusal: head_of_object_accessed
 * EACCES "direct access to bpf_list_head is disallowed"
 * A load or store that touches a list head of an allocated object.
 */

SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __success __retval(5)
int push_node_behind_head(struct __sk_buff *skb)
{
	PUSH(&l->head, &i->node);
}

SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __failure __errno(EINVAL)
__msg("bpf_list_node not found at offset=8")
int push_node_at_wrong_offset(struct __sk_buff *skb)
{
	PUSH(&l->head, (void *)&i->node + 8);
}

SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __failure __errno(EINVAL)
__msg("bpf_list_node not found at offset=1")
int push_node_at_odd_offset(struct __sk_buff *skb)
{
	PUSH(&l->head, (void *)&i->node + 1);
}

SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __refused(variable_object_offset)
int push_node_at_variable_offset(struct __sk_buff *skb)
{
	PUSH(&l->head, (void *)&i->node + (skb->mark & 8));
}

SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __failure __errno(EINVAL)
__msg("bpf_list_head not found at offset=16")
int push_behind_head_at_wrong_offset(struct __sk_buff *skb)
{
	PUSH((void *)&l->head + 8, &i->node);
}

SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __failure __errno(EINVAL)
__msg("doesn't have constant offset. bpf_list_head has to be at the constant offset")
int push_behind_head_at_variable_offset(struct __sk_buff *skb)
{
	PUSH((void *)&l->head + (skb->mark & 8), &i->node);
}

SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __refused(no_head_there)
__description("the lock is no head")
int push_behind_lock(struct __sk_buff *skb)
{
	PUSH(&l->lock, &i->node);
}

SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head)
__kernel("<7.0") __refused(not_an_object)
__kernel(">=7.0") __refused(maybe_null)
int push_null(struct __sk_buff *skb)
{
	PUSH(&l->head, 0);
}

SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __refused(not_an_object)
int push_number(struct __sk_buff *skb)
{
	PUSH(&l->head, (__u64)skb->mark);
}

SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __refused(not_an_object)
int push_memory_of_stack(struct __sk_buff *skb)
{
	struct item on_stack = {};

	PUSH(&l->head, &on_stack.node);
}

SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __refused(not_an_object)
int push_memory_of_map_value(struct __sk_buff *skb)
{
	PUSH(&l->head, l);
}

SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __refused(not_value_or_object)
int push_behind_head_on_stack(struct __sk_buff *skb)
{
	struct list on_stack = {};

	PUSH(&on_stack.head, &i->node);
}

SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __refused(no_head_there)
int push_behind_node_of_object(struct __sk_buff *skb)
{
	PUSH(&i->node, &i->node);
}

static __always_inline int push_other(int right)
{
	__u32 key = 0;
	struct other_list *l = map_lookup(other_lists, &key);
	struct list *of_items = map_lookup(lists, &key);
	struct other_item *other;

	if (!l || !of_items)
		return 0;
	other = object_new(struct other_item);
	if (!other)
		return 0;
	if (right) {
		bpf_spin_lock(&l->lock);
		list_push_back(&l->head, &other->node);
		bpf_spin_unlock(&l->lock);
	} else {
		bpf_spin_lock(&of_items->lock);
		list_push_back(&of_items->head, &other->node);
		bpf_spin_unlock(&of_items->lock);
	}
	return 1;
}

SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __success __retval(1)
int push_item_to_list_of_its_type(struct __sk_buff *skb)
{
	return push_other(1);
}

SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_item_to_list_of_its_type) __failure
__errno(EINVAL) __msg("operation on bpf_list_head expects arg#1 bpf_list_node at offset=0 in struct item")
int push_item_to_list_of_other_type(struct __sk_buff *skb)
{
	return push_other(0);
}

/* What is popped may be NULL, under the lock and after it. */
SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __refused(unchecked_node)
int read_popped_item_without_null_check(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);
	struct item *i;
	__u64 value;

	if (!l)
		return 0;
	bpf_spin_lock(&l->lock);
	i = (void *)bpf_list_pop_front(&l->head);
	bpf_spin_unlock(&l->lock);
	value = READ_ONCE(i->value);
	object_drop(i);
	return value;
}

SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __refused(maybe_null)
int drop_popped_item_without_null_check(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);
	void *node;

	if (!l)
		return 0;
	bpf_spin_lock(&l->lock);
	node = bpf_list_pop_front(&l->head);
	bpf_spin_unlock(&l->lock);
	object_drop(node);
	return 1;
}

/* The address of a node is not that of a lock. */
SEC("tc") __rule("A list's functions take its own heads and nodes") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __refused(no_lock_in_object)
int lock_popped_node(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);
	void *node;

	if (!l)
		return 0;
	bpf_spin_lock(&l->lock);
	node = bpf_list_pop_front(&l->head);
	bpf_spin_unlock(&l->lock);
	if (!node)
		return 0;
	bpf_spin_lock(node);
	bpf_spin_unlock(node);
	object_drop(node);
	return 1;
}

SEC("tc") __rule("A list head or tree root is no memory to read or write") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __refused(node_accessed)
int read_node_of_object(struct __sk_buff *skb)
{
	struct item *i = new_item(5);
	__u64 word;

	if (!i)
		return 0;
	word = *(volatile __u64 *)&i->node;
	object_drop(i);
	return !!word;
}

SEC("tc") __rule("A list head or tree root is no memory to read or write") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __refused(node_accessed)
int write_node_of_object(struct __sk_buff *skb)
{
	struct item *i = new_item(5);

	if (!i)
		return 0;
	*(volatile __u64 *)&i->node = 0;
	object_drop(i);
	return 1;
}

SEC("tc") __rule("A list head or tree root is no memory to read or write") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __refused(node_accessed)
int write_last_byte_of_node_of_object(struct __sk_buff *skb)
{
	struct item *i = new_item(5);

	if (!i)
		return 0;
	((volatile char *)&i->node)[sizeof(i->node) - 1] = 0;
	object_drop(i);
	return 1;
}

SEC("tc") __rule("A list head or tree root is no memory to read or write") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __refused(head_accessed)
int write_list_head_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);

	if (!l)
		return 0;
	bpf_spin_lock(&l->lock);
	*(volatile __u64 *)&l->head = 0;
	bpf_spin_unlock(&l->lock);
	return 1;
}

struct object_with_list {
	__u64 value;
	struct bpf_spin_lock lock;
	struct bpf_list_head head __contains(item, node);
};

SEC("tc") __rule("A list head or tree root is no memory to read or write") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __refused(head_of_object_accessed)
int read_list_head_of_object(struct __sk_buff *skb)
{
	struct object_with_list *o = object_new(struct object_with_list);
	__u64 word;

	if (!o)
		return 0;
	word = *(volatile __u64 *)&o->head;
	object_drop(o);
	return !!word;
}

SEC("tc") __rule("A list head or tree root is no memory to read or write") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_node_behind_head) __refused(head_of_object_accessed)
int write_list_head_of_object_under_lock(struct __sk_buff *skb)
{
	struct object_with_list *o = object_new(struct object_with_list);

	if (!o)
		return 0;
	bpf_spin_lock(&o->lock);
	*(volatile __u64 *)&o->head = 0;
	bpf_spin_unlock(&o->lock);
	object_drop(o);
	return 1;
}

/* Lists in inner maps: the lock is that of the same lookup. */
static __always_inline int in_inner_maps(int locked, int right)
{
	__u32 first = 0, second = 1, key = 0;
	void *map_a = map_lookup(outer, &first), *map_b = map_lookup(outer, &second);
	struct list *a, *b;
	struct item *i;

	if (!map_a || !map_b)
		return 0;
	a = bpf_map_lookup_elem(map_a, &key);
	b = bpf_map_lookup_elem(map_b, &key);
	if (!a || !b)
		return 0;
	i = new_item(5);
	if (!i)
		return 0;
	if (locked)
		bpf_spin_lock(&a->lock);
	list_push_back(right ? &a->head : &b->head, &i->node);
	if (locked)
		bpf_spin_unlock(&a->lock);
	return pop(a);
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __success __retval(5)
int list_in_inner_map(struct __sk_buff *skb)
{
	return in_inner_maps(1, 1);
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(list_in_inner_map) __refused(lock_of_list_not_held)
int list_in_inner_map_without_lock(struct __sk_buff *skb)
{
	return in_inner_maps(0, 1);
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(list_in_inner_map) __refused(other_allocation)
int list_in_inner_map_under_lock_of_other(struct __sk_buff *skb)
{
	return in_inner_maps(1, 0);
}
