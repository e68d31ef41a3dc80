// SPDX-License-Identifier: GPL-2.0-only
/* Packets of the current tenth of a second, and how many of these there were. */
#include "common.h"

#define WINDOW 100000000

struct window {
	struct bpf_spin_lock lock;
	__u64 begun;
	__u64 packets;
	__u64 windows;
	__u64 total;
};

MAP(ARRAY, windows, 1, struct window);

SEC("tc")
int watch(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_ns();
	__u32 key = 0;
	struct window *w = bpf_map_lookup_elem(&windows, &key);

	if (!w)
		return TC_ACT_OK;
	bpf_spin_lock(&w->lock);
	if (now - w->begun > WINDOW && now > w->begun) {
		w->begun = now;
		w->packets = 0;
		w->windows++;
	}
	w->packets++;
	w->total++;
	bpf_spin_unlock(&w->lock);
	return TC_ACT_OK;
}
