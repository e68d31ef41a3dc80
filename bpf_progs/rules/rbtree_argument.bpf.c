// SPDX-License-Identifier: GPL-2.0-only
/*
 * Roots and nodes as arguments: the functions of trees take the root and the node that the BTF tag of
 * the root promises, at their own constant offsets, and nothing else.
 *
 * libbpf only, as all that calls kernel functions (kfuncs.h).
 */
#include "kfuncs.h"

struct leaf {
	struct bpf_rb_node node;
	__u64 key;
};

struct tree {
	struct bpf_spin_lock lock;
	struct bpf_rb_root root __contains(leaf, node);
};
MAP(ARRAY, trees, __u32, struct tree, 1)

/* Of another type than the leaves of the tree. */
struct other_leaf {
	struct bpf_rb_node node;
	__u64 key, more;
};

struct other_tree {
	struct bpf_spin_lock lock;
	struct bpf_rb_root root __contains(other_leaf, node);
};
MAP(ARRAY, other_trees, __u32, struct other_tree, 1)

struct object_with_tree {
	__u64 value;
	struct bpf_spin_lock lock;
	struct bpf_rb_root root __contains(leaf, node);
};

/* Trees in the values of inner maps. */
struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tree);
};
struct inner inner_a SEC(".maps");
struct inner inner_b SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = { .values = { &inner_a, &inner_b } };

static _Bool less(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return container_of(a, struct leaf, node)->key < container_of(b, struct leaf, node)->key;
}

static __always_inline struct leaf *new_leaf(__u64 key)
{
	struct leaf *l = object_new(struct leaf);

	if (l)
		l->key = key;
	return l;
}

/* Take the first leaf, drop it and return its key. */
static __always_inline __u64 take_first(struct tree *t)
{
	struct bpf_rb_node *node;
	struct leaf *l;
	__u64 key;

	bpf_spin_lock(&t->lock);
	node = bpf_rbtree_first(&t->root);
	if (node)
		node = bpf_rbtree_remove(&t->root, node);
	bpf_spin_unlock(&t->lock);
	if (!node)
		return 0;
	l = container_of(node, struct leaf, node);
	key = l->key;
	object_drop(l);
	return key;
}

/* Add what `node_pointer` is computed from a leaf, to the root that `root_pointer` is. */
#define ADD(root_pointer, node_pointer)                              \
	do {                                                         \
		__u32 key = 0;                                       \
		struct tree *t = map_lookup(trees, &key);            \
		struct leaf *l;                                      \
		struct bpf_rb_node *node;                            \
		struct bpf_rb_root *root;                            \
								     \
		if (!t)                                              \
			return 0;                                    \
		l = new_leaf(5);                                     \
		if (!l)                                              \
			return 0;                                    \
		root = (void *)(root_pointer);                       \
		node = (void *)(node_pointer);                       \
		bpf_spin_lock(&t->lock);                             \
		rbtree_add(root, node, less);                        \
		bpf_spin_unlock(&t->lock);                           \
		return take_first(t);                                \
	} while (0)

/*
 * Rule: A tree's functions take its own roots and nodes
 * Topic: Lists and trees
 * The tag of a root names the type of the leaves and which member of them is the node. A pointer to the
 * node or root of another type, to another place of the right type, or to a place that is known only
 * when the program runs is refused.
 * commit 9c395c1b99bd ("bpf: Add basic bpf_rb_{root,node} support") (in v6.3)
 * commit bd1279ae8a69 ("bpf: Add bpf_rbtree_{add,remove,first} kfuncs") (in v6.3)
 */

/*
 * Refusal: lock_of_tree_not_held
 * EINVAL "must be held for bpf_rb_root"
 * A tree is changed without its lock.
 */

/*
 * Refusal: tree_node_accessed
 * EACCES "direct access to bpf_rb_node is disallowed"
 * A load or store that touches a tree node of an allocated object.
 */

/*
 * Refusal: root_of_object_accessed
 * EACCES "direct access to bpf_rb_root is disallowed"
 * A load or store that touches a tree root of an allocated object.
 */

SEC("tc") __rule("A tree's functions take its own roots and nodes") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __success __retval(5)
int add_node_to_root(struct __sk_buff *skb)
{
	ADD(&t->root, &l->node);
}

SEC("tc") __rule("A tree's functions take its own roots and nodes") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root) __failure __errno(EINVAL)
__msg("bpf_rb_node not found at offset=8")
int add_node_at_wrong_offset(struct __sk_buff *skb)
{
	ADD(&t->root, (void *)&l->node + 8);
}

SEC("tc") __rule("A tree's functions take its own roots and nodes") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root) __failure __errno(EINVAL)
__msg("bpf_rb_node not found at offset=1")
int add_node_at_odd_offset(struct __sk_buff *skb)
{
	ADD(&t->root, (void *)&l->node + 1);
}

