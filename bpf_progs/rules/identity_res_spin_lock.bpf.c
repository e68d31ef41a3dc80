// SPDX-License-Identifier: GPL-2.0-only
/*
 * identity.bpf.c for bpf_res_spin_lock(): locks that live in different kinds of places are two locks.
 * Since several may be held, the verifier looks for the one that is released among all that are.
 *
 * libbpf only, as all that calls kernel functions (kfuncs.h).
 */
#include "res_spin_lock_counters.h"

/* The reference count is for the search of types: see res_lock_in_object. */
struct object {
	struct bpf_refcount references;
	struct bpf_res_spin_lock lock;
};

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct res_spin_lock_counter);
};
struct inner inner_map SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = { .values = { &inner_map } };

PRIVATE(lock) struct bpf_res_spin_lock global_lock;

enum place { VALUE, INNER, GLOBAL, OBJECT };

/* All four, and the object, which the program owns. */
struct places {
	struct res_spin_lock_counter *value, *inner;
	struct object *object;
};

static __always_inline struct bpf_res_spin_lock *lock_in(struct places *places, enum place place)
{
	return place == VALUE ? &places->value->lock :
	       place == INNER ? &places->inner->lock :
	       place == GLOBAL ? &global_lock : &places->object->lock;
}

static __always_inline int find(struct places *places)
{
	__u32 key = 0;
	void *map;

	places->value = map_lookup(counters, &key);
	map = map_lookup(outer, &key);
	if (!places->value || !map)
		return 0;
	places->inner = bpf_map_lookup_elem(map, &key);
	if (!places->inner)
		return 0;
	places->object = object_new(struct object);
	return places->object != 0;
}

static __always_inline int crosswise(enum place taken, enum place released)
{
	struct places places;
	int done = 0;

	if (!find(&places))
		return 0;
	if (!bpf_res_spin_lock(lock_in(&places, taken))) {
		bpf_res_spin_unlock(lock_in(&places, released));
		done = 1;
	}
	object_drop(places.object);
	return done;
}

/* Both are taken; `released` goes first, `last` after it. */
static __always_inline int nested(enum place first, enum place second, enum place released,
				  enum place last)
{
	struct places places;

	if (!find(&places))
		return 0;
	if (bpf_res_spin_lock(lock_in(&places, first))) {
		object_drop(places.object);
		return 0;
	}
	if (bpf_res_spin_lock(lock_in(&places, second))) {
		bpf_res_spin_unlock(lock_in(&places, first));
		object_drop(places.object);
		return 0;
	}
	bpf_res_spin_unlock(lock_in(&places, released));
	bpf_res_spin_unlock(lock_in(&places, last));
	object_drop(places.object);
	return 1;
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int res_lock_in_map_value_alone(struct __sk_buff *skb)
{
	return crosswise(VALUE, VALUE);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int res_lock_in_inner_map_alone(struct __sk_buff *skb)
{
	return crosswise(INNER, INNER);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int res_lock_in_global_alone(struct __sk_buff *skb)
{
	return crosswise(GLOBAL, GLOBAL);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int res_lock_in_object_alone(struct __sk_buff *skb)
{
	return crosswise(OBJECT, OBJECT);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_in_object_alone)
__refused(different_res_spin_lock)
int res_lock_object_unlock_global(struct __sk_buff *skb)
{
	return crosswise(OBJECT, GLOBAL);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_in_global_alone)
__refused(different_res_spin_lock)
int res_lock_global_unlock_object(struct __sk_buff *skb)
{
	return crosswise(GLOBAL, OBJECT);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_in_object_alone)
__refused(different_res_spin_lock)
int res_lock_object_unlock_inner_map(struct __sk_buff *skb)
{
	return crosswise(OBJECT, INNER);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_in_inner_map_alone)
__refused(different_res_spin_lock)
int res_lock_inner_map_unlock_object(struct __sk_buff *skb)
{
	return crosswise(INNER, OBJECT);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_in_global_alone)
__refused(different_res_spin_lock)
int res_lock_global_unlock_map_value(struct __sk_buff *skb)
{
	return crosswise(GLOBAL, VALUE);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_in_map_value_alone)
__refused(different_res_spin_lock)
int res_lock_map_value_unlock_global(struct __sk_buff *skb)
{
	return crosswise(VALUE, GLOBAL);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_in_global_alone)
__refused(different_res_spin_lock)
int res_lock_global_unlock_inner_map(struct __sk_buff *skb)
{
	return crosswise(GLOBAL, INNER);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_in_inner_map_alone)
__refused(different_res_spin_lock)
int res_lock_inner_map_unlock_global(struct __sk_buff *skb)
{
	return crosswise(INNER, GLOBAL);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_in_map_value_alone)
__refused(different_res_spin_lock)
int res_lock_map_value_unlock_inner_map(struct __sk_buff *skb)
{
	return crosswise(VALUE, INNER);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_in_inner_map_alone)
__refused(different_res_spin_lock)
int res_lock_inner_map_unlock_map_value(struct __sk_buff *skb)
{
	return crosswise(INNER, VALUE);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_in_map_value_alone)
__refused(different_res_spin_lock)
int res_lock_map_value_unlock_object(struct __sk_buff *skb)
{
	return crosswise(VALUE, OBJECT);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_in_object_alone)
__refused(different_res_spin_lock)
int res_lock_object_unlock_map_value(struct __sk_buff *skb)
{
	return crosswise(OBJECT, VALUE);
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int res_object_around_global(struct __sk_buff *skb)
{
	return nested(OBJECT, GLOBAL, GLOBAL, OBJECT);
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_object_around_global)
__refused(res_unlock_out_of_order)
int res_object_before_global_released_first(struct __sk_buff *skb)
{
	return nested(OBJECT, GLOBAL, OBJECT, GLOBAL);
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int res_object_around_inner_map(struct __sk_buff *skb)
{
	return nested(OBJECT, INNER, INNER, OBJECT);
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_object_around_inner_map)
__refused(res_unlock_out_of_order)
int res_object_before_inner_map_released_first(struct __sk_buff *skb)
{
	return nested(OBJECT, INNER, OBJECT, INNER);
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int res_global_around_map_value(struct __sk_buff *skb)
{
	return nested(GLOBAL, VALUE, VALUE, GLOBAL);
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_global_around_map_value)
__refused(res_unlock_out_of_order)
int res_global_before_map_value_released_first(struct __sk_buff *skb)
{
	return nested(GLOBAL, VALUE, GLOBAL, VALUE);
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int res_global_around_inner_map(struct __sk_buff *skb)
{
	return nested(GLOBAL, INNER, INNER, GLOBAL);
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_global_around_inner_map)
__refused(res_unlock_out_of_order)
int res_global_before_inner_map_released_first(struct __sk_buff *skb)
{
	return nested(GLOBAL, INNER, GLOBAL, INNER);
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int res_map_value_around_inner_map(struct __sk_buff *skb)
{
	return nested(VALUE, INNER, INNER, VALUE);
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_map_value_around_inner_map)
__refused(res_unlock_out_of_order)
int res_map_value_before_inner_map_released_first(struct __sk_buff *skb)
{
	return nested(VALUE, INNER, VALUE, INNER);
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int res_map_value_around_object(struct __sk_buff *skb)
{
	return nested(VALUE, OBJECT, OBJECT, VALUE);
}

SEC("tc") __rule("res_spin_locks nest, and are released innermost first") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_map_value_around_object)
__refused(res_unlock_out_of_order)
int res_map_value_before_object_released_first(struct __sk_buff *skb)
{
	return nested(VALUE, OBJECT, VALUE, OBJECT);
}
