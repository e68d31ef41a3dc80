// SPDX-License-Identifier: GPL-2.0-only
/* A second program deletes what the first one counts. */
#include "common.h"

struct flow {
	struct bpf_spin_lock lock;
	__u32 packets;
};

MAP(HASH, flows, 64, struct flow);

SEC("tc")
int count(struct __sk_buff *skb)
{
	struct flow fresh = {}, *f;
	__u32 key = skb->len;

	bpf_map_update_elem(&flows, &key, &fresh, BPF_NOEXIST);
	f = bpf_map_lookup_elem(&flows, &key);
	if (!f)
		return TC_ACT_OK;
	bpf_spin_lock(&f->lock);
	f->packets++;
	bpf_spin_unlock(&f->lock);
	return TC_ACT_OK;
}

SEC("tc")
int forget(struct __sk_buff *skb)
{
	__u32 key = skb->len;

	bpf_map_delete_elem(&flows, &key);
	return TC_ACT_OK;
}
