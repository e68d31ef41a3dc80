// SPDX-License-Identifier: GPL-2.0-only
/* Least, most, sum and number of what is seen. */
#include "common.h"

struct sizes {
	__u32 least;
	__u32 most;
	struct bpf_spin_lock lock;
	__u32 number;
	__u64 sum;
};

MAP(ARRAY, sizes, 1, struct sizes);

SEC("xdp")
int measure(struct xdp_md *ctx)
{
	__u32 key = 0, size = ctx->data_end - ctx->data;
	struct sizes *s = bpf_map_lookup_elem(&sizes, &key);

	if (!s)
		return XDP_PASS;
	bpf_spin_lock(&s->lock);
	if (!s->number || size < s->least)
		s->least = size;
	if (size > s->most)
		s->most = size;
	s->number++;
	s->sum += size;
	bpf_spin_unlock(&s->lock);
	return XDP_PASS;
}
