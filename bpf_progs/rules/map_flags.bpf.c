// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which flags of a map go with a lock. Programs must be able to read and to write the map; what
 * user space may do with it, and where the kernel keeps it, does not matter. Maps that are refused
 * for their flags are in map_refused.bpf.c.
 */
#include "spinlock.h"

#define LOCK_AND_UNLOCK(map)             \
	__u32 key = 0;                   \
	struct counter zero = {};        \
	struct counter *c;               \
					 \
	map_update(map, &key, &zero);    \
	c = map_lookup(map, &key);       \
	if (!c)                          \
		return 0;                \
	bpf_spin_lock(&c->lock);         \
	bpf_spin_unlock(&c->lock);       \
	return 1;

MAP(ARRAY, flagless_array, __u32, struct counter, 1)

/*
 * Rule: Map flags
 * Topic: The lock's place
 * A program that may only read a map may not lock in it, because locking writes; since v6.2 one
 * that may only write may not either. Flags that say how the map is kept, or what user space may
 * do, do not matter.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit 591fe9888d78 ("bpf: add program side {rd, wr}only support for maps") (in v5.2)
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 */
SEC("tc") __rule("Map flags") __success __retval(1)
int array_without_flags_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(flagless_array)
}

MAP(HASH, flagless_hash, __u32, struct counter, 4)

SEC("tc") __rule("Map flags") __success __retval(1)
int hash_without_flags_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(flagless_hash)
}

MAP_FLAGS(HASH, hash_on_demand, __u32, struct counter, 4, BPF_F_NO_PREALLOC)

SEC("tc") __rule("Map flags") __success __retval(1)
int hash_without_preallocation_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(hash_on_demand)
}

MAP_FLAGS(ARRAY, mmapable_array, __u32, struct counter, 1, BPF_F_MMAPABLE)

/* commit fc9702273e2e ("bpf: Add mmap() support for BPF_MAP_TYPE_ARRAY") (in v5.5). */
SEC("tc") __rule("Map flags") __success __retval(1)
__description("the map is made; that mmap() refuses it is not the verifier's matter")
int mmapable_array_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(mmapable_array)
}

MAP_FLAGS(HASH, zero_seed_hash, __u32, struct counter, 4, BPF_F_ZERO_SEED)

/* commit 96b3b6c9091d ("bpf: allow zero-initializing hash map seed") (in v5.0). */
SEC("tc") __rule("Map flags") __success __retval(1)
int hash_with_zero_seed_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(zero_seed_hash)
}

MAP_FLAGS(HASH, numa_hash, __u32, struct counter, 4, BPF_F_NUMA_NODE)

SEC("tc") __rule("Map flags") __success __retval(1)
__description("on NUMA node 0")
int hash_on_numa_node_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(numa_hash)
}

MAP_FLAGS(ARRAY, numa_array, __u32, struct counter, 1, BPF_F_NUMA_NODE)

SEC("tc") __rule("Map flags") __success __retval(1)
__description("on NUMA node 0")
int array_on_numa_node_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(numa_array)
}

MAP_FLAGS(ARRAY, inner_flag_array, __u32, struct counter, 1, BPF_F_INNER_MAP)

/*
 * commit 4a8f87e60f6d ("bpf: Allow for map-in-map with dynamic inner array map entries") (in
 * v5.10).
 */
SEC("tc") __rule("Map flags") __success __retval(1)
__description("that lookups are then not inlined does not matter")
int array_of_any_length_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(inner_flag_array)
}

/* libbpf only: bcc's maps are emptied between cases by system calls, which these flags forbid. */
#ifndef LOADER_BCC
MAP_FLAGS(HASH, user_reads_hash, __u32, struct counter, 4, BPF_F_RDONLY)

SEC("tc") __rule("Map flags") __loader(libbpf) __success __retval(1)
int hash_read_only_to_user_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(user_reads_hash)
}

MAP_FLAGS(HASH, user_writes_hash, __u32, struct counter, 4, BPF_F_WRONLY)

SEC("tc") __rule("Map flags") __loader(libbpf) __success __retval(1)
int hash_write_only_to_user_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(user_writes_hash)
}

MAP_FLAGS(ARRAY, user_reads_array, __u32, struct counter, 1, BPF_F_RDONLY)

SEC("tc") __rule("Map flags") __loader(libbpf) __success __retval(1)
int array_read_only_to_user_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(user_reads_array)
}

MAP_FLAGS(ARRAY, user_writes_array, __u32, struct counter, 1, BPF_F_WRONLY)

SEC("tc") __rule("Map flags") __loader(libbpf) __success __retval(1)
int array_write_only_to_user_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(user_writes_array)
}
#endif

#if UNIT(sk_storage_clone)
/* The storage of a listening socket is copied to those that it accepts, but not its lock. */
MAP_FLAGS(SK_STORAGE, cloned_storage, int, struct counter, 0, BPF_F_NO_PREALLOC | BPF_F_CLONE)

/* commit 8f51dfc73bf1 ("bpf: support cloning sk storage on accept()") (in v5.4). */
SEC("tc") __rule("Map flags") __loader(libbpf) __success __retval(1)
int sk_storage_to_clone_holds_lock(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct counter *c;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	c = bpf_sk_storage_get(&cloned_storage, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return 1;
}
#endif