SEC("tc") __rule("A tree's functions take its own roots and nodes") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root) __refused(variable_object_offset)
int add_node_at_variable_offset(struct __sk_buff *skb)
{
	ADD(&t->root, (void *)&l->node + (skb->mark & 8));
}

SEC("tc") __rule("A tree's functions take its own roots and nodes") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root) __failure __errno(EINVAL)
__msg("bpf_rb_root not found at offset=16")
int add_to_root_at_wrong_offset(struct __sk_buff *skb)
{
	ADD((void *)&t->root + 8, &l->node);
}

SEC("tc") __rule("A tree's functions take its own roots and nodes") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root) __failure __errno(EINVAL)
__msg("doesn't have constant offset. bpf_rb_root has to be at the constant offset")
int add_to_root_at_variable_offset(struct __sk_buff *skb)
{
	ADD((void *)&t->root + (skb->mark & 8), &l->node);
}

SEC("tc") __rule("A tree's functions take its own roots and nodes") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root) __failure __errno(EINVAL)
__msg("bpf_rb_root not found at offset=0")
int add_to_lock(struct __sk_buff *skb)
{
	ADD(&t->lock, &l->node);
}

SEC("tc") __rule("A tree's functions take its own roots and nodes") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root)
__refused(not_an_object)
int add_number(struct __sk_buff *skb)
{
	ADD(&t->root, (__u64)skb->mark);
}

SEC("tc") __rule("A tree's functions take its own roots and nodes") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root)
__refused(not_an_object)
int add_memory_of_stack(struct __sk_buff *skb)
{
	struct leaf on_stack = {};

	ADD(&t->root, &on_stack.node);
}

SEC("tc") __rule("A tree's functions take its own roots and nodes") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root)
__refused(not_an_object)
int add_memory_of_map_value(struct __sk_buff *skb)
{
	ADD(&t->root, t);
}

SEC("tc") __rule("A tree's functions take its own roots and nodes") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root) __refused(not_value_or_object)
int add_to_root_on_stack(struct __sk_buff *skb)
{
	struct tree on_stack = {};

	ADD(&on_stack.root, &l->node);
}

static __always_inline int add_other(int right)
{
	__u32 key = 0;
	struct other_tree *t = map_lookup(other_trees, &key);
	struct tree *of_leaves = map_lookup(trees, &key);
	struct other_leaf *other;

	if (!t || !of_leaves)
		return 0;
	other = object_new(struct other_leaf);
	if (!other)
		return 0;
	if (right) {
		bpf_spin_lock(&t->lock);
		rbtree_add(&t->root, &other->node, less);
		bpf_spin_unlock(&t->lock);
	} else {
		bpf_spin_lock(&of_leaves->lock);
		rbtree_add(&of_leaves->root, &other->node, less);
		bpf_spin_unlock(&of_leaves->lock);
	}
	return 1;
}

SEC("tc") __rule("A tree's functions take its own roots and nodes") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __success __retval(1)
int add_leaf_to_tree_of_its_type(struct __sk_buff *skb)
{
	return add_other(1);
}

SEC("tc") __rule("A tree's functions take its own roots and nodes") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_leaf_to_tree_of_its_type) __failure
__errno(EINVAL) __msg("operation on bpf_rb_root expects arg#1 bpf_rb_node at offset=0 in struct leaf")
int add_leaf_to_tree_of_other_type(struct __sk_buff *skb)
{
	return add_other(0);
}

SEC("tc") __rule("A tree's functions take its own roots and nodes") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root) __refused(unchecked_node)
int read_first_without_null_check(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct tree *t = map_lookup(trees, &key);
	struct leaf *first;
	__u64 value;

	if (!t)
		return 0;
	bpf_spin_lock(&t->lock);
	first = (void *)bpf_rbtree_first(&t->root);
	value = READ_ONCE(first->key);
	bpf_spin_unlock(&t->lock);
	return value;
}

SEC("tc") __rule("A tree is touched only under its own lock") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root) __refused(lock_of_tree_not_held)
int remove_first_after_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct tree *t = map_lookup(trees, &key);
	struct bpf_rb_node *node;

	if (!t)
		return 0;
	bpf_spin_lock(&t->lock);
	node = bpf_rbtree_first(&t->root);
	bpf_spin_unlock(&t->lock);
	if (!node)
		return 0;
	node = bpf_rbtree_remove(&t->root, node);
	if (node)
		object_drop(container_of(node, struct leaf, node));
	return 1;
}

SEC("tc") __rule("What is popped or removed is dropped after the section") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root) __refused(unreleased_reference)
int removed_leaf_never_dropped(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct tree *t = map_lookup(trees, &key);
	struct bpf_rb_node *node;

	if (!t)
		return 0;
	bpf_spin_lock(&t->lock);
	node = bpf_rbtree_first(&t->root);
	if (node)
		node = bpf_rbtree_remove(&t->root, node);
	bpf_spin_unlock(&t->lock);
	return !!node;
}

