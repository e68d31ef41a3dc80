// SPDX-License-Identifier: GPL-2.0-only
/* Times between packets: their sum is the time of the last one less that of the first. */
#include "common.h"

struct gaps {
	struct bpf_spin_lock lock;
	__u64 last;
	__u64 sum;
	__u64 packets;
};

MAP(ARRAY, gaps, 1, struct gaps);

SEC("tc")
int measure(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_ns();
	__u32 key = 0;
	struct gaps *g = bpf_map_lookup_elem(&gaps, &key);

	if (!g)
		return TC_ACT_OK;
	bpf_spin_lock(&g->lock);
	if (g->last && now > g->last)
		g->sum += now - g->last;
	if (now > g->last)
		g->last = now;
	g->packets++;
	bpf_spin_unlock(&g->lock);
	return TC_ACT_OK;
}
