// SPDX-License-Identifier: GPL-2.0-only
/*
 * What else may stand in a value with a lock, and how large the value may be.
 */
#include "spinlock.h"

/* The same program for all; only its maps differ. */
#define LOCK_AND_UNLOCK(map, type, lock)         \
	__u32 key = 0;                           \
	type *v = map_lookup(map, &key);         \
						 \
	if (!v)                                  \
		return 0;                        \
	bpf_spin_lock((void *)(lock));           \
	bpf_spin_unlock((void *)(lock));         \
	return 1;

struct beside_data {
	struct bpf_spin_lock lock;
	__u32 data;
};
MAP(ARRAY, beside_data_map, __u32, struct beside_data, 1)

/*
 * Rule: What else a value with a lock holds
 * Topic: The lock's place
 * Anything: other fields that the kernel manages, such as timers, and data of any kind and size.
 * The lock may be far behind it.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit 68134668c17f ("bpf: Add map side support for bpf timers.") (in v5.15)
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 */
SEC("tc") __rule("What else a value with a lock holds") __success __retval(1)
int lock_beside_data(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(beside_data_map, struct beside_data, &v->lock)
}

struct with_timer {
	struct bpf_timer timer;
	struct bpf_spin_lock lock;
};
MAP(ARRAY, timer_map, __u32, struct with_timer, 1)

/* Before commit b00628b1c7d5 ("bpf: Introduce bpf timers.") (in v5.15) it is data. */
SEC("tc") __rule("What else a value with a lock holds") __success __retval(1)
int lock_beside_timer(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(timer_map, struct with_timer, &v->lock)
}

struct before_timer {
	struct bpf_spin_lock lock;
	struct bpf_timer timer;
};
MAP(ARRAY, before_timer_map, __u32, struct before_timer, 1)

SEC("tc") __rule("What else a value with a lock holds") __success __retval(1)
int lock_before_timer(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(before_timer_map, struct before_timer, &v->lock)
}

#if UNIT(lock_beside_bitfields)
struct with_bitfields {
	__u32 low : 3;
	__u32 high : 29;
	struct bpf_spin_lock lock;
	__u32 more : 1;
};
MAP(ARRAY, bitfields_map, __u32, struct with_bitfields, 1)

/*
 * commit a7db0d4f872a ("bpf: refactor btf_find_struct_field() and btf_find_datasec_var().") (in
 * v6.11) looks at each member's offset before its type, so a bitfield that starts inside a byte
 * has the BTF refused as one that C cannot make. Nothing mends that yet.
 *
 * libbpf only: bcc drops BTF that is refused.
 */
SEC("tc") __rule("What else a value with a lock holds") __loader(libbpf)
__known_bug("a7db0d4f872a", ">=6.11") __success __retval(1)
int lock_beside_bitfields(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(bitfields_map, struct with_bitfields, &v->lock)
}
#endif

struct with_nothing {
	struct {} nothing;
	struct bpf_spin_lock lock;
	__u32 none[0];
	__u32 value;
};
MAP(ARRAY, nothing_map, __u32, struct with_nothing, 1)

SEC("tc") __rule("What else a value with a lock holds") __success __retval(1)
int lock_beside_members_of_no_size(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(nothing_map, struct with_nothing, &v->lock)
}

struct with_flexible_array {
	struct bpf_spin_lock lock;
	__u32 length;
	__u32 data[];
};
MAP(ARRAY, flexible_map, __u32, struct with_flexible_array, 1)

SEC("tc") __rule("What else a value with a lock holds") __success __retval(1)
int lock_before_flexible_array(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(flexible_map, struct with_flexible_array, &v->lock)
}

struct with_union {
	union {
		__u64 number;
		void *pointer;
	};
	struct bpf_spin_lock lock;
};
MAP(ARRAY, union_beside_map, __u32, struct with_union, 1)

SEC("tc") __rule("What else a value with a lock holds") __success __retval(1)
int lock_beside_union(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(union_beside_map, struct with_union, &v->lock)
}

struct never_declared;
struct with_pointer {
	struct never_declared *pointer;
	struct bpf_spin_lock lock;
};
MAP(ARRAY, with_pointer_map, __u32, struct with_pointer, 1)

SEC("tc") __rule("What else a value with a lock holds") __success __retval(1)
int lock_beside_pointer_to_unknown_struct(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(with_pointer_map, struct with_pointer, &v->lock)
}

struct with_link {
	struct with_link *next;
	struct bpf_spin_lock lock;
};
MAP(ARRAY, with_link_map, __u32, struct with_link, 1)

SEC("tc") __rule("What else a value with a lock holds") __success __retval(1)
int lock_beside_pointer_to_own_struct(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(with_link_map, struct with_link, &v->lock)
}

struct behind_page {
	__u8 data[4096];
	struct bpf_spin_lock lock;
};
MAP(ARRAY, behind_page_map, __u32, struct behind_page, 1)

