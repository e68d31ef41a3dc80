// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who may make a map with a lock, given that root has loaded the BTF that describes it. Each in a
 * unit, because the user makes all maps of the object. libbpf only: bcc makes maps as root.
 */
#include "spinlock.h"

#define COUNT(map, type)                         \
	__u32 key = 0;                           \
	type *v = map_lookup(map, &key);         \
						 \
	if (!v)                                  \
		return 0;                        \
	v->value++;                              \
	return v->value == 1;

#if UNIT(map_with_lock)
MAP(ARRAY, map_with_lock, __u32, struct counter, 1)

SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __loader(libbpf)
__user(cap_bpf, map_create) __success __retval(1)
int cap_bpf_makes_map_with_lock(struct __sk_buff *skb)
{
	COUNT(map_with_lock, struct counter)
}

SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __loader(libbpf)
__user(cap_sys_admin, map_create) __success __retval(1)
int cap_sys_admin_makes_map_with_lock(struct __sk_buff *skb)
{
	COUNT(map_with_lock, struct counter)
}

/* Before v6.2 the map was anybody's to make; nobody locks here. */
SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __loader(libbpf)
__user(nobody, map_create) __twin(cap_bpf_makes_map_with_lock)
__kernel("<6.2") __success __retval(1)
__kernel(">=6.2") __failure __stage(map_create) __errno(EPERM)
int nobody_makes_map_with_lock(struct __sk_buff *skb)
{
	COUNT(map_with_lock, struct counter)
}

SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __loader(libbpf)
__user(cap_net_admin+cap_perfmon, map_create) __twin(cap_bpf_makes_map_with_lock)
__kernel("<6.2") __success __retval(1)
__kernel(">=6.2") __failure __stage(map_create) __errno(EPERM)
int cap_net_admin_and_cap_perfmon_make_map_with_lock(struct __sk_buff *skb)
{
	COUNT(map_with_lock, struct counter)
}
#endif

#if UNIT(map_without_lock)
struct no_lock {
	__u32 lock;
	__u32 value;
};
MAP(ARRAY, map_without_lock, __u32, struct no_lock, 1)

/* It is the lock that makes the difference. */
SEC("cgroup_skb/egress") __rule("Only privileged users may lock") __loader(libbpf)
__user(nobody, map_create) __success __retval(1)
int nobody_makes_map_without_lock(struct __sk_buff *skb)
{
	COUNT(map_without_lock, struct no_lock)
}
#endif
