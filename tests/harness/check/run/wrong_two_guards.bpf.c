// SPDX-License-Identifier: GPL-2.0-only
/* totals.packets: one program takes one lock for it, the other another one. */
#include "common.h"

struct guard {
	struct bpf_spin_lock lock;
};

struct total {
	struct bpf_spin_lock lock;
	__u32 packets;
};

MAP(ARRAY, guards, 1, struct guard);
MAP(ARRAY, totals, 1, struct total);

SEC("tc")
int add(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct total *t = bpf_map_lookup_elem(&totals, &key);

	if (!t)
		return TC_ACT_OK;
	bpf_spin_lock(&t->lock);
	t->packets++;
	bpf_spin_unlock(&t->lock);
	return TC_ACT_OK;
}

SEC("tc")
int add_guarded(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct guard *g = bpf_map_lookup_elem(&guards, &key);
	struct total *t = bpf_map_lookup_elem(&totals, &key);

	if (!g || !t)
		return TC_ACT_OK;
	bpf_spin_lock(&g->lock);
	t->packets++;
	bpf_spin_unlock(&g->lock);
	return TC_ACT_OK;
}
