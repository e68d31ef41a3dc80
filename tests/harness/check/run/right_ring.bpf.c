// SPDX-License-Identifier: GPL-2.0-only
/* A ring of the last sixteen lengths, with the place of the next one. */
#include "common.h"

struct ring {
	__u32 head;
	__u32 wraps;
	__u32 lengths[16];
	struct bpf_spin_lock lock;
};

MAP(ARRAY, rings, 1, struct ring);

SEC("tc")
int remember(struct __sk_buff *skb)
{
	__u32 key = 0, at;
	struct ring *r = bpf_map_lookup_elem(&rings, &key);

	if (!r)
		return TC_ACT_OK;
	bpf_spin_lock(&r->lock);
	at = r->head & 15;
	r->lengths[at] = skb->len;
	r->head = at == 15 ? 0 : at + 1;
	r->wraps += at == 15;
	bpf_spin_unlock(&r->lock);
	return TC_ACT_OK;
}
