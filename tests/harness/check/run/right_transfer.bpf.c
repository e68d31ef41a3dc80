// SPDX-License-Identifier: GPL-2.0-only
/* What one account loses the other one gets. */
#include "common.h"

struct accounts {
	__s64 left;
	__s64 right;
	__u32 transfers;
	struct bpf_spin_lock lock;
};

MAP(ARRAY, accounts, 1, struct accounts);

SEC("tc")
int transfer(struct __sk_buff *skb)
{
	__u64 amount = bpf_ktime_get_ns() & 63;
	__u32 key = 0;
	struct accounts *a = bpf_map_lookup_elem(&accounts, &key);

	if (!a)
		return TC_ACT_OK;
	bpf_spin_lock(&a->lock);
	a->left -= amount;
	a->right += amount;
	a->transfers++;
	bpf_spin_unlock(&a->lock);
	return TC_ACT_OK;
}
