// SPDX-License-Identifier: GPL-2.0-only
/* flows.packets: it is read before the lock is taken. */
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
	__u32 key = 0, seen;
	struct flow *f = bpf_map_lookup_elem(&flows, &key);

	if (!f)
		return TC_ACT_OK;
	seen = *(volatile __u32 *)&f->packets;
	bpf_spin_lock(&f->lock);
	f->packets = seen + 1;
	f->bytes += skb->len;
	bpf_spin_unlock(&f->lock);
	return TC_ACT_OK;
}
