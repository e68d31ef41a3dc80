// SPDX-License-Identifier: GPL-2.0-only
/*
 * New elements, made with wrong bytes in place of the lock, or of memory that held such bytes before.
 * Driven and judged by tests/lock/copies/test_new_element.py.
 */
#include "busy_wait.h"
#include "spinlock.h"

#ifndef LOADER_BCC /* whose update has no flags */

/*
 * Rule: A new element's lock is free
 * Topic: System calls
 * The lock of a new element is free, whatever bytes user space or a program writes in its place, and
 * whatever its memory held before. Else the first bpf_spin_lock() would wait for ever.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit 836e49e103df ("bpf: Do not copy spin lock field from user in bpf_selem_alloc") (in v6.1)
 * commit 997849c4b969 ("bpf: Zeroing allocated object from slab in bpf memory allocator") (in v6.3)
 */

#define ELEMENTS 256

struct guarded {
	__u64 before;
	__u32 beside;
	struct bpf_spin_lock lock; /* at 12 */
	__u64 after[7];
};

/* The twin. The kernel recognizes the lock by its type's name, so this is data and is copied. */
typedef struct bpf_spin_lock other_name;
struct twin {
	__u64 before;
	__u32 beside;
	other_name lock;
	__u64 after[7];
};

struct image {
	__u64 words[9];
};

MAP(ARRAY, image, __u32, struct image, 1) /* what programs store */

static __always_inline void *stored(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&image, &key);
}

/* Return the number of elements with a lock word other than 0; the upper half has that of all. */
static __always_inline int count_held(void *map)
{
	int found = 0, held = 0;
	__u32 key, word;
	void *value;

	for (key = 0; key < ELEMENTS; key++) {
		__u32 copy = key;

		value = bpf_map_lookup_elem(map, &copy);
		if (!value)
			continue;
		word = 0;
		bpf_probe_read_kernel(&word, sizeof(word), value + offsetof(struct guarded, lock));
		held += word != 0;
		found++;
	}
	return found << 16 | held;
}

/* Add all elements that do not exist yet. */
static __always_inline int make_all(void *map, __u64 flags)
{
	void *value = stored();
	__u32 key;

	if (!value)
		return -1;
	for (key = 0; key < ELEMENTS; key++) {
		__u32 copy = key;

		bpf_map_update_elem(map, &copy, value, flags);
	}
	return 0;
}

