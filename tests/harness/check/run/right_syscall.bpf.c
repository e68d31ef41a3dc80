// SPDX-License-Identifier: GPL-2.0-only
/* A program that user space runs by a system call. */
#include "common.h"

struct order {
	struct bpf_spin_lock lock;
	__u32 orders;
	__u64 items;
};

MAP(ARRAY, orders, 1, struct order);

SEC("syscall")
int place(void *ctx)
{
	__u32 key = 0;
	struct order *o = bpf_map_lookup_elem(&orders, &key);

	if (!o)
		return 1;
	bpf_spin_lock(&o->lock);
	o->orders++;
	o->items += 3;
	bpf_spin_unlock(&o->lock);
	return 0;
}
