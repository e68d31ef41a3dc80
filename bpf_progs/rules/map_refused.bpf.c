// SPDX-License-Identifier: GPL-2.0-only
/*
 * Maps that the kernel does not make with a lock in their values: for their type, or for their
 * flags. A kernel that does not know a type refuses it with EINVAL, lock or no lock.
 *
 * Each is a unit of its own, as it takes its object with it; the legal twins are in map_type.bpf.c
 * and map_flags.bpf.c. bcc gets those that it has a word for. It takes ENOTSUPP to mean that the
 * kernel knows no BTF, and makes the map without.
 */
#include "spinlock.h"

/* For types whose values must have four bytes. */
struct only_lock {
	struct bpf_spin_lock lock;
};

struct prefix {
	__u32 length;
	__u32 address;
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

/*
 * The kinds of hash map, array and trie that bcc has words for: a program for each loader, because
 * bcc made a map without BTF of what kernels before v6.2 refused.
 */
#if UNIT(lru_hash)
MAP(LRU_HASH, lru_hash, __u32, struct counter, 4)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(hash_holds_lock) __refused(map_type_without_lock)
int lru_hash_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lru_hash, __u32, struct counter)
}

SEC("tc") __rule("Only some map types hold a lock") __loader(bcc)
__twin(hash_holds_lock)
__kernel("<6.2") __refused(map_without_btf)
__kernel(">=6.2") __refused(map_type_without_lock)
int lru_hash_of_bcc_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lru_hash, __u32, struct counter)
}
#endif

#if UNIT(percpu_hash)
MAP(PERCPU_HASH, percpu_hash, __u32, struct counter, 4)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(hash_holds_lock) __refused(map_type_without_lock)
int percpu_hash_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(percpu_hash, __u32, struct counter)
}

SEC("tc") __rule("Only some map types hold a lock") __loader(bcc)
__twin(hash_holds_lock)
__kernel("<6.2") __refused(map_without_btf)
__kernel(">=6.2") __refused(map_type_without_lock)
int percpu_hash_of_bcc_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(percpu_hash, __u32, struct counter)
}
#endif

#if UNIT(lru_percpu_hash)
MAP(LRU_PERCPU_HASH, lru_percpu_hash, __u32, struct counter, 4)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(hash_holds_lock) __refused(map_type_without_lock)
int lru_percpu_hash_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lru_percpu_hash, __u32, struct counter)
}

SEC("tc") __rule("Only some map types hold a lock") __loader(bcc)
__twin(hash_holds_lock)
__kernel("<6.2") __refused(map_without_btf)
__kernel(">=6.2") __refused(map_type_without_lock)
int lru_percpu_hash_of_bcc_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lru_percpu_hash, __u32, struct counter)
}
#endif

#if UNIT(percpu_array)
MAP(PERCPU_ARRAY, percpu_array, __u32, struct counter, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_lock) __refused(map_type_without_lock)
int percpu_array_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(percpu_array, __u32, struct counter)
}

SEC("tc") __rule("Only some map types hold a lock") __loader(bcc)
__twin(array_holds_lock)
__kernel("<6.2") __refused(map_without_btf)
__kernel(">=6.2") __refused(map_type_without_lock)
int percpu_array_of_bcc_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(percpu_array, __u32, struct counter)
}
#endif

#if UNIT(lpm_trie)
MAP_FLAGS(LPM_TRIE, lpm_trie, struct prefix, struct counter, 4, BPF_F_NO_PREALLOC)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(hash_of_prefixes_holds_lock) __refused(map_type_without_lock)
int lpm_trie_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(lpm_trie, struct prefix, struct counter)
}

SEC("tc") __rule("Only some map types hold a lock") __loader(bcc)
__twin(hash_of_prefixes_holds_lock)
__kernel("<6.2") __refused(map_without_btf)
__kernel(">=6.2") __refused(map_type_without_lock)
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
__twin(array_holds_four_bytes) __refused(map_type_without_lock)
int prog_array_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(prog_array, __u32, struct only_lock)
}
#endif

#if UNIT(perf_event_array)
MAP(PERF_EVENT_ARRAY, perf_event_array, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes) __refused(map_type_without_lock)
int perf_event_array_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(perf_event_array, __u32, struct only_lock)
}
#endif

#if UNIT(stack_trace)
MAP(STACK_TRACE, stack_trace, __u32, struct counter, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_lock) __refused(map_type_without_lock)
int stack_trace_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(stack_trace, __u32, struct counter)
}
#endif

#if UNIT(cgroup_array)
MAP(CGROUP_ARRAY, cgroup_array, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes) __refused(map_type_without_lock)
int cgroup_array_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(cgroup_array, __u32, struct only_lock)
}
#endif

#if UNIT(sockmap)
MAP(SOCKMAP, sockmap, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes) __refused(map_type_without_lock)
int sockmap_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(sockmap, __u32, struct only_lock)
}
#endif

