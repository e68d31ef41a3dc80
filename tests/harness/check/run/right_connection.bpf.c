// SPDX-License-Identifier: GPL-2.0-only
/* The state of a TCP connection, changed and counted in one section. */
#include "common.h"

enum { NEW, SYN_SEEN, OPEN, CLOSED };

struct connection {
	struct bpf_spin_lock lock;
	__u32 state;
	__u32 changes;
	__u32 segments;
};

MAP(HASH, connections, 256, struct connection);

SEC("xdp")
int track(struct xdp_md *ctx)
{
	struct iphdr *ip = ipv4(DATA(ctx), DATA_END(ctx));
	struct connection fresh = {}, *c;
	struct tcphdr *tcp;
	__u32 key, next;

	if (!ip || ip->protocol != IPPROTO_TCP || ip->ihl != 5)
		return XDP_PASS;
	tcp = (void *)(ip + 1);
	if ((void *)(tcp + 1) > DATA_END(ctx))
		return XDP_PASS;
	key = ip->saddr ^ tcp->source;
	next = tcp->rst || tcp->fin ? CLOSED : tcp->syn ? SYN_SEEN : OPEN;
	bpf_map_update_elem(&connections, &key, &fresh, BPF_NOEXIST);
	c = bpf_map_lookup_elem(&connections, &key);
	if (!c)
		return XDP_PASS;
	bpf_spin_lock(&c->lock);
	if (c->state != next) {
		c->state = next;
		c->changes++;
	}
	c->segments++;
	bpf_spin_unlock(&c->lock);
	return XDP_PASS;
}
