// SPDX-License-Identifier: GPL-2.0-only
/* A rate limiter: how many packets pass depends on the time. */
#include "common.h"

#define RATE 1000 /* tokens a second */
#define DEPTH 100

struct bucket {
	struct bpf_spin_lock lock;
	__u32 tokens;
	__u64 refilled;
	__u64 passed;
	__u64 dropped;
};

MAP(ARRAY, buckets, 1, struct bucket);

SEC("tc")
int police(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_ns(), fresh;
	__u32 key = 0;
	struct bucket *b = bpf_map_lookup_elem(&buckets, &key);
	int verdict = TC_ACT_SHOT;

	if (!b)
		return TC_ACT_OK;
	bpf_spin_lock(&b->lock);
	if (now > b->refilled) {
		fresh = (now - b->refilled) * RATE / 1000000000;
		if (fresh) {
			b->tokens = b->tokens + fresh > DEPTH ? DEPTH : b->tokens + fresh;
			b->refilled = now;
		}
	}
	if (b->tokens) {
		b->tokens--;
		b->passed++;
		verdict = TC_ACT_OK;
	} else {
		b->dropped++;
	}
	bpf_spin_unlock(&b->lock);
	return verdict;
}
