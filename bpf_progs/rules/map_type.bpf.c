// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which maps may hold a lock, but for storage that belongs to a kernel object: map_storage.bpf.c.
 * Those that may not are in map_refused.bpf.c; together they are all the map types there are.
 */
#include "spinlock.h"

/* For types whose values must have four bytes. */
struct only_lock {
	struct bpf_spin_lock lock;
};

/* The same program for all; only its map differs. */
#define LOCK_AND_UNLOCK(map, key_type, value_type)      \
	key_type key = { 0 };                           \
	value_type zero = {};                           \
	value_type *v;                                  \
							\
	map_update(map, &key, &zero);                   \
	v = map_lookup(map, &key);                      \
	if (!v)                                         \
		return 0;                               \
	bpf_spin_lock(&v->lock);                        \
	bpf_spin_unlock(&v->lock);                      \
	return 1;

MAP(ARRAY, array, __u32, struct counter, 1)

/*
 * Rule: Only some map types hold a lock
 * Topic: The lock's place
 * HASH and ARRAY could first, the kinds of storage that belong to a kernel object came with their
 * own commits, RHASH is the latest. A map type must leave the four bytes alone in all it does to a
 * value, so any other is refused when it is created: with ENOTSUPP, an errno of the kernel's own,
 * before v6.2, and with EOPNOTSUPP since.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit 6ac99e8f23d4 ("bpf: Introduce bpf sk local storage") (in v5.2)
 * commit 8ea636848aca ("bpf: Implement bpf_local_storage for inodes") (in v5.10)
 * commit 4cf1bc1f1045 ("bpf: Implement task local storage") (in v5.11)
 * commit c4bcfb38a95e ("bpf: Implement cgroup storage available to non-cgroup-attached bpf progs")
 * (in v6.2)
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 * commit 16b4d3e2fb24 ("bpf: Implement resizable hashmap basic functions") (in v7.2)
 */
SEC("tc") __rule("Only some map types hold a lock") __success __retval(1)
int array_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(array, __u32, struct counter)
}

MAP(ARRAY, array_of_locks, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __success __retval(1)
int array_holds_four_bytes(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(array_of_locks, __u32, struct only_lock)
}

MAP(HASH, hash, __u32, struct counter, 4)

SEC("tc") __rule("Only some map types hold a lock") __success __retval(1)
int hash_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(hash, __u32, struct counter)
}

struct prefix {
	__u32 length;
	__u32 address;
};

MAP_FLAGS(HASH, hash_of_prefixes, struct prefix, struct counter, 4, BPF_F_NO_PREALLOC)

SEC("tc") __rule("Only some map types hold a lock") __success __retval(1)
__description("the twin of the trie: its key, its flag")
int hash_of_prefixes_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(hash_of_prefixes, struct prefix, struct counter)
}

#define BPF_MAP_TYPE_RHASH 35 /* the image's headers may not have it */

#if UNIT(rhash)
MAP_FLAGS(RHASH, rhash, __u32, struct counter, 4, BPF_F_NO_PREALLOC)

/*
 * commit 16b4d3e2fb24 ("bpf: Implement resizable hashmap basic functions") (in v7.2). Before, the
 * type is not known.
 */
SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_lock)
__kernel("<7.2") __failure __stage(map_create) __errno(EINVAL)
__kernel(">=7.2") __success __retval(1)
int rhash_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(rhash, __u32, struct counter)
}
#endif