SEC("tc") __rule("What else a value with a lock holds") __success __retval(1)
int lock_behind_page(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(behind_page_map, struct behind_page, &v->lock)
}

struct before_pages {
	struct bpf_spin_lock lock;
	__u8 data[8192];
};
MAP(ARRAY, before_pages_map, __u32, struct before_pages, 1)

SEC("tc") __rule("What else a value with a lock holds") __success __retval(1)
int lock_before_two_pages(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(before_pages_map, struct before_pages, &v->lock)
}

struct behind_megabyte {
	__u8 data[1 << 20];
	struct bpf_spin_lock lock;
};
MAP(ARRAY, behind_megabyte_map, __u32, struct behind_megabyte, 1)

/* More than the 16 bits of an instruction's offset. */
SEC("tc") __rule("What else a value with a lock holds") __success __retval(1)
int lock_behind_a_megabyte(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(behind_megabyte_map, struct behind_megabyte, &v->lock)
}

/*
 * In a key a lock is data: the program below even reads it, and the value has none. A HASH map: an
 * array's keys are numbers.
 */
struct key_with_lock {
	struct bpf_spin_lock lock;
	__u32 number;
};
MAP(HASH, by_lock, struct key_with_lock, __u32, 4)

SEC("tc") __rule("What else a value with a lock holds") __success __retval(7)
int lock_in_key_is_data(struct __sk_buff *skb)
{
	struct key_with_lock key = { .lock = { .val = 7 }, .number = 1 };
	__u32 one = 7, *found;

	map_update(by_lock, &key, &one);
	found = map_lookup(by_lock, &key);
	return found ? *found : 0;
}

SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_in_key_is_data)
__kernel("<6.2") __refused(lock_mangled)
__kernel(">=6.2") __refused(no_lock_in_value)
int lock_in_key_is_no_lock(struct __sk_buff *skb)
{
	struct key_with_lock key = { .lock = { .val = 7 }, .number = 1 };
	__u32 one = 7, *found;

	map_update(by_lock, &key, &one);
	found = map_lookup(by_lock, &key);
	if (!found)
		return 0;
	bpf_spin_lock((void *)found);
	bpf_spin_unlock((void *)found);
	return 7;
}

MAP(HASH, locks_by_lock, struct key_with_lock, struct beside_data, 4)

SEC("tc") __rule("One lock per value") __success __retval(1)
__description("that of the key does not count")
int lock_in_key_and_in_value(struct __sk_buff *skb)
{
	struct key_with_lock key = { .number = 1 };
	struct beside_data zero = {}, *v;

	map_update(locks_by_lock, &key, &zero);
	v = map_lookup(locks_by_lock, &key);
	if (!v)
		return 0;
	bpf_spin_lock(&v->lock);
	bpf_spin_unlock(&v->lock);
	return 1;
}

/* libbpf only from here: bcc's headers and bcc's BTF do not have these. */
#if UNIT(work_queue)
struct with_wq {
	struct bpf_wq wq;
	struct bpf_spin_lock lock;
};
MAP(ARRAY, wq_map, __u32, struct with_wq, 1)

/* Before commit d56b63cf0c0f ("bpf: add support for bpf_wq user type") (in v6.10) it is data. */
SEC("tc") __rule("What else a value with a lock holds") __loader(libbpf) __success __retval(1)
int lock_beside_work_queue(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(wq_map, struct with_wq, &v->lock)
}
#endif

#if UNIT(task_work)
struct bpf_task_work {
	__u64 opaque;
} __attribute__((aligned(8)));
struct with_task_work {
	struct bpf_task_work work;
	struct bpf_spin_lock lock;
};
MAP(ARRAY, task_work_map, __u32, struct with_task_work, 1)

/* Data before v6.18. commit 5c8fd7e2b5b0 ("bpf: bpf task work plumbing") (in v6.18). */
SEC("tc") __rule("What else a value with a lock holds") __loader(libbpf) __success __retval(1)
int lock_beside_task_work(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(task_work_map, struct with_task_work, &v->lock)
}
#endif

#if UNIT(timer_and_work_queue)
struct with_timer_and_wq {
	struct bpf_timer timer;
	struct bpf_wq wq;
	struct bpf_spin_lock lock;
};
MAP(ARRAY, timer_wq_map, __u32, struct with_timer_and_wq, 1)

SEC("tc") __rule("What else a value with a lock holds") __loader(libbpf)
__success __retval(1)
int lock_beside_timer_and_work_queue(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(timer_wq_map, struct with_timer_and_wq, &v->lock)
}
#endif

/*
 * A map that holds a lock may not hold all that may stand beside one. The twin is sk_storage with a
 * lock and data.
 */