#if UNIT(sockhash)
MAP(SOCKHASH, sockhash, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes) __refused(map_type_without_lock)
int sockhash_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(sockhash, __u32, struct only_lock)
}
#endif

#if UNIT(cpumap)
MAP(CPUMAP, cpumap, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes) __refused(map_type_without_lock)
int cpumap_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(cpumap, __u32, struct only_lock)
}
#endif

#if UNIT(xskmap)
MAP(XSKMAP, xskmap, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__needs(xsk_map_alloc, "4.18", CONFIG_XDP_SOCKETS) __twin(array_holds_four_bytes)
__refused(map_type_without_lock)
int xskmap_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(xskmap, __u32, struct only_lock)
}
#endif

#if UNIT(reuseport_sockarray)
MAP(REUSEPORT_SOCKARRAY, reuseport_sockarray, __u32, struct only_lock, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_four_bytes) __refused(map_type_without_lock)
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
__twin(array_holds_four_bytes) __refused(map_type_without_lock)
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
__twin(array_holds_four_bytes) __refused(map_type_without_lock)
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
 * Maps without keys. A filter's values may be described by BTF; values of a queue and a stack may
 * not, so they cannot hold a lock.
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
__kernel("<5.16") __failure __stage(map_create) __errno(EINVAL)
__kernel(">=5.16") __refused(map_type_without_lock)
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

#if UNIT(unknown_type)
MAP(OF_NO_KERNEL, unknown_type, __u32, struct counter, 1)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(array_holds_lock) __failure __stage(map_create) __errno(EINVAL)
int unknown_map_type_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(unknown_type, __u32, struct counter)
}
#endif

/*
 * Flags: programs must be able to read and to write the map.
 */
#if UNIT(read_only_array)
MAP_FLAGS(ARRAY, read_only_array, __u32, struct counter, 1, BPF_F_RDONLY_PROG)

SEC("tc") __rule("Map flags")
__twin(array_without_flags_holds_lock) __failure __stage(map_create) __errno(EACCES)
int array_read_only_to_programs_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(read_only_array, __u32, struct counter)
}
#endif

#if UNIT(read_only_hash)
MAP_FLAGS(HASH, read_only_hash, __u32, struct counter, 4, BPF_F_RDONLY_PROG)

/* libbpf only, to save bcc a module: the array has shown it what a refused map is. */
SEC("tc") __rule("Map flags") __loader(libbpf)
__twin(hash_without_flags_holds_lock) __failure __stage(map_create) __errno(EACCES)
int hash_read_only_to_programs_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(read_only_hash, __u32, struct counter)
}
#endif

#if UNIT(write_only_array)
/* Locking reads nothing: before v6.2 the program was as welcome as the map. */
MAP_FLAGS(ARRAY, write_only_array, __u32, struct counter, 1, BPF_F_WRONLY_PROG)

SEC("tc") __rule("Map flags")
__twin(array_without_flags_holds_lock)
__kernel("<6.2") __success __retval(1)
__kernel(">=6.2") __failure __stage(map_create) __errno(EACCES)
int array_write_only_to_programs_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(write_only_array, __u32, struct counter)
}
#endif

#if UNIT(write_only_hash)
MAP_FLAGS(HASH, write_only_hash, __u32, struct counter, 4, BPF_F_WRONLY_PROG)

/* libbpf only, as well. */
SEC("tc") __rule("Map flags") __loader(libbpf)
__twin(hash_without_flags_holds_lock)
__kernel("<6.2") __success __retval(1)
__kernel(">=6.2") __failure __stage(map_create) __errno(EACCES)
int hash_write_only_to_programs_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(write_only_hash, __u32, struct counter)
}
#endif

/*
 * A type that cannot hold a lock at all: the flag is looked at first. libbpf only, like the next.
 */
#if UNIT(read_only_lru_hash)
MAP_FLAGS(LRU_HASH, read_only_lru_hash, __u32, struct counter, 4, BPF_F_RDONLY_PROG)

SEC("tc") __rule("Map flags") __loader(libbpf)
__twin(hash_without_flags_holds_lock) __failure __stage(map_create) __errno(EACCES)
int lru_hash_read_only_to_programs_holds_lock(struct __sk_buff *skb)
{
	LOCK_AND_UNLOCK(read_only_lru_hash, __u32, struct counter)
}
#endif

#if UNIT(cgroup_storage_flags)
MAP_FLAGS(CGROUP_STORAGE, read_only_storage, struct bpf_cgroup_storage_key, struct counter, 0,
	  BPF_F_RDONLY_PROG)

SEC("cgroup_skb/egress") __rule("Map flags") __loader(libbpf)
__twin(hash_without_flags_holds_lock) __failure __stage(map_create) __errno(EACCES)
int cgroup_storage_read_only_to_programs_holds_lock(struct __sk_buff *skb)
{
	struct counter *c = bpf_get_local_storage(&read_only_storage, 0);

	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return 1;
}
#endif
