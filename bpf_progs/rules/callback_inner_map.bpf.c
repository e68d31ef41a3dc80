// SPDX-License-Identifier: GPL-2.0-only
/*
 * Values of inner maps in callbacks: what the program and the callback of bpf_for_each_map_elem()
 * know of one inner map must not be taken for another's. All inner maps of an outer one have the same
 * description, so that only the identity of the pointer tells them apart.
 *
 * libbpf only: bcc knows neither callbacks nor inner maps by name. Inner maps may have a lock since
 * v6.2, as bpf_obj_new() exists, by whose name the kernels are told.
 */
#include "kfuncs.h"

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counter);
};

struct inner inner_a SEC(".maps");
struct inner inner_b SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = {
	.values = { &inner_a, &inner_b },
};

/* Handed from the program to a callback, and from that to one inside it. */
struct context {
	struct counter *value;
	void *map;
	int sum;
};

static long lock_both_in_turn(void *map, __u32 *key, struct counter *c, struct context *context)
{
	struct counter *other = context->value;

	bpf_spin_lock(&other->lock);
	other->value++;
	bpf_spin_unlock(&other->lock);
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	context->sum = other->value + c->value;
	return 0;
}

static long lock_one_unlock_other(void *map, __u32 *key, struct counter *c, struct context *context)
{
	struct counter *other = context->value;

	bpf_spin_lock(&other->lock);
	other->value++;
	bpf_spin_unlock(&c->lock);
	return 0;
}

/* A value that was looked up has an identity, a callback's had none: these were never confused. */
SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(2)
int looked_up_and_callback_value_in_turn(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1, key = 0;
	struct context context = {};
	void *a = map_lookup(outer, &first);
	void *b = map_lookup(outer, &second);

	if (!a || !b)
		return 0;
	context.value = bpf_map_lookup_elem(a, &key);
	if (!context.value)
		return 0;
	bpf_for_each_map_elem(b, lock_both_in_turn, &context, 0);
	return context.sum;
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(looked_up_and_callback_value_in_turn)
__refused(different_lock)
int lock_looked_up_unlock_callback_value(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1, key = 0;
	struct context context = {};
	void *a = map_lookup(outer, &first);
	void *b = map_lookup(outer, &second);

	if (!a || !b)
		return 0;
	context.value = bpf_map_lookup_elem(a, &key);
	if (!context.value)
		return 0;
	bpf_for_each_map_elem(b, lock_one_unlock_other, &context, 0);
	return 1;
}

static long for_each_other_in_turn(void *map, __u32 *key, struct counter *c, struct context *outer)
{
	struct context context = { .value = c };

	bpf_for_each_map_elem(outer->map, lock_both_in_turn, &context, 0);
	outer->sum = context.sum;
	return 0;
}

static long for_each_other_confused(void *map, __u32 *key, struct counter *c, struct context *outer)
{
	struct context context = { .value = c };

	bpf_for_each_map_elem(outer->map, lock_one_unlock_other, &context, 0);
	return 0;
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(2)
int two_callback_values_in_turn(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1;
	struct context context = {};
	void *a = map_lookup(outer, &first);

	context.map = map_lookup(outer, &second);
	if (!a || !context.map)
		return 0;
	bpf_for_each_map_elem(a, for_each_other_in_turn, &context, 0);
	return context.sum;
}

/*
 * commit 71919742c83c ("bpf: Assign lock identity to callback map values") (in v7.3): before it no
 * callback's value had an identity, and two were the same if their maps had one description.
 */
SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __known_bug("71919742c83c", ">=6.2,<7.3")
__twin(two_callback_values_in_turn) __refused(different_lock)
int lock_one_unlock_other_callback_value(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1;
	struct context context = {};
	void *a = map_lookup(outer, &first);

	context.map = map_lookup(outer, &second);
	if (!a || !context.map)
		return 0;
	bpf_for_each_map_elem(a, for_each_other_confused, &context, 0);
	return 1;
}
