// SPDX-License-Identifier: GPL-2.0-only
/* One field is changed by atomic instructions everywhere, the others under the lock. */
#include "common.h"

struct entry {
	struct bpf_spin_lock lock;
	__u32 drops;
	__u64 seen;
	__u64 bytes;
};

MAP(ARRAY, entries, 1, struct entry);

SEC("tc")
int account(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct entry *e = bpf_map_lookup_elem(&entries, &key);

	if (!e)
		return TC_ACT_OK;
	__sync_fetch_and_add(&e->seen, 1);
	bpf_spin_lock(&e->lock);
	e->bytes += skb->len;
	if (skb->len < 60)
		e->drops++;
	bpf_spin_unlock(&e->lock);
	return TC_ACT_OK;
}
