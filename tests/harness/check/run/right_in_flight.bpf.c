// SPDX-License-Identifier: GPL-2.0-only
/* Two sections: how many were between them at once is more than one on several CPUs, and meant so. */
#include "common.h"

struct work {
	struct bpf_spin_lock lock;
	__u32 now;
	__u32 most;
	__u64 done;
};

MAP(ARRAY, works, 1, struct work);

SEC("tc")
int work(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct work *w = bpf_map_lookup_elem(&works, &key);

	if (!w)
		return TC_ACT_OK;
	bpf_spin_lock(&w->lock);
	w->now++;
	if (w->now > w->most)
		w->most = w->now;
	bpf_spin_unlock(&w->lock);
	bpf_get_hash_recalc(skb);
	bpf_spin_lock(&w->lock);
	w->now--;
	w->done++;
	bpf_spin_unlock(&w->lock);
	return TC_ACT_OK;
}
