/* SPDX-License-Identifier: GPL-2.0-only */
/* A linked list of allocated objects in a map's value, beside its lock; for the list_*.bpf.c files. */
#ifndef LOCKED_LIST_H
#define LOCKED_LIST_H

#include "kfuncs.h"

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

/* Drop an item that was taken from a list; return its value. */
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

#endif
