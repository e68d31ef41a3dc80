// SPDX-License-Identifier: GPL-2.0-only
/*
 * Red-black trees, which belong to the lock that stands beside them, and the callback that orders
 * them: it runs with that lock held.
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

MAP(ARRAY, trees, __u32, struct tree, 2)
MAP(ARRAY, other_trees, __u32, struct tree, 1)

/* The lock that a callback can reach: it gets two nodes and nothing else. */
PRIVATE(A) struct bpf_spin_lock lock_a;
PRIVATE(A) struct bpf_rb_root root_a __contains(leaf, node);
PRIVATE(B) struct bpf_spin_lock lock_b;

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

static __always_inline void add(struct tree *t, __u64 key)
{
	struct leaf *l = new_leaf(key);

	if (!l)
		return;
	bpf_spin_lock(&t->lock);
	rbtree_add(&t->root, &l->node, less);
	bpf_spin_unlock(&t->lock);
}

/* Drop what came from a tree and return its key. */
static __always_inline __u64 drop(struct bpf_rb_node *node)
{
	struct leaf *l;
	__u64 key;

	if (!node)
		return 0;
	l = container_of(node, struct leaf, node);
	key = l->key;
	object_drop(l);
	return key;
}

static __always_inline __u64 take_first(struct tree *t)
{
	struct bpf_rb_node *node;

	bpf_spin_lock(&t->lock);
	node = bpf_rbtree_first(&t->root);
	if (node)
		node = bpf_rbtree_remove(&t->root, node);
	bpf_spin_unlock(&t->lock);
	return drop(node);
}

SEC("tc") __rule("Lists and trees are changed under the lock by these functions") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __success __retval(321)
__description("add three, take the smallest three times")
int add_and_take_first(struct __sk_buff *skb)
{
	__u32 key = 0, sum;
	struct tree *t = map_lookup(trees, &key);

	if (!t)
		return 0;
	add(t, 3);
	add(t, 1);
	add(t, 2);
	sum = take_first(t);
	sum += take_first(t) * 10;
	sum += take_first(t) * 100;
	return sum + take_first(t) * 1000;
}

SEC("tc") __rule("Lists and trees are changed under the lock by these functions") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __success __retval(1)
__description("what is left in the tree is freed with the map")
int add_and_leave(struct __sk_buff *skb)
{
	__u32 key = 1;
	struct tree *t = map_lookup(trees, &key);

	if (!t)
		return 0;
	add(t, 2);
	add(t, 1);
	return 1;
}

SEC("tc") __rule("Lists and trees are changed under the lock by these functions") __loader(libbpf)
__needs(bpf_rbtree_root, "6.16") __success __retval(213)
__description("root, left and right child of three")
int walk_tree(struct __sk_buff *skb)
{
	__u32 index = 0, sum = 0;
	struct tree *t = map_lookup(trees, &index);
	struct bpf_rb_node *root, *child;

	if (!t)
		return 0;
	add(t, 2);
	add(t, 1);
	add(t, 3);
	bpf_spin_lock(&t->lock);
	root = bpf_rbtree_root(&t->root);
	if (root) {
		sum = container_of(root, struct leaf, node)->key * 100;
		child = bpf_rbtree_left(&t->root, root);
		if (child)
			sum += container_of(child, struct leaf, node)->key * 10;
		child = bpf_rbtree_right(&t->root, root);
		if (child)
			sum += container_of(child, struct leaf, node)->key;
	}
	bpf_spin_unlock(&t->lock);
	return sum;
}

/*
 * Rule: A tree is touched only under its own lock
 * Topic: Lists and trees
 * As a list is: every function that takes a root wants the lock of that very value, object or
 * section to be held.
 * commit bd1279ae8a69 ("bpf: Add bpf_rbtree_{add,remove,first} kfuncs") (in v6.3)
 * commit 9e3e66c553f7 ("bpf: Add bpf_rbtree_{root,left,right} kfunc") (in v6.16)
 */

/*
 * Refusal: tree_lock_not_held
 * EINVAL "bpf_spin_lock at off=0 must be held for bpf_rb_root"
 * A tree is changed without its lock.
 */

SEC("tc") __rule("A tree is touched only under its own lock") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_and_take_first) __refused(tree_lock_not_held)
int add_without_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct tree *t = map_lookup(trees, &key);
	struct leaf *l;

	if (!t)
		return 0;
	l = new_leaf(1);
	if (!l)
		return 0;
	rbtree_add(&t->root, &l->node, less);
	return 1;
}

