// SPDX-License-Identifier: GPL-2.0-only
/* Traffic of a cgroup, both ways, in one value. */
#include "common.h"

struct traffic {
	__u64 sent;
	__u64 received;
	__u64 packets;
	struct bpf_spin_lock lock;
};

MAP(ARRAY, traffic, 1, struct traffic);

static __always_inline int add(struct __sk_buff *skb, __u32 sent)
{
	__u32 key = 0;
	struct traffic *t = bpf_map_lookup_elem(&traffic, &key);

	if (!t)
		return 1;
	bpf_spin_lock(&t->lock);
	if (sent)
		t->sent += skb->len;
	else
		t->received += skb->len;
	t->packets++;
	bpf_spin_unlock(&t->lock);
	return 1;
}

SEC("cgroup_skb/egress")
int leaving(struct __sk_buff *skb)
{
	return add(skb, 1);
}

SEC("cgroup_skb/ingress")
int arriving(struct __sk_buff *skb)
{
	return add(skb, 0);
}
