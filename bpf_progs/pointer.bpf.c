// SPDX-License-Identifier: GPL-2.0-only
/*
 * What may be handed to bpf_spin_lock(): the address of the lock in a map's value, which the
 * verifier knows to the byte. commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1).
 *
 * Refusals of a pointer's kind were always EACCES; those of its offset and of its map come from the
 * code that commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record")
 * (in v6.2) rewrote, which changed EACCES into EINVAL.
 */
#include "spinlock.h"

struct late_lock {
	__u64 value;
	__u64 address;
	struct bpf_spin_lock lock;
};

struct no_lock {
	__u32 lock;
	__u32 value;
};

MAP(ARRAY, counters, __u32, struct counter, 2)
MAP(HASH, table, __u32, struct counter, 4)
MAP(HASH, late_table, __u32, struct late_lock, 4)
MAP(ARRAY, without_lock, __u32, struct no_lock, 1)

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__success __retval(1)
int lock_in_value(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value) __failure __errno(EACCES) __msg("type=fp expected=map_value")
int lock_on_stack(struct __sk_buff *skb)
{
	struct counter on_stack = {};
	struct counter *c = &on_stack;

	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value) __failure __errno(EACCES) __msg("type=ctx expected=map_value")
int lock_in_ctx(struct __sk_buff *skb)
{
	struct counter *c = (void *)skb;

	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return 1;
}

/* That a helper may not have the packet at all is found before what it would do with it. */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value) __failure __errno(EACCES)
__msg("helper access to the packet is not allowed")
int lock_in_packet(struct __sk_buff *skb)
{
	struct counter *c = (void *)(long)skb->data;

	if ((void *)(c + 1) > (void *)(long)skb->data_end)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("xdp") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__success __retval(1)
int lock_in_value_xdp(struct xdp_md *ctx)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("xdp") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value_xdp) __failure __errno(EACCES)
__msg("helper access to the packet is not allowed")
int lock_in_packet_xdp(struct xdp_md *ctx)
{
	struct counter *c = (void *)(long)ctx->data;

	if ((void *)(c + 1) > (void *)(long)ctx->data_end)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/* A number is called "inv" in v5.10, "scalar" in v6.1 and later. */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value) __failure __errno(EACCES) __msg("type={{inv|scalar}} expected=map_value")
int number_as_lock(struct __sk_buff *skb)
{
	struct counter *c = (void *)(long)skb->len;

	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return 1;
}

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value) __failure __errno(EACCES) __msg("type={{inv|scalar}} expected=map_value")
int null_as_lock(struct __sk_buff *skb)
{
	struct counter *c = 0;

	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return 1;
}

/* The value holds an address; that makes it no pointer. */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(late_lock_in_hash_value) __failure __errno(EACCES)
__msg("type={{inv|scalar}} expected=map_value")
int pointer_loaded_from_value(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct late_lock zero = {};
	struct late_lock *l;
	void *lock;

	map_update(late_table, &key, &zero);
	l = map_lookup(late_table, &key);
	if (!l)
		return 0;
	lock = (void *)l->address;
	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	return 1;
}

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value) __failure __errno(EACCES) __msg("type=sock_common expected=map_value")
int socket_as_lock(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return 0;
	bpf_spin_lock((void *)sk);
	bpf_spin_unlock((void *)sk);
	return 1;
}

/* In a hash map no element is certain; in an array v6.14 and later know that a constant key is. */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__success __retval(1)
int lock_in_hash_value(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter zero = {};
	struct counter *c;

	map_update(table, &key, &zero);
	c = map_lookup(table, &key);
	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return 1;
}

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_hash_value) __failure __errno(EACCES)
__msg("type=map_value_or_null expected=map_value")
int lookup_not_checked(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter zero = {};
	struct counter *c;

	map_update(table, &key, &zero);
	c = map_lookup(table, &key);
	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return 1;
}

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__success __retval(1)
int late_lock_in_hash_value(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct late_lock zero = {};
	struct late_lock *l;

	map_update(late_table, &key, &zero);
	l = map_lookup(late_table, &key);
	if (!l)
		return 0;
	bpf_spin_lock(&l->lock);
	bpf_spin_unlock(&l->lock);
	return 1;
}

