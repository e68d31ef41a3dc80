// SPDX-License-Identifier: GPL-2.0-only
/*
 * Allocated objects and calls: they are made and dropped outside the section; a pointer in a map's
 * value may be exchanged in it.
 *
 * libbpf only, as all that calls kernel functions (kfuncs.h).
 */
#include "kfuncs.h"

struct object {
	__u64 value;
	struct bpf_spin_lock lock;
};

/* The name without "struct" is for clang 14, which loses a tag between that and the asterisk. */
typedef struct object object_t;

struct stash {
	struct bpf_spin_lock lock;
	object_t __kptr *object;
};

struct res_spin_lock_stash {
	struct bpf_res_spin_lock lock;
	object_t __kptr *object;
};

MAP(ARRAY, counters, __u32, struct counter, 1)
MAP(ARRAY, stashes, __u32, struct stash, 1)
MAP(ARRAY, res_spin_lock_stashes, __u32, struct res_spin_lock_stash, 1)

/*
 * Rule: Allocation and release are calls, hence not under the lock
 * Topic: Allocated objects
 * No object is made or dropped with a lock held: what a section takes from a list or tree is dropped
 * after it.
 * commit 958cf2e273f0 ("bpf: Introduce bpf_obj_new") (in v6.2)
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 */

SEC("tc") __rule("Allocation and release are calls, hence not under the lock") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(1)
int allocate_before_and_drop_after(struct __sk_buff *skb)
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
	c->value++;
	bpf_spin_unlock(&c->lock);
	object_drop(o);
	return c->value;
}

SEC("tc") __rule("Allocation and release are calls, hence not under the lock") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(allocate_before_and_drop_after) __refused(call_under_lock)
int allocate_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	struct object *o;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	o = object_new(struct object);
	c->value++;
	bpf_spin_unlock(&c->lock);
	if (!o)
		return 0;
	object_drop(o);
	return c->value;
}

SEC("tc") __rule("Allocation and release are calls, hence not under the lock") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(allocate_before_and_drop_after) __refused(call_under_lock)
int drop_under_lock(struct __sk_buff *skb)
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
	c->value++;
	object_drop(o);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/*
 * Rule: bpf_kptr_xchg() may be called under the lock
 * Topic: Allocated objects
 * It swaps one word and calls nothing, so that a pointer in a map's value and what the lock guards
 * beside it can be changed as one. It is the only helper but for bpf_spin_unlock().
 * commit 964c0747686a ("bpf: allow calling bpf_kptr_xchg while holding a lock") (in v7.1)
 */

SEC("tc") __rule("bpf_kptr_xchg() may be called under the lock") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __success __retval(7)
int stash_object_and_lock_it(struct __sk_buff *skb)
{
	__u32 key = 0, value;
	struct stash *s = map_lookup(stashes, &key);
	struct object *o, *old;

	if (!s)
		return 0;
	o = object_new(struct object);
	if (!o)
		return 0;
	o->value = 7;
	old = bpf_kptr_xchg(&s->object, o);
	if (old)
		object_drop(old);
	o = bpf_kptr_xchg(&s->object, 0);
	if (!o)
		return 0;
	bpf_spin_lock(&o->lock);
	value = o->value;
	bpf_spin_unlock(&o->lock);
	object_drop(o);
	return value;
}

SEC("tc") __rule("bpf_kptr_xchg() may be called under the lock") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(stash_object_and_lock_it)
__kernel("<7.1") __refused(call_under_lock)
__kernel(">=7.1") __success __retval(7)
int stash_object_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0, value;
	struct stash *s = map_lookup(stashes, &key);
	struct object *o, *old;

	if (!s)
		return 0;
	o = object_new(struct object);
	if (!o)
		return 0;
	o->value = 7;
	bpf_spin_lock(&s->lock);
	old = bpf_kptr_xchg(&s->object, o);
	bpf_spin_unlock(&s->lock);
	if (old)
		object_drop(old);
	o = bpf_kptr_xchg(&s->object, 0);
	if (!o)
		return 0;
	value = o->value;
	object_drop(o);
	return value;
}

SEC("tc") __rule("bpf_kptr_xchg() may be called under the lock") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(stash_object_and_lock_it)
__kernel("<7.1") __refused(call_under_lock)
__kernel(">=7.1") __success __retval(7)
int stash_object_under_res_lock(struct __sk_buff *skb)
{
	__u32 key = 0, value;
	struct res_spin_lock_stash *s = map_lookup(res_spin_lock_stashes, &key);
	struct object *o;

	if (!s)
		return 0;
	o = object_new(struct object);
	if (!o)
		return 0;
	o->value = 7;
	if (!bpf_res_spin_lock(&s->lock)) {
		o = bpf_kptr_xchg(&s->object, o);
		bpf_res_spin_unlock(&s->lock);
	}
	if (o)
		object_drop(o);
	o = bpf_kptr_xchg(&s->object, 0);
	if (!o)
		return 0;
	value = o->value;
	object_drop(o);
	return value;
}

