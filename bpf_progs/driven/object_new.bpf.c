// SPDX-License-Identifier: GPL-2.0-only
/*
 * New objects in memory that other objects used before. Driven and judged by
 * tests/lock/serialization/test_new_object.py.
 *
 * libbpf only, as all that calls kernel functions (kfuncs.h).
 */
#include "kfuncs.h"

#define OBJECTS 16 /* of each kind, in one run */
#define MARK 0x6b72616d /* what nobody but `mark` writes */

/* Structs of one size, for which the kernel uses the same memory. */
struct marked {
	__u32 held; /* as a lock that is held, to the processor */
	__u32 mark;
	__u64 more;
};

struct object {
	struct bpf_spin_lock lock;
	__u32 mark;
	__u64 more;
};

/* The kernel recognizes such a lock in an object only beside another special field. */
struct res_spin_lock_object {
	struct bpf_res_spin_lock lock;
	__u32 mark;
	struct bpf_refcount references;
	__u32 more;
};

/* Return 0, or -1 without memory. */
static __always_inline int leave_marked_memory(void)
{
	struct marked *m;
	__u32 number;

	for (number = 0; number < OBJECTS; number++) {
		m = object_new(struct marked);
		if (!m)
			return -1;
		WRITE_ONCE(m->held, 1);
		WRITE_ONCE(m->mark, MARK);
		object_drop(m);
	}
	return 0;
}

/*
 * Lock new objects. Return the number of them in marked memory: bytes outside of special fields keep
 * their old content. Return -1 without memory.
 */
SEC("tc")
int lock_new_objects(struct __sk_buff *skb)
{
	__u32 number, used = 0;
	struct object *o;

	if (leave_marked_memory())
		return -1;
	for (number = 0; number < OBJECTS; number++) {
		o = object_new(struct object);
		if (!o)
			return -1;
		if (READ_ONCE(o->mark) == MARK)
			used++;
		bpf_spin_lock(&o->lock);
		o->mark = 0;
		bpf_spin_unlock(&o->lock);
		object_drop(o);
	}
	return used;
}

/* The same with a bpf_res_spin_lock. Return -2 if one was not free. */
SEC("tc")
int lock_new_res_spin_lock_objects(struct __sk_buff *skb)
{
	struct res_spin_lock_object *o;
	__u32 number, used = 0;

	if (leave_marked_memory())
		return -1;
	for (number = 0; number < OBJECTS; number++) {
		o = object_new(struct res_spin_lock_object);
		if (!o)
			return -1;
		if (READ_ONCE(o->mark) == MARK)
			used++;
		if (bpf_res_spin_lock(&o->lock)) {
			object_drop(o);
			return -2;
		}
		o->mark = 0;
		bpf_res_spin_unlock(&o->lock);
		object_drop(o);
	}
	return used;
}
