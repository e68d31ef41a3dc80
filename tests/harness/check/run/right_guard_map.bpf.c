// SPDX-License-Identifier: GPL-2.0-only
/* The lock of one map guards the values of another one, everywhere in the same way. */
#include "common.h"

struct guard {
	struct bpf_spin_lock lock;
};

struct table {
	__u64 packets;
	__u64 bytes;
};

MAP(ARRAY, guards, 1, struct guard);
MAP(ARRAY, tables, 1, struct table);

SEC("tc")
int add(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct guard *g = bpf_map_lookup_elem(&guards, &key);
	struct table *t = bpf_map_lookup_elem(&tables, &key);

	if (!g || !t)
		return TC_ACT_OK;
	bpf_spin_lock(&g->lock);
	t->packets++;
	t->bytes += skb->len;
	bpf_spin_unlock(&g->lock);
	return TC_ACT_OK;
}
