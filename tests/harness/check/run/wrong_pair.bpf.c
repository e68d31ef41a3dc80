// SPDX-License-Identifier: GPL-2.0-only
/* stamps.second: it is written after the unlock, so the two need not be equal. */
#include "common.h"

struct stamp {
	struct bpf_spin_lock lock;
	__u64 first;
	__u64 second;
};

MAP(ARRAY, stamps, 1, struct stamp);

SEC("tc")
int stamp(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_ns();
	__u32 key = 0;
	struct stamp *s = bpf_map_lookup_elem(&stamps, &key);

	if (!s)
		return TC_ACT_OK;
	bpf_spin_lock(&s->lock);
	s->first = now;
	bpf_spin_unlock(&s->lock);
	s->second = now;
	return TC_ACT_OK;
}