#define KIND(type, kind, flags)                                           \
	MAP_FLAGS(type, guarded_##kind, __u32, struct guarded, ELEMENTS, flags) \
	MAP_FLAGS(type, twin_##kind, __u32, struct twin, ELEMENTS, flags)

KIND(ARRAY, array, 0)
KIND(HASH, hash, 0)
KIND(HASH, lazy, BPF_F_NO_PREALLOC)

SEC("tc")
int held_in_array(struct __sk_buff *skb)
{
	return count_held(&guarded_array);
}

SEC("tc")
int shown_in_array(struct __sk_buff *skb)
{
	return count_held(&twin_array);
}

SEC("tc")
int make_array(struct __sk_buff *skb)
{
	return make_all(&guarded_array, BPF_ANY);
}

SEC("tc")
int make_array_locked(struct __sk_buff *skb)
{
	return make_all(&guarded_array, BPF_F_LOCK);
}

SEC("tc")
int held_in_hash(struct __sk_buff *skb)
{
	return count_held(&guarded_hash);
}

SEC("tc")
int shown_in_hash(struct __sk_buff *skb)
{
	return count_held(&twin_hash);
}

SEC("tc")
int make_hash(struct __sk_buff *skb)
{
	return make_all(&guarded_hash, BPF_ANY);
}

SEC("tc")
int make_hash_locked(struct __sk_buff *skb)
{
	return make_all(&guarded_hash, BPF_F_LOCK);
}

SEC("tc")
int held_in_lazy(struct __sk_buff *skb)
{
	return count_held(&guarded_lazy);
}

SEC("tc")
int shown_in_lazy(struct __sk_buff *skb)
{
	return count_held(&twin_lazy);
}

SEC("tc")
int make_lazy(struct __sk_buff *skb)
{
	return make_all(&guarded_lazy, BPF_ANY);
}

SEC("tc")
int make_lazy_locked(struct __sk_buff *skb)
{
	return make_all(&guarded_lazy, BPF_F_LOCK);
}

#if UNIT(rhash)
#define BPF_MAP_TYPE_RHASH 35 /* newer than the headers */
MAP_FLAGS(RHASH, guarded_rhash, __u32, struct guarded, ELEMENTS, BPF_F_NO_PREALLOC)
MAP_FLAGS(RHASH, twin_rhash, __u32, struct twin, ELEMENTS, BPF_F_NO_PREALLOC)

SEC("tc")
int held_in_rhash(struct __sk_buff *skb)
{
	return count_held(&guarded_rhash);
}

SEC("tc")
int shown_in_rhash(struct __sk_buff *skb)
{
	return count_held(&twin_rhash);
}

SEC("tc")
int make_rhash(struct __sk_buff *skb)
{
	return make_all(&guarded_rhash, BPF_ANY);
}

SEC("tc")
int make_rhash_locked(struct __sk_buff *skb)
{
	return make_all(&guarded_rhash, BPF_F_LOCK);
}
#endif

#if UNIT(listener)
#include "loopback_socket.h"

/*
 * An accepted socket gets a copy of the listening socket's storage, except for the lock, which may be
 * held at the time.
 * commit 8f51dfc73bf1 ("bpf: support cloning sk storage on accept()") (in v5.4)
 */
#define LISTENS 10	    /* a state, as of bpf_sock */
#define TURNS 1000	    /* of waiting with the lock held */

MAP_FLAGS(SK_STORAGE, guarded_listener, int, struct guarded, 0, BPF_F_NO_PREALLOC | BPF_F_CLONE)
MAP_FLAGS(SK_STORAGE, twin_listener, int, struct twin, 0, BPF_F_NO_PREALLOC | BPF_F_CLONE)
MAP(ARRAY, peers, __u32, __u32, 1) /* the port at the other end of the accepted one */

/* Look up the accepted socket by its peer's port, or the listening socket by port 0. */
static __always_inline struct bpf_sock *find(struct __sk_buff *skb, __u32 peer)
{
	struct bpf_sock_tuple tuple = {};

	tuple.ipv4.daddr = LOOPBACK;
	tuple.ipv4.dport = PORT;
	if (peer) {
		tuple.ipv4.saddr = LOOPBACK;
		tuple.ipv4.sport = peer;
	}
	return bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
}

/* Return the lock word, or the twin's word, of a socket's storage; -1 without a storage. */
static __always_inline int word_in(struct bpf_sock *sk, void *map)
{
	void *value = bpf_sk_storage_get(map, sk, 0, 0);
	int word = -1;

	if (value)
		bpf_probe_read_kernel(&word, 4, value + offsetof(struct guarded, lock));
	return word;
}

static __always_inline int word_in_accepted(struct __sk_buff *skb, void *map)
{
	__u32 key = 0, *peer = bpf_map_lookup_elem(&peers, &key);
	struct bpf_sock *sk;
	int word = -1;

	if (!peer || !*peer)
		return -1;
	sk = find(skb, *peer);
	if (!sk)
		return -1;
	if (sk->state != LISTENS)
		word = word_in(sk, map);
	bpf_sk_release(sk);
	return word;
}

SEC("tc")
int word_in_accepted_socket(struct __sk_buff *skb)
{
	return word_in_accepted(skb, &guarded_listener);
}

SEC("tc")
int word_in_accepted_twin(struct __sk_buff *skb)
{
	return word_in_accepted(skb, &twin_listener);
}

SEC("tc")
int word_in_listener(struct __sk_buff *skb)
{
	struct bpf_sock *sk = find(skb, 0);
	int word;

	if (!sk)
		return -1;
	word = word_in(sk, &guarded_listener);
	bpf_sk_release(sk);
	return word;
}

SEC("tc")
int hold_listener(struct __sk_buff *skb)
{
	struct bpf_sock *sk = find(skb, 0);
	struct guarded *g;

	if (!sk)
		return -1;
	g = bpf_sk_storage_get(&guarded_listener, sk, 0, 0);
	if (g) {
		bpf_spin_lock(&g->lock);
		spend(TURNS);
		bpf_spin_unlock(&g->lock);
	}
	bpf_sk_release(sk);
	return 0;
}
#endif

#if UNIT(filler)
/* Maps with elements of the same size. They are freed before the maps with a lock are created. */
MAP(HASH, filler_hash, __u32, struct image, 4096)
MAP_FLAGS(HASH, filler_lazy, __u32, struct image, 4096, BPF_F_NO_PREALLOC)
#endif
#endif
