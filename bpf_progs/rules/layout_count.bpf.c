// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two locks in one value, in every arrangement. libbpf only where the BTF is refused: bcc drops
 * such BTF without a word, and makes its maps without.
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

/* Where the kernel may or may not see a lock, the program does not take it. */
#define LOOK_UP(map, type)                       \
	__u32 key = 0;                           \
	type *v = map_lookup(map, &key);         \
						 \
	return v ? 1 : 0;

struct inner {
	__u32 value;
	struct bpf_spin_lock lock;
};

struct one_lock {
	struct bpf_spin_lock first;
	__u32 second;
};
MAP(ARRAY, one_lock_map, __u32, struct one_lock, 1)

/*
 * Rule: One lock per value
 * Topic: The lock's place
 * The kernel keeps one offset per value: where the lock is that it never copies and that a program
 * may take. A second one is an error, of the program before v6.2 and of the BTF since. Arrays and
 * inner structs count since v6.11; but until v7.2 a second lock passed where the two stood in
 * different structs of the value.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 * commit 64e8ee814819 ("bpf: look into the types of the fields of a struct type recursively.")
 * (in v6.11)
 * commit f08619f06046 ("bpf: Preserve unique-field state across nested structs") (in v7.3)
 */
SEC("tc") __rule("One lock per value") __success __retval(1)
int one_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(one_lock_map, struct one_lock, &v->first)
}

struct one_inner_lock {
	struct one_lock first;
	__u32 second;
};
MAP(ARRAY, one_inner_lock_map, __u32, struct one_inner_lock, 1)

SEC("tc") __rule("One lock per value") __twin(one_lock)
__kernel("<6.11") __refused(no_lock_in_value)
__kernel(">=6.11") __success __retval(1)
int one_inner_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(one_inner_lock_map, struct one_inner_lock, &v->first.first)
}

struct array_of_two {
	__u64 value;
	struct bpf_spin_lock lock[2];
};
MAP(ARRAY, array_of_two_map, __u32, struct array_of_two, 1)

SEC("tc") __rule("One lock per value") __twin(one_lock)
__refused(no_lock_in_value)
int lock_in_array_of_two(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(array_of_two_map, struct array_of_two, &v->lock[0])
}

struct two_inner_structs {
	__u64 value;
	struct inner inner[2];
};
MAP(ARRAY, two_inner_map, __u32, struct two_inner_structs, 1)

SEC("tc") __rule("One lock per value") __twin(one_lock)
__refused(no_lock_in_value)
int lock_in_array_of_two_structs(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(two_inner_map, struct two_inner_structs, &v->inner[0].lock)
}

struct array_of_none {
	__u64 value;
	struct bpf_spin_lock lock[0];
	__u32 data;
};
MAP(ARRAY, array_of_none_map, __u32, struct array_of_none, 1)

/* The bytes behind an array without elements are not its. */
SEC("tc") __rule("One lock per value")
__twin(one_lock) __refused(no_lock_in_value)
int lock_in_array_of_none(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(array_of_none_map, struct array_of_none, &v->data)
}

#if UNIT(lock_and_array_of_two)
struct lock_and_array {
	struct bpf_spin_lock lock;
	struct bpf_spin_lock locks[2];
};
MAP(ARRAY, lock_and_array_map, __u32, struct lock_and_array, 1)

/* An array is seen since v6.11, and two are more than one. */
SEC("tc") __rule("One lock per value") __loader(libbpf) __twin(one_lock)
__kernel("<6.11") __success __retval(1)
__kernel(">=6.11") __failure __stage(btf_load) __errno(E2BIG)
int lock_and_array_of_two(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lock_and_array_map, struct lock_and_array, &v->lock)
}
#endif

typedef struct bpf_spin_lock spin_lock_t;
struct lock_and_typedef {
	struct bpf_spin_lock lock;
	spin_lock_t other;
};
MAP(ARRAY, lock_and_typedef_map, __u32, struct lock_and_typedef, 1)

/* A typedef is not seen, so it is no second lock; nor are a union, ... */
SEC("tc") __rule("One lock per value") __success __retval(1)
int lock_and_typedef_of_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lock_and_typedef_map, struct lock_and_typedef, &v->lock)
}

struct lock_and_union {
	struct bpf_spin_lock lock;
	union {
		struct bpf_spin_lock other;
		__u32 word;
	};
};
MAP(ARRAY, lock_and_union_map, __u32, struct lock_and_union, 1)

