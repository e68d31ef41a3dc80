// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs and elements of maps that harness/explore/ interleaves in every way. A program find_NAME
 * writes to the map `places` where the memory is that the others share.
 */
#include "contended_counter.h"

#ifndef LOADER_BCC /* a schedule needs no second way to build the same programs */

/*
 * Rule: A held lock keeps others out at every point
 * Topic: Running programs
 * One CPU is frozen after an access to an element under its lock. Then no other CPU gets the lock until
 * that one has gone on: it spins. So no schedule of two operations ends with a lost or a torn write.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit 96049f3afd50 ("bpf: introduce BPF_F_LOCK flag") (in v5.1)
 */

#define WORDS 8

struct place {
	__u64 element; /* address of the value */
	__u64 bucket;  /* address of the hash bucket and its lock, 0 for an array */
	__u64 map;     /* address of the kernel's structure */
	__u64 entry;   /* address of the first entry in the bucket's list */
};

MAP(ARRAY, places, __u32, struct place, 1)
MAP(ARRAY, state, __u32, struct shared, 1)

struct big {
	struct bpf_spin_lock lock;
	__u32 beside;
	__u64 words[WORDS]; /* written together, so always equal under the lock */
};

/* Of one entry, so they have one bucket. */
MAP(HASH, prepared, __u32, struct big, 1)
MAP_FLAGS(HASH, allocated, __u32, struct big, 1, BPF_F_NO_PREALLOC)
MAP(ARRAY, plain, __u32, struct big, 4)

struct bpf_htab {
	void *buckets;
} __attribute__((preserve_access_index));

#define OFFSET_OF_BUCKETS __builtin_preserve_field_info(((struct bpf_htab *)0)->buckets, 0)

static __always_inline int find(void *map, int is_hash)
{
	__u32 key = 0;
	struct place *place = map_lookup(places, &key);
	void *value = bpf_map_lookup_elem(map, &key);

	if (!place || !value)
		return 1;
	place->element = (__u64)value;
	place->map = (__u64)map; /* read back below, as a number: a map's pointer has no arithmetic */
	if (is_hash) {
		bpf_probe_read_kernel(&place->bucket, sizeof(place->bucket),
				      (void *)READ_ONCE(place->map) + OFFSET_OF_BUCKETS);
		bpf_probe_read_kernel(&place->entry, sizeof(place->entry),
				      (void *)READ_ONCE(place->bucket));
	}
	return 0;
}

SEC("tc")
int find_state(struct __sk_buff *skb)
{
	return find(&state, 0);
}

SEC("tc")
int find_plain(struct __sk_buff *skb)
{
	return find(&plain, 0);
}

SEC("tc")
int find_prepared(struct __sk_buff *skb)
{
	return find(&prepared, 1);
}

SEC("tc")
int count(struct __sk_buff *skb)
{
	__u32 key = 0;

	return contend(map_lookup(state, &key), 0, 0);
}

/* Return whether the words of an element differ, read under its lock. */
static __always_inline int inspect(void *map)
{
	__u64 differ = 0;
	struct big *big;
	__u32 key = 0;
	int i;

	big = bpf_map_lookup_elem(map, &key);
	if (!big)
		return 0;
	bpf_spin_lock(&big->lock);
#pragma unroll
	for (i = 1; i < WORDS; i++)
		differ |= READ_ONCE(big->words[i]) ^ READ_ONCE(big->words[0]);
	bpf_spin_unlock(&big->lock);
	return differ != 0;
}

SEC("tc")
int inspect_plain(struct __sk_buff *skb)
{
	return inspect(&plain);
}

SEC("tc")
int inspect_prepared(struct __sk_buff *skb)
{
	return inspect(&prepared);
}

SEC("tc")
int inspect_allocated(struct __sk_buff *skb)
{
	return inspect(&allocated);
}
#endif
