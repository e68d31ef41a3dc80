// SPDX-License-Identifier: GPL-2.0-only
/* A number is drawn before the lock: the last one under it need not be the highest. */
#include "common.h"

struct log {
	struct bpf_spin_lock lock;
	__u64 last;
	__u64 entries;
};

MAP(ARRAY, logs, 1, struct log);
__u64 numbers;

SEC("tc")
int note(struct __sk_buff *skb)
{
	__u64 number = __sync_fetch_and_add(&numbers, 1);
	__u32 key = 0;
	struct log *l = bpf_map_lookup_elem(&logs, &key);

	if (!l)
		return TC_ACT_OK;
	bpf_spin_lock(&l->lock);
	l->last = number;
	l->entries++;
	bpf_spin_unlock(&l->lock);
	return TC_ACT_OK;
}
