// SPDX-License-Identifier: GPL-2.0-only
/*
 * Locks in allocated objects: what bpf_obj_new() returns may hold a lock as a map's value may. The
 * verifier knows the object by its type and the pointer by an id of its own, so the rules of maps
 * hold here too, with texts of their own where no map is there to be named.
 *
 * libbpf only, as all that calls kernel functions (kfuncs.h).
 */
#include "kfuncs.h"

struct object {
	__u64 value;
	struct bpf_spin_lock lock;
};

struct unlocked {
	__u64 value;
	__u32 word;
};

MAP(ARRAY, counters, __u32, struct counter, 1)

/*
 * Rule: An allocated object's lock is locked like a map value's
 * Topic: Allocated objects
 * An object of a struct type of the program's own may hold one lock. Whoever holds the only
 * pointer to it hardly needs that; it is for objects that maps, lists and trees share.
 * commit 4e814da0d599 ("bpf: Allow locking bpf_spin_lock in allocated objects") (in v6.2)
 * commit 958cf2e273f0 ("bpf: Introduce bpf_obj_new") (in v6.2)
 */

SEC("tc") __rule("An allocated object's lock is locked like a map value's") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(7)
int lock_object(struct __sk_buff *skb)
{
	struct object *o = object_new(struct object);
	__u32 value;

	if (!o)
		return 0;
	bpf_spin_lock(&o->lock);
	o->value = 7;
	value = o->value;
	bpf_spin_unlock(&o->lock);
	object_drop(o);
	return value;
}

SEC("tc") __rule("An allocated object's lock is locked like a map value's") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(lock_object) __failure __errno(EACCES)
__msg("type=ptr_or_null_ expected=map_value, ptr_")
__description("the object may be NULL")
int lock_object_without_null_check(struct __sk_buff *skb)
{
	struct object *o = object_new(struct object);
	void *lock = o;

	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	if (!o)
		return 0;
	object_drop(o);
	return 1;
}

SEC("tc") __rule("An allocated object's lock is locked like a map value's") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(lock_object) __refused(no_lock_in_object)
int lock_object_without_lock(struct __sk_buff *skb)
{
	struct unlocked *o = object_new(struct unlocked);

	if (!o)
		return 0;
	bpf_spin_lock((void *)&o->word);
	o->value = 7;
	bpf_spin_unlock((void *)&o->word);
	object_drop(o);
	return 7;
}

SEC("tc") __rule("An allocated object's lock is locked like a map value's") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(lock_object) __failure __errno(EINVAL)
__msg("off 0 doesn't point to 'struct bpf_spin_lock' that is at 8")
int lock_object_at_wrong_offset(struct __sk_buff *skb)
{
	struct object *o = object_new(struct object);

	if (!o)
		return 0;
	bpf_spin_lock((void *)o);
	bpf_spin_unlock((void *)o);
	object_drop(o);
	return 1;
}

/* A map's text on the constant offset is not reached: no call takes such a pointer to an object. */
SEC("tc") __rule("An allocated object's lock is locked like a map value's") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(lock_object) __failure __errno(EACCES)
__msg("variable ptr_ access var_off=")
int lock_object_at_variable_offset(struct __sk_buff *skb)
{
	struct object *o = object_new(struct object);
	__u64 offset = skb->mark & 8;
	void *lock;

	if (!o)
		return 0;
	lock = (void *)o + offset;
	barrier_var(lock);
	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	object_drop(o);
	return 1;
}

SEC("tc") __rule("An allocated object's lock is locked like a map value's") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(lock_object) __failure __errno(EACCES)
__msg("type=scalar expected=map_value, ptr_")
int lock_dropped_object(struct __sk_buff *skb)
{
	struct object *o = object_new(struct object);
	struct bpf_spin_lock *lock;

	if (!o)
		return 0;
	lock = &o->lock;
	barrier_var(lock);
	object_drop(o);
	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	return 1;
}

/* The object holds what its map's value holds. */
SEC("tc") __rule("No unlock without a lock") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(lock_object) __refused(unlock_without_lock)
int unlock_object_without_lock(struct __sk_buff *skb)
{
	struct object *o = object_new(struct object);

	if (!o)
		return 0;
	bpf_spin_unlock(&o->lock);
	object_drop(o);
	return 1;
}

SEC("tc") __rule("Unlock before return, on every path") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(lock_object)
__description("an object is dropped with its lock held: that is a call") __refused(call_under_lock)
int drop_locked_object(struct __sk_buff *skb)
{
	struct object *o = object_new(struct object);

	if (!o)
		return 0;
	bpf_spin_lock(&o->lock);
	object_drop(o);
	return 1;
}

/*
 * That the object leaks as well is found second, and third that the lock is still held, because
 * before v6.13 references were checked first.
 */
