// SPDX-License-Identifier: GPL-2.0-only
/*
 * An element of a hash table is deleted and added again, while programs on other CPUs still write to the
 * old element, which they had looked up before. Driven and judged by tests/lock/copies/test_reuse.py.
 */
#include "spinlock.h"

#ifndef LOADER_BCC /* whose map.update() has no flags */

/*
 * Rule: A new element is written under its lock
 * Topic: System calls
 * The kernel reuses the memory of a deleted element at once, while another CPU may still write to it
 * with BPF_F_LOCK. So filling the new element with that flag must take its lock too, and must not
 * initialise the lock. Else values are torn, or two CPUs get the lock.
 * commit 96049f3afd50 ("bpf: introduce BPF_F_LOCK flag") (in v5.1)
 * commit 997849c4b969 ("bpf: Zeroing allocated object from slab in bpf memory allocator") (in v6.3)
 * commit 07738bc566c3 ("bpf: Use copy_map_value_locked() in alloc_htab_elem() for BPF_F_LOCK")
 * (in v7.1)
 */

#define WORDS 440 /* the largest value that the kernel's allocator for elements takes */
#define STEP 40

struct big {
	struct bpf_spin_lock lock;
	__u32 beside;
	__u64 words[WORDS]; /* written together, so always equal under the lock */
};

struct image {
	__u64 head;
	__u64 words[WORDS];
};

MAP(HASH, prepared, __u32, struct big, 4)
MAP_FLAGS(HASH, allocated, __u32, struct big, 4, BPF_F_NO_PREALLOC)
MAP(ARRAY, images, __u32, struct image, 64) /* what the CPU of that number writes */
MAP(PERCPU_ARRAY, torn, __u32, __u64, 1)
MAP(PERCPU_ARRAY, added, __u32, __u64, 1)

static __always_inline void count(void *map)
{
	__u32 zero = 0;
	__u64 *counter = bpf_map_lookup_elem(map, &zero);

	if (counter)
		++*counter;
}

/* Write this CPU's value to the element, which is created if there is none. */
static __always_inline long put(void *map)
{
	__u32 key = 0, cpu = bpf_get_smp_processor_id();
	struct image *image = bpf_map_lookup_elem(&images, &cpu);

	return image ? bpf_map_update_elem(map, &key, image, BPF_F_LOCK) : -1;
}

/* Count if the words of the element differ. */
static __always_inline void inspect(void *map)
{
	__u64 differ = 0;
	struct big *big;
	__u32 key = 0;
	int i;

	big = bpf_map_lookup_elem(map, &key);
	if (!big)
		return;
	bpf_spin_lock(&big->lock);
#pragma unroll
	for (i = STEP; i < WORDS; i += STEP)
		differ |= big->words[i] ^ big->words[0];
	differ |= big->words[WORDS - 1] ^ big->words[0];
	bpf_spin_unlock(&big->lock);
	if (differ)
		count(&torn);
}

static __always_inline void add_again(void *map)
{
	__u32 key = 0;

	if (!bpf_map_delete_elem(map, &key) && !put(map))
		count(&added);
}

SEC("tc")
int rewrite_prepared(struct __sk_buff *skb)
{
	put(&prepared);
	inspect(&prepared);
	return 0;
}

SEC("tc")
int rewrite_allocated(struct __sk_buff *skb)
{
	put(&allocated);
	inspect(&allocated);
	return 0;
}

SEC("tc")
int add_again_prepared(struct __sk_buff *skb)
{
	add_again(&prepared);
	return 0;
}

SEC("tc")
int add_again_allocated(struct __sk_buff *skb)
{
	add_again(&allocated);
	return 0;
}

#if UNIT(rhash)
/*
 * A resizable hash reuses the memory of a deleted element only after all programs that could write to it
 * have ended, so filling a new one needs no lock. But an update that finds an element just added by
 * another CPU writes to that one, and needs its lock.
 * commit 16b4d3e2fb24 ("bpf: Implement resizable hashmap basic functions") (in v7.2)
 */
#define BPF_MAP_TYPE_RHASH 35 /* newer than the headers */
MAP_FLAGS(RHASH, rhash, __u32, struct big, 4, BPF_F_NO_PREALLOC)

SEC("tc")
int rewrite_rhash(struct __sk_buff *skb)
{
	put(&rhash);
	inspect(&rhash);
	return 0;
}

SEC("tc")
int add_again_rhash(struct __sk_buff *skb)
{
	add_again(&rhash);
	return 0;
}
#endif
#endif
