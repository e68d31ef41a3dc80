// SPDX-License-Identifier: GPL-2.0-only
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";

struct flow {
	struct bpf_spin_lock lock;
	__u32 packets;
	__u64 bytes;
	__u64 last;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

static __always_inline void add(struct flow *f, __u32 bytes)
{
	f->packets++;
	f->bytes += bytes;
}

SEC("tc")
int count(struct __sk_buff *skb)
{
	struct flow fresh = {}, *f;
	__u32 key = skb->mark;
	__u64 now;

	bpf_map_update_elem(&flows, &key, &fresh, BPF_NOEXIST);
	f = bpf_map_lookup_elem(&flows, &key);
	if (!f)
		return 0;
	now = bpf_ktime_get_ns();
	bpf_spin_lock(&f->lock);
	if (f->packets <= 1000)
		add(f, skb->len);
	f->last = now;
	bpf_spin_unlock(&f->lock);
	return 0;
}

SEC("tc")
int forget(struct __sk_buff *skb)
{
	__u32 key = skb->mark;
	struct flow *f = bpf_map_lookup_elem(&flows, &key);

	if (f)
		f->packets = 0;
	return 0;
}
