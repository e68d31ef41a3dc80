// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loads, stores and atomic instructions of every size around the lock; access.bpf.c has the common
 * ones. libbpf only: it is the same instructions again, and bcc takes long to compile them.
 */
#include "spinlock.h"

struct record {
	__u64 before;
	struct bpf_spin_lock lock;
	__u32 after;
	__u64 more;
};

MAP(ARRAY, records, __u32, struct record, 1)

/* One instruction that the assembler has no words for, with the value's address in r1. */
#define INSTRUCTION(result, value, opcode, registers, offset, immediate)                   \
	asm volatile("r0 = 0; r1 = %[address]; r2 = 7; .8byte %[code]; %[out] = r0"        \
		     : [out] "=r"(result)                                                  \
		     : [address] "r"(value),                                               \
		       [code] "i"((long)(immediate) << 32 | (offset) << 16 | (registers) << 8 | (opcode)) \
		     : "r0", "r1", "r2", "memory")
#define STORE_CONSTANT(result, value, offset) INSTRUCTION(result, value, 0x62, 0x01, offset, 7)
#define LOAD_ACQUIRE(result, value, offset) INSTRUCTION(result, value, 0xc3, 0x10, offset, 0x100)
#define STORE_RELEASE(result, value, offset) INSTRUCTION(result, value, 0xc3, 0x21, offset, 0x110)

/* On both sides of each border. The assembler does not split what is not aligned. */
SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__success __retval(0)
int load_two_bytes_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("%0 = *(u16 *)(%1 + 12)" : "=r"(result) : "r"(r));
	return result;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(load_two_bytes_beside_lock) __refused(lock_accessed)
int load_two_bytes_into_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("%0 = *(u16 *)(%1 + 7)" : "=r"(result) : "r"(r));
	return result;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(load_two_bytes_beside_lock) __refused(lock_accessed)
int load_two_bytes_in_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("%0 = *(u16 *)(%1 + 9)" : "=r"(result) : "r"(r));
	return result;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(load_two_bytes_beside_lock) __refused(lock_accessed)
int load_two_bytes_out_of_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("%0 = *(u16 *)(%1 + 11)" : "=r"(result) : "r"(r));
	return result;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__success __retval(0)
int store_two_bytes_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("*(u16 *)(%0 + 12) = %1" : : "r"(r), "r"(7) : "memory");
	return 0;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_two_bytes_beside_lock) __refused(lock_accessed)
int store_two_bytes_into_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("*(u16 *)(%0 + 7) = %1" : : "r"(r), "r"(7) : "memory");
	return 0;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_two_bytes_beside_lock) __refused(lock_accessed)
int store_two_bytes_in_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("*(u16 *)(%0 + 9) = %1" : : "r"(r), "r"(7) : "memory");
	return 0;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_two_bytes_beside_lock) __refused(lock_accessed)
int store_two_bytes_out_of_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("*(u16 *)(%0 + 11) = %1" : : "r"(r), "r"(7) : "memory");
	return 0;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__success __retval(0)
int load_four_bytes_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("%0 = *(u32 *)(%1 + 12)" : "=r"(result) : "r"(r));
	return result;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(load_four_bytes_beside_lock) __refused(lock_accessed)
int load_four_bytes_into_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("%0 = *(u32 *)(%1 + 5)" : "=r"(result) : "r"(r));
	return result;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(load_four_bytes_beside_lock) __refused(lock_accessed)
int load_four_bytes_out_of_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("%0 = *(u32 *)(%1 + 11)" : "=r"(result) : "r"(r));
	return result;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__success __retval(0)
int store_four_bytes_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("*(u32 *)(%0 + 12) = %1" : : "r"(r), "r"(7) : "memory");
	return 0;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_four_bytes_beside_lock) __refused(lock_accessed)
int store_four_bytes_into_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("*(u32 *)(%0 + 5) = %1" : : "r"(r), "r"(7) : "memory");
	return 0;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_four_bytes_beside_lock) __refused(lock_accessed)
int store_four_bytes_out_of_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("*(u32 *)(%0 + 11) = %1" : : "r"(r), "r"(7) : "memory");
	return 0;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__success __retval(0)
int load_eight_bytes_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("%0 = *(u64 *)(%1 + 16)" : "=r"(result) : "r"(r));
	return result;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(load_eight_bytes_beside_lock) __refused(lock_accessed)
int load_eight_bytes_into_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("%0 = *(u64 *)(%1 + 1)" : "=r"(result) : "r"(r));
	return result;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(load_eight_bytes_beside_lock) __refused(lock_accessed)
int load_eight_bytes_around_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("%0 = *(u64 *)(%1 + 6)" : "=r"(result) : "r"(r));
	return result;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__success __retval(0)
int store_eight_bytes_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("*(u64 *)(%0 + 16) = %1" : : "r"(r), "r"(7) : "memory");
	return 0;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_eight_bytes_beside_lock) __refused(lock_accessed)
int store_eight_bytes_into_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("*(u64 *)(%0 + 1) = %1" : : "r"(r), "r"(7) : "memory");
	return 0;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_eight_bytes_beside_lock) __refused(lock_accessed)
int store_eight_bytes_around_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	asm volatile("*(u64 *)(%0 + 6) = %1" : : "r"(r), "r"(7) : "memory");
	return 0;
}

/*
 * Refusal: atomic_fields_reserved
 * EINVAL "BPF_STX uses reserved fields"
 * An atomic instruction that kernels before v5.12 do not know.
 */

