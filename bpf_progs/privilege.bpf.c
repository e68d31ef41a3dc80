// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who may lock. commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1) offered the helpers
 * to CAP_SYS_ADMIN, commit 2c78ee898d8f ("bpf: Implement CAP_BPF") (in v5.8) to CAP_BPF. Programs
 * of this type may be loaded with neither; root has made the maps.
 *
 * The lock is the first member: a user without CAP_PERFMON may be refused the sum of a value's
 * address and an offset, before the call is looked at, unless the kernel runs with mitigations=off.
 */
#include "spinlock.h"

MAP(ARRAY, counters, __u32, struct counter, 1)

SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __success __retval(1)
int root_locks(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value == 1;
}

/* The map with the lock may be used; only the helpers are missing. */
SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __user(nobody)
__success __retval(1)
int nobody_counts(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	c->value++;
	return c->value == 1;
}

/* The text changed between v6.8 and v6.11. */
SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __user(nobody)
__twin(nobody_counts) __failure __errno(EINVAL)
__msg("{{unknown func|program of this type cannot use helper}} bpf_spin_lock#93")
int nobody_locks(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value == 1;
}
