// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where in a map's value the pointer handed to bpf_spin_lock() must point.
 */
#include "spinlock.h"

struct late_lock {
	__u64 value;
	struct bpf_spin_lock lock;
};

struct early_lock {
	struct bpf_spin_lock lock;
	__u32 value;
	__u64 words[2];
};

MAP(ARRAY, counters, __u32, struct counter, 2)
MAP(ARRAY, late_locks, __u32, struct late_lock, 1)
MAP(ARRAY, early_locks, __u32, struct early_lock, 1)

/*
 * Rule: The pointer to the lock has a known, constant offset
 * Topic: The lock's place
 * The verifier must see that the address is the lock's. One that depends on what a program computes
 * could be that of any byte of the value.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 */
/*
 * Refusal: lock_at_other_offset
 * EACCES "off 4 doesn't point to 'struct bpf_spin_lock'"
 * since v6.2: EINVAL "off 4 doesn't point to 'struct bpf_spin_lock'"
 * A pointer that is four bytes off the lock.
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 */

SEC("tc") __rule("The pointer to the lock has a known, constant offset")
__twin(known_offset) __refused(lock_at_other_offset)
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

SEC("tc") __rule("The pointer to the lock has a known, constant offset") __success __retval(1)
int offset_of_late_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct late_lock *l = map_lookup(late_locks, &key);

	if (!l)
		return 0;
	bpf_spin_lock(&l->lock);
	bpf_spin_unlock(&l->lock);
	return 1;
}

SEC("tc") __rule("The pointer to the lock has a known, constant offset")
__twin(offset_of_late_lock) __failure __msg("off 0 doesn't point to 'struct bpf_spin_lock'")
__kernel("<6.2") __errno(EACCES)
__kernel(">=6.2") __errno(EINVAL)
int offset_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct late_lock *l = map_lookup(late_locks, &key);

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

/*
 * Refusal: variable_offset
 * EACCES
 *	"doesn't have constant offset. bpf_spin_lock has to be at the constant offset"
 * since v6.2: EINVAL
 *	"doesn't have constant offset. bpf_spin_lock has to be at the constant offset"
 * The verifier must know which of the value's fields the pointer is to.
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 */

SEC("tc") __rule("The pointer to the lock has a known, constant offset")
__twin(known_offset) __refused(variable_offset)
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

/* Whether a word of the lock's alignment is the lock, or the one eight bytes behind it. */
SEC("tc") __rule("The pointer to the lock has a known, constant offset") __success __retval(1)
int known_multiple_of_eight(struct __sk_buff *skb)
{
	__u32 key = 0, offset = skb->mark & 8;
	struct early_lock *e = map_lookup(early_locks, &key);
	void *lock;

	if (!e || offset)
		return 0;
	lock = (void *)e + offset;
	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	return 1;
}

SEC("tc") __rule("The pointer to the lock has a known, constant offset")
__twin(known_multiple_of_eight) __refused(variable_offset)
int variable_multiple_of_eight(struct __sk_buff *skb)
{
	__u32 key = 0, offset = skb->mark & 8;
	struct early_lock *e = map_lookup(early_locks, &key);
	void *lock;

	if (!e)
		return 0;
	lock = (void *)e + offset;
	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	return 1;
}

/* The address may take any way that the verifier can add up. */
SEC("tc") __rule("The pointer to the lock has a known, constant offset") __success __retval(1)
int offset_forth_and_back(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	void *lock = c;

	if (!c)
		return 0;
	asm volatile("%0 += 8; %0 += -8" : "+r"(lock));
	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	return 1;
}

SEC("tc") __rule("The pointer to the lock has a known, constant offset")
__twin(offset_forth_and_back) __failure __msg("off 8 doesn't point to 'struct bpf_spin_lock'")
__kernel("<6.2") __errno(EACCES)
__kernel(">=6.2") __errno(EINVAL)
int offset_behind_value(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	void *lock = c;

	if (!c)
		return 0;
	asm volatile("%0 += 8" : "+r"(lock));
	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	return 1;
}

SEC("tc") __rule("The pointer to the lock has a known, constant offset")
__twin(offset_forth_and_back) __failure __msg("off -4 doesn't point to 'struct bpf_spin_lock'")
__kernel("<6.2") __errno(EACCES)
__kernel(">=6.2") __errno(EINVAL)
int negative_offset(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	void *lock = c;

	if (!c)
		return 0;
	asm volatile("%0 += -4" : "+r"(lock));
	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	return 1;
}

SEC("tc") __rule("The pointer to the lock has a known, constant offset")
__twin(offset_forth_and_back) __failure __msg("off 1 doesn't point to 'struct bpf_spin_lock'")
__kernel("<6.2") __errno(EACCES)
__kernel(">=6.2") __errno(EINVAL)
int offset_into_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	void *lock = c;

	if (!c)
		return 0;
	asm volatile("%0 += 1" : "+r"(lock));
	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	return 1;
}

/* Two paths, two offsets, each known where it is used. */
SEC("tc") __rule("The pointer to the lock has a known, constant offset")
__twin(known_offset) __refused(lock_at_other_offset)
int wrong_offset_on_one_path(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	void *lock = c;

	if (!c)
		return 0;
	if (skb->mark & 4)
		asm volatile("%0 += 4" : "+r"(lock));
	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	return 1;
}
