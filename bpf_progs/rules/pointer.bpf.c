// SPDX-License-Identifier: GPL-2.0-only
/*
 * What may be handed to bpf_spin_lock(): the address of the lock in a map's value, which the
 * verifier knows to the byte: of what kind the pointer must be. Its offset is the matter of
 * pointer_offset.bpf.c, maps in maps of inner_map.bpf.c, global variables of global.bpf.c.
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

/*
 * Rule: The lock lives in a map value, not on the stack, in ctx or in a packet
 * Topic: The lock's place
 * A lock is of use only where other CPUs find it, and of no harm only where the kernel knows what
 * it is. So the pointer must be one into a map's value that the verifier has followed from the
 * lookup, past its check for NULL, wherever it was kept meanwhile.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit d2102f2f5d75 ("bpf: verifier: Support eliding map lookup nullness") (in v6.14)
 */
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

/*
 * Refusal: stack_for_lock
 * EACCES "type=fp expected=map_value"
 * A lock on the program's stack.
 */

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value) __refused(stack_for_lock)
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

/*
 * Refusal: packet_for_lock
 * EACCES "helper access to the packet is not allowed"
 * A lock in a packet.
 */

/* That a helper may not have the packet at all is found before what it would do with it. */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value) __refused(packet_for_lock)
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
__twin(lock_in_value_xdp) __refused(packet_for_lock)
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

/*
 * Refusal: number_for_lock
 * EACCES "type={{inv|scalar}} expected=map_value"
 * A number where bpf_spin_lock() needs a pointer.
 */

/* A number is called "inv" in v5.10, "scalar" in v6.1 and later. */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value) __refused(number_for_lock)
int number_as_lock(struct __sk_buff *skb)
{
	struct counter *c = (void *)(long)skb->len;

	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return 1;
}

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value) __refused(number_for_lock)
int null_as_lock(struct __sk_buff *skb)
{
	struct counter *c = 0;

	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return 1;
}

/* The value holds an address; that makes it no pointer. */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(late_lock_in_hash_value) __refused(number_for_lock)
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

/* The metadata in front of a packet is packet, too. */
SEC("xdp") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value_xdp) __refused(packet_for_lock)
int lock_in_packet_metadata(struct xdp_md *ctx)
{
	struct counter *c = (void *)(long)ctx->data_meta;

	if ((void *)(c + 1) > (void *)(long)ctx->data)
		return 0;
	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return 1;
}

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value) __failure __errno(EACCES) __msg("type=pkt_end expected=map_value")
int packet_end_as_lock(struct __sk_buff *skb)
{
	void *end = (void *)(long)skb->data_end;

	bpf_spin_lock(end);
	bpf_spin_unlock(end);
	return 1;
}

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value) __failure __errno(EACCES) __msg("type=sock expected=map_value")
int full_socket_as_lock(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	bpf_spin_lock((void *)sk);
	bpf_spin_unlock((void *)sk);
	return 1;
}

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value) __failure __errno(EACCES) __msg("type=tcp_sock expected=map_value")
int tcp_socket_as_lock(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct bpf_tcp_sock *tcp;

	if (!sk)
		return 0;
	tcp = bpf_tcp_sock(sk);
	if (!tcp)
		return 0;
	bpf_spin_lock((void *)tcp);
	bpf_spin_unlock((void *)tcp);
	return 1;
}

/* Kept on the stack, where the verifier still knows what it is, ... */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__success __retval(1)
int pointer_kept_on_stack(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	struct counter *volatile kept;

	if (!c)
		return 0;
	kept = c;
	bpf_spin_lock(&kept->lock);
	bpf_spin_unlock(&kept->lock);
	return 1;
}

