// SPDX-License-Identifier: GPL-2.0-only
/* flows.packets: it is copied in one section and written back in a second one. */
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
	__u32 key = 0, packets;
	struct flow *f = bpf_map_lookup_elem(&flows, &key);

	if (!f)
		return TC_ACT_OK;
	bpf_spin_lock(&f->lock);
	packets = f->packets;
	bpf_spin_unlock(&f->lock);
	bpf_get_hash_recalc(skb);
	bpf_spin_lock(&f->lock);
	f->packets = packets + 1;
	bpf_spin_unlock(&f->lock);
	return TC_ACT_OK;
}
