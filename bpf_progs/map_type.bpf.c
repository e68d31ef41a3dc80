// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which maps may hold a lock: every map type there is, but storage that belongs to a kernel
 * object, which is in map_storage.bpf.c. A kernel that does not know a type refuses it with
 * EINVAL, lock or no lock.
 *
 * Each refused map is a unit of its own, as it takes its object with it. bcc gets those that it
 * has a word for. It takes ENOTSUPP to mean that the kernel knows no BTF, and makes the map
 * without.
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

/*
 * The kinds of hash map, array and trie that bcc has words for: a program for each loader, because
 * bcc made a map without BTF of what kernels before v6.2 refused.
 */
#if UNIT(lru_hash)
MAP(LRU_HASH, lru_hash, __u32, struct counter, 4)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(hash_holds_lock) __failure __stage(map_create)
__kernel("<6.2") __errno(ENOTSUPP)
__kernel(">=6.2") __errno(EOPNOTSUPP)
int lru_hash_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lru_hash, __u32, struct counter)
}

SEC("tc") __rule("Only some map types hold a lock") __loader(bcc)
__twin(hash_holds_lock) __failure
__kernel("<6.2") __errno(EACCES) __msg("has to have BTF in order to use bpf_spin_lock")
__kernel(">=6.2") __stage(map_create) __errno(EOPNOTSUPP)
int lru_hash_of_bcc_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lru_hash, __u32, struct counter)
}
#endif

#if UNIT(percpu_hash)
MAP(PERCPU_HASH, percpu_hash, __u32, struct counter, 4)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(hash_holds_lock) __failure __stage(map_create)
__kernel("<6.2") __errno(ENOTSUPP)
__kernel(">=6.2") __errno(EOPNOTSUPP)
int percpu_hash_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(percpu_hash, __u32, struct counter)
}

SEC("tc") __rule("Only some map types hold a lock") __loader(bcc)
__twin(hash_holds_lock) __failure
__kernel("<6.2") __errno(EACCES) __msg("has to have BTF in order to use bpf_spin_lock")
__kernel(">=6.2") __stage(map_create) __errno(EOPNOTSUPP)
int percpu_hash_of_bcc_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(percpu_hash, __u32, struct counter)
}
#endif

#if UNIT(lru_percpu_hash)
MAP(LRU_PERCPU_HASH, lru_percpu_hash, __u32, struct counter, 4)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(hash_holds_lock) __failure __stage(map_create)
__kernel("<6.2") __errno(ENOTSUPP)
__kernel(">=6.2") __errno(EOPNOTSUPP)
int lru_percpu_hash_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lru_percpu_hash, __u32, struct counter)
}

SEC("tc") __rule("Only some map types hold a lock") __loader(bcc)
__twin(hash_holds_lock) __failure
__kernel("<6.2") __errno(EACCES) __msg("has to have BTF in order to use bpf_spin_lock")
__kernel(">=6.2") __stage(map_create) __errno(EOPNOTSUPP)
int lru_percpu_hash_of_bcc_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lru_percpu_hash, __u32, struct counter)
}
#endif

#if UNIT(percpu_array)
MAP(PERCPU_ARRAY, percpu_array, __u32, struct counter, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_lock) __failure __stage(map_create)
__kernel("<6.2") __errno(ENOTSUPP)
__kernel(">=6.2") __errno(EOPNOTSUPP)
int percpu_array_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(percpu_array, __u32, struct counter)
}

SEC("tc") __rule("Only some map types hold a lock") __loader(bcc)
__twin(array_holds_lock) __failure
__kernel("<6.2") __errno(EACCES) __msg("has to have BTF in order to use bpf_spin_lock")
__kernel(">=6.2") __stage(map_create) __errno(EOPNOTSUPP)
int percpu_array_of_bcc_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(percpu_array, __u32, struct counter)
}
#endif

#if UNIT(lpm_trie)
MAP_FLAGS(LPM_TRIE, lpm_trie, struct prefix, struct counter, 4, BPF_F_NO_PREALLOC)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(hash_of_prefixes_holds_lock) __failure __stage(map_create)
__kernel("<6.2") __errno(ENOTSUPP)
__kernel(">=6.2") __errno(EOPNOTSUPP)
int lpm_trie_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lpm_trie, struct prefix, struct counter)
}

