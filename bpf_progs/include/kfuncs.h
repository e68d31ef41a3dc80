/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What allocated objects, lists, trees and res_spin_locks need: kernel functions, found by name in
 * the kernel's BTF. libbpf only, for that reason: bcc calls helpers by number and knows no other.
 * All are weak, so that a program loads on kernels that lack one which it does not call.
 */
#ifndef KFUNCS_H
#define KFUNCS_H

#include "spinlock.h"

#define KFUNC extern __ksym __weak

/* A list head or tree root says by a tag which struct it holds, by which of its members. */
#define __contains(type, member) __attribute__((btf_decl_tag("contains:" #type ":" #member)))

/* A global in a section, hence a map, of its own; hidden, so that libbpf does not mmap() that. */
#define PRIVATE(name) SEC(".data." #name) __attribute__((visibility("hidden"), aligned(8)))

/*
 * The type is given by its id in the object's own BTF; the verifier fills in what is passed as 0. In a
 * new object only what the kernel looks after is zero: the rest is as its last owner left it.
 */
KFUNC void *bpf_obj_new_impl(__u64 type, void *meta);
KFUNC void bpf_obj_drop_impl(void *object, void *meta);
KFUNC void *bpf_refcount_acquire_impl(void *object, void *meta);
KFUNC void *bpf_percpu_obj_new_impl(__u64 type, void *meta);
KFUNC void bpf_percpu_obj_drop_impl(void *object, void *meta);
#define object_new(type) ((type *)bpf_obj_new_impl(__builtin_btf_type_id(*(type *)0, 0), 0))

/*
 * One call must not drop objects of two types: the kernel would take both for what the verifier saw
 * last. So clang must not merge calls at the end of two branches, which it does not where they end
 * in different assembly.
 */
#define object_drop(object)                                \
	do {                                               \
		bpf_obj_drop_impl(object, 0);              \
		asm volatile("" : : "i"(__COUNTER__));     \
	} while (0)
#define percpu_object_new(type) \
	((type *)bpf_percpu_obj_new_impl(__builtin_btf_type_id(*(type *)0, 0), 0))
#define percpu_object_drop(object) bpf_percpu_obj_drop_impl(object, 0)
#define object_acquire(object) bpf_refcount_acquire_impl(object, 0)

KFUNC int bpf_list_push_front_impl(struct bpf_list_head *head, struct bpf_list_node *node, void *meta,
				   __u64 offset);
KFUNC int bpf_list_push_back_impl(struct bpf_list_head *head, struct bpf_list_node *node, void *meta,
				  __u64 offset);
KFUNC struct bpf_list_node *bpf_list_pop_front(struct bpf_list_head *head);
KFUNC struct bpf_list_node *bpf_list_pop_back(struct bpf_list_head *head);
KFUNC struct bpf_list_node *bpf_list_front(struct bpf_list_head *head);
KFUNC struct bpf_list_node *bpf_list_back(struct bpf_list_head *head);
KFUNC struct bpf_list_node *bpf_list_del(struct bpf_list_head *head, struct bpf_list_node *node);
KFUNC int bpf_list_add(struct bpf_list_head *head, struct bpf_list_node *node,
		       struct bpf_list_node *previous);
#define list_push_front(head, node) bpf_list_push_front_impl(head, node, 0, 0)
#define list_push_back(head, node) bpf_list_push_back_impl(head, node, 0, 0)

/* They return a bool: that is the register's lowest byte, but older clang goes by all of it. */
KFUNC __u64 bpf_list_is_first(struct bpf_list_head *head, struct bpf_list_node *node);
KFUNC __u64 bpf_list_is_last(struct bpf_list_head *head, struct bpf_list_node *node);
KFUNC __u64 bpf_list_empty(struct bpf_list_head *head);
#define list_is_first(head, node) (bpf_list_is_first(head, node) & 1)
#define list_is_last(head, node) (bpf_list_is_last(head, node) & 1)
#define list_empty(head) (bpf_list_empty(head) & 1)

typedef _Bool less_t(struct bpf_rb_node *a, const struct bpf_rb_node *b);
KFUNC int bpf_rbtree_add_impl(struct bpf_rb_root *root, struct bpf_rb_node *node, less_t *less,
			      void *meta, __u64 offset);
KFUNC struct bpf_rb_node *bpf_rbtree_remove(struct bpf_rb_root *root, struct bpf_rb_node *node);
KFUNC struct bpf_rb_node *bpf_rbtree_first(struct bpf_rb_root *root);
KFUNC struct bpf_rb_node *bpf_rbtree_root(struct bpf_rb_root *root);
KFUNC struct bpf_rb_node *bpf_rbtree_left(struct bpf_rb_root *root, struct bpf_rb_node *node);
KFUNC struct bpf_rb_node *bpf_rbtree_right(struct bpf_rb_root *root, struct bpf_rb_node *node);
#define rbtree_add(root, node, less) bpf_rbtree_add_impl(root, node, less, 0, 0)

/* What a res_spin_lock says who is not given it. */
#define EDEADLK 35
#define ETIMEDOUT 110

/* The guest's uapi headers do not have the type: the kernel goes by its name. */
struct bpf_res_spin_lock {
	__u32 val;
};
KFUNC int bpf_res_spin_lock(struct bpf_res_spin_lock *lock);
KFUNC void bpf_res_spin_unlock(struct bpf_res_spin_lock *lock);
KFUNC int bpf_res_spin_lock_irqsave(struct bpf_res_spin_lock *lock, unsigned long *flags);
KFUNC void bpf_res_spin_unlock_irqrestore(struct bpf_res_spin_lock *lock, unsigned long *flags);

KFUNC void bpf_rcu_read_lock(void);
KFUNC void bpf_rcu_read_unlock(void);

#endif
