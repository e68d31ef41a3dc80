// SPDX-License-Identifier: GPL-2.0-only
/* flows.packets: each CPU takes the lock of another element than the one it changes. */
#include "common.h"

struct flow {
	struct bpf_spin_lock lock;
	__u32 packets;
	__u32 lengths[32]; /* of the last packets */
};

MAP(ARRAY, flows, 64, struct flow);

SEC("tc")
int count(struct __sk_buff *skb)
{
	__u32 key = 0, own = bpf_get_smp_processor_id() & 63, number;
	struct flow *f = bpf_map_lookup_elem(&flows, &key);
	struct flow *mine = bpf_map_lookup_elem(&flows, &own);
	int i;

	if (!f || !mine)
		return TC_ACT_OK;
	bpf_spin_lock(&mine->lock);
	number = *(volatile __u32 *)&f->packets;
	for (i = 31; i > 0; i--)
		f->lengths[i] = f->lengths[i - 1];
	f->lengths[0] = skb->len;
	f->packets = number + 1;
	bpf_spin_unlock(&mine->lock);
	return TC_ACT_OK;
}
