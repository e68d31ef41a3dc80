// SPDX-License-Identifier: GPL-2.0-only
/*
 * A lock with the right name that is not the kernel's struct. In a file of its own, because
 * spinlock.h must not claim the name here, and each in a unit, because it can have one meaning.
 *
 * libbpf only: bcc drops BTF that the kernel refuses without a word, and makes its maps without.
 */
#define bpf_spin_lock real_spin_lock
#include "spinlock.h"
#undef bpf_spin_lock

#define LOCK_AND_UNLOCK(map, type, lock)              \
	__u32 key = 0;                                \
	type *v = map_lookup(map, &key);              \
						      \
	if (!v)                                       \
		return 0;                             \
	real_spin_lock((void *)(lock));               \
	bpf_spin_unlock((void *)(lock));              \
	return 1;

#if UNIT(eight_bytes)
struct bpf_spin_lock {
	__u64 val;
};
struct with_eight_bytes {
	__u64 value;
	struct bpf_spin_lock lock;
};
MAP(ARRAY, eight_bytes_map, __u32, struct with_eight_bytes, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __loader(libbpf)
__twin(lock_last)
__kernel("<6.2") __refused(no_lock_in_value)
__kernel(">=6.2") __failure __stage(btf_load) __errno(EFAULT)
int lock_of_wrong_size(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(eight_bytes_map, struct with_eight_bytes, &v->lock)
}
#endif

#if UNIT(two_bytes)
struct bpf_spin_lock {
	__u16 val;
};
struct with_two_bytes {
	__u64 value;
	struct bpf_spin_lock lock;
};
MAP(ARRAY, two_bytes_map, __u32, struct with_two_bytes, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __loader(libbpf)
__twin(lock_last)
__kernel("<6.2") __refused(no_lock_in_value)
__kernel(">=6.2") __failure __stage(btf_load) __errno(EFAULT)
int lock_of_two_bytes(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(two_bytes_map, struct with_two_bytes, &v->lock)
}
#endif

#if UNIT(no_bytes)
struct bpf_spin_lock {
};
struct with_no_bytes {
	__u64 value;
	struct bpf_spin_lock lock;
};
MAP(ARRAY, no_bytes_map, __u32, struct with_no_bytes, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __loader(libbpf)
__twin(lock_last)
__kernel("<6.2") __refused(no_lock_in_value)
__kernel(">=6.2") __failure __stage(btf_load) __errno(EFAULT)
int lock_of_no_bytes(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(no_bytes_map, struct with_no_bytes, &v->lock)
}
#endif

#if UNIT(other_members)
struct bpf_spin_lock {
	__u8 what;
	__u8 ever[3];
} __attribute__((aligned(4)));
struct with_other_members {
	__u64 value;
	struct bpf_spin_lock lock;
};
MAP(ARRAY, other_members_map, __u32, struct with_other_members, 1)

/* Name and size are right: what the four bytes are called does not matter. */
SEC("tc") __rule("The value is a struct with the lock at top level") __loader(libbpf)
__success __retval(1)
int lock_of_other_members(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(other_members_map, struct with_other_members, &v->lock)
}
#endif

#if UNIT(union_of_that_name)
union bpf_spin_lock {
	__u32 val;
};
struct with_union_of_that_name {
	__u64 value;
	union bpf_spin_lock lock;
};
MAP(ARRAY, union_of_that_name_map, __u32, struct with_union_of_that_name, 1)

/* It must be a struct. */
SEC("tc") __rule("The value is a struct with the lock at top level") __loader(libbpf)
__twin(lock_last) __refused(no_lock_in_value)
int lock_is_union_of_that_name(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(union_of_that_name_map, struct with_union_of_that_name, &v->lock)
}
#endif

#if UNIT(typedef_of_that_name)
typedef __u32 bpf_spin_lock;
struct with_typedef_of_that_name {
	__u64 value;
	bpf_spin_lock lock;
};
MAP(ARRAY, typedef_of_that_name_map, __u32, struct with_typedef_of_that_name, 1)

SEC("tc") __rule("The value is a struct with the lock at top level") __loader(libbpf)
__twin(lock_last) __refused(no_lock_in_value)
int lock_is_typedef_of_that_name(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(typedef_of_that_name_map, struct with_typedef_of_that_name, &v->lock)
}
#endif
