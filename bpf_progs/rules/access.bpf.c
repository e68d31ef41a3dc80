// SPDX-License-Identifier: GPL-2.0-only
/*
 * The four bytes of the lock are the kernel's: a program may neither load nor store them, nor let a
 * helper do so. commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1).
 *
 * Each legal case does to the bytes beside the lock what the refused one does to the lock.
 */
#include "spinlock.h"

struct record {
	__u64 before;
	struct bpf_spin_lock lock;
	__u32 after;
	__u64 more;
};

MAP(ARRAY, records, __u32, struct record, 1)
MAP(HASH, by_word, __u32, __u32, 4)

/*
 * Rule: The lock field is opaque to loads and stores
 * Topic: The lock's bytes
 * A value read from the lock may be stale at once, and a write would break the lock. The verifier
 * refuses every access that could touch one of its four bytes: by any instruction, of any size, with
 * the lock held or not.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 */
SEC("tc") __rule("The lock field is opaque to loads and stores") __success __retval(0)
int read_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return READ_ONCE(r->after);
}

SEC("tc") __rule("The lock field is opaque to loads and stores")
__twin(read_beside_lock) __refused(lock_accessed)
int read_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return *(volatile __u32 *)&r->lock;
}

SEC("tc") __rule("The lock field is opaque to loads and stores")
__twin(read_beside_lock)
__description("a load of the member that struct bpf_spin_lock declares") __refused(lock_accessed)
int read_member_of_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return r->lock.val;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __success __retval(7)
int write_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	WRITE_ONCE(r->after, 7);
	return r->after;
}

SEC("tc") __rule("The lock field is opaque to loads and stores")
__twin(write_beside_lock) __refused(lock_accessed)
int write_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	*(volatile __u32 *)&r->lock = 7;
	return r->after;
}

/* Who holds the lock does not matter: it is no more its owner's than anybody else's. */
SEC("tc") __rule("The lock field is opaque to loads and stores") __success __retval(7)
int write_beside_held_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_spin_lock(&r->lock);
	WRITE_ONCE(r->after, 7);
	bpf_spin_unlock(&r->lock);
	return r->after;
}

SEC("tc") __rule("The lock field is opaque to loads and stores")
__twin(write_beside_held_lock) __refused(lock_accessed)
int write_held_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_spin_lock(&r->lock);
	*(volatile __u32 *)&r->lock = 7;
	bpf_spin_unlock(&r->lock);
	return r->after;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __success __retval(0)
int read_first_byte_after_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return ((volatile unsigned char *)&r->lock)[4];
}

SEC("tc") __rule("The lock field is opaque to loads and stores")
__twin(read_first_byte_after_lock) __refused(lock_accessed)
int read_last_byte_of_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return ((volatile unsigned char *)&r->lock)[3];
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __success __retval(1)
int write_last_byte_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	((volatile unsigned char *)&r->before)[7] = 1;
	return r->before >> 56;
}

SEC("tc") __rule("The lock field is opaque to loads and stores")
__twin(write_last_byte_before_lock) __refused(lock_accessed)
int write_first_byte_of_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	((volatile unsigned char *)&r->before)[8] = 1;
	return r->before >> 56;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __success __retval(7)
int write_eight_bytes_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	WRITE_ONCE(r->before, 7);
	return r->before;
}

/* Four of the eight bytes are the lock. */
SEC("tc") __rule("The lock field is opaque to loads and stores")
__twin(write_eight_bytes_before_lock) __refused(lock_accessed)
int write_eight_bytes_over_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	*(volatile __u64 *)&r->lock = 7;
	return r->before;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __success __retval(1)
int atomic_add_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	__sync_fetch_and_add(&r->after, 1);
	return r->after;
}

SEC("tc") __rule("The lock field is opaque to loads and stores")
__twin(atomic_add_beside_lock) __refused(lock_accessed)
int atomic_add_to_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	__sync_fetch_and_add((__u32 *)&r->lock, 1);
	return r->after;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __success __retval(1)
int atomic_add_eight_bytes_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	__sync_fetch_and_add(&r->more, 1);
	return r->more;
}

SEC("tc") __rule("The lock field is opaque to loads and stores")
__twin(atomic_add_eight_bytes_beside_lock) __refused(lock_accessed)
int atomic_add_eight_bytes_over_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	__sync_fetch_and_add((__u64 *)&r->lock, 1);
	return r->more;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __success __retval(0)
int clear_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	__builtin_memset(&r->more, 0, sizeof(r->more));
	barrier();
	return r->more;
}

SEC("tc") __rule("The lock field is opaque to loads and stores")
__twin(clear_beside_lock) __refused(lock_accessed)
int clear_whole_value(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	__builtin_memset(r, 0, sizeof(*r));
	barrier();
	return r->more;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __success __retval(0)
int copy_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	volatile __u64 copy;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	copy = r->more;
	return copy;
}

SEC("tc") __rule("The lock field is opaque to loads and stores")
__twin(copy_beside_lock) __refused(lock_accessed)
int copy_whole_value(struct __sk_buff *skb)
{
	__u32 key = 0;
	volatile struct record copy;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	copy = *r;
	return copy.more;
}

/* The verifier refuses a range of offsets when the lock lies anywhere in it. */
SEC("tc") __rule("The lock field is opaque to loads and stores") __success __retval(1)
int variable_offset_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0, offset = skb->mark & 7;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	((volatile unsigned char *)&r->before)[offset] = 1;
	return r->before;
}

SEC("tc") __rule("The lock field is opaque to loads and stores")
__twin(variable_offset_beside_lock) __refused(lock_accessed)
int variable_offset_over_lock(struct __sk_buff *skb)
{
	__u32 key = 0, offset = skb->mark & 15;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	((volatile unsigned char *)&r->before)[offset] = 1;
	return r->before;
}

/*
 * Loads that extend the sign, which clang emits for newer processors only, hence the bytes; bcc's
 * first pass is for the host's processor and knows no such registers.
 * commit 1f9a1ea821ff ("bpf: Support new sign-extension load insns") (in v6.6), as tcx exists, by
 * whose enumerator the kernels are told.
 */
#ifndef LOADER_BCC
#define LOAD_SIGNED_WORD(result, address)                            \
	asm volatile("r1 = %[a]\n"                                   \
		     ".8byte 0x1081\n" /* r0 = *(s32 *)(r1 + 0) */   \
		     "%[r] = r0\n"                                   \
		     : [r] "=r"(result)                              \
		     : [a] "r"(address)                              \
		     : "r0", "r1")

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__needs(BPF_TCX_INGRESS, "6.6") __success __retval(0)
int read_signed_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__s64 word;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	LOAD_SIGNED_WORD(word, &r->after);
	return word;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__needs(BPF_TCX_INGRESS, "6.6") __twin(read_signed_beside_lock) __refused(lock_accessed)
int read_lock_signed(struct __sk_buff *skb)
{
	__u32 key = 0;
	__s64 word;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	LOAD_SIGNED_WORD(word, &r->lock);
	return word;
}
#endif