#define CREATE_AND_LOCK(map)                                                     \
	struct bpf_sock *sk = skb->sk;                                           \
	typeof(*map.value) *v;                                                   \
										 \
	if (!sk)                                                                 \
		return 0;                                                        \
	sk = bpf_sk_fullsock(sk);                                                \
	if (!sk)                                                                 \
		return 0;                                                        \
	v = bpf_sk_storage_get(&map, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);        \
	if (!v)                                                                  \
		return 0;                                                        \
	bpf_spin_lock(&v->lock);                                                 \
	bpf_spin_unlock(&v->lock);                                               \
	return 1;

#if UNIT(storage_of_data)
MAP_FLAGS(SK_STORAGE, storage_of_data, int, struct beside_data, 0, BPF_F_NO_PREALLOC)

SEC("tc") __rule("What else a value with a lock holds") __loader(libbpf) __success __retval(1)
int lock_beside_data_in_storage(struct __sk_buff *skb)
{
	CREATE_AND_LOCK(storage_of_data)
}
#endif

#if UNIT(storage_of_timer)
MAP_FLAGS(SK_STORAGE, storage_of_timer, int, struct with_timer, 0, BPF_F_NO_PREALLOC)

/* commit 68134668c17f ("bpf: Add map side support for bpf timers.") (in v5.15). */
SEC("tc") __rule("What else a value with a lock holds") __loader(libbpf)
__twin(lock_beside_data_in_storage)
__kernel("<5.15") __success __retval(1)
__kernel(">=5.15") __failure __stage(map_create) __errno(EOPNOTSUPP)
int lock_beside_timer_in_storage(struct __sk_buff *skb)
{
	CREATE_AND_LOCK(storage_of_timer)
}
#endif

#if UNIT(storage_of_work_queue)
struct stored_wq {
	struct bpf_wq wq;
	struct bpf_spin_lock lock;
};
MAP_FLAGS(SK_STORAGE, storage_of_work_queue, int, struct stored_wq, 0, BPF_F_NO_PREALLOC)

/* commit d56b63cf0c0f ("bpf: add support for bpf_wq user type") (in v6.10). */
SEC("tc") __rule("What else a value with a lock holds") __loader(libbpf)
__twin(lock_beside_data_in_storage)
__kernel("<6.10") __success __retval(1)
__kernel(">=6.10") __refused(map_type_without_lock)
int lock_beside_work_queue_in_storage(struct __sk_buff *skb)
{
	CREATE_AND_LOCK(storage_of_work_queue)
}
#endif

/*
 * How deep the kernel looks: as deep as BTF goes. Each of these structs is eight bytes and the one
 * before it, and the first ends in the lock.
 */
#define NEST(outer, inner) struct outer { __u64 value; struct inner inner; };
#define NEST_FIVE(a, b, c, d, e, f) NEST(b, a) NEST(c, b) NEST(d, c) NEST(e, d) NEST(f, e)

struct nest_0 {
	__u32 value;
	struct bpf_spin_lock lock;
};
NEST_FIVE(nest_0, nest_1, nest_2, nest_3, nest_4, nest_5)
NEST_FIVE(nest_5, nest_6, nest_7, nest_8, nest_9, nest_10)
NEST_FIVE(nest_10, nest_11, nest_12, nest_13, nest_14, nest_15)
NEST_FIVE(nest_15, nest_16, nest_17, nest_18, nest_19, nest_20)
NEST_FIVE(nest_20, nest_21, nest_22, nest_23, nest_24, nest_25)
NEST_FIVE(nest_25, nest_26, nest_27, nest_28, nest_29, nest_30)
NEST_FIVE(nest_30, nest_31, nest_32, nest_33, nest_34, nest_35)

#if UNIT(nest_20)
MAP(ARRAY, nest_20_map, __u32, struct nest_20, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __loader(libbpf)
__twin(lock_last)
__kernel("<6.11") __refused(no_lock_in_value)
__kernel(">=6.11") __success __retval(1)
int lock_20_structs_deep(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(nest_20_map, struct nest_20, (void *)v + sizeof(*v) - 4)
}
#endif

#if UNIT(nest_31)
MAP(ARRAY, nest_31_map, __u32, struct nest_31, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __loader(libbpf)
__twin(lock_last)
__kernel("<6.11") __refused(no_lock_in_value)
__kernel(">=6.11") __success __retval(1)
int lock_31_structs_deep(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(nest_31_map, struct nest_31, (void *)v + sizeof(*v) - 4)
}
#endif

#if UNIT(nest_32)
MAP(ARRAY, nest_32_map, __u32, struct nest_32, 1)

/* No BTF may describe types that are nested any deeper, with or without a lock. */
SEC("tc") __rule("The value is a struct with the lock at top level") __loader(libbpf)
__twin(lock_last) __failure __stage(btf_load) __errno(E2BIG)
int lock_32_structs_deep(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(nest_32_map, struct nest_32, (void *)v + sizeof(*v) - 4)
}
#endif
