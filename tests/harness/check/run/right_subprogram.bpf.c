// SPDX-License-Identifier: GPL-2.0-only
/* A static function changes the value while its caller holds the lock (since v6.9). */
#include "common.h"

struct counter {
	struct bpf_spin_lock lock;
	__u32 odd;
	__u64 sum;
};

MAP(ARRAY, counters, 4, struct counter);

static __noinline void add(struct counter *c, __u32 length)
{
	c->odd ^= 1;
	c->sum += length;
}

SEC("tc")
int locked(struct __sk_buff *skb)
{
	__u32 key = 2;
	struct counter *c = bpf_map_lookup_elem(&counters, &key);

	if (!c)
		return TC_ACT_OK;
	bpf_spin_lock(&c->lock);
	add(c, skb->len);
	bpf_spin_unlock(&c->lock);
	return TC_ACT_OK;
}