SEC("tc") __rule("One lock per value") __success __retval(1)
int lock_and_lock_in_union(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lock_and_union_map, struct lock_and_union, &v->lock)
}

struct lock_and_pointer {
	struct bpf_spin_lock lock;
	struct bpf_spin_lock *other;
};
MAP(ARRAY, lock_and_pointer_map, __u32, struct lock_and_pointer, 1)

/* ... or a pointer. */
SEC("tc") __rule("One lock per value") __success __retval(1)
int lock_and_pointer_to_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lock_and_pointer_map, struct lock_and_pointer, &v->lock)
}

#if UNIT(two_locks)
struct two_locks {
	struct bpf_spin_lock first;
	struct bpf_spin_lock second;
};
MAP(ARRAY, two_locks_map, __u32, struct two_locks, 1)

SEC("tc") __rule("One lock per value") __loader(libbpf) __twin(one_lock)
__kernel("<6.2") __refused(two_locks_in_value)
__kernel(">=6.2") __failure __stage(btf_load) __errno(E2BIG)
int two_locks(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(two_locks_map, struct two_locks, &v->first)
}
#endif

#if UNIT(three_locks)
struct three_locks {
	struct bpf_spin_lock first;
	struct bpf_spin_lock second;
	struct bpf_spin_lock third;
};
MAP(ARRAY, three_locks_map, __u32, struct three_locks, 1)

SEC("tc") __rule("One lock per value") __loader(libbpf)
__twin(one_lock)
__kernel("<6.2") __refused(two_locks_in_value)
__kernel(">=6.2") __failure __stage(btf_load) __errno(E2BIG)
int three_locks(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(three_locks_map, struct three_locks, &v->first)
}
#endif

#if UNIT(two_locks_apart)
struct two_locks_apart {
	struct bpf_spin_lock first;
	__u64 between[4];
	struct bpf_spin_lock second;
};
MAP(ARRAY, two_locks_apart_map, __u32, struct two_locks_apart, 1)

SEC("tc") __rule("One lock per value") __loader(libbpf)
__twin(one_lock)
__kernel("<6.2") __refused(two_locks_in_value)
__kernel(">=6.2") __failure __stage(btf_load) __errno(E2BIG)
int two_locks_apart(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(two_locks_apart_map, struct two_locks_apart, &v->first)
}
#endif

#if UNIT(lock_and_array_of_one)
struct lock_and_array_of_one {
	struct bpf_spin_lock lock;
	struct bpf_spin_lock other[1];
};
MAP(ARRAY, lock_and_array_of_one_map, __u32, struct lock_and_array_of_one, 1)

/* An array of one is seen since v6.11, and counts. */
SEC("tc") __rule("One lock per value") __loader(libbpf)
__twin(one_lock)
__kernel("<6.11") __success __retval(1)
__kernel(">=6.11") __failure __stage(btf_load) __errno(E2BIG)
int lock_and_array_of_one(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lock_and_array_of_one_map, struct lock_and_array_of_one, &v->lock)
}
#endif

#if UNIT(two_locks_in_inner_struct)
struct inner_of_two {
	struct bpf_spin_lock first;
	struct bpf_spin_lock second;
};
struct two_locks_in_inner {
	__u64 value;
	struct inner_of_two inner;
};
MAP(ARRAY, two_locks_in_inner_map, __u32, struct two_locks_in_inner, 1)

SEC("tc") __rule("One lock per value") __loader(libbpf)
__twin(one_lock)
__kernel("<6.2") __refused(no_lock_in_value)
__kernel(">=6.2") __failure __stage(btf_load) __errno(E2BIG)
int two_locks_in_inner_struct(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(two_locks_in_inner_map, struct two_locks_in_inner, &v->inner.first)
}
#endif

/*
 * commit f08619f06046 ("bpf: Preserve unique-field state across nested structs") (in v7.3): since
 * v6.11 a second lock was not noticed when the two stood in different structs of one value. Stable
 * kernels have it too: 6.12.107 is known to be broken, 6.12.117 to be mended, 7.2.12 as well.
 */
#if UNIT(lock_and_inner_lock)
struct lock_and_inner_lock {
	struct bpf_spin_lock lock;
	struct inner inner;
};
MAP(ARRAY, lock_and_inner_map, __u32, struct lock_and_inner_lock, 1)

