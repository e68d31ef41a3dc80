// SPDX-License-Identifier: GPL-2.0-only
/* Programs whose trouble is not what the verifier's text speaks of; see tests/harness/test_check.py. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

struct item {
	struct bpf_spin_lock lock;
	__u32 count;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct item);
} items SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
} others SEC(".maps");

extern int LINUX_KERNEL_VERSION __kconfig;
extern _Bool CONFIG_NO_SUCH_OPTION __kconfig __weak;
extern void bpf_no_such_function(void) __ksym __weak;

static __always_inline struct item *find(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&items, &key);
}

__attribute__((noinline)) int slot(struct xdp_md *ctx)
{
	volatile int verdict = XDP_PASS;

	return ctx ? verdict : XDP_ABORTED;
}

SEC("xdp")
int dispatches(struct xdp_md *ctx)
{
	return slot(ctx);
}

SEC("freplace/slot")
int fills_slot(struct xdp_md *ctx)
{
	struct item *i = find();

	if (!i)
		return XDP_PASS;
	bpf_spin_lock(&i->lock);
	i->count++;
	bpf_spin_unlock(&i->lock);
	return XDP_PASS;
}

SEC("tc")
int reads_configuration(struct __sk_buff *skb)
{
	return CONFIG_NO_SUCH_OPTION ? 1 : LINUX_KERNEL_VERSION > 0;
}

SEC("tc")
int unresolved_under_lock(struct __sk_buff *skb)
{
	struct item *i = find();

	if (!i)
		return 0;
	bpf_spin_lock(&i->lock);
	bpf_no_such_function();
	bpf_spin_unlock(&i->lock);
	return 0;
}

SEC("fentry/bpf_spin_lock")
int attaches_to_lock(void *ctx)
{
	return 0;
}

SEC("tc")
int tail_call_under_lock(struct __sk_buff *skb)
{
	struct item *i = find();

	if (!i)
		return 0;
	bpf_spin_lock(&i->lock);
	bpf_tail_call(skb, &others, 0);
	bpf_spin_unlock(&i->lock);
	return 0;
}
