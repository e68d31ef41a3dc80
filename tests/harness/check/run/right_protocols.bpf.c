// SPDX-License-Identifier: GPL-2.0-only
/* One element per protocol; the time of the last packet depends on when it comes. */
#include "common.h"

struct protocol {
	__u64 packets;
	__u64 bytes;
	__u64 last;
	struct bpf_spin_lock lock;
};

MAP(ARRAY, protocols, 256, struct protocol);

SEC("xdp")
int account(struct xdp_md *ctx)
{
	struct iphdr *ip = ipv4(DATA(ctx), DATA_END(ctx));
	__u64 now = bpf_ktime_get_ns();
	struct protocol *p;
	__u32 key;

	if (!ip)
		return XDP_PASS;
	key = ip->protocol;
	p = bpf_map_lookup_elem(&protocols, &key);
	if (!p)
		return XDP_PASS;
	bpf_spin_lock(&p->lock);
	p->packets++;
	p->bytes += bpf_ntohs(ip->tot_len);
	p->last = now;
	bpf_spin_unlock(&p->lock);
	return XDP_PASS;
}