SEC("tc") __rule("A tree is touched only under its own lock") __loader(libbpf)
__needs(bpf_rbtree_first, "6.3") __twin(add_and_take_first) __refused(tree_lock_not_held)
int first_without_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct tree *t = map_lookup(trees, &key);

	return t ? !bpf_rbtree_first(&t->root) : 0;
}

SEC("tc") __rule("A tree is touched only under its own lock") __loader(libbpf)
__needs(bpf_rbtree_root, "6.16") __twin(walk_tree) __refused(tree_lock_not_held)
int root_without_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct tree *t = map_lookup(trees, &key);

	return t ? !bpf_rbtree_root(&t->root) : 0;
}

SEC("tc") __rule("A tree is touched only under its own lock") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_and_take_first) __refused(other_allocation)
int add_under_lock_of_other_element(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1;
	struct tree *a = map_lookup(trees, &first);
	struct tree *b = map_lookup(trees, &second);
	struct leaf *l;

	if (!a || !b)
		return 0;
	l = new_leaf(1);
	if (!l)
		return 0;
	bpf_spin_lock(&a->lock);
	rbtree_add(&b->root, &l->node, less);
	bpf_spin_unlock(&a->lock);
	return 1;
}

SEC("tc") __rule("A tree is touched only under its own lock") __loader(libbpf)
__needs(bpf_rbtree_first, "6.3") __twin(add_and_take_first) __refused(other_allocation)
int first_under_lock_of_other_map(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct tree *a = map_lookup(trees, &key);
	struct tree *b = map_lookup(other_trees, &key);
	struct bpf_rb_node *node;

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	node = bpf_rbtree_first(&b->root);
	bpf_spin_unlock(&a->lock);
	return !node;
}

SEC("tc") __rule("A tree is touched only under its own lock") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __success __retval(4)
int global_tree_under_its_lock(struct __sk_buff *skb)
{
	struct bpf_rb_node *node;
	struct leaf *l = new_leaf(4);

	if (!l)
		return 0;
	bpf_spin_lock(&lock_a);
	rbtree_add(&root_a, &l->node, less);
	node = bpf_rbtree_first(&root_a);
	if (node)
		node = bpf_rbtree_remove(&root_a, node);
	bpf_spin_unlock(&lock_a);
	return drop(node);
}

SEC("tc") __rule("A tree is touched only under its own lock") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(global_tree_under_its_lock) __refused(other_allocation)
int global_tree_under_lock_of_other_section(struct __sk_buff *skb)
{
	struct leaf *l = new_leaf(4);

	if (!l)
		return 0;
	bpf_spin_lock(&lock_b);
	rbtree_add(&root_a, &l->node, less);
	bpf_spin_unlock(&lock_b);
	return 4;
}

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __success __retval(5)
int read_first_under_lock(struct __sk_buff *skb)
{
	__u32 index = 0, key = 0;
	struct tree *t = map_lookup(trees, &index);
	struct bpf_rb_node *node;

	if (!t)
		return 0;
	add(t, 5);
	bpf_spin_lock(&t->lock);
	node = bpf_rbtree_first(&t->root);
	if (node)
		key = container_of(node, struct leaf, node)->key;
	bpf_spin_unlock(&t->lock);
	return key;
}

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(read_first_under_lock) __refused(pointer_ended)
int read_first_after_unlock(struct __sk_buff *skb)
{
	__u32 index = 0;
	struct tree *t = map_lookup(trees, &index);
	struct bpf_rb_node *node;

	if (!t)
		return 0;
	add(t, 5);
	bpf_spin_lock(&t->lock);
	node = bpf_rbtree_first(&t->root);
	bpf_spin_unlock(&t->lock);
	return node ? container_of(node, struct leaf, node)->key : 0;
}

/* With the tree in an object, it is the object's lock that ends the section. */
static __always_inline int read_first_of_objects_tree(int before_unlock)
{
	struct tree *t = object_new(struct tree);
	struct bpf_rb_node *node;
	__u32 key = 0;

	if (!t)
		return 0;
	add(t, 5);
	bpf_spin_lock(&t->lock);
	node = bpf_rbtree_first(&t->root);
	if (before_unlock && node)
		key = container_of(node, struct leaf, node)->key;
	bpf_spin_unlock(&t->lock);
	if (!before_unlock && node)
		key = container_of(node, struct leaf, node)->key;
	object_drop(t);
	return key;
}

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __success __retval(5)
int read_first_of_objects_tree_under_lock(struct __sk_buff *skb)
{
	return read_first_of_objects_tree(1);
}

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(read_first_of_objects_tree_under_lock)
__refused(pointer_ended)
int read_first_of_objects_tree_after_unlock(struct __sk_buff *skb)
{
	return read_first_of_objects_tree(0);
}