SEC("tc") __rule("Unlock before return, on every path") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(lock_object) __refused(missing_unlock)
int return_with_object_locked(struct __sk_buff *skb)
{
	struct object *o = object_new(struct object);

	if (!o)
		return 0;
	bpf_spin_lock(&o->lock);
	o->value = 7;
	return 1;
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(3)
int two_objects_in_turn(struct __sk_buff *skb)
{
	struct object *a, *b;
	__u32 sum;

	a = object_new(struct object);
	if (!a)
		return 0;
	b = object_new(struct object);
	if (!b) {
		object_drop(a);
		return 0;
	}
	bpf_spin_lock(&a->lock);
	a->value = 1;
	bpf_spin_unlock(&a->lock);
	bpf_spin_lock(&b->lock);
	b->value = 2;
	bpf_spin_unlock(&b->lock);
	sum = a->value + b->value;
	object_drop(a);
	object_drop(b);
	return sum;
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(two_objects_in_turn) __refused(different_lock)
int unlock_of_other_object(struct __sk_buff *skb)
{
	struct object *a, *b;
	__u32 sum;

	a = object_new(struct object);
	if (!a)
		return 0;
	b = object_new(struct object);
	if (!b) {
		object_drop(a);
		return 0;
	}
	bpf_spin_lock(&a->lock);
	a->value = 1;
	bpf_spin_unlock(&b->lock);
	sum = a->value;
	object_drop(a);
	object_drop(b);
	return sum;
}

SEC("tc") __rule("One lock at a time") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(two_objects_in_turn) __refused(call_under_lock)
int lock_two_objects(struct __sk_buff *skb)
{
	struct object *a, *b;

	a = object_new(struct object);
	if (!a)
		return 0;
	b = object_new(struct object);
	if (!b) {
		object_drop(a);
		return 0;
	}
	bpf_spin_lock(&a->lock);
	bpf_spin_lock(&b->lock);
	b->value = 1;
	bpf_spin_unlock(&b->lock);
	bpf_spin_unlock(&a->lock);
	object_drop(a);
	object_drop(b);
	return 1;
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(8)
int object_and_map_value_in_turn(struct __sk_buff *skb)
{
	__u32 key = 0, sum;
	struct counter *c = map_lookup(counters, &key);
	struct object *o;

	if (!c)
		return 0;
	o = object_new(struct object);
	if (!o)
		return 0;
	bpf_spin_lock(&o->lock);
	o->value = 7;
	bpf_spin_unlock(&o->lock);
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	sum = o->value + c->value;
	object_drop(o);
	return sum;
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(object_and_map_value_in_turn) __refused(different_lock)
int lock_object_unlock_map_value(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	struct object *o;

	if (!c)
		return 0;
	o = object_new(struct object);
	if (!o)
		return 0;
	bpf_spin_lock(&o->lock);
	o->value = 7;
	bpf_spin_unlock(&c->lock);
	object_drop(o);
	return 1;
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(object_and_map_value_in_turn) __refused(different_lock)
int lock_map_value_unlock_object(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	struct object *o;

	if (!c)
		return 0;
	o = object_new(struct object);
	if (!o)
		return 0;
	bpf_spin_lock(&c->lock);
	o->value = 7;
	bpf_spin_unlock(&o->lock);
	object_drop(o);
	return 1;
}

/*
 * Rule: An allocated object's lock is no memory to read or write
 * Topic: Allocated objects
 * What stands beside the lock is the program's own; the lock's word is not, to no instruction.
 * commit 4e814da0d599 ("bpf: Allow locking bpf_spin_lock in allocated objects") (in v6.2)
 * commit 282de143ead9 ("bpf: Introduce allocated objects support") (in v6.2)
 */

SEC("tc") __rule("An allocated object's lock is no memory to read or write") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(3)
int use_memory_beside_objects_lock(struct __sk_buff *skb)
{
	struct object *o = object_new(struct object);
	__u32 value;

	if (!o)
		return 0;
	WRITE_ONCE(o->value, 1);
	__sync_fetch_and_add(&o->value, 2);
	value = *(volatile __u32 *)&o->value;
	object_drop(o);
	return value;
}

/*
 * Refusal: object_lock_accessed
 * EACCES "direct access to bpf_spin_lock is disallowed"
 * A load or store that touches the lock of an allocated object.
 */

SEC("tc") __rule("An allocated object's lock is no memory to read or write") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(use_memory_beside_objects_lock)
__refused(object_lock_accessed)
int read_objects_lock(struct __sk_buff *skb)
{
	struct object *o = object_new(struct object);
	__u32 value;

	if (!o)
		return 0;
	value = *(volatile __u32 *)&o->lock;
	object_drop(o);
	return value;
}

SEC("tc") __rule("An allocated object's lock is no memory to read or write") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(use_memory_beside_objects_lock)
__refused(object_lock_accessed)
int write_objects_lock(struct __sk_buff *skb)
{
	struct object *o = object_new(struct object);

	if (!o)
		return 0;
	*(volatile __u32 *)&o->lock = 1;
	object_drop(o);
	return 1;
}

SEC("tc") __rule("An allocated object's lock is no memory to read or write") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(use_memory_beside_objects_lock)
__refused(object_lock_accessed)
int write_last_byte_of_objects_lock(struct __sk_buff *skb)
{
	struct object *o = object_new(struct object);

	if (!o)
		return 0;
	*((volatile __u8 *)&o->lock + 3) = 1;
	object_drop(o);
	return 1;
}

SEC("tc") __rule("An allocated object's lock is no memory to read or write") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(use_memory_beside_objects_lock)
__refused(object_lock_accessed)
int add_to_objects_lock(struct __sk_buff *skb)
{
	struct object *o = object_new(struct object);

	if (!o)
		return 0;
	__sync_fetch_and_add((__u32 *)&o->lock, 1);
	object_drop(o);
	return 1;
}

/* The kernel looks after the node as well: the lock is not the first such field. */
struct linked {
	struct bpf_list_node node;
	__u64 value;
	struct bpf_spin_lock lock;
};

SEC("tc") __rule("An allocated object's lock is no memory to read or write") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(3)
int use_memory_beside_objects_lock_and_node(struct __sk_buff *skb)
{
	struct linked *o = object_new(struct linked);
	__u32 value;

	if (!o)
		return 0;
	WRITE_ONCE(o->value, 1);
	__sync_fetch_and_add(&o->value, 2);
	value = *(volatile __u32 *)&o->value;
	object_drop(o);
	return value;
}

SEC("tc") __rule("An allocated object's lock is no memory to read or write") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(use_memory_beside_objects_lock_and_node)
__refused(object_lock_accessed)
int read_objects_lock_behind_node(struct __sk_buff *skb)
{
	struct linked *o = object_new(struct linked);
	__u32 value;

	if (!o)
		return 0;
	value = *(volatile __u32 *)&o->lock;
	object_drop(o);
	return value;
}

SEC("tc") __rule("An allocated object's lock is no memory to read or write") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(use_memory_beside_objects_lock_and_node)
__refused(object_lock_accessed)
int write_objects_lock_behind_node(struct __sk_buff *skb)
{
	struct linked *o = object_new(struct linked);

	if (!o)
		return 0;
	*(volatile __u32 *)&o->lock = 0;
	object_drop(o);
	return 3;
}

/*
 * commit 7c50b1cb76ac ("bpf: Add bpf_refcount_acquire kfunc") (in v6.4): two pointers to one object
 * are two identities, as are two lookups of one key.
 */
struct shared {
	__u64 value;
	struct bpf_spin_lock lock;
	struct bpf_refcount references;
};

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_refcount_acquire_impl, "6.4") __success __retval(2)
int two_references_in_turn(struct __sk_buff *skb)
{
	struct shared *a, *b;
	__u32 value;

	a = object_new(struct shared);
	if (!a)
		return 0;
	b = object_acquire(a);
	bpf_spin_lock(&a->lock);
	a->value = 1;
	bpf_spin_unlock(&a->lock);
	bpf_spin_lock(&b->lock);
	b->value++;
	bpf_spin_unlock(&b->lock);
	value = b->value;
	object_drop(a);
	object_drop(b);
	return value;
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_refcount_acquire_impl, "6.4") __twin(two_references_in_turn) __refused(different_lock)
int unlock_through_other_reference(struct __sk_buff *skb)
{
	struct shared *a, *b;
	__u32 value;

	a = object_new(struct shared);
	if (!a)
		return 0;
	b = object_acquire(a);
	bpf_spin_lock(&a->lock);
	a->value = 1;
	bpf_spin_unlock(&b->lock);
	value = b->value;
	object_drop(a);
	object_drop(b);
	return value;
}

static __always_inline int two_acquired(int right)
{
	struct shared *a, *b, *acquired_a, *acquired_b;
	__u32 value;

	a = object_new(struct shared);
	if (!a)
		return 0;
	b = object_new(struct shared);
	if (!b) {
		object_drop(a);
		return 0;
	}
	acquired_a = object_acquire(a);
	acquired_b = object_acquire(b);
	bpf_spin_lock(&acquired_a->lock);
	acquired_a->value = 1;
	bpf_spin_unlock(right ? &acquired_a->lock : &acquired_b->lock);
	value = a->value;
	object_drop(a);
	object_drop(b);
	object_drop(acquired_a);
	object_drop(acquired_b);
	return value;
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_refcount_acquire_impl, "6.4") __success __retval(1)
int lock_one_of_two_acquired_objects(struct __sk_buff *skb)
{
	return two_acquired(1);
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(bpf_refcount_acquire_impl, "6.4") __twin(lock_one_of_two_acquired_objects)
__refused(different_lock)
int unlock_of_other_acquired_object(struct __sk_buff *skb)
{
	return two_acquired(0);
}

/* bpf_refcount_acquire() is among the few functions that may be called with a lock held. */
SEC("tc") __rule("Lists and trees are changed under the lock by these functions") __loader(libbpf)
__needs(bpf_refcount_acquire_impl, "6.4") __success __retval(1)
int acquire_under_lock(struct __sk_buff *skb)
{
	struct shared *a, *b;

	a = object_new(struct shared);
	if (!a)
		return 0;
	bpf_spin_lock(&a->lock);
	b = object_acquire(a);
	bpf_spin_unlock(&a->lock);
	object_drop(a);
	object_drop(b);
	return 1;
}

/*
 * Rule: No lock in a per-CPU object
 * Topic: Allocated objects
 * bpf_percpu_obj_new() takes structs of scalars only, as per-CPU maps take no lock.
 * commit 36d8bdf75a93 ("bpf: Add alloc/xchg/direct_access support for local percpu kptr") (in v6.7)
 */
struct scalars {
	__u64 value;
	__u32 word;
};

SEC("tc") __rule("No lock in a per-CPU object") __loader(libbpf)
__needs(bpf_percpu_obj_new_impl, "6.7") __success __retval(1)
int percpu_object_without_lock(struct __sk_buff *skb)
{
	struct scalars *o = percpu_object_new(struct scalars);

	if (!o)
		return 1;
	percpu_object_drop(o);
	return 1;
}

SEC("tc") __rule("No lock in a per-CPU object") __loader(libbpf)
__needs(bpf_percpu_obj_new_impl, "6.7") __twin(percpu_object_without_lock) __failure __errno(EINVAL)
__msg("bpf_percpu_obj_new type ID argument must not contain special fields")
int percpu_object_with_lock(struct __sk_buff *skb)
{
	struct object *o = percpu_object_new(struct object);

	if (!o)
		return 1;
	percpu_object_drop(o);
	return 1;
}

/*
 * Rule: One call drops objects of one type
 * Topic: Allocated objects
 * The verifier notes with the call what the kernel must look after when it frees the object, its
 * lists and the offset of their lock. Where two branches bring objects of two types to one
 * call, the note is that of the branch looked at last, for both: an object is then freed as what it
 * is not. A list's lock is looked for in the wrong place, and the CPU was seen to spin there for
 * ever with interrupts off. Compilers join calls at the end of two branches.
 * commit ac9f06050a35 ("bpf: Introduce bpf_obj_drop") (in v6.2)
 */

struct chained {
	struct bpf_list_node node;
	__u64 value;
};

struct chain {
	struct bpf_spin_lock lock;
	struct bpf_list_head head __contains(chained, node);
};

SEC("tc") __rule("One call drops objects of one type") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(1)
int drop_two_types_by_two_calls(struct __sk_buff *skb)
{
	struct chained *i = object_new(struct chained);
	struct chain *c;

	if (!i)
		return 0;
	c = object_new(struct chain);
	if (c)
		object_drop(c);
	object_drop(i);
	return 1;
}

/* No kernel refuses it yet; the commit is the one that made bpf_obj_drop(). It must not run. */
SEC("tc") __rule("One call drops objects of one type") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __known_bug("ac9f06050a35", ">=6.2")
__twin(drop_two_types_by_two_calls) __failure __errno(EINVAL)
int drop_two_types_by_one_call(struct __sk_buff *skb)
{
	struct chained *i = object_new(struct chained);
	struct chain *c;
	void *dropped = i;

	if (!i)
		return 0;
	c = object_new(struct chain);
	if (c) {
		object_drop(i);
		dropped = c;
	}
	bpf_obj_drop_impl(dropped, 0);
	return 1;
}

/* The record of a type is made for every struct in the BTF, whether a map or an object uses it. */
#if UNIT(object_with_two_locks)
struct two_lock_object {
	struct bpf_spin_lock first;
	struct bpf_spin_lock second;
};

SEC("tc") __rule("One lock per value") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(lock_object) __failure __stage(btf_load) __errno(E2BIG)
int object_with_two_locks(struct __sk_buff *skb)
{
	struct two_lock_object *o = object_new(struct two_lock_object);

	if (!o)
		return 0;
	bpf_spin_lock(&o->first);
	bpf_spin_unlock(&o->first);
	object_drop(o);
	return 1;
}
#endif
