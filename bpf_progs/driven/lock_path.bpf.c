// SPDX-License-Identifier: GPL-2.0-only
/*
 * The path of the lock that a kernel takes when CPUs contend. Queueing CPUs leave bits in the lock word
 * beside its first byte: the pending bit, and the tail that names the last one of the queue. A lock that is
 * test-and-set only has words of 0 and 1.
 *
 * harness/running/lock_path.py drives this program, harness/judging/lock_path.py names the path.
 */
#include "contended_counter.h"

/* Counts of one CPU; only that CPU writes them. */
struct looks {
	__u64 runs;   /* first, because drivers read it there */
	__u64 held;   /* looks that found the lock word not 0 */
	__u64 queued; /* looks that found the pending bit or a tail */
};

MAP(ARRAY, state, __u32, struct shared, 1)
MAP(PERCPU_ARRAY, looks, __u32, struct looks, 1)

#define LOCKED_BYTE 0xff

static __always_inline void look(struct shared *s, struct looks *l)
{
	__u32 word = lock_word(s);

	l->held += word != 0;
	l->queued += (word & ~LOCKED_BYTE) != 0;
}

/* Look when the lock is asked for, and right after the unlock: with two CPUs, only then a waiter shows. */
SEC("tc")
int take_and_look(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct shared *s = map_lookup(state, &key);
	struct looks *l = map_lookup(looks, &key);

	if (!s || !l)
		return 0;
	l->runs++;
	look(s, l);
	bpf_spin_lock(&s->lock);
	s->count++;
	spend(500);
	bpf_spin_unlock(&s->lock);
	look(s, l);
	return 0;
}