/*
 * The pointer is the program's, but it is a subprogram that ends the section.
 * commit a44b1334aadd ("bpf: Allow calling static subprogs while holding a bpf_spin_lock") (in v6.9)
 */
static __noinline void unlock_tree(struct tree *t)
{
	bpf_spin_unlock(&t->lock);
}

static __always_inline int read_first_and_unlock_in_subprogram(int before_unlock)
{
	__u32 index = 0, key = 0;
	struct tree *t = map_lookup(trees, &index);
	struct bpf_rb_node *node;

	if (!t)
		return 0;
	add(t, 5);
	bpf_spin_lock(&t->lock);
	node = bpf_rbtree_first(&t->root);
	if (before_unlock && node)
		key = container_of(node, struct leaf, node)->key;
	unlock_tree(t);
	if (!before_unlock && node)
		key = container_of(node, struct leaf, node)->key;
	return key;
}

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(read_first_under_lock)
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __success __retval(5)
int read_first_before_subprogram_unlocks(struct __sk_buff *skb)
{
	return read_first_and_unlock_in_subprogram(1);
}

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_arena_alloc_pages, "6.9") __twin(read_first_before_subprogram_unlocks)
__refused(pointer_ended)
int read_first_after_subprogram_unlocks(struct __sk_buff *skb)
{
	return read_first_and_unlock_in_subprogram(0);
}

/*
 * Another section of the same lock is another life of the tree. The text is of commit 2ddef1783c43
 * ("bpf: Allow refcounted bpf_rb_node used in bpf_rbtree_{remove,left,right}") (in v6.16).
 */
SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(read_first_under_lock) __failure __errno(EINVAL)
__kernel("<6.16") __msg("rbtree_remove node input must be non-owning ref")
__kernel(">=6.16") __msg("bpf_rbtree_remove can only take non-owning or refcounted bpf_rb_node pointer")
int remove_in_later_section(struct __sk_buff *skb)
{
	__u32 index = 0;
	struct tree *t = map_lookup(trees, &index);
	struct bpf_rb_node *node;

	if (!t)
		return 0;
	bpf_spin_lock(&t->lock);
	node = bpf_rbtree_first(&t->root);
	if (!node) {
		bpf_spin_unlock(&t->lock);
		return 0;
	}
	bpf_spin_unlock(&t->lock);
	bpf_spin_lock(&t->lock);
	node = bpf_rbtree_remove(&t->root, node);
	bpf_spin_unlock(&t->lock);
	return drop(node);
}

SEC("tc") __rule("A pointer into a list or tree ends with the section") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_and_take_first) __refused(not_an_object)
int add_twice(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct tree *t = map_lookup(trees, &key);
	struct leaf *l;

	if (!t)
		return 0;
	l = new_leaf(1);
	if (!l)
		return 0;
	bpf_spin_lock(&t->lock);
	rbtree_add(&t->root, &l->node, less);
	rbtree_add(&t->root, &l->node, less);
	bpf_spin_unlock(&t->lock);
	return 1;
}

SEC("tc") __rule("What is popped or removed is dropped after the section") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(add_and_take_first) __refused(call_under_lock)
int drop_removed_leaf_under_lock(struct __sk_buff *skb)
{
	__u32 index = 0, key = 0;
	struct tree *t = map_lookup(trees, &index);
	struct bpf_rb_node *node;

	if (!t)
		return 0;
	add(t, 1);
	bpf_spin_lock(&t->lock);
	node = bpf_rbtree_first(&t->root);
	if (node)
		key = drop(bpf_rbtree_remove(&t->root, node));
	bpf_spin_unlock(&t->lock);
	return key;
}

