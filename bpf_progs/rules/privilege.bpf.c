// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who may lock. Programs of type CGROUP_SKB may be loaded without any capability; root has made the
 * maps unless the case says otherwise.
 *
 * The lock is the first member: a user without CAP_PERFMON may be refused the sum of a value's
 * address and an offset, before the call is looked at, unless the kernel runs with mitigations=off.
 */
#include "spinlock.h"

MAP(ARRAY, counters, __u32, struct counter, 1)

#define COUNT                                            \
	__u32 key = 0;                                   \
	struct counter *c = map_lookup(counters, &key);  \
							 \
	if (!c)                                          \
		return 0;                                \
	c->value++;                                      \
	return c->value == 1;

#define LOCK_AND_COUNT                                   \
	__u32 key = 0;                                   \
	struct counter *c = map_lookup(counters, &key);  \
							 \
	if (!c)                                          \
		return 0;                                \
	bpf_spin_lock(&c->lock);                         \
	c->value++;                                      \
	bpf_spin_unlock(&c->lock);                       \
	return c->value == 1;

/*
 * Rule: Only privileged users may lock
 * Topic: Programs and users
 * A program that does not end the critical section would hang the machine, so a bug of the verifier
 * in this place would be anybody's to use. The helpers were for CAP_SYS_ADMIN first, and are for
 * CAP_BPF now. Since v6.2 the same goes for making a map with a lock; the BTF that describes one
 * could never be loaded with less.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit 2c78ee898d8f ("bpf: Implement CAP_BPF") (in v5.8)
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 */
SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __success __retval(1)
int root_locks(struct __sk_buff *skb)
{
	LOCK_AND_COUNT
}

/* The map with the lock may be used; only the helpers are missing. */
SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __user(nobody)
__success __retval(1)
int nobody_counts(struct __sk_buff *skb)
{
	COUNT
}

/*
 * Refusal: helper_not_for_user
 * EINVAL "{{unknown func|program of this type cannot use helper}} bpf_spin_lock#93"
 * The helper is not offered to users without CAP_BPF. The text changed between v6.8 and v6.11.
 */

SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __user(nobody)
__twin(nobody_counts) __refused(helper_not_for_user)
int nobody_locks(struct __sk_buff *skb)
{
	LOCK_AND_COUNT
}

SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __user(cap_bpf)
__success __retval(1)
int cap_bpf_locks(struct __sk_buff *skb)
{
	LOCK_AND_COUNT
}

/* The capability of old includes the new one. */
SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __user(cap_sys_admin)
__success __retval(1)
int cap_sys_admin_locks(struct __sk_buff *skb)
{
	LOCK_AND_COUNT
}

SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __user(cap_perfmon+cap_bpf)
__success __retval(1)
int cap_perfmon_and_cap_bpf_lock(struct __sk_buff *skb)
{
	LOCK_AND_COUNT
}

/* Looking into the kernel is no licence to lock it, ... */
SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __user(cap_perfmon)
__twin(cap_perfmon_and_cap_bpf_lock) __refused(helper_not_for_user)
int cap_perfmon_locks(struct __sk_buff *skb)
{
	LOCK_AND_COUNT
}

SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __user(cap_net_admin+cap_bpf)
__success __retval(1)
int cap_net_admin_and_cap_bpf_lock(struct __sk_buff *skb)
{
	LOCK_AND_COUNT
}

/* ... nor is its network. */
SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __user(cap_net_admin)
__twin(cap_net_admin_and_cap_bpf_lock) __refused(helper_not_for_user)
int cap_net_admin_locks(struct __sk_buff *skb)
{
	LOCK_AND_COUNT
}

/* A classifier asks for both capabilities, with a lock or without, before it is looked at. */
SEC("tc") __rule("Only privileged users may lock") __user(cap_bpf+cap_net_admin)
__success __retval(1)
int cap_bpf_and_cap_net_admin_lock_in_tc(struct __sk_buff *skb)
{
	LOCK_AND_COUNT
}

SEC("tc") __rule("Only privileged users may lock") __user(cap_bpf)
__twin(cap_bpf_and_cap_net_admin_lock_in_tc) __failure __errno(EPERM)
int cap_bpf_locks_in_tc(struct __sk_buff *skb)
{
	LOCK_AND_COUNT
}

SEC("tc") __rule("Only privileged users may lock") __user(cap_net_admin)
__twin(cap_bpf_and_cap_net_admin_lock_in_tc) __failure __errno(EPERM)
int cap_net_admin_locks_in_tc(struct __sk_buff *skb)
{
	LOCK_AND_COUNT
}

/* From here on libbpf only: bcc makes BTF and maps when it compiles, as root. */
SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __loader(libbpf)
__user(cap_bpf, btf_load) __success __retval(1)
__description("BTF, map and program")
int cap_bpf_does_it_all(struct __sk_buff *skb)
{
	LOCK_AND_COUNT
}

SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __loader(libbpf)
__user(nobody, btf_load) __twin(cap_bpf_does_it_all)
__failure __stage(btf_load) __errno(EPERM)
int nobody_loads_btf_of_lock(struct __sk_buff *skb)
{
	LOCK_AND_COUNT
}

SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __loader(libbpf)
__user(cap_net_admin+cap_perfmon, btf_load) __twin(cap_bpf_does_it_all)
__failure __stage(btf_load) __errno(EPERM)
int cap_net_admin_and_cap_perfmon_load_btf_of_lock(struct __sk_buff *skb)
{
	LOCK_AND_COUNT
}
