// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where in a value the lock may stand: in a struct, once, aligned, and with its own type. Since
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2) it
 * is looked for when the BTF is loaded, before that when a program used the map.
 *
 * Layouts that no kernel refuses before a program is loaded share the object; those whose BTF is
 * refused have a unit of their own. These are libbpf only: bcc drops BTF that the kernel refuses
 * without a word, and makes its maps without.
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

struct first {
	struct bpf_spin_lock lock;
	__u32 value;
};
MAP(ARRAY, first_map, __u32, struct first, 1)

/*
 * Rule: The value is a struct with the lock at top level
 * Topic: The lock's place
 * The kernel finds the lock by the BTF of the value: a struct, with a member that is a struct of
 * the name bpf_spin_lock and of four bytes, and nothing between the two names: no typedef, no
 * const, no union. What it does not find is data like any other, which it even copies. Since v6.11
 * it looks into inner structs and arrays as well.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 * commit 64e8ee814819 ("bpf: look into the types of the fields of a struct type recursively.")
 * (in v6.11)
 */
SEC("tc") __rule("The value is a struct with the lock at top level") __success __retval(1)
int lock_first(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(first_map, struct first, &v->lock)
}

struct last {
	__u64 value;
	struct bpf_spin_lock lock;
};
MAP(ARRAY, last_map, __u32, struct last, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __success __retval(1)
int lock_last(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(last_map, struct last, &v->lock)
}

struct middle {
	__u64 before;
	struct bpf_spin_lock lock;
	__u32 after;
};
MAP(ARRAY, middle_map, __u32, struct middle, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __success __retval(1)
int lock_in_the_middle(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(middle_map, struct middle, &v->lock)
}

struct only {
	struct bpf_spin_lock lock;
};
MAP(ARRAY, only_map, __u32, struct only, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __success __retval(1)
int lock_only_member(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(only_map, struct only, &v->lock)
}

/* It is the value's type that has no typedef; the member's is another matter, below. */
typedef struct first first_t;
MAP(ARRAY, typedef_map, __u32, first_t, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __success __retval(1)
int lock_in_typedef_of_struct(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(typedef_map, first_t, &v->lock)
}

/*
 * commit 64e8ee814819 ("bpf: look into the types of the fields of a struct type recursively.")
 * (in v6.11) made "at top level" obsolete, and lets an array of one pass as well.
 */
struct inner {
	__u32 value;
	struct bpf_spin_lock lock;
};

struct depth_1 {
	__u64 value;
	struct inner inner;
};
MAP(ARRAY, depth_1_map, __u32, struct depth_1, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __twin(lock_last)
__kernel("<6.11") __refused(no_lock_in_value)
__kernel(">=6.11") __success __retval(1)
int lock_in_inner_struct(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(depth_1_map, struct depth_1, &v->inner.lock)
}

struct depth_2 {
	__u64 value;
	struct depth_1 inner;
};
MAP(ARRAY, depth_2_map, __u32, struct depth_2, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __twin(lock_last)
__kernel("<6.11") __refused(no_lock_in_value)
__kernel(">=6.11") __success __retval(1)
int lock_two_structs_deep(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(depth_2_map, struct depth_2, &v->inner.inner.lock)
}

struct depth_3 {
	__u64 value;
	struct depth_2 inner;
};
MAP(ARRAY, depth_3_map, __u32, struct depth_3, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __twin(lock_last)
__kernel("<6.11") __refused(no_lock_in_value)
__kernel(">=6.11") __success __retval(1)
int lock_three_structs_deep(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(depth_3_map, struct depth_3, &v->inner.inner.inner.lock)
}

struct depth_4 {
	__u64 value;
	struct depth_3 inner;
};
MAP(ARRAY, depth_4_map, __u32, struct depth_4, 1)

SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_last)
__kernel("<6.11") __refused(no_lock_in_value)
__kernel(">=6.11") __success __retval(1)
int lock_four_structs_deep(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(depth_4_map, struct depth_4, (void *)v + sizeof(*v) - 4)
}

struct depth_5 {
	__u64 value;
	struct depth_4 inner;
};
MAP(ARRAY, depth_5_map, __u32, struct depth_5, 1)

SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_last)
__kernel("<6.11") __refused(no_lock_in_value)
__kernel(">=6.11") __success __retval(1)
int lock_five_structs_deep(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(depth_5_map, struct depth_5, (void *)v + sizeof(*v) - 4)
}

struct with_anonymous_struct {
	__u64 value;
	struct {
		__u32 more;
		struct bpf_spin_lock lock;
	};
};
MAP(ARRAY, anonymous_map, __u32, struct with_anonymous_struct, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __twin(lock_last)
__kernel("<6.11") __refused(no_lock_in_value)
__kernel(">=6.11") __success __retval(1)
int lock_in_anonymous_struct(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(anonymous_map, struct with_anonymous_struct, &v->lock)
}

struct array_of_one {
	__u64 value;
	struct bpf_spin_lock lock[1];
};
MAP(ARRAY, array_of_one_map, __u32, struct array_of_one, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __twin(lock_last)
__kernel("<6.11") __refused(no_lock_in_value)
__kernel(">=6.11") __success __retval(1)
int lock_in_array_of_one(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(array_of_one_map, struct array_of_one, &v->lock[0])
}

struct one_inner_struct {
	__u64 value;
	struct inner inner[1];
};
MAP(ARRAY, one_inner_map, __u32, struct one_inner_struct, 1)

SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_last)
__kernel("<6.11") __refused(no_lock_in_value)
__kernel(">=6.11") __success __retval(1)
int lock_in_array_of_one_struct(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(one_inner_map, struct one_inner_struct, &v->inner[0].lock)
}

struct one_by_one {
	__u64 value;
	struct bpf_spin_lock lock[1][1];
};
MAP(ARRAY, one_by_one_map, __u32, struct one_by_one, 1)

SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_last)
__kernel("<6.11") __refused(no_lock_in_value)
__kernel(">=6.11") __success __retval(1)
int lock_in_array_of_one_by_one(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(one_by_one_map, struct one_by_one, &v->lock[0][0])
}

struct inner_array {
	__u64 value;
	struct array_of_one inner;
};
MAP(ARRAY, inner_array_map, __u32, struct inner_array, 1)

SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_last)
__kernel("<6.11") __refused(no_lock_in_value)
__kernel(">=6.11") __success __retval(1)
int lock_in_array_in_inner_struct(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(inner_array_map, struct inner_array, &v->inner.lock[0])
}

typedef struct inner inner_t;
struct inner_typedef {
	__u64 value;
	inner_t inner;
};
MAP(ARRAY, inner_typedef_map, __u32, struct inner_typedef, 1)

/* It is the member's type that must be a struct itself. */
SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_last) __refused(no_lock_in_value)
int lock_in_typedef_of_inner_struct(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(inner_typedef_map, struct inner_typedef, &v->inner.lock)
}

struct struct_in_union {
	__u64 value;
	union {
		struct {
			struct bpf_spin_lock lock;
		};
		__u32 word;
	};
};
MAP(ARRAY, struct_in_union_map, __u32, struct struct_in_union, 1)

SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_last) __refused(no_lock_in_value)
int lock_in_anonymous_struct_in_union(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(struct_in_union_map, struct struct_in_union, &v->lock)
}

/*
 * What follows hides the type from the kernel, which then sees four bytes like any others: it even
 * copies them. The map is made, but no program may lock.
 */
struct union_member {
	__u64 value;
	union {
		struct bpf_spin_lock lock;
		__u32 word;
	};
};
MAP(ARRAY, union_member_map, __u32, struct union_member, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __twin(lock_last)
__refused(no_lock_in_value)
int lock_in_union(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(union_member_map, struct union_member, &v->lock)
}

union union_value {
	struct bpf_spin_lock lock;
	__u64 value;
};
MAP(ARRAY, union_map, __u32, union union_value, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __twin(lock_first)
__kernel("<6.2") __refused(lock_mangled)
__kernel(">=6.2") __refused(no_lock_in_value)
int value_is_union(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(union_map, union union_value, &v->lock)
}

typedef struct bpf_spin_lock spin_lock_t;
struct typedef_member {
	__u64 value;
	spin_lock_t lock;
};
MAP(ARRAY, typedef_lock_map, __u32, struct typedef_member, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __twin(lock_last)
__refused(no_lock_in_value)
int lock_by_typedef(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(typedef_lock_map, struct typedef_member, &v->lock)
}

struct const_member {
	__u64 value;
	const struct bpf_spin_lock lock;
};
MAP(ARRAY, const_map, __u32, struct const_member, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __twin(lock_last)
__refused(no_lock_in_value)
int const_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(const_map, struct const_member, &v->lock)
}

struct volatile_member {
	__u64 value;
	volatile struct bpf_spin_lock lock;
};
MAP(ARRAY, volatile_map, __u32, struct volatile_member, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __twin(lock_last)
__refused(no_lock_in_value)
int volatile_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(volatile_map, struct volatile_member, &v->lock)
}

/* The kernel goes by the name. */
struct other_spin_lock {
	__u32 val;
};
struct renamed {
	__u64 value;
	struct other_spin_lock lock;
};
MAP(ARRAY, renamed_map, __u32, struct renamed, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __twin(lock_last)
__refused(no_lock_in_value)
int lock_of_other_name(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(renamed_map, struct renamed, &v->lock)
}

MAP(ARRAY, lock_map, __u32, struct bpf_spin_lock, 1)

SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_only_member) __refused(no_lock_in_value)
int value_is_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lock_map, struct bpf_spin_lock, v)
}

MAP(ARRAY, int_map, __u32, int, 1)

SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_only_member)
__kernel("<6.2") __refused(lock_mangled)
__kernel(">=6.2") __refused(no_lock_in_value)
int value_is_int(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(int_map, int, v)
}

enum color { RED };
MAP(ARRAY, enum_map, __u32, enum color, 1)

SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_only_member)
__kernel("<6.2") __refused(lock_mangled)
__kernel(">=6.2") __refused(no_lock_in_value)
int value_is_enum(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(enum_map, enum color, v)
}

typedef char four_bytes[4];
MAP(ARRAY, bytes_map, __u32, four_bytes, 1)

SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_only_member)
__kernel("<6.2") __refused(lock_mangled)
__kernel(">=6.2") __refused(no_lock_in_value)
int value_is_array_of_bytes(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(bytes_map, four_bytes, v)
}