SEC("tc") __rule("Only some map types hold a lock") __loader(bcc)
__twin(hash_of_prefixes_holds_lock) __failure
__kernel("<6.2") __errno(EACCES) __msg("has to have BTF in order to use bpf_spin_lock")
__kernel(">=6.2") __stage(map_create) __errno(EOPNOTSUPP)
int lpm_trie_of_bcc_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lpm_trie, struct prefix, struct counter)
}
#endif

/*
 * Maps whose values mean something to the kernel: programs, sockets, devices and such. libbpf only:
 * bcc gives them no BTF, or values of its own.
 */
#if UNIT(prog_array)
MAP(PROG_ARRAY, prog_array, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes)
__failure __stage(map_create)
__kernel("<6.2") __errno(ENOTSUPP)
__kernel(">=6.2") __errno(EOPNOTSUPP)
int prog_array_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(prog_array, __u32, struct only_lock)
}
#endif

#if UNIT(perf_event_array)
MAP(PERF_EVENT_ARRAY, perf_event_array, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes)
__failure __stage(map_create)
__kernel("<6.2") __errno(ENOTSUPP)
__kernel(">=6.2") __errno(EOPNOTSUPP)
int perf_event_array_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(perf_event_array, __u32, struct only_lock)
}
#endif

#if UNIT(stack_trace)
MAP(STACK_TRACE, stack_trace, __u32, struct counter, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_lock)
__failure __stage(map_create)
__kernel("<6.2") __errno(ENOTSUPP)
__kernel(">=6.2") __errno(EOPNOTSUPP)
int stack_trace_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(stack_trace, __u32, struct counter)
}
#endif

#if UNIT(cgroup_array)
MAP(CGROUP_ARRAY, cgroup_array, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes)
__failure __stage(map_create)
__kernel("<6.2") __errno(ENOTSUPP)
__kernel(">=6.2") __errno(EOPNOTSUPP)
int cgroup_array_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(cgroup_array, __u32, struct only_lock)
}
#endif

#if UNIT(sockmap)
MAP(SOCKMAP, sockmap, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes)
__failure __stage(map_create)
__kernel("<6.2") __errno(ENOTSUPP)
__kernel(">=6.2") __errno(EOPNOTSUPP)
int sockmap_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(sockmap, __u32, struct only_lock)
}
#endif

#if UNIT(sockhash)
MAP(SOCKHASH, sockhash, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes)
__failure __stage(map_create)
__kernel("<6.2") __errno(ENOTSUPP)
__kernel(">=6.2") __errno(EOPNOTSUPP)
int sockhash_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(sockhash, __u32, struct only_lock)
}
#endif

#if UNIT(cpumap)
MAP(CPUMAP, cpumap, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes)
__failure __stage(map_create)
__kernel("<6.2") __errno(ENOTSUPP)
__kernel(">=6.2") __errno(EOPNOTSUPP)
int cpumap_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(cpumap, __u32, struct only_lock)
}
#endif

#if UNIT(xskmap)
MAP(XSKMAP, xskmap, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes)
__failure __stage(map_create)
__kernel("<6.2") __errno(ENOTSUPP)
__kernel(">=6.2") __errno(EOPNOTSUPP)
int xskmap_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(xskmap, __u32, struct only_lock)
}
#endif

#if UNIT(reuseport_sockarray)
MAP(REUSEPORT_SOCKARRAY, reuseport_sockarray, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes)
__failure __stage(map_create)
__kernel("<6.2") __errno(ENOTSUPP)
__kernel(">=6.2") __errno(EOPNOTSUPP)
int reuseport_sockarray_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(reuseport_sockarray, __u32, struct only_lock)
}
#endif

#if UNIT(outer_array_of_maps)
/* The lock in the outer value; what an inner one may hold is in pointer.bpf.c. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct only_lock);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		__type(key, __u32);
		__type(value, __u32);
	});
} outer_array_of_maps SEC(".maps");

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes)
__failure __stage(map_create)
__kernel("<6.2") __errno(ENOTSUPP)
__kernel(">=6.2") __errno(EOPNOTSUPP)
int outer_array_of_maps_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(outer_array_of_maps, __u32, struct only_lock)
}
#endif

#if UNIT(outer_hash_of_maps)
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct only_lock);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		__type(key, __u32);
		__type(value, __u32);
	});
} outer_hash_of_maps SEC(".maps");

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes)
__failure __stage(map_create)
__kernel("<6.2") __errno(ENOTSUPP)
__kernel(">=6.2") __errno(EOPNOTSUPP)
int outer_hash_of_maps_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(outer_hash_of_maps, __u32, struct only_lock)
}
#endif

/* These two are read-only to programs anyway, which is refused first; see the flags below. */
#if UNIT(devmap)
MAP(DEVMAP, devmap, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes)
__failure __stage(map_create) __errno(EACCES)
int devmap_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(devmap, __u32, struct only_lock)
}
#endif