/* Here the address of the lock must be computed first. */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(late_lock_in_hash_value) __failure __errno(EACCES)
__msg("pointer arithmetic on map_value_or_null prohibited, null-check it first")
int late_lock_lookup_not_checked(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct late_lock zero = {};
	struct late_lock *l;

	map_update(late_table, &key, &zero);
	l = map_lookup(late_table, &key);
	bpf_spin_lock(&l->lock);
	bpf_spin_unlock(&l->lock);
	return 1;
}

SEC("tc") __rule("The pointer to the lock has a known, constant offset")
__twin(lock_in_value) __failure __msg("off 4 doesn't point to 'struct bpf_spin_lock'")
__kernel("<6.2") __errno(EACCES)
__kernel(">=6.2") __errno(EINVAL)
int offset_behind_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock((void *)&c->value);
	bpf_spin_unlock((void *)&c->value);
	return 1;
}

SEC("tc") __rule("The pointer to the lock has a known, constant offset")
__twin(late_lock_in_hash_value) __failure __msg("off 0 doesn't point to 'struct bpf_spin_lock'")
__kernel("<6.2") __errno(EACCES)
__kernel(">=6.2") __errno(EINVAL)
int offset_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct late_lock zero = {};
	struct late_lock *l;

	map_update(late_table, &key, &zero);
	l = map_lookup(late_table, &key);
	if (!l)
		return 0;
	bpf_spin_lock((void *)l);
	bpf_spin_unlock((void *)l);
	return 1;
}

/* The offset is zero on every path, and the verifier knows it. */
SEC("tc") __rule("The pointer to the lock has a known, constant offset") __success __retval(1)
int known_offset(struct __sk_buff *skb)
{
	__u32 key = 0, offset = skb->mark & 4;
	struct counter *c = map_lookup(counters, &key);
	void *lock;

	if (!c || offset)
		return 0;
	lock = (void *)c + offset;
	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	return 1;
}

SEC("tc") __rule("The pointer to the lock has a known, constant offset")
__twin(known_offset) __failure
__msg("doesn't have constant offset. bpf_spin_lock has to be at the constant offset")
__kernel("<6.2") __errno(EACCES)
__kernel(">=6.2") __errno(EINVAL)
int variable_offset(struct __sk_buff *skb)
{
	__u32 key = 0, offset = skb->mark & 4;
	struct counter *c = map_lookup(counters, &key);
	void *lock;

	if (!c)
		return 0;
	lock = (void *)c + offset;
	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	return 1;
}