/* A stashed object that is only looked at is not the program's, and may be freed meanwhile. */
SEC("tc") __rule("An allocated object's lock is locked like a map value's") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(stash_object_and_lock_it) __failure __errno(EACCES)
__msg("expected=map_value, ptr_")
int lock_object_in_its_stash(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct stash *s = map_lookup(stashes, &key);
	struct object *o;

	if (!s)
		return 0;
	o = s->object;
	if (!o)
		return 0;
	bpf_spin_lock(&o->lock);
	bpf_spin_unlock(&o->lock);
	return 1;
}

/*
 * A program that may sleep sees a pointer in a map's value protected from being freed only in an RCU
 * section; and a region is one. Without, it may read what the pointer leads to, but not write.
 * commit 5861d1e8dbc4 ("bpf: Allow bpf_spin_{lock,unlock} in sleepable progs") (in v6.6); as old
 * as arenas, by whose function's name the kernels are told, at least.
 */
#define BEFORE 0
#define UNDER 1
#define AFTER 2

static __always_inline int write_stashed_object(int read, int write)
{
	__u32 key = 0;
	struct stash *s = map_lookup(stashes, &key);
	struct object *o;

	if (!s)
		return 0;
	o = object_new(struct object);
	if (!o)
		return 0;
	o = bpf_kptr_xchg(&s->object, o);
	if (o)
		object_drop(o);
	if (read == BEFORE)
		o = READ_ONCE(s->object);
	bpf_spin_lock(&s->lock);
	if (read == UNDER)
		o = READ_ONCE(s->object);
	if (write == UNDER && o)
		o->value = 7;
	bpf_spin_unlock(&s->lock);
	if (write == AFTER && o)
		o->value = 7;
	return 1;
}

SEC("syscall") __rule("Sleepable programs may lock") __loader(libbpf)
__needs(bpf_arena_alloc_pages, "6.9") __success __retval(1)
int syscall_program_writes_stashed_object_under_lock(void *ctx)
{
	return write_stashed_object(UNDER, UNDER);
}

/*
 * Refusal: object_read_only
 * EACCES "only read is supported"
 * A write to an object that the program does not own.
 */

SEC("syscall") __rule("Sleepable programs may lock") __loader(libbpf)
__needs(bpf_arena_alloc_pages, "6.9") __twin(syscall_program_writes_stashed_object_under_lock)
__refused(object_read_only)
int syscall_program_writes_object_read_before_lock(void *ctx)
{
	return write_stashed_object(BEFORE, UNDER);
}

/*
 * commit 180c7000712d ("bpf: Invalidate RCU pointers after final spin unlock") (in v7.3); Debian's
 * v7.2.12 has it as well.
 */
SEC("syscall") __rule("Sleepable programs may lock") __loader(libbpf)
__needs(bpf_arena_alloc_pages, "6.9") __known_bug("180c7000712d", ">=6.9,<7.2")
__twin(syscall_program_writes_stashed_object_under_lock)
__description("the pointer was read under the lock and is used after it")
__refused(object_read_only)
int syscall_program_writes_stashed_object_after_unlock(void *ctx)
{
	return write_stashed_object(UNDER, AFTER);
}

static __always_inline int write_object_of_res_spin_lock_stash(int write)
{
	__u32 key = 0;
	struct res_spin_lock_stash *s = map_lookup(res_spin_lock_stashes, &key);
	struct object *o;

	if (!s)
		return 0;
	o = object_new(struct object);
	if (!o)
		return 0;
	o = bpf_kptr_xchg(&s->object, o);
	if (o)
		object_drop(o);
	if (bpf_res_spin_lock(&s->lock))
		return 0;
	o = READ_ONCE(s->object);
	if (write == UNDER && o)
		o->value = 7;
	bpf_res_spin_unlock(&s->lock);
	if (write == AFTER && o)
		o->value = 7;
	return 1;
}

SEC("syscall") __rule("Sleepable programs may lock") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int syscall_program_writes_stashed_object_under_res_lock(void *ctx)
{
	return write_object_of_res_spin_lock_stash(UNDER);
}

SEC("syscall") __rule("Sleepable programs may lock") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __known_bug("180c7000712d", ">=6.15,<7.2")
__twin(syscall_program_writes_stashed_object_under_res_lock) __refused(object_read_only)
int syscall_program_writes_stashed_object_after_res_unlock(void *ctx)
{
	return write_object_of_res_spin_lock_stash(AFTER);
}

static __noinline int add_one(struct counter *c)
{
	return ++c->value;
}

/*
 * commit a44b1334aadd ("bpf: Allow calling static subprogs while holding a bpf_spin_lock") (in v6.9)
 */
SEC("tc") __rule("An allocated object's lock is locked like a map value's") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(lock_object)
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __success __retval(1)
int call_subprogram_with_object_locked(struct __sk_buff *skb)
{
	__u32 key = 0, value;
	struct counter *c = map_lookup(counters, &key);
	struct object *o;

	if (!c)
		return 0;
	o = object_new(struct object);
	if (!o)
		return 0;
	bpf_spin_lock(&o->lock);
	value = add_one(c);
	bpf_spin_unlock(&o->lock);
	object_drop(o);
	return value;
}
