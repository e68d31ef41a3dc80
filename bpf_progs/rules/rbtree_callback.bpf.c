// SPDX-License-Identifier: GPL-2.0-only
/*
 * The callback that orders a tree: what it may do while the lock of the tree is held.
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

/* The lock that a callback can reach: it gets two nodes and nothing else. */
PRIVATE(A) struct bpf_spin_lock lock_a;
PRIVATE(A) struct bpf_rb_root root_a __contains(leaf, node);
PRIVATE(B) struct bpf_spin_lock lock_b;
PRIVATE(C) struct bpf_res_spin_lock lock_c;

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

/*
 * Rule: The callback that orders a tree leaves locks and trees alone
 * Topic: Lists and trees
 * bpf_rbtree_add() calls it in the middle of its own walk, with the lock held. It may neither unlock
 * nor lock, nor change a tree, not even in a subprogram that it calls.
 * commit 5d92ddc3de1b ("bpf: Add callback validation to kfunc verifier logic") (in v6.3)
 * commit a40d3632436b ("bpf: Special verifier handling for bpf_rbtree_{remove, first}") (in v6.3)
 * commit 369f4ce73457 ("bpf: Check ancestor frames for rbtree callbacks") (in v7.3)
 */
static _Bool less_that_unlocks(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	bpf_spin_unlock(&lock_a);
	return less(a, b);
}

/*
 * Refusal: lock_in_callback
 * EACCES "can't spin_{lock,unlock} in rbtree cb"
 * The callback that orders a tree takes or releases a lock.
 */

SEC("tc") __rule("The callback that orders a tree leaves locks and trees alone") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(global_tree_under_its_lock) __refused(lock_in_callback)
int unlock_in_callback(struct __sk_buff *skb)
{
	struct leaf *l = new_leaf(4);

	if (!l)
		return 0;
	bpf_spin_lock(&lock_a);
	rbtree_add(&root_a, &l->node, less_that_unlocks);
	bpf_spin_unlock(&lock_a);
	return 4;
}

static _Bool less_that_locks(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	bpf_spin_lock(&lock_b);
	bpf_spin_unlock(&lock_b);
	return less(a, b);
}

/* It is the rule on calls that refuses this one: bpf_spin_lock() is a helper. */
SEC("tc") __rule("The callback that orders a tree leaves locks and trees alone") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(global_tree_under_its_lock) __refused(call_under_lock)
int lock_in_callback(struct __sk_buff *skb)
{
	struct leaf *l = new_leaf(4);

	if (!l)
		return 0;
	bpf_spin_lock(&lock_a);
	rbtree_add(&root_a, &l->node, less_that_locks);
	bpf_spin_unlock(&lock_a);
	return 4;
}

static _Bool less_that_takes_res_lock(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	_Bool is_less = less(a, b);

	if (!bpf_res_spin_lock(&lock_c))
		bpf_res_spin_unlock(&lock_c);
	return is_less;
}

/*
 * Refusal: res_spin_lock_in_callback
 * EACCES "can't res_spin_{lock,unlock} in rbtree cb"
 * The callback that orders a tree takes or releases a res_spin_lock.
 */

/*
 * A res_spin_lock may be taken where another is held, but not here; which nobody checked until
 * commit 7b7b8b595010 (in v7.3; Debian's v7.2.12 has it as well).
 */
SEC("tc") __rule("The callback that orders a tree leaves locks and trees alone") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __known_bug("7b7b8b595010", ">=6.15,<7.2")
__twin(global_tree_under_its_lock) __refused(res_spin_lock_in_callback)
int res_lock_in_callback(struct __sk_buff *skb)
{
	struct leaf *l = new_leaf(4);

	if (!l)
		return 0;
	bpf_spin_lock(&lock_a);
	rbtree_add(&root_a, &l->node, less_that_takes_res_lock);
	bpf_spin_unlock(&lock_a);
	return 4;
}

