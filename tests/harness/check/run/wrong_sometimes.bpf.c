// SPDX-License-Identifier: GPL-2.0-only
/* flows.packets: every second run takes no lock. */
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
	if (bpf_get_smp_processor_id() & 1) {
		bpf_spin_lock(&f->lock);
		f->packets++;
		bpf_spin_unlock(&f->lock);
	} else {
		f->packets++;
	}
	return TC_ACT_OK;
}