/* Before v6.11 the inner lock was not seen. */
SEC("tc") __rule("One lock per value") __loader(libbpf) __twin(one_lock)
__known_bug("f08619f06046", ">=6.11,<=6.12.107") __known_bug("f08619f06046", ">=6.13,<7.2")
__kernel("<6.11") __success __retval(1)
__kernel(">=6.11") __failure __stage(btf_load) __errno(E2BIG)
int lock_and_inner_lock(struct __sk_buff *skb)
{
	LOOK_UP(lock_and_inner_map, struct lock_and_inner_lock)
}
#endif

#if UNIT(two_inner_locks)
struct two_inner_locks {
	struct inner first;
	struct inner second;
};
MAP(ARRAY, two_inner_locks_map, __u32, struct two_inner_locks, 1)

SEC("tc") __rule("One lock per value") __loader(libbpf) __twin(one_lock)
__known_bug("f08619f06046", ">=6.11,<=6.12.107") __known_bug("f08619f06046", ">=6.13,<7.2")
__refused(no_lock_in_value)
int two_inner_locks(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(two_inner_locks_map, struct two_inner_locks, &v->second.lock)
}
#endif

#if UNIT(inner_lock_and_lock)
struct inner_lock_and_lock {
	struct inner inner;
	struct bpf_spin_lock lock;
};
MAP(ARRAY, inner_and_lock_map, __u32, struct inner_lock_and_lock, 1)

/* The other way round. */
SEC("tc") __rule("One lock per value") __loader(libbpf)
__known_bug("f08619f06046", ">=6.11,<=6.12.107") __known_bug("f08619f06046", ">=6.13,<7.2")
__twin(one_lock)
__kernel("<6.11") __success __retval(1)
__kernel(">=6.11") __failure __stage(btf_load) __errno(E2BIG)
int inner_lock_and_lock(struct __sk_buff *skb)
{
	LOOK_UP(inner_and_lock_map, struct inner_lock_and_lock)
}
#endif

#if UNIT(lock_and_deep_lock)
struct deep {
	__u32 value;
	struct inner inner;
};
struct lock_and_deep_lock {
	struct bpf_spin_lock lock;
	struct deep deep;
};
MAP(ARRAY, lock_and_deep_map, __u32, struct lock_and_deep_lock, 1)

SEC("tc") __rule("One lock per value") __loader(libbpf)
__known_bug("f08619f06046", ">=6.11,<=6.12.107") __known_bug("f08619f06046", ">=6.13,<7.2")
__twin(one_lock)
__kernel("<6.11") __success __retval(1)
__kernel(">=6.11") __failure __stage(btf_load) __errno(E2BIG)
int lock_and_lock_two_structs_deep(struct __sk_buff *skb)
{
	LOOK_UP(lock_and_deep_map, struct lock_and_deep_lock)
}
#endif

#if UNIT(lock_and_struct_array)
struct lock_and_struct_array {
	struct bpf_spin_lock lock;
	struct inner inner[1];
};
MAP(ARRAY, lock_and_struct_array_map, __u32, struct lock_and_struct_array, 1)

SEC("tc") __rule("One lock per value") __loader(libbpf)
__known_bug("f08619f06046", ">=6.11,<=6.12.107") __known_bug("f08619f06046", ">=6.13,<7.2")
__twin(one_lock)
__kernel("<6.11") __success __retval(1)
__kernel(">=6.11") __failure __stage(btf_load) __errno(E2BIG)
int lock_and_array_of_one_struct(struct __sk_buff *skb)
{
	LOOK_UP(lock_and_struct_array_map, struct lock_and_struct_array)
}
#endif

#if UNIT(lock_and_two_structs)
struct lock_and_two_structs {
	struct bpf_spin_lock lock;
	struct inner inner[2];
};
MAP(ARRAY, lock_and_two_structs_map, __u32, struct lock_and_two_structs, 1)

/* The kernels that miss a second lock in another struct stumble over the repeated one here. */
SEC("tc") __rule("One lock per value") __loader(libbpf)
__twin(one_lock)
__kernel("<6.11") __success __retval(1)
__kernel(">=6.11,<=6.12.107") __failure __stage(btf_load) __errno(EINVAL)
__kernel(">6.12.107,<6.13") __failure __stage(btf_load) __errno(E2BIG)
__kernel(">=6.13,<7.2") __failure __stage(btf_load) __errno(EINVAL)
__kernel(">=7.2") __failure __stage(btf_load) __errno(E2BIG)
int lock_and_array_of_two_structs(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lock_and_two_structs_map, struct lock_and_two_structs, &v->lock)
}
#endif
