// SPDX-License-Identifier: GPL-2.0-only
/* The most is looked at without the lock, and again under it before it is changed. */
#include "common.h"

struct peak {
	struct bpf_spin_lock lock;
	__u32 most;
	__u64 rises;
};

MAP(ARRAY, peaks, 1, struct peak);

SEC("tc")
int watch(struct __sk_buff *skb)
{
	__u32 key = 0, length = skb->len;
	struct peak *p = bpf_map_lookup_elem(&peaks, &key);

	if (!p || *(volatile __u32 *)&p->most >= length)
		return TC_ACT_OK;
	bpf_spin_lock(&p->lock);
	if (p->most < length) {
		p->most = length;
		p->rises++;
	}
	bpf_spin_unlock(&p->lock);
	return TC_ACT_OK;
}
