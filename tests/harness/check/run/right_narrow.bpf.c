// SPDX-License-Identifier: GPL-2.0-only
/* Small counters, which wrap. */
#include "common.h"

struct narrow {
	struct bpf_spin_lock lock;
	__u8 byte;
	__u8 parity;
	__u16 word;
};

MAP(ARRAY, narrow, 1, struct narrow);

SEC("xdp")
int tick(struct xdp_md *ctx)
{
	__u32 key = 0;
	struct narrow *n = bpf_map_lookup_elem(&narrow, &key);

	if (!n)
		return XDP_PASS;
	bpf_spin_lock(&n->lock);
	n->byte++;
	n->parity ^= 0x5a;
	n->word += 3;
	bpf_spin_unlock(&n->lock);
	return XDP_PASS;
}
