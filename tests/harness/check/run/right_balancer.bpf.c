// SPDX-License-Identifier: GPL-2.0-only
/* Backends in turn: the next one, and how often each was chosen. */
#include "common.h"

struct backends {
	__u32 next;
	__u32 chosen[5];
	struct bpf_spin_lock lock;
};

MAP(ARRAY, backends, 1, struct backends);

SEC("xdp")
int choose(struct xdp_md *ctx)
{
	__u32 key = 0, at;
	struct backends *b = bpf_map_lookup_elem(&backends, &key);

	if (!b)
		return XDP_PASS;
	bpf_spin_lock(&b->lock);
	at = b->next;
	if (at < 5)
		b->chosen[at]++;
	b->next = at >= 4 ? 0 : at + 1;
	bpf_spin_unlock(&b->lock);
	return XDP_TX;
}
