// SPDX-License-Identifier: GPL-2.0-only
/* flows.packets: an atomic instruction does not wait for the lock. */
#include "common.h"

struct flow {
	struct bpf_spin_lock lock;
	__u32 packets;
	__u64 bytes;
};

MAP(ARRAY, flows, 1, struct flow);

SEC("tc")
int count(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct flow *f = bpf_map_lookup_elem(&flows, &key);

	if (!f)
		return TC_ACT_OK;
	bpf_spin_lock(&f->lock);
	f->packets++;
	bpf_spin_unlock(&f->lock);
	return TC_ACT_OK;
}

SEC("tc")
int count_atomically(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct flow *f = bpf_map_lookup_elem(&flows, &key);

	if (f)
		__sync_fetch_and_add(&f->packets, 1);
	return TC_ACT_OK;
}
