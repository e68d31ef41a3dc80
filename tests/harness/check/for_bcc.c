/* SPDX-License-Identifier: GPL-2.0-only */
/* As bcc takes it: no SEC(), and its macros for the maps. tests/harness/test_check.py checks it. */
#include <uapi/linux/bpf.h>

struct flow {
	struct bpf_spin_lock lock;
	u32 packets;
};
BPF_ARRAY(flows, struct flow, 16);

int count(struct xdp_md *ctx)
{
	int key = 0;
	struct flow *f = flows.lookup(&key);

	if (!f)
		return XDP_PASS;
	bpf_spin_lock(&f->lock);
	f->packets++;
	bpf_spin_unlock(&f->lock);
	return XDP_PASS;
}

int forget(struct __sk_buff *skb)
{
	int key = 0;
	struct flow *f = flows.lookup(&key);

	if (!f)
		return 0;
	bpf_spin_lock(&f->lock);
	f->packets = 0;
	return 0;
}

int trace(struct pt_regs *ctx)
{
	int key = 0;
	struct flow *f = flows.lookup(&key);

	if (!f)
		return 0;
	bpf_spin_lock(&f->lock);
	f->packets++;
	bpf_spin_unlock(&f->lock);
	return 0;
}