static _Bool less_that_asks_the_time(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return bpf_ktime_get_ns() & 1;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(global_tree_under_its_lock) __refused(call_under_lock)
int helper_in_callback(struct __sk_buff *skb)
{
	struct leaf *l = new_leaf(4);

	if (!l)
		return 0;
	bpf_spin_lock(&lock_a);
	rbtree_add(&root_a, &l->node, less_that_asks_the_time);
	bpf_spin_unlock(&lock_a);
	return 4;
}

static _Bool less_that_removes(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	bpf_rbtree_remove(&root_a, a);
	return 0;
}

SEC("tc") __rule("The callback that orders a tree leaves locks and trees alone") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(global_tree_under_its_lock) __failure __errno(EINVAL)
__msg("rbtree_remove not allowed in rbtree cb")
int remove_in_callback(struct __sk_buff *skb)
{
	struct leaf *l = new_leaf(4);

	if (!l)
		return 0;
	bpf_spin_lock(&lock_a);
	rbtree_add(&root_a, &l->node, less_that_removes);
	bpf_spin_unlock(&lock_a);
	return 4;
}

static __noinline int subprogram(int value)
{
	return value & 1;
}

static _Bool less_that_calls(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return subprogram(container_of(a, struct leaf, node)->key);
}

SEC("tc") __rule("The callback that orders a tree leaves locks and trees alone") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(global_tree_under_its_lock)
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __success __retval(4)
int call_in_callback(struct __sk_buff *skb)
{
	struct leaf *l = new_leaf(4);

	if (!l)
		return 0;
	bpf_spin_lock(&lock_a);
	rbtree_add(&root_a, &l->node, less_that_calls);
	bpf_spin_unlock(&lock_a);
	return 4;
}

/* The lock is taken again, or bpf_rbtree_add() would be found to be called without it. */
static __noinline int subprogram_that_unlocks(int value)
{
	bpf_spin_unlock(&lock_a);
	bpf_spin_lock(&lock_a);
	return value & 1;
}

static _Bool less_that_calls_unlock(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return subprogram_that_unlocks(container_of(a, struct leaf, node)->key);
}

/*
 * Since subprograms may be called with the lock held, only the innermost frame was asked whether it
 * is the callback. The program must not run where it loads: the tree would be walked unlocked.
 */
SEC("tc") __rule("The callback that orders a tree leaves locks and trees alone") __loader(libbpf)
__needs(bpf_rbtree_add_impl, "6.4") __twin(call_in_callback)
__known_bug("369f4ce73457", ">=6.9,<=6.12.107") __known_bug("369f4ce73457", ">=6.13,<7.2")
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __refused(lock_in_callback)
int unlock_in_subprogram_of_callback(struct __sk_buff *skb)
{
	struct leaf *l = new_leaf(4);

	if (!l)
		return 0;
	bpf_spin_lock(&lock_a);
	rbtree_add(&root_a, &l->node, less_that_calls_unlock);
	bpf_spin_unlock(&lock_a);
	return 4;
}

static __noinline int subprogram_that_takes_res_lock(int value)
{
	if (!bpf_res_spin_lock(&lock_c))
		bpf_res_spin_unlock(&lock_c);
	return value & 1;
}

static _Bool less_that_calls_res_lock(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return subprogram_that_takes_res_lock(container_of(a, struct leaf, node)->key);
}

SEC("tc") __rule("The callback that orders a tree leaves locks and trees alone") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __known_bug("7b7b8b595010", ">=6.15,<7.2")
__twin(call_in_callback) __refused(res_spin_lock_in_callback)
int res_lock_in_subprogram_of_callback(struct __sk_buff *skb)
{
	struct leaf *l = new_leaf(4);

	if (!l)
		return 0;
	bpf_spin_lock(&lock_a);
	rbtree_add(&root_a, &l->node, less_that_calls_res_lock);
	bpf_spin_unlock(&lock_a);
	return 4;
}

SEC("tc") __rule("A list head or tree root is no memory to read or write") __loader(libbpf)
__needs(bpf_rbtree_first, "6.3") __twin(read_first_under_lock) __failure __errno(EACCES)
__msg("bpf_rb_root cannot be accessed directly by load/store")
int read_tree_root_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct tree *t = map_lookup(trees, &key);
	__u64 word;

	if (!t)
		return 0;
	bpf_spin_lock(&t->lock);
	word = *(volatile __u64 *)&t->root;
	bpf_spin_unlock(&t->lock);
	return !!word;
}

SEC("tc") __rule("No list or tree in tracing programs") __loader(libbpf)
__needs(bpf_rbtree_first, "6.3") __success __retval(1)
int look_up_tree(void *ctx)
{
	__u32 key = 0;

	return !!map_lookup(trees, &key);
}

SEC("tracepoint/raw_syscalls/sys_enter") __rule("No list or tree in tracing programs")
__loader(libbpf) __needs(bpf_rbtree_first, "6.3") __twin(look_up_tree)
__refused(list_in_tracing_program)
int look_up_tree_in_tracepoint(void *ctx)
{
	__u32 key = 0;

	return !!map_lookup(trees, &key);
}
