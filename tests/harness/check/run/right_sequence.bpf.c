// SPDX-License-Identifier: GPL-2.0-only
/* The highest sequence number, and how many came too late. */
#include "common.h"

struct stream {
	struct bpf_spin_lock lock;
	__u32 highest;
	__u32 late;
	__u64 segments;
};

MAP(HASH, streams, 64, struct stream);

SEC("tc")
int follow(struct __sk_buff *skb)
{
	struct iphdr *ip = ipv4(DATA(skb), DATA_END(skb));
	struct stream fresh = {}, *s;
	struct tcphdr *tcp;
	__u32 key, number;

	if (!ip || ip->protocol != IPPROTO_TCP)
		return TC_ACT_OK;
	tcp = (void *)(ip + 1);
	if ((void *)(tcp + 1) > DATA_END(skb))
		return TC_ACT_OK;
	key = ip->daddr;
	number = bpf_ntohl(tcp->seq);
	bpf_map_update_elem(&streams, &key, &fresh, BPF_NOEXIST);
	s = bpf_map_lookup_elem(&streams, &key);
	if (!s)
		return TC_ACT_OK;
	bpf_spin_lock(&s->lock);
	if (number > s->highest)
		s->highest = number;
	else
		s->late++;
	s->segments++;
	bpf_spin_unlock(&s->lock);
	return TC_ACT_OK;
}
