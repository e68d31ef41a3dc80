// SPDX-License-Identifier: GPL-2.0-only
/* One lock for the variables of the program. */
#include "common.h"

#define SHARED SEC(".bss.shared") __hidden

struct bpf_spin_lock guard SHARED;
__u64 packets SHARED;
__u64 bytes SHARED;

SEC("tc")
int add(struct __sk_buff *skb)
{
	bpf_spin_lock(&guard);
	packets++;
	bytes += skb->len;
	bpf_spin_unlock(&guard);
	return TC_ACT_OK;
}
