// SPDX-License-Identifier: GPL-2.0-only
/* packets: the variable is changed by a second program that takes no lock. */
#include "common.h"

#define SHARED SEC(".bss.shared") __hidden

struct bpf_spin_lock guard SHARED;
__u64 packets SHARED;

SEC("tc")
int add(struct __sk_buff *skb)
{
	bpf_spin_lock(&guard);
	packets++;
	bpf_spin_unlock(&guard);
	return TC_ACT_OK;
}

SEC("tc")
int add_two(struct __sk_buff *skb)
{
	packets += 2;
	return TC_ACT_OK;
}