/* ... taken by the copy, released by the original, ... */
SEC("tc") __rule("Unlock the lock that was taken") __success __retval(1)
int unlock_by_copy_of_pointer(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	struct counter *volatile kept;

	if (!c)
		return 0;
	kept = c;
	bpf_spin_lock(&kept->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return 1;
}

/* ... and kept before the check for NULL, which then holds for the copy as well. */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__success __retval(1)
int pointer_kept_before_null_check(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	struct counter *volatile kept = c;

	if (!c)
		return 0;
	bpf_spin_lock(&kept->lock);
	bpf_spin_unlock(&kept->lock);
	return 1;
}

/* One byte of it overwritten, and it is a number. */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(pointer_kept_on_stack) __refused(number_for_lock)
int pointer_on_stack_overwritten(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	struct counter *volatile kept;

	if (!c)
		return 0;
	kept = c;
	*(volatile unsigned char *)&kept = 0;
	bpf_spin_lock(&kept->lock);
	bpf_spin_unlock(&kept->lock);
	return 1;
}

/* A number on one path, a value's address on the other. */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value) __refused(number_for_lock)
int number_on_one_path(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	void *lock = c;

	if (!c)
		return 0;
	if (skb->mark)
		asm volatile("%0 = 8" : "=r"(lock));
	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	return 1;
}

/* Twice negated it is the same address, but no pointer any more. */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value) __refused(number_for_lock)
int negated_pointer_as_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	void *lock = c;

	if (!c)
		return 0;
	asm volatile("%0 = -%0" : "+r"(lock));
	asm volatile("%0 = -%0" : "+r"(lock));
	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
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
__twin(lock_in_hash_value) __refused(unchecked_value)
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

/*
 * commit d2102f2f5d75 ("bpf: verifier: Support eliding map lookup nullness") (in v6.14): an array
 * has each of its elements, so a constant key within its length is certain to be found. The
 * verifier knows the key when it is zero, or when it was stored where it keeps track of what is
 * stored: aligned to eight bytes.
 */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value)
__kernel("<6.14") __refused(unchecked_value)
__kernel(">=6.14") __success __retval(1)
int array_lookup_not_checked(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return 1;
}

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value)
__kernel("<6.14") __refused(unchecked_value)
__kernel(">=6.14") __success __retval(1)
int array_lookup_of_last_not_checked(struct __sk_buff *skb)
{
	__u32 key __attribute__((aligned(8))) = 1;
	struct counter *c = map_lookup(counters, &key);

	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return 1;
}

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value)
__description("the key is behind the end of the array") __refused(unchecked_value)
int array_lookup_out_of_range_not_checked(struct __sk_buff *skb)
{
	__u32 key __attribute__((aligned(8))) = 2;
	struct counter *c = map_lookup(counters, &key);

	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return 1;
}

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_value) __refused(unchecked_value)
int array_lookup_by_unknown_key_not_checked(struct __sk_buff *skb)
{
	__u32 key = skb->mark & 1;
	struct counter *c = map_lookup(counters, &key);

	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return 1;
}

/* Each pointer needs a check of its own, though both are one element's. */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__twin(lock_in_hash_value) __refused(unchecked_value)
int only_first_lookup_checked(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter zero = {};
	struct counter *first, *second;

	map_update(table, &key, &zero);
	first = map_lookup(table, &key);
	second = map_lookup(table, &key);
	if (!first)
		return 0;
	bpf_spin_lock(&second->lock);
	bpf_spin_unlock(&second->lock);
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

/* The map's BTF is asked, not the C type the program uses. */
SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_in_value) __refused(no_lock_in_value)
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

/*
 * Rule: The map has BTF
 * Topic: The lock's place
 * Without a description of its values the kernel cannot know where the lock is.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 */
/* libbpf only: bcc describes every map of its own in BTF; here only the sizes are given. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct counter));
} undescribed SEC(".maps");

SEC("tc") __rule("The map has BTF") __loader(libbpf) __twin(lock_in_value)
__refused(map_without_btf)
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

/* libbpf only: bcc breaks calls of static functions. */
static __noinline int lock_argument(struct counter *c)
{
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__loader(libbpf) __success __retval(1)
int pointer_as_argument(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	return lock_argument(c);
}

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__loader(libbpf) __twin(pointer_as_argument) __refused(stack_for_lock)
int stack_pointer_as_argument(struct __sk_buff *skb)
{
	struct counter c = {};

	return lock_argument(&c);
}

#endif
