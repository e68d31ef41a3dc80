// SPDX-License-Identifier: GPL-2.0-only
/* Flows are created by BPF_NOEXIST, so that nobody replaces one, and counted under their lock. */
#include "common.h"

struct flow {
	struct bpf_spin_lock lock;
	__u32 packets;
	__u64 bytes;
};

MAP(HASH, flows, 1024, struct flow);

SEC("tc")
int count(struct __sk_buff *skb)
{
	struct iphdr *ip = ipv4(DATA(skb), DATA_END(skb));
	struct flow fresh = {}, *f;
	__u32 key;

	if (!ip)
		return TC_ACT_OK;
	key = ip->saddr;
	bpf_map_update_elem(&flows, &key, &fresh, BPF_NOEXIST);
	f = bpf_map_lookup_elem(&flows, &key);
	if (!f)
		return TC_ACT_OK;
	bpf_spin_lock(&f->lock);
	f->packets++;
	f->bytes += skb->len;
	bpf_spin_unlock(&f->lock);
	return TC_ACT_OK;
}