/* The map's BTF is asked, not the C type the program uses. */
SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_in_value) __failure
__kernel("<6.2") __errno(EACCES) __msg("doesn't have 'struct bpf_spin_lock'")
__kernel(">=6.2") __errno(EINVAL) __msg("has no valid bpf_spin_lock")
int value_without_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = (void *)map_lookup(without_lock, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

#ifndef LOADER_BCC

/* libbpf only: in bcc's dialect a map has no address. */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__loader(libbpf)
__twin(lock_in_value) __failure __errno(EACCES) __msg("type=map_ptr expected=map_value")
int map_as_lock(struct __sk_buff *skb)
{
	bpf_spin_lock((void *)&counters);
	bpf_spin_unlock((void *)&counters);
	return 1;
}

/* libbpf only: bcc describes every map of its own in BTF; here only the sizes are given. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct counter));
} undescribed SEC(".maps");

SEC("tc") __rule("The map has BTF") __loader(libbpf) __twin(lock_in_value)
__failure __msg("has to have BTF in order to use bpf_spin_lock")
__kernel("<6.2") __errno(EACCES)
__kernel(">=6.2") __errno(EINVAL)
int map_without_btf(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(undescribed, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

#endif

#if UNIT(ring_buffer)
/*
 * libbpf only: bcc's module would have to be opened as a ring buffer by its Python side.
 * commit 457f44363a88 ("bpf: Implement BPF ring buffer and verifier support for it") (in v5.8).
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__loader(libbpf) __twin(lock_in_value)
__kernel(">=5.8") __failure __errno(EACCES) __msg("type={{[a-z_]*mem}} expected=map_value")
int lock_in_ring_buffer_record(struct __sk_buff *skb)
{
	struct counter *c = bpf_ringbuf_reserve(&ring, sizeof(*c), 0);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	bpf_ringbuf_discard(c, 0);
	return 1;
}
#endif

/*
 * Maps in maps, and global variables, which live in a map of their own: libbpf only. bcc leaves it
 * to Python to put inner maps into an outer one, and knows no variables.
 */
#define INNER_MAPS(outer_type, name, value_type)           \
	struct name##_inner {                              \
		__uint(type, BPF_MAP_TYPE_ARRAY);          \
		__uint(max_entries, 1);                    \
		__type(key, __u32);                        \
		__type(value, value_type);                 \
	} name##_first SEC(".maps"), name##_second SEC(".maps");   \
	struct {                                           \
		__uint(type, BPF_MAP_TYPE_##outer_type);   \
		__uint(max_entries, 2);                    \
		__type(key, __u32);                        \
		__array(values, struct name##_inner);      \
	} name SEC(".maps") = { .values = { &name##_first, &name##_second } };

#define LOCK_IN_INNER_MAP(outer)                              \
	__u32 key = 0;                                        \
	void *inner = bpf_map_lookup_elem(&outer, &key);      \
	struct counter *c;                                    \
							      \
	if (!inner)                                           \
		return 0;                                     \
	c = bpf_map_lookup_elem(inner, &key);                 \
	if (!c)                                               \
		return 0;                                     \
	bpf_spin_lock(&c->lock);                              \
	c->value++;                                           \
	bpf_spin_unlock(&c->lock);                            \
	return c->value;

#if UNIT(inner_maps_without_lock)
INNER_MAPS(ARRAY_OF_MAPS, plain_maps, struct no_lock)

SEC("tc") __rule("Inner maps") __loader(libbpf) __success __retval(1)
int inner_map_without_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	void *inner = bpf_map_lookup_elem(&plain_maps, &key);
	struct no_lock *n;

	if (!inner)
		return 0;
	n = bpf_map_lookup_elem(inner, &key);
	if (!n)
		return 0;
	n->value++;
	return n->value;
}
#endif

/* commit b7ff97925b55 ("bpf: Allow locking bpf_spin_lock in inner map values") (in v6.2). */
#if UNIT(array_of_maps)
INNER_MAPS(ARRAY_OF_MAPS, array_of_maps, struct counter)

SEC("tc") __rule("Inner maps") __loader(libbpf) __twin(inner_map_without_lock)
__kernel("<6.2") __failure __stage(map_create) __errno(ENOTSUPP)
__kernel(">=6.2") __success __retval(1)
int lock_in_array_of_maps(struct __sk_buff *skb)
{
	LOCK_IN_INNER_MAP(array_of_maps)
}

SEC("tc") __rule("Inner maps") __loader(libbpf) __kernel(">=6.2") __success __retval(2)
int two_inner_maps_in_turn(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1;
	void *inner_a = bpf_map_lookup_elem(&array_of_maps, &first);
	void *inner_b = bpf_map_lookup_elem(&array_of_maps, &second);
	struct counter *a, *b;

	if (!inner_a || !inner_b)
		return 0;
	a = bpf_map_lookup_elem(inner_a, &first);
	b = bpf_map_lookup_elem(inner_b, &first);
	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	bpf_spin_unlock(&a->lock);
	bpf_spin_lock(&b->lock);
	b->value++;
	bpf_spin_unlock(&b->lock);
	return a->value + b->value;
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__twin(two_inner_maps_in_turn)
__kernel(">=6.2") __failure __errno(EINVAL) __msg("bpf_spin_unlock of different lock")
int unlock_of_other_inner_map(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1;
	void *inner_a = bpf_map_lookup_elem(&array_of_maps, &first);
	void *inner_b = bpf_map_lookup_elem(&array_of_maps, &second);
	struct counter *a, *b;

	if (!inner_a || !inner_b)
		return 0;
	a = bpf_map_lookup_elem(inner_a, &first);
	b = bpf_map_lookup_elem(inner_b, &first);
	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	bpf_spin_unlock(&b->lock);
	return a->value + b->value;
}
#endif

#if UNIT(hash_of_maps)
INNER_MAPS(HASH_OF_MAPS, hash_of_maps, struct counter)

SEC("tc") __rule("Inner maps") __loader(libbpf) __twin(inner_map_without_lock)
__kernel("<6.2") __failure __stage(map_create) __errno(ENOTSUPP)
__kernel(">=6.2") __success __retval(1)
int lock_in_hash_of_maps(struct __sk_buff *skb)
{
	LOCK_IN_INNER_MAP(hash_of_maps)
}
#endif

/*
 * commit d0d78c1df9b1 ("bpf: Allow locking bpf_spin_lock global variables") (in v6.2). From v5.15
 * on a section of variables passed for a value, but the verifier lost track of the lock when the
 * program loaded its address twice, which is up to the compiler: so nothing is said of v5.15-v6.1.
 */
#if UNIT(global_variable)
static struct bpf_spin_lock global_lock SEC(".bss.lock");
static __u32 global_count SEC(".bss.lock");

SEC("tc") __rule("Global variables") __loader(libbpf) __success __retval(1)
int global_without_lock(struct __sk_buff *skb)
{
	__sync_fetch_and_add(&global_count, 1);
	return global_count;
}

SEC("tc") __rule("Global variables") __loader(libbpf) __twin(global_without_lock)
__kernel("<5.15") __failure __errno(EACCES)
		  __msg("is not a struct type or bpf_spin_lock is mangled")
__kernel(">=6.2") __success __retval(1)
int global_lock_increment_unlock(struct __sk_buff *skb)
{
	bpf_spin_lock(&global_lock);
	global_count++;
	bpf_spin_unlock(&global_lock);
	return global_count;
}
#endif

#if UNIT(two_global_locks)
static struct bpf_spin_lock lock_a SEC(".bss.a");
static struct bpf_spin_lock lock_b SEC(".bss.b");

SEC("tc") __rule("Global variables") __loader(libbpf) __kernel(">=6.2") __success __retval(1)
int two_global_locks_in_turn(struct __sk_buff *skb)
{
	bpf_spin_lock(&lock_a);
	bpf_spin_unlock(&lock_a);
	bpf_spin_lock(&lock_b);
	bpf_spin_unlock(&lock_b);
	return 1;
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__twin(two_global_locks_in_turn)
__kernel(">=6.2") __failure __errno(EINVAL) __msg("bpf_spin_unlock of different lock")
int unlock_of_other_global_lock(struct __sk_buff *skb)
{
	bpf_spin_lock(&lock_a);
	bpf_spin_unlock(&lock_b);
	return 1;
}
#endif

/* A section is one value. */
#if UNIT(two_global_locks_in_one_section)
static struct bpf_spin_lock section_lock_a SEC(".bss.both");
static struct bpf_spin_lock section_lock_b SEC(".bss.both");

SEC("tc") __rule("One lock per value") __loader(libbpf) __twin(two_global_locks_in_turn)
__kernel(">=6.2") __failure __errno(EINVAL) __msg("has no valid bpf_spin_lock")
int two_global_locks_in_section(struct __sk_buff *skb)
{
	bpf_spin_lock(&section_lock_a);
	bpf_spin_unlock(&section_lock_a);
	bpf_spin_lock(&section_lock_b);
	bpf_spin_unlock(&section_lock_b);
	return 1;
}
#endif
