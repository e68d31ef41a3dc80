// SPDX-License-Identifier: GPL-2.0-only
/* A histogram of sizes: an array within the value. */
#include "common.h"

struct histogram {
	struct bpf_spin_lock lock;
	__u32 total;
	__u64 slots[16];
};

MAP(ARRAY, sizes, 1, struct histogram);

SEC("tc")
int classify(struct __sk_buff *skb)
{
	__u32 key = 0, slot = skb->len >> 7;
	struct histogram *h = bpf_map_lookup_elem(&sizes, &key);

	if (!h)
		return TC_ACT_OK;
	slot = slot > 15 ? 15 : slot;
	bpf_spin_lock(&h->lock);
	h->slots[slot & 15]++;
	h->total++;
	bpf_spin_unlock(&h->lock);
	return TC_ACT_OK;
}