SEC("tc") __rule("A list head or tree root is no memory to read or write") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root) __refused(tree_node_accessed)
int read_tree_node_of_object(struct __sk_buff *skb)
{
	struct leaf *l = new_leaf(5);
	__u64 word;

	if (!l)
		return 0;
	word = *(volatile __u64 *)&l->node;
	object_drop(l);
	return !!word;
}

SEC("tc") __rule("A list head or tree root is no memory to read or write") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root) __refused(tree_node_accessed)
int write_tree_node_of_object(struct __sk_buff *skb)
{
	struct leaf *l = new_leaf(5);

	if (!l)
		return 0;
	*(volatile __u64 *)&l->node = 0;
	object_drop(l);
	return 1;
}

SEC("tc") __rule("A list head or tree root is no memory to read or write") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root) __refused(tree_node_accessed)
int write_last_byte_of_tree_node_of_object(struct __sk_buff *skb)
{
	struct leaf *l = new_leaf(5);

	if (!l)
		return 0;
	((volatile char *)&l->node)[sizeof(l->node) - 1] = 0;
	object_drop(l);
	return 1;
}

SEC("tc") __rule("A list head or tree root is no memory to read or write") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root) __refused(root_of_object_accessed)
int read_tree_root_of_object(struct __sk_buff *skb)
{
	struct object_with_tree *o = object_new(struct object_with_tree);
	__u64 word;

	if (!o)
		return 0;
	word = *(volatile __u64 *)&o->root;
	object_drop(o);
	return !!word;
}

SEC("tc") __rule("A list head or tree root is no memory to read or write") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root) __refused(root_of_object_accessed)
int write_tree_root_of_object_under_lock(struct __sk_buff *skb)
{
	struct object_with_tree *o = object_new(struct object_with_tree);

	if (!o)
		return 0;
	bpf_spin_lock(&o->lock);
	*(volatile __u64 *)&o->root = 0;
	bpf_spin_unlock(&o->lock);
	object_drop(o);
	return 1;
}

/* Trees in inner maps: the lock is that of the same lookup. */
static __always_inline int in_inner_maps(int locked, int right)
{
	__u32 first = 0, second = 1, key = 0;
	void *map_a = map_lookup(outer, &first), *map_b = map_lookup(outer, &second);
	struct tree *a, *b;
	struct leaf *l;

	if (!map_a || !map_b)
		return 0;
	a = bpf_map_lookup_elem(map_a, &key);
	b = bpf_map_lookup_elem(map_b, &key);
	if (!a || !b)
		return 0;
	l = new_leaf(5);
	if (!l)
		return 0;
	if (locked)
		bpf_spin_lock(&a->lock);
	rbtree_add(right ? &a->root : &b->root, &l->node, less);
	if (locked)
		bpf_spin_unlock(&a->lock);
	return take_first(a);
}

SEC("tc") __rule("A tree is touched only under its own lock") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __success __retval(5)
int tree_in_inner_map(struct __sk_buff *skb)
{
	return in_inner_maps(1, 1);
}

SEC("tc") __rule("A tree is touched only under its own lock") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(tree_in_inner_map) __refused(lock_of_tree_not_held)
int tree_in_inner_map_without_lock(struct __sk_buff *skb)
{
	return in_inner_maps(0, 1);
}

SEC("tc") __rule("A tree is touched only under its own lock") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(tree_in_inner_map) __refused(other_allocation)
int tree_in_inner_map_under_lock_of_other(struct __sk_buff *skb)
{
	return in_inner_maps(1, 0);
}

KFUNC void bpf_throw(__u64 cookie);

static _Bool less_that_throws(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	bpf_throw(0);
	return less(a, b);
}

SEC("tc") __rule("The callback that orders a tree leaves locks and trees alone") __loader(libbpf)
__needs(bpf_throw, "6.7") __twin(add_node_to_root) __refused(call_under_lock)
int throw_in_callback_of_tree(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct tree *t = map_lookup(trees, &key);
	struct leaf *l;

	if (!t)
		return 0;
	l = new_leaf(5);
	if (!l)
		return 0;
	bpf_spin_lock(&t->lock);
	rbtree_add(&t->root, &l->node, less_that_throws);
	bpf_spin_unlock(&t->lock);
	return take_first(t);
}

static __noinline __u64 key_of(struct bpf_rb_node *node)
{
	return container_of(node, struct leaf, node)->key;
}

static _Bool less_that_calls(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return key_of(a) < container_of(b, struct leaf, node)->key;
}

SEC("tc") __rule("The callback that orders a tree leaves locks and trees alone") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_node_to_root)
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __success __retval(5)
int call_static_subprog_in_callback_of_tree(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct tree *t = map_lookup(trees, &key);
	struct leaf *l;

	if (!t)
		return 0;
	l = new_leaf(5);
	if (!l)
		return 0;
	bpf_spin_lock(&t->lock);
	rbtree_add(&t->root, &l->node, less_that_calls);
	bpf_spin_unlock(&t->lock);
	return take_first(t);
}
