// SPDX-License-Identifier: GPL-2.0-only
/* Whether the CPU is another one than before depends on where runs happen. */
#include "common.h"

struct owner {
	struct bpf_spin_lock lock;
	__u32 cpu;
	__u64 moves;
	__u64 runs;
};

MAP(ARRAY, owners, 1, struct owner);

SEC("tc")
int own(struct __sk_buff *skb)
{
	__u32 key = 0, cpu = bpf_get_smp_processor_id();
	struct owner *o = bpf_map_lookup_elem(&owners, &key);

	if (!o)
		return TC_ACT_OK;
	bpf_spin_lock(&o->lock);
	if (o->cpu != cpu) {
		o->cpu = cpu;
		o->moves++;
	}
	o->runs++;
	bpf_spin_unlock(&o->lock);
	return TC_ACT_OK;
}
