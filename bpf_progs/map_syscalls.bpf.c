// SPDX-License-Identifier: GPL-2.0-only
/*
 * Maps with a lock and their twins without, for the system calls that tests/test_lock_flag.py,
 * tests/test_mmap_freeze.py and tests/test_inner_map.py make on them. Hardly a program is needed.
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
PAIR(ARRAY, mappable, __u32, BPF_F_MMAPABLE)

#if UNIT(socket)
STORAGE(SK_STORAGE, socket)
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

#if UNIT(resilient)
struct bpf_res_spin_lock { /* newer than the headers */
	__u64 val;
};

struct resilient {
	struct bpf_res_spin_lock lock;
	__u64 value;
};

MAP(ARRAY, res_array, __u32, struct resilient, 4)
MAP(HASH, res_hash, __u32, struct resilient, 4)
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

MAP(HASH, same_lock, __u32, struct counter, 4)
MAP(HASH, lock_elsewhere, __u32, struct elsewhere, 4)
MAP(HASH, no_lock, __u32, struct plain, 4)
#endif

#endif
