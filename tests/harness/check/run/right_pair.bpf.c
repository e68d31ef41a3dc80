// SPDX-License-Identifier: GPL-2.0-only
/* The same time is written twice: the two are always equal. */
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
	s->second = now;
	bpf_spin_unlock(&s->lock);
	return TC_ACT_OK;
}
