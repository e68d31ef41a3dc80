/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Kernel functions (kfuncs) for allocated objects, lists, trees and res_spin_locks. libbpf only: it
 * finds them by name in the kernel's BTF, while bcc knows helpers only. All are weak, so that a program
 * loads on kernels without a function that it does not call.
 */
#ifndef KFUNCS_H
#define KFUNCS_H

#include "spinlock.h"

#define KFUNC extern __ksym __weak

/* The tag of a list head or tree root: the type of its objects and the name of their node member. */
#define __contains(type, member) __attribute__((btf_decl_tag("contains:" #type ":" #member)))

/* A global in a section, and so a map, of its own. It is hidden, so that libbpf does not mmap() it. */
#define PRIVATE(name) SEC(".data." #name) __attribute__((visibility("hidden"), aligned(8)))

/*
 * The type is a type id of the program's own BTF. The verifier fills in `meta`, which is passed as 0. In
 * a new object only the special fields are initialised; the other bytes keep their old content.
 */
KFUNC void *bpf_obj_new_impl(__u64 type, void *meta);
KFUNC void bpf_obj_drop_impl(void *object, void *meta);
KFUNC void *bpf_refcount_acquire_impl(void *object, void *meta);
KFUNC void *bpf_percpu_obj_new_impl(__u64 type, void *meta);
KFUNC void bpf_percpu_obj_drop_impl(void *object, void *meta);
#define object_new(type) ((type *)bpf_obj_new_impl(__builtin_btf_type_id(*(type *)0, 0), 0))

/*
 * One call instruction must not drop objects of two types: the kernel would use the type that the
 * verifier saw last for both. clang may merge equal calls of two branches. Different assembly after each
 * call prevents that.
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

/* They return a bool in the lowest byte of the register; older clang tests the whole register. */
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

/* Errors of bpf_res_spin_lock(). */
#define EDEADLK 35
#define ETIMEDOUT 110

/* The uapi headers lack this type; the kernel recognizes it by its name. */
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
