// SPDX-License-Identifier: GPL-2.0-only
/* A moving average of lengths, which depends on their order. */
#include "common.h"

struct average {
	struct bpf_spin_lock lock;
	__u64 value; /* times 256 */
	__u64 samples;
};

MAP(ARRAY, averages, 1, struct average);

SEC("tc")
int sample(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct average *a = bpf_map_lookup_elem(&averages, &key);

	if (!a)
		return TC_ACT_OK;
	bpf_spin_lock(&a->lock);
	a->value = a->value - (a->value >> 3) + ((__u64)skb->len << 5);
	a->samples++;
	bpf_spin_unlock(&a->lock);
	return TC_ACT_OK;
}
