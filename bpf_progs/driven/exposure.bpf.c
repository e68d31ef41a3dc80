// SPDX-License-Identifier: GPL-2.0-only
/*
 * Ways to read or write the lock word other than system calls on elements. Driven and judged by
 * tests/lock/copies/test_exposure.py.
 */
#include "busy_wait.h"
#include "spinlock.h"

#ifndef LOADER_BCC /* bcc attaches no iterator to a map; how a map is shown depends on no loader */

#define TURNS 2000 /* of waiting with the lock held */
#define FOREIGN 0x1234 /* no state of a lock that is free */

MAP(ARRAY, shown, __u32, struct counter, 1)
MAP(ARRAY, seen, __u32, __u32, 1)

SEC("tc")
int hold_the_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = bpf_map_lookup_elem(&shown, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	spend(TURNS);
	bpf_spin_unlock(&c->lock);
	return 0;
}

SEC("tc")
int peek_at_lock(struct __sk_buff *skb)
{
	__u32 key = 0, word = -1;
	struct counter *c = bpf_map_lookup_elem(&shown, &key);

	if (c)
		bpf_probe_read_kernel(&word, 4, (void *)c + offsetof(struct counter, lock));
	return word;
}

/* The context is struct bpf_iter__bpf_map_elem: meta data, map, key, value. */
static __always_inline void *value_of(unsigned long long *ctx)
{
	return (void *)ctx[3];
}

SEC("iter/bpf_map_elem")
int iterator_reads_lock(unsigned long long *ctx)
{
	__u32 *value = value_of(ctx), key = 0, word;

	if (value) {
		word = *value; /* 5.10 passes no buffer to a helper */
		bpf_map_update_elem(&seen, &key, &word, BPF_ANY);
	}
	return 0;
}

SEC("iter/bpf_map_elem")
int iterator_writes_lock(unsigned long long *ctx)
{
	volatile __u32 *value = value_of(ctx);

	if (value)
		*value = FOREIGN;
	return 0;
}

/* The twin: an iterator may read and write the value beside the lock. */
SEC("iter/bpf_map_elem")
int iterator_writes_value(unsigned long long *ctx)
{
	volatile struct counter *c = value_of(ctx);

	if (c)
		c->value++;
	return 0;
}
#endif
