// SPDX-License-Identifier: GPL-2.0-only
/* A quota: it is looked at and used up in one section. */
#include "common.h"

#define MOST 500

struct quota {
	struct bpf_spin_lock lock;
	__u32 used;
	__u64 refused;
};

MAP(ARRAY, quotas, 1, struct quota);

SEC("xdp")
int admit(struct xdp_md *ctx)
{
	__u32 key = 0, admitted = 0;
	struct quota *q = bpf_map_lookup_elem(&quotas, &key);

	if (!q)
		return XDP_PASS;
	bpf_spin_lock(&q->lock);
	if (q->used < MOST) {
		q->used++;
		admitted = 1;
	} else {
		q->refused++;
	}
	bpf_spin_unlock(&q->lock);
	return admitted ? XDP_PASS : XDP_DROP;
}