SEC("tc") __rule("A tree is touched only under its own lock") __loader(libbpf)
__needs(bpf_rbtree_first, "6.3") __success __retval(1)
int trees_in_two_objects_in_turn(struct __sk_buff *skb)
{
	struct tree *a, *b;
	__u32 sum;

	a = object_new(struct tree);
	if (!a)
		return 0;
	b = object_new(struct tree);
	if (!b) {
		object_drop(a);
		return 0;
	}
	sum = take_first(a) + take_first(b);
	object_drop(a);
	object_drop(b);
	return sum + 1;
}

SEC("tc") __rule("A tree is touched only under its own lock") __loader(libbpf)
__needs(bpf_rbtree_first, "6.3") __twin(trees_in_two_objects_in_turn) __refused(other_allocation)
int tree_in_object_under_lock_of_other_object(struct __sk_buff *skb)
{
	struct bpf_rb_node *node;
	struct tree *a, *b;
	__u32 found;

	a = object_new(struct tree);
	if (!a)
		return 0;
	b = object_new(struct tree);
	if (!b) {
		object_drop(a);
		return 0;
	}
	bpf_spin_lock(&a->lock);
	node = bpf_rbtree_first(&b->root);
	found = !!node;
	bpf_spin_unlock(&a->lock);
	object_drop(a);
	object_drop(b);
	return found + 1;
}

/*
 * Two trees under one lock, of leaves that count their references.
 * commit c3c510ce431c ("bpf: Add 'owner' field to bpf_{list,rb}_node") (in v6.6): a node is in one
 * tree at a time, and only that gives it.
 */
struct counted_leaf {
	struct bpf_rb_node node;
	struct bpf_refcount references;
	__u64 key;
};

struct two_trees {
	struct bpf_spin_lock lock;
	struct bpf_rb_root first __contains(counted_leaf, node);
	struct bpf_rb_root second __contains(counted_leaf, node);
};
MAP(ARRAY, two_tree_map, __u32, struct two_trees, 1)

static _Bool counted_less(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return container_of(a, struct counted_leaf, node)->key <
	       container_of(b, struct counted_leaf, node)->key;
}

static __always_inline __u64 drop_counted(struct bpf_rb_node *node)
{
	struct counted_leaf *l;
	__u64 key;

	if (!node)
		return 0;
	l = container_of(node, struct counted_leaf, node);
	key = l->key;
	object_drop(l);
	return key;
}

SEC("tc") __rule("Lists and trees stay whole under their lock") __loader(libbpf)
__needs(bpf_refcount_acquire_impl, "6.4") __success __retval(40)
__description("the tree that it is not in does not give it; then the one that it is in")
int remove_from_tree_that_node_is_not_in(struct __sk_buff *skb)
{
	__u32 index = 0, sum;
	struct two_trees *t = map_lookup(two_tree_map, &index);
	struct bpf_rb_node *wrong, *right;
	struct counted_leaf *l;

	if (!t)
		return 0;
	l = object_new(struct counted_leaf);
	if (!l)
		return 0;
	l->key = 4;
	bpf_spin_lock(&t->lock);
	rbtree_add(&t->first, &l->node, counted_less);
	wrong = bpf_rbtree_remove(&t->second, &l->node);
	right = bpf_rbtree_first(&t->first);
	if (right)
		right = bpf_rbtree_remove(&t->first, right);
	bpf_spin_unlock(&t->lock);
	sum = drop_counted(wrong);
	return sum + drop_counted(right) * 10;
}

static __always_inline void add_to_first(struct two_trees *t, __u64 key)
{
	struct counted_leaf *l = object_new(struct counted_leaf);

	if (!l)
		return;
	l->key = key;
	bpf_spin_lock(&t->lock);
	rbtree_add(&t->first, &l->node, counted_less);
	bpf_spin_unlock(&t->lock);
}

SEC("tc") __rule("Lists and trees stay whole under their lock") __loader(libbpf)
__needs(bpf_rbtree_left, "6.16") __success __retval(1100)
__description("from a node that the second tree does not have, that leads nowhere; in the first it does")
int walk_tree_that_node_is_not_in(struct __sk_buff *skb)
{
	__u32 index = 0, found = 0;
	struct two_trees *t = map_lookup(two_tree_map, &index);
	struct bpf_rb_node *root;

	if (!t)
		return 0;
	add_to_first(t, 2);
	add_to_first(t, 1);
	add_to_first(t, 3);
	bpf_spin_lock(&t->lock);
	root = bpf_rbtree_root(&t->first);
	if (root) {
		found += bpf_rbtree_left(&t->first, root) ? 1000 : 0;
		found += bpf_rbtree_right(&t->first, root) ? 100 : 0;
		found += bpf_rbtree_left(&t->second, root) ? 10 : 0;
		found += bpf_rbtree_right(&t->second, root) ? 1 : 0;
	}
	bpf_spin_unlock(&t->lock);
	return found;
}

