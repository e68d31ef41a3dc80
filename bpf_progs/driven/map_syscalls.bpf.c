// SPDX-License-Identifier: GPL-2.0-only
/*
 * Maps with a lock and their twins without, for the system calls of test_lock_flag.py,
 * test_mmap_freeze.py, test_inner_map.py and test_exposure.py in tests/lock/copies/.
 */
#include "spinlock.h"

#ifndef LOADER_BCC /* system calls do not depend on who made the map */

struct plain {
	__u32 first, second;
};

/* A map with a lock, and one of the same type without. */
#define PAIR(kind, name, key, flags)                              \
	MAP_FLAGS(kind, locked_##name, key, struct counter, 4, flags) \
	MAP_FLAGS(kind, plain_##name, key, struct plain, 4, flags)
#define STORAGE(kind, name)                                                             \
	MAP_FLAGS(kind, locked_##name, int, struct counter, 0, BPF_F_NO_PREALLOC)       \
	MAP_FLAGS(kind, plain_##name, int, struct plain, 0, BPF_F_NO_PREALLOC)

PAIR(ARRAY, array, __u32, 0)
PAIR(HASH, hash, __u32, 0)
PAIR(HASH, lazy, __u32, BPF_F_NO_PREALLOC)

/*
 * Rule: BPF_F_LOCK is for maps with a lock
 * Topic: System calls
 * With this flag the kernel holds the element's lock while it copies. So every call that copies an
 * element accepts the flag if the map has a lock, and refuses it otherwise. It refuses the flag for a
 * bpf_res_spin_lock too, which the kernel does not take for copies. Deletes copy nothing and refuse it.
 * commit 96049f3afd50 ("bpf: introduce BPF_F_LOCK flag") (in v5.1)
 * commit cb4d03ab499d ("bpf: Add generic support for lookup batch op") (in v5.6)
 * commit 3e87f192b405 ("bpf: Add lookup_and_delete_elem support to hashtab") (in v5.14)
 * commit 0de2046137f9 ("bpf: Implement verifier support for rqspinlock") (in v6.15)
 */
static __always_inline int update_with_flag(void *map)
{
	__u32 key = 0;
	__u64 value = 0;

	return bpf_map_update_elem(map, &key, &value, BPF_F_LOCK);
}

SEC("tc")
int update_locked_array(struct __sk_buff *skb)
{
	return update_with_flag(&locked_array);
}

SEC("tc")
int update_plain_array(struct __sk_buff *skb)
{
	return update_with_flag(&plain_array);
}

SEC("tc")
int update_locked_hash(struct __sk_buff *skb)
{
	return update_with_flag(&locked_hash);
}

SEC("tc")
int update_plain_hash(struct __sk_buff *skb)
{
	return update_with_flag(&plain_hash);
}

SEC("tc")
int update_locked_lazy(struct __sk_buff *skb)
{
	return update_with_flag(&locked_lazy);
}

SEC("tc")
int update_plain_lazy(struct __sk_buff *skb)
{
	return update_with_flag(&plain_lazy);
}

/*
 * Rule: A map with a lock is neither mapped nor frozen
 * Topic: Later programs, calls and places
 * User space could read and write the lock through mapped memory. The verifier may take the content of
 * a frozen map for constant, but a lock changes. Before v6.2 a map with a lock could be frozen.
 * commit fc9702273e2e ("bpf: Add mmap() support for BPF_MAP_TYPE_ARRAY") (in v5.5)
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 */
PAIR(ARRAY, mappable, __u32, BPF_F_MMAPABLE)

#if UNIT(socket)
STORAGE(SK_STORAGE, socket)

/* The storage helpers have flags of their own. With BPF_F_LOCK they find nothing. */
static __always_inline int finds_storage(struct __sk_buff *skb, __u64 flags)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return -1;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return -1;
	flags |= BPF_SK_STORAGE_GET_F_CREATE;
	return bpf_sk_storage_get(&locked_socket, sk, 0, flags) ? 1 : 0;
}

SEC("tc")
int get_storage(struct __sk_buff *skb)
{
	return finds_storage(skb, 0);
}

SEC("tc")
int get_storage_with_flag(struct __sk_buff *skb)
{
	return finds_storage(skb, BPF_F_LOCK);
}
#endif

#if UNIT(file)
STORAGE(INODE_STORAGE, file)
#endif

#if UNIT(process)
STORAGE(TASK_STORAGE, process)
#endif

#if UNIT(cgroup)
STORAGE(CGRP_STORAGE, cgroup)
#endif

#if UNIT(attached)
MAP(CGROUP_STORAGE, locked_attached, struct bpf_cgroup_storage_key, struct counter, 0)
MAP(CGROUP_STORAGE, plain_attached, struct bpf_cgroup_storage_key, struct plain, 0)

SEC("cgroup_skb/egress")
int use_locked_storage(struct __sk_buff *skb)
{
	return bpf_get_local_storage(&locked_attached, 0) != 0;
}

SEC("cgroup_skb/egress")
int use_plain_storage(struct __sk_buff *skb)
{
	return bpf_get_local_storage(&plain_attached, 0) != 0;
}
#endif

#if UNIT(rhash)
#define BPF_MAP_TYPE_RHASH 35 /* newer than the headers */
PAIR(RHASH, rhash, __u32, BPF_F_NO_PREALLOC)
#endif

#if UNIT(res_spin_lock)
struct bpf_res_spin_lock { /* newer than the headers */
	__u32 val;
};

struct res_spin_lock_counter {
	struct bpf_res_spin_lock lock;
	__u64 value;
};

MAP(ARRAY, res_array, __u32, struct res_spin_lock_counter, 4)
MAP(HASH, res_hash, __u32, struct res_spin_lock_counter, 4)
#endif

#if UNIT(inner)
struct elsewhere {
	__u32 value;
	struct bpf_spin_lock lock;
};

struct template {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct counter);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct template);
} outer SEC(".maps");

/* Their locks have the same offset as the template's. */
struct shorter {
	struct bpf_spin_lock lock;
};

struct longer {
	struct bpf_spin_lock lock;
	__u32 values[3];
};

MAP(HASH, same_lock, __u32, struct counter, 4)
MAP(HASH, lock_elsewhere, __u32, struct elsewhere, 4)
MAP(HASH, no_lock, __u32, struct plain, 4)
MAP(HASH, shorter_value, __u32, struct shorter, 4)
MAP(HASH, longer_value, __u32, struct longer, 4)
#endif

#if UNIT(inner_pointer)
struct object {
	__u64 value;
};
struct other_object {
	__u64 value;
};
/* The names without "struct" are for clang 14, which loses a tag between that and the asterisk. */
typedef struct object object_t;
typedef struct other_object other_object_t;

/* For clang 14, which describes a struct only where it is used as more than a pointer's target. */
struct objects {
	struct object object;
	struct other_object other;
};
MAP(ARRAY, objects, __u32, struct objects, 1)

/* All of one size, with a lock at the begin and a kptr at the end. */
struct pointer_last {
	struct bpf_spin_lock lock;
	__u64 value;
	object_t __kptr *pointer;
};

struct pointer_before_value {
	struct bpf_spin_lock lock;
	object_t __kptr *pointer;
	__u64 value;
};

struct other_pointer_last {
	struct bpf_spin_lock lock;
	__u64 value;
	other_object_t __kptr *pointer;
};

struct data_last {
	struct bpf_spin_lock lock;
	__u64 value;
	__u64 pointer;
};

MAP(HASH, same_pointer, __u32, struct pointer_last, 4)
MAP(HASH, pointer_elsewhere, __u32, struct pointer_before_value, 4)
MAP(HASH, pointer_to_other_type, __u32, struct other_pointer_last, 4)
MAP(HASH, no_pointer, __u32, struct data_last, 4)

struct pointer_template {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct pointer_last);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct pointer_template);
} outer_of_pointers SEC(".maps");
#endif

#endif
