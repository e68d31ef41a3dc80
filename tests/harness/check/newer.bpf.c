// SPDX-License-Identifier: GPL-2.0-only
/* Loads on kernels that know one lock of a value at most, and on no later one: for `--next`. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

struct half {
	struct bpf_spin_lock lock;
	__u32 bytes;
};

struct flow {
	struct half in, out;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

SEC("tc")
int seen(struct __sk_buff *skb)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&flows, &key) != 0;
}
