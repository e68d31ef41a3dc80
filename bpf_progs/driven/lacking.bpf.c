// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs that use one feature each which kernels may be built without, and no lock. If the kernel
 * refuses one as harness/judging/configuration.py says, it lacks the feature.
 *
 * libbpf only: bcc calls no kernel functions.
 */
#include "spinlock.h"

#ifndef LOADER_BCC

extern void bpf_rcu_read_lock(void) __weak __ksym;
extern void bpf_rcu_read_unlock(void) __weak __ksym;
extern void bpf_throw(__u64 cookie) __weak __ksym;

SEC("tc")
int calls_kernel_function(struct __sk_buff *skb)
{
	bpf_rcu_read_lock();
	bpf_rcu_read_unlock();
	return 0;
}

SEC("tc")
int throws(struct __sk_buff *skb)
{
	if (skb->len == 0)
		bpf_throw(0);
	return 0;
}

#endif
