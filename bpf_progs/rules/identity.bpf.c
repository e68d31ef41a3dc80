// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two locks that live in different kinds of places are two locks: a map's value, the value of an inner
 * map, a global variable and an allocated object. The verifier knows a lock by two things, where it
 * lives and which pointer means it; each pair of places differs in another of them.
 *
 * libbpf only: bcc has neither inner maps by name, nor variables, nor kernel functions.
 */
#include "kfuncs.h"
#include "joining_paths.h"

struct object {
	__u64 value;
	struct bpf_spin_lock lock;
};

MAP(HASH, counters, __u32, struct counter, 1)

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counter);
};
struct inner inner_map SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = { .values = { &inner_map } };

PRIVATE(lock) struct bpf_spin_lock global_lock;

enum place { VALUE, INNER, GLOBAL, OBJECT };

/* All four, and the object, which the program owns. */
struct places {
	struct counter *value, *inner;
	struct object *object;
};

static __always_inline struct bpf_spin_lock *lock_in(struct places *places, enum place place)
{
	return place == VALUE ? &places->value->lock :
	       place == INNER ? &places->inner->lock :
	       place == GLOBAL ? &global_lock : &places->object->lock;
}

static __always_inline int find(struct places *places)
{
	struct counter empty = {};
	__u32 key = 0;
	void *map;

	map_update(counters, &key, &empty);
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

/* Two sections: each releases what it took, or the first one releases the other's. */
static __always_inline int in_turn(enum place first, enum place second)
{
	struct places places;

	if (!find(&places))
		return 0;
	bpf_spin_lock(lock_in(&places, first));
	bpf_spin_unlock(lock_in(&places, first));
	bpf_spin_lock(lock_in(&places, second));
	bpf_spin_unlock(lock_in(&places, second));
	object_drop(places.object);
	return 1;
}

static __always_inline int crosswise(enum place taken, enum place released)
{
	struct places places;

	if (!find(&places))
		return 0;
	bpf_spin_lock(lock_in(&places, taken));
	bpf_spin_unlock(lock_in(&places, released));
	object_drop(places.object);
	return 1;
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(1)
int object_and_global_lock_in_turn(struct __sk_buff *skb)
{
	return in_turn(OBJECT, GLOBAL);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(object_and_global_lock_in_turn)
__refused(different_lock)
int lock_object_unlock_global(struct __sk_buff *skb)
{
	return crosswise(OBJECT, GLOBAL);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(object_and_global_lock_in_turn)
__refused(different_lock)
int lock_global_unlock_object(struct __sk_buff *skb)
{
	return crosswise(GLOBAL, OBJECT);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(1)
int object_and_inner_map_lock_in_turn(struct __sk_buff *skb)
{
	return in_turn(OBJECT, INNER);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(object_and_inner_map_lock_in_turn)
__refused(different_lock)
int lock_object_unlock_inner_map(struct __sk_buff *skb)
{
	return crosswise(OBJECT, INNER);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(object_and_inner_map_lock_in_turn)
__refused(different_lock)
int lock_inner_map_unlock_object(struct __sk_buff *skb)
{
	return crosswise(INNER, OBJECT);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(1)
int global_and_map_value_lock_in_turn(struct __sk_buff *skb)
{
	return in_turn(GLOBAL, VALUE);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(global_and_map_value_lock_in_turn)
__refused(different_lock)
int lock_global_unlock_map_value(struct __sk_buff *skb)
{
	return crosswise(GLOBAL, VALUE);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(global_and_map_value_lock_in_turn)
__refused(different_lock)
int lock_map_value_unlock_global(struct __sk_buff *skb)
{
	return crosswise(VALUE, GLOBAL);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(1)
int global_and_inner_map_lock_in_turn(struct __sk_buff *skb)
{
	return in_turn(GLOBAL, INNER);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(global_and_inner_map_lock_in_turn)
__refused(different_lock)
int lock_global_unlock_inner_map(struct __sk_buff *skb)
{
	return crosswise(GLOBAL, INNER);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(global_and_inner_map_lock_in_turn)
__refused(different_lock)
int lock_inner_map_unlock_global(struct __sk_buff *skb)
{
	return crosswise(INNER, GLOBAL);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(1)
int map_value_and_inner_map_lock_in_turn(struct __sk_buff *skb)
{
	return in_turn(VALUE, INNER);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(map_value_and_inner_map_lock_in_turn)
__refused(different_lock)
int lock_map_value_unlock_inner_map(struct __sk_buff *skb)
{
	return crosswise(VALUE, INNER);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(map_value_and_inner_map_lock_in_turn)
__refused(different_lock)
int lock_inner_map_unlock_map_value(struct __sk_buff *skb)
{
	return crosswise(INNER, VALUE);
}

/*
 * commit a44b1334aadd ("bpf: Allow calling static subprogs while holding a bpf_spin_lock") (in v6.9):
 * the subprogram knows its caller's lock by the pointer that it is handed.
 */
static __noinline int release(struct bpf_spin_lock *lock)
{
	bpf_spin_unlock(lock);
	return 0;
}

static __always_inline int subprogram_releases(enum place taken, enum place released)
{
	struct places places;

	if (!find(&places))
		return 0;
	bpf_spin_lock(lock_in(&places, taken));
	release(lock_in(&places, released));
	object_drop(places.object);
	return 1;
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(global_and_map_value_lock_in_turn)
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __success __retval(1)
int static_subprog_unlocks_map_value(struct __sk_buff *skb)
{
	return subprogram_releases(VALUE, VALUE);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(object_and_inner_map_lock_in_turn)
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __success __retval(1)
int static_subprog_unlocks_inner_map(struct __sk_buff *skb)
{
	return subprogram_releases(INNER, INNER);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(object_and_global_lock_in_turn)
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __success __retval(1)
int static_subprog_unlocks_global(struct __sk_buff *skb)
{
	return subprogram_releases(GLOBAL, GLOBAL);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(object_and_global_lock_in_turn)
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __success __retval(1)
int static_subprog_unlocks_object(struct __sk_buff *skb)
{
	return subprogram_releases(OBJECT, OBJECT);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(static_subprog_unlocks_map_value)
__kernel(">=6.9") __refused(different_lock)
int static_subprog_unlocks_inner_map_for_map_value(struct __sk_buff *skb)
{
	return subprogram_releases(VALUE, INNER);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(static_subprog_unlocks_inner_map)
__kernel(">=6.9") __refused(different_lock)
int static_subprog_unlocks_global_for_inner_map(struct __sk_buff *skb)
{
	return subprogram_releases(INNER, GLOBAL);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(static_subprog_unlocks_global)
__kernel(">=6.9") __refused(different_lock)
int static_subprog_unlocks_object_for_global(struct __sk_buff *skb)
{
	return subprogram_releases(GLOBAL, OBJECT);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(static_subprog_unlocks_object)
__kernel(">=6.9") __refused(different_lock)
int static_subprog_unlocks_map_value_for_object(struct __sk_buff *skb)
{
	return subprogram_releases(OBJECT, VALUE);
}

/* A callback finds the pointers on its caller's stack. */
struct context {
	struct bpf_spin_lock *taken, *released;
	int done;
};

static long lock_and_unlock(__u32 turn, struct context *context)
{
	bpf_spin_lock(context->taken);
	bpf_spin_unlock(context->released);
	context->done = 1;
	return 0;
}

static __always_inline int in_callback(enum place taken, enum place released)
{
	struct context context = {};
	struct places places;

	if (!find(&places))
		return 0;
	context.taken = lock_in(&places, taken);
	context.released = lock_in(&places, released);
	bpf_loop(1, lock_and_unlock, &context, 0);
	object_drop(places.object);
	return context.done;
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(1)
int callback_locks_map_value(struct __sk_buff *skb)
{
	return in_callback(VALUE, VALUE);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(1)
int callback_locks_inner_map(struct __sk_buff *skb)
{
	return in_callback(INNER, INNER);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(1)
int callback_locks_global(struct __sk_buff *skb)
{
	return in_callback(GLOBAL, GLOBAL);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(1)
int callback_locks_object(struct __sk_buff *skb)
{
	return in_callback(OBJECT, OBJECT);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(callback_locks_inner_map)
__refused(different_lock)
int callback_locks_inner_map_unlocks_map_value(struct __sk_buff *skb)
{
	return in_callback(INNER, VALUE);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(callback_locks_global)
__refused(different_lock)
int callback_locks_global_unlocks_inner_map(struct __sk_buff *skb)
{
	return in_callback(GLOBAL, INNER);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(callback_locks_object)
__refused(different_lock)
int callback_locks_object_unlocks_global(struct __sk_buff *skb)
{
	return in_callback(OBJECT, GLOBAL);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(callback_locks_map_value)
__refused(different_lock)
int callback_locks_map_value_unlocks_object(struct __sk_buff *skb)
{
	return in_callback(VALUE, OBJECT);
}

/*
 * Paths that join: on the one that is walked first the pointer means the lock that was taken, on
 * the second the other one.
 */
static __always_inline int joined(struct __sk_buff *skb, enum place taken, enum place other)
{
	struct bpf_spin_lock *a, *held, *b;
	__u32 mark = skb->mark;
	struct places places;

	if (!find(&places))
		return 0;
	a = held = lock_in(&places, taken);
	b = lock_in(&places, other);
	bpf_spin_lock(a);
	REPLACE_ON_STACK_IF(mark, held, b);
	bpf_spin_unlock(held);
	object_drop(places.object);
	return 1;
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(1)
int map_value_lock_on_two_paths(struct __sk_buff *skb)
{
	return joined(skb, VALUE, VALUE);
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(1)
int inner_map_lock_on_two_paths(struct __sk_buff *skb)
{
	return joined(skb, INNER, INNER);
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(1)
int global_lock_on_two_paths(struct __sk_buff *skb)
{
	return joined(skb, GLOBAL, GLOBAL);
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(1)
int object_lock_on_two_paths(struct __sk_buff *skb)
{
	return joined(skb, OBJECT, OBJECT);
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(map_value_lock_on_two_paths)
__refused(different_lock)
int inner_map_lock_for_map_value_on_second_path(struct __sk_buff *skb)
{
	return joined(skb, VALUE, INNER);
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(inner_map_lock_on_two_paths)
__refused(different_lock)
int map_value_lock_for_inner_map_on_second_path(struct __sk_buff *skb)
{
	return joined(skb, INNER, VALUE);
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(map_value_lock_on_two_paths)
__refused(different_lock)
int global_lock_for_map_value_on_second_path(struct __sk_buff *skb)
{
	return joined(skb, VALUE, GLOBAL);
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(global_lock_on_two_paths)
__refused(different_lock)
int inner_map_lock_for_global_on_second_path(struct __sk_buff *skb)
{
	return joined(skb, GLOBAL, INNER);
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(global_lock_on_two_paths)
__refused(different_lock)
int object_lock_for_global_on_second_path(struct __sk_buff *skb)
{
	return joined(skb, GLOBAL, OBJECT);
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(object_lock_on_two_paths)
__refused(different_lock)
int inner_map_lock_for_object_on_second_path(struct __sk_buff *skb)
{
	return joined(skb, OBJECT, INNER);
}