typedef struct bpf_spin_lock one_lock[1];
MAP(ARRAY, one_lock_map, __u32, one_lock, 1)

SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_only_member)
__kernel("<6.2") __refused(lock_mangled)
__kernel(">=6.2") __refused(no_lock_in_value)
int value_is_array_of_locks(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(one_lock_map, one_lock, v)
}

typedef struct only one_struct[1];
MAP(ARRAY, one_struct_map, __u32, one_struct, 1)

SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_only_member)
__kernel("<6.2") __refused(lock_mangled)
__kernel(">=6.2") __refused(no_lock_in_value)
int value_is_array_of_structs(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(one_struct_map, one_struct, v)
}

typedef struct only *pointer;
MAP(ARRAY, pointer_map, __u32, pointer, 1)

SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_only_member)
__kernel("<6.2") __refused(lock_mangled)
__kernel(">=6.2") __refused(no_lock_in_value)
int value_is_pointer(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(pointer_map, pointer, v)
}

typedef const struct first const_first;
MAP(ARRAY, const_value_map, __u32, const_first, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __success __retval(1)
__description("unlike a const lock")
int const_value(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(const_value_map, const_first, &v->lock)
}

struct pointer_member {
	__u64 value;
	struct bpf_spin_lock *lock;
};
MAP(ARRAY, pointer_member_map, __u32, struct pointer_member, 1)

SEC("tc") __rule("The value is a struct with the lock at top level")
__twin(lock_last) __refused(no_lock_in_value)
int pointer_to_lock_as_member(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(pointer_member_map, struct pointer_member, &v->lock)
}

struct offset_4 {
	__u32 before;
	struct bpf_spin_lock lock;
};
MAP(ARRAY, offset_4_map, __u32, struct offset_4, 1)

/*
 * Rule: The lock is 4-byte aligned
 * Topic: The lock's place
 * An atomic instruction works on the four bytes. Where packing has moved them, the BTF is refused
 * since v6.2; before that, only programs that lock.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 */
SEC("tc") __rule("The lock is 4-byte aligned") __success __retval(1)
int lock_at_offset_4(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(offset_4_map, struct offset_4, &v->lock)
}

struct offset_12 {
	__u32 before[3];
	struct bpf_spin_lock lock;
};
MAP(ARRAY, offset_12_map, __u32, struct offset_12, 1)

SEC("tc") __rule("The lock is 4-byte aligned") __success __retval(1)
int lock_at_offset_12(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(offset_12_map, struct offset_12, &v->lock)
}

/* Packed, but by chance aligned. */
struct packed_aligned {
	__u8 before[4];
	struct bpf_spin_lock lock;
	__u8 after;
} __attribute__((packed));
MAP(ARRAY, packed_map, __u32, struct packed_aligned, 1)

SEC("tc") __rule("The lock is 4-byte aligned") __success __retval(1)
int packed_lock_at_offset_4(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(packed_map, struct packed_aligned, &v->lock)
}

#if UNIT(lock_at_offset_1)
struct offset_1 {
	__u8 before;
	struct bpf_spin_lock lock;
	__u8 after[3];
} __attribute__((packed));
MAP(ARRAY, offset_1_map, __u32, struct offset_1, 1)

SEC("tc") __rule("The lock is 4-byte aligned") __loader(libbpf)
__twin(packed_lock_at_offset_4)
__kernel("<6.2") __refused(lock_mangled)
__kernel(">=6.2") __failure __stage(btf_load) __errno(EFAULT)
int lock_at_offset_1(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(offset_1_map, struct offset_1, &v->lock)
}
#endif

#if UNIT(lock_at_offset_2)
struct offset_2 {
	__u16 before;
	struct bpf_spin_lock lock;
	__u16 after;
} __attribute__((packed));
MAP(ARRAY, offset_2_map, __u32, struct offset_2, 1)

SEC("tc") __rule("The lock is 4-byte aligned") __loader(libbpf)
__twin(packed_lock_at_offset_4)
__kernel("<6.2") __refused(lock_mangled)
__kernel(">=6.2") __failure __stage(btf_load) __errno(EFAULT)
int lock_at_offset_2(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(offset_2_map, struct offset_2, &v->lock)
}
#endif

#if UNIT(lock_at_offset_3)
struct offset_3 {
	__u8 before[3];
	struct bpf_spin_lock lock;
	__u8 after;
} __attribute__((packed));
MAP(ARRAY, offset_3_map, __u32, struct offset_3, 1)

SEC("tc") __rule("The lock is 4-byte aligned") __loader(libbpf)
__twin(packed_lock_at_offset_4)
__kernel("<6.2") __refused(lock_mangled)
__kernel(">=6.2") __failure __stage(btf_load) __errno(EFAULT)
int lock_at_offset_3(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(offset_3_map, struct offset_3, &v->lock)
}
#endif

/*
 * Aligned in its own struct, which is not. Since v6.11 looks into inner structs, it adds up offsets
 * but asks each for alignment by itself, so the lock at offset 6 passes: nothing mends that yet.
 */
#if UNIT(inner_struct_at_offset_2)
struct inner_at_offset_2 {
	__u16 before;
	struct inner inner;
	__u16 after;
} __attribute__((packed));
MAP(ARRAY, inner_at_offset_2_map, __u32, struct inner_at_offset_2, 1)

SEC("tc") __rule("The lock is 4-byte aligned") __loader(libbpf)
__twin(lock_last) __known_bug("64e8ee814819", ">=6.11")
__kernel("<6.11") __refused(no_lock_in_value)
__kernel(">=6.11") __failure __stage(btf_load) __errno(EFAULT)
int lock_in_inner_struct_at_offset_2(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(inner_at_offset_2_map, struct inner_at_offset_2, &v->inner.lock)
}
#endif