/*
 * commit 5ffa25502b5a ("bpf: Add instructions for atomic_[cmp]xchg") (in v5.12); what a v5.10
 * kernel refuses is the instruction.
 */
SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_four_bytes_beside_lock)
__kernel("<5.12") __refused(atomic_fields_reserved)
__kernel(">=5.12") __success __retval(0)
int exchange_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return __sync_lock_test_and_set(&r->after, 0);
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_four_bytes_beside_lock)
__kernel("<5.12") __refused(atomic_fields_reserved)
__kernel(">=5.12") __refused(lock_accessed)
int exchange_of_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return __sync_lock_test_and_set((__u32 *)&r->lock, 0);
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_four_bytes_beside_lock)
__kernel("<5.12") __refused(atomic_fields_reserved)
__kernel(">=5.12") __success __retval(0)
int compare_and_exchange_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return __sync_val_compare_and_swap(&r->after, 0, 0);
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_four_bytes_beside_lock)
__kernel("<5.12") __refused(atomic_fields_reserved)
__kernel(">=5.12") __refused(lock_accessed)
int compare_and_exchange_of_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return __sync_val_compare_and_swap((__u32 *)&r->lock, 0, 0);
}

/*
 * commit 5ca419f2864a ("bpf: Add BPF_FETCH field / create atomic_fetch_add instruction") (in
 * v5.12).
 */
SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_four_bytes_beside_lock)
__kernel("<5.12") __refused(atomic_fields_reserved)
__kernel(">=5.12") __success __retval(0)
int fetch_and_add_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return __sync_fetch_and_add(&r->after, 0);
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_four_bytes_beside_lock)
__kernel("<5.12") __refused(atomic_fields_reserved)
__kernel(">=5.12") __refused(lock_accessed)
int fetch_and_add_of_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return __sync_fetch_and_add((__u32 *)&r->lock, 0);
}

/* commit 981f94c3e921 ("bpf: Add bitwise atomic instructions") (in v5.12). */
SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_four_bytes_beside_lock)
__kernel("<5.12") __refused(atomic_fields_reserved)
__kernel(">=5.12") __success __retval(0)
int fetch_and_or_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return __sync_fetch_and_or(&r->after, 0);
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_four_bytes_beside_lock)
__kernel("<5.12") __refused(atomic_fields_reserved)
__kernel(">=5.12") __refused(lock_accessed)
int fetch_and_or_of_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return __sync_fetch_and_or((__u32 *)&r->lock, 0);
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__success __retval(0)
int read_beside_held_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u32 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	bpf_spin_lock(&r->lock);
	result = READ_ONCE(r->after);
	bpf_spin_unlock(&r->lock);
	return result;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(read_beside_held_lock) __refused(lock_accessed)
int read_held_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u32 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	bpf_spin_lock(&r->lock);
	result = *(volatile __u32 *)&r->lock;
	bpf_spin_unlock(&r->lock);
	return result;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__success __retval(1)
int atomic_add_beside_held_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_spin_lock(&r->lock);
	__sync_fetch_and_add(&r->after, 1);
	bpf_spin_unlock(&r->lock);
	return r->after;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(atomic_add_beside_held_lock) __refused(lock_accessed)
int atomic_add_to_held_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_spin_lock(&r->lock);
	__sync_fetch_and_add((__u32 *)&r->lock, 1);
	bpf_spin_unlock(&r->lock);
	return r->after;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__success __retval(0)
int read_at_variable_offset_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return ((volatile unsigned char *)&r->after)[skb->mark & 7];
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(read_at_variable_offset_beside_lock) __refused(lock_accessed)
int read_at_variable_offset_over_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return ((volatile unsigned char *)&r->before)[skb->mark & 15];
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__success __retval(0)
int store_constant_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	STORE_CONSTANT(result, r, 12);
	return result;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_constant_beside_lock) __refused(lock_accessed)
int store_constant_to_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	STORE_CONSTANT(result, r, 8);
	return result;
}

/*
 * Refusal: atomic_opcode_unknown
 * EINVAL "BPF_ATOMIC uses invalid atomic opcode"
 * A load-acquire or store-release, which kernels before v6.15 do not know.
 */

/*
 * commit 880442305a39 ("bpf: Introduce load-acquire and store-release instructions") (in v6.15);
 * what older kernels refuse is the instruction.
 */
SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_constant_beside_lock)
__kernel("<5.12") __refused(atomic_fields_reserved)
__kernel(">=5.12,<6.15") __refused(atomic_opcode_unknown)
__kernel(">=6.15") __success __retval(0)
int load_acquire_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	LOAD_ACQUIRE(result, r, 12);
	return result;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_constant_beside_lock)
__kernel("<5.12") __refused(atomic_fields_reserved)
__kernel(">=5.12,<6.15") __refused(atomic_opcode_unknown)
__kernel(">=6.15") __refused(lock_accessed)
int load_acquire_of_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	LOAD_ACQUIRE(result, r, 8);
	return result;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_constant_beside_lock)
__kernel("<5.12") __refused(atomic_fields_reserved)
__kernel(">=5.12,<6.15") __refused(atomic_opcode_unknown)
__kernel(">=6.15") __success __retval(0)
int store_release_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	STORE_RELEASE(result, r, 12);
	return result;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(store_constant_beside_lock)
__kernel("<5.12") __refused(atomic_fields_reserved)
__kernel(">=5.12,<6.15") __refused(atomic_opcode_unknown)
__kernel(">=6.15") __refused(lock_accessed)
int store_release_to_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 result;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	STORE_RELEASE(result, r, 8);
	return result;
}
