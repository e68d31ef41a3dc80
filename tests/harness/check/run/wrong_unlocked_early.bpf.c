// SPDX-License-Identifier: GPL-2.0-only
/* flows.bytes: it is changed after the unlock. */
#include "common.h"

struct flow {
	struct bpf_spin_lock lock;
	__u32 packets;
	__u64 bytes;
};

MAP(ARRAY, flows, 1, struct flow);

SEC("xdp")
int count(struct xdp_md *ctx)
{
	__u32 key = 0, size = ctx->data_end - ctx->data;
	struct flow *f = bpf_map_lookup_elem(&flows, &key);

	if (!f)
		return XDP_PASS;
	bpf_spin_lock(&f->lock);
	f->packets++;
	bpf_spin_unlock(&f->lock);
	f->bytes += size;
	return XDP_PASS;
}