#if UNIT(devmap_hash)
MAP(DEVMAP_HASH, devmap_hash, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes)
__failure __stage(map_create) __errno(EACCES)
int devmap_hash_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(devmap_hash, __u32, struct only_lock)
}
#endif

/*
 * Maps without keys. A filter's values may be described by BTF; those of a queue and a stack may
 * not, whatever they are, so there can be no lock in them either.
 */
#define KEYLESS_MAP(kind, name, value_type)                 \
	struct {                                            \
		__uint(type, BPF_MAP_TYPE_##kind);          \
		__uint(max_entries, 4);                     \
		__type(value, value_type);                  \
	} name SEC(".maps");

#if UNIT(bloom_filter)
KEYLESS_MAP(BLOOM_FILTER, bloom_filter, struct counter)

/* commit 9330986c0300 ("bpf: Add bloom filter map implementation") (in v5.16). */
SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_lock)
__failure __stage(map_create)
__kernel("<5.16") __errno(EINVAL)
__kernel(">=5.16,<6.2") __errno(ENOTSUPP)
__kernel(">=6.2") __errno(EOPNOTSUPP)
int bloom_filter_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(bloom_filter, __u32, struct counter)
}
#endif

#if UNIT(queue)
KEYLESS_MAP(QUEUE, queue, struct counter)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_lock)
__failure __stage(map_create) __errno(EINVAL)
int queue_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(queue, __u32, struct counter)
}
#endif

#if UNIT(stack)
KEYLESS_MAP(STACK, stack, struct counter)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_lock)
__failure __stage(map_create) __errno(EINVAL)
int stack_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(stack, __u32, struct counter)
}
#endif

/*
 * Maps that have no values, or only the kernel's: what describes a lock in them is refused, but not
 * because of the lock.
 */
#if UNIT(ringbuf)
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
	__type(value, struct counter);
} ringbuf SEC(".maps");

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_lock) __failure __stage(map_create) __errno(EINVAL)
int ringbuf_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(ringbuf, __u32, struct counter)
}
#endif

#if UNIT(user_ringbuf)
struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, 4096);
	__type(value, struct counter);
} user_ringbuf SEC(".maps");

/* A v5.10 kernel does not know the type. */
SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_lock) __failure __stage(map_create) __errno(EINVAL)
int user_ringbuf_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(user_ringbuf, __u32, struct counter)
}
#endif

#if UNIT(arena)
struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(value, struct counter);
} arena SEC(".maps");

/* commit 317460317a02 ("bpf: Introduce bpf_arena.") (in v6.9); before, the type is not known. */
SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_lock) __failure __stage(map_create) __errno(EINVAL)
int arena_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(arena, __u32, struct counter)
}
#endif

#if UNIT(struct_ops_map)
MAP(STRUCT_OPS, struct_ops_map, __u32, struct counter, 1)

/* Its values are one of the kernel's structs, named by the kernel's BTF. */
SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_lock) __failure __stage(map_create) __errno(EINVAL)
int struct_ops_map_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(struct_ops_map, __u32, struct counter)
}
#endif

/* Types that the image's headers may not have a name for. */
#define BPF_MAP_TYPE_INSN_ARRAY 34
#define BPF_MAP_TYPE_RHASH 35
#define BPF_MAP_TYPE_OF_NO_KERNEL 4096

#if UNIT(insn_array)
struct four_words {
	struct bpf_spin_lock lock;
	__u32 words[3];
};
MAP(INSN_ARRAY, insn_array, __u32, struct four_words, 1)

/*
 * commit b4ce5923e780 ("bpf, x86: add new map type: instructions array") (in v6.19). It is
 * read-only to programs, which is refused first, as with the maps of devices.
 */
SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_lock) __failure __stage(map_create)
__kernel("<6.19") __errno(EINVAL)
__kernel(">=6.19") __errno(EACCES)
int insn_array_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(insn_array, __u32, struct four_words)
}
#endif

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

#if UNIT(unknown_type)
MAP(OF_NO_KERNEL, unknown_type, __u32, struct counter, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_lock) __failure __stage(map_create) __errno(EINVAL)
int unknown_map_type_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(unknown_type, __u32, struct counter)
}
#endif
