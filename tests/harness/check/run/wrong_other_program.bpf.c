// SPDX-License-Identifier: GPL-2.0-only
/* flows.packets: a second program counts without the lock. */
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
	f->bytes += skb->len;
	bpf_spin_unlock(&f->lock);
	return TC_ACT_OK;
}

SEC("tc")
int count_twice(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct flow *f = bpf_map_lookup_elem(&flows, &key);

	if (f)
		f->packets += 2;
	return TC_ACT_OK;
}
