// SPDX-License-Identifier: GPL-2.0-only
/*
 * A lock that leaves interrupts on, as bpf_spin_lock must not: what interrupts its holder and wants
 * it waits for ever. The holder and those that want it are those of bpf_progs/driven/nesting.bpf.c.
 */
#include "spinlock.h"

#define MARKER_ETHERTYPE 0x88b5
#define TC_ACT_OK 0
#define TC_ACT_STOLEN 4

MAP(ARRAY, words, __u32, __u32, 1)
MAP(PERCPU_ARRAY, runs, __u32, __u64, 2)

#ifndef LOADER_BCC /* callbacks */

static int is_free(__u32 index, void *context)
{
	__u32 key = 0;
	volatile __u32 *word = map_lookup(words, &key);

	return !word || !*word;
}

static int is_free_soon(__u32 index, void *context)
{
	return bpf_loop(1 << 23, is_free, NULL, 0) < 1 << 23;
}

static void count(__u32 source)
{
	__u64 *ran = map_lookup(runs, &source);

	if (ran)
		(*ran)++;
}

SEC("cgroup_skb/egress")
int hold_naively(struct __sk_buff *skb)
{
	__u32 key = 0, turn;
	volatile __u32 *word = map_lookup(words, &key);

	if (!word)
		return 1;
	*word = 1;
	for (turn = 0; turn < 2000; turn++)
		asm volatile("" : "+r"(turn));
	*word = 0;
	count(0);
	return 1;
}

SEC("tc")
int want_naively_at_tc(struct __sk_buff *skb)
{
	if (skb->protocol != ((MARKER_ETHERTYPE & 0xff) << 8 | MARKER_ETHERTYPE >> 8))
		return TC_ACT_OK;
	bpf_loop(1 << 23, is_free_soon, NULL, 0);
	count(1);
	return TC_ACT_STOLEN;
}

SEC("tp_btf/local_timer_entry")
int want_naively_at_timer(__u64 *arguments)
{
	if (bpf_get_smp_processor_id() != 0)
		return 0;
	bpf_loop(1 << 23, is_free_soon, NULL, 0);
	count(1);
	return 0;
}

#endif