SEC("tc") __rule("Lists and trees stay whole under their lock") __loader(libbpf)
__needs(bpf_refcount_acquire_impl, "6.4") __success __retval(40)
__description("the second add fails; take from the second tree, then from the first")
int add_to_second_tree_through_other_reference(struct __sk_buff *skb)
{
	__u32 index = 0, sum;
	struct two_trees *t = map_lookup(two_tree_map, &index);
	struct bpf_rb_node *from_first, *from_second;
	struct counted_leaf *a, *b;
	int first, second;

	if (!t)
		return 0;
	a = object_new(struct counted_leaf);
	if (!a)
		return 0;
	a->key = 4;
	b = object_acquire(a);
	bpf_spin_lock(&t->lock);
	first = rbtree_add(&t->first, &a->node, counted_less);
	second = rbtree_add(&t->second, &b->node, counted_less);
	from_second = bpf_rbtree_first(&t->second);
	if (from_second)
		from_second = bpf_rbtree_remove(&t->second, from_second);
	from_first = bpf_rbtree_first(&t->first);
	if (from_first)
		from_first = bpf_rbtree_remove(&t->first, from_first);
	bpf_spin_unlock(&t->lock);
	sum = drop_counted(from_second);
	sum += drop_counted(from_first) * 10;
	if (first || second != -22 /* EINVAL */)
		return 1000 + sum;
	return sum;
}

/*
 * Everything the kernel manages, in one value. An object that is to be in a list and in a tree at
 * once counts its references.
 */
struct twig {
	struct bpf_list_node list;
	struct bpf_rb_node tree;
	struct bpf_refcount references;
	__u64 key;
};

/* The name without "struct" is for clang 14, which loses a tag between that and the asterisk. */
typedef struct leaf leaf_t;

struct everything {
	struct bpf_timer timer;
	struct bpf_spin_lock lock;
	struct bpf_list_head head __contains(twig, list);
	struct bpf_rb_root root __contains(twig, tree);
	leaf_t __kptr *leaf;
	__u64 value;
};
MAP(ARRAY, everything_map, __u32, struct everything, 1)

static _Bool twig_less(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return container_of(a, struct twig, tree)->key < container_of(b, struct twig, tree)->key;
}

SEC("tc") __rule("A list or tree needs a lock beside it") __loader(libbpf)
__needs(bpf_refcount_acquire_impl, "6.4") __success __retval(66)
__description("timer, list, tree and pointer beside one lock; an object in list and tree")
int everything_under_one_lock(struct __sk_buff *skb)
{
	__u32 index = 0, sum = 0;
	struct everything *e = map_lookup(everything_map, &index);
	struct bpf_list_node *node;
	struct bpf_rb_node *first;
	struct twig *a, *b;

	if (!e)
		return 0;
	a = object_new(struct twig);
	if (!a)
		return 0;
	a->key = 6;
	b = object_acquire(a);
	bpf_spin_lock(&e->lock);
	list_push_back(&e->head, &a->list);
	rbtree_add(&e->root, &b->tree, twig_less);
	e->value++;
	node = bpf_list_pop_front(&e->head);
	first = bpf_rbtree_first(&e->root);
	if (first)
		first = bpf_rbtree_remove(&e->root, first);
	bpf_spin_unlock(&e->lock);
	if (node) {
		a = container_of(node, struct twig, list);
		sum = a->key;
		object_drop(a);
	}
	if (first) {
		b = container_of(first, struct twig, tree);
		sum += b->key * 10;
		object_drop(b);
	}
	return sum;
}

#if UNIT(tree_without_lock)
struct lockless {
	__u64 value;
	struct bpf_rb_root root __contains(leaf, node);
};
MAP(ARRAY, lockless_trees, __u32, struct lockless, 1)

SEC("tc") __rule("A list or tree needs a lock beside it") __loader(libbpf)
__needs(bpf_rbtree_first, "6.3") __twin(look_up_tree) __failure
__stage(btf_load) __errno(EINVAL)
int tree_without_lock(void *ctx)
{
	__u32 key = 0;

	return !!map_lookup(lockless_trees, &key);
}
#endif
