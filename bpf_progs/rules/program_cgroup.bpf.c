// SPDX-License-Identifier: GPL-2.0-only
/*
 * Kinds of program that belong to a cgroup: every place they attach to, since each may be checked
 * differently. Those that run on packets and sockets elsewhere are in program_networking.bpf.c.
 */
#include "spinlock.h"

MAP(ARRAY, counters, __u32, struct counter, 1)

/* The same program for all, but for what each kind may return. */
#define COUNT_UNDER_LOCK                                  \
	__u32 key = 0;                                    \
	struct counter *c = map_lookup(counters, &key);   \
							  \
	if (c) {                                          \
		bpf_spin_lock(&c->lock);                  \
		c->value++;                               \
		bpf_spin_unlock(&c->lock);                \
	}

/*
 * Rule: Cgroup program types may lock
 * Topic: Programs and users
 * Programs of a cgroup may lock like others. For each attach type the helper is available since the
 * kernel that introduced the attach type.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 */

SEC("cgroup_skb/ingress") __rule("Cgroup program types may lock") __success __retval(1)
int cgroup_ingress_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

SEC("cgroup_skb/egress") __rule("Cgroup program types may lock") __success __retval(1)
int cgroup_egress_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

SEC("cgroup/skb") __rule("Cgroup program types may lock") __success __retval(1)
int cgroup_skb_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

/* These are only loaded: BPF_PROG_TEST_RUN cannot run them. */
SEC("cgroup/dev") __rule("Cgroup program types may lock") __success
int cgroup_device_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/sysctl") __rule("Cgroup program types may lock") __success
int cgroup_sysctl_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/getsockopt") __rule("Cgroup program types may lock") __success
int cgroup_getsockopt_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/setsockopt") __rule("Cgroup program types may lock") __success
int cgroup_setsockopt_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/sock_create") __rule("Cgroup program types may lock") __success
int cgroup_socket_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/sock_release") __rule("Cgroup program types may lock") __success
int cgroup_socket_release_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/post_bind4") __rule("Cgroup program types may lock") __success
int cgroup_post_bind_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/post_bind6") __rule("Cgroup program types may lock") __success
int cgroup_post_bind6_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/bind4") __rule("Cgroup program types may lock") __success
int cgroup_bind_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/bind6") __rule("Cgroup program types may lock") __success
int cgroup_bind6_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/connect4") __rule("Cgroup program types may lock") __success
int cgroup_connect_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/connect6") __rule("Cgroup program types may lock") __success
int cgroup_connect6_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/sendmsg4") __rule("Cgroup program types may lock") __success
int cgroup_sendmsg_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/sendmsg6") __rule("Cgroup program types may lock") __success
int cgroup_sendmsg6_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/recvmsg4") __rule("Cgroup program types may lock") __success
int cgroup_recvmsg_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/recvmsg6") __rule("Cgroup program types may lock") __success
int cgroup_recvmsg6_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/getpeername4") __rule("Cgroup program types may lock") __success
int cgroup_getpeername4_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/getpeername6") __rule("Cgroup program types may lock") __success
int cgroup_getpeername6_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/getsockname4") __rule("Cgroup program types may lock") __success
int cgroup_getsockname4_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/getsockname6") __rule("Cgroup program types may lock") __success
int cgroup_getsockname6_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

/* commit 859051dd165e ("bpf: Implement cgroup sockaddr hooks for unix sockets") (in v6.7). */
SEC("cgroup/connect_unix") __rule("Cgroup program types may lock")
__needs(BPF_CGROUP_UNIX_CONNECT, "6.7") __success
int cgroup_connect_unix_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/sendmsg_unix") __rule("Cgroup program types may lock")
__needs(BPF_CGROUP_UNIX_SENDMSG, "6.7") __success
int cgroup_sendmsg_unix_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/recvmsg_unix") __rule("Cgroup program types may lock")
__needs(BPF_CGROUP_UNIX_RECVMSG, "6.7") __success
int cgroup_recvmsg_unix_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/getpeername_unix") __rule("Cgroup program types may lock")
__needs(BPF_CGROUP_UNIX_GETPEERNAME, "6.7") __success
int cgroup_getpeername_unix_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/getsockname_unix") __rule("Cgroup program types may lock")
__needs(BPF_CGROUP_UNIX_GETSOCKNAME, "6.7") __success
int cgroup_getsockname_unix_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

/* commit 69fd337a975c ("bpf: per-cgroup lsm flavor") (in v6.0). */
SEC("lsm_cgroup/socket_bind") __rule("Cgroup program types may lock")
__needs(BPF_LSM_CGROUP, "6.0")
__needs(bpf_lsm_socket_bind, "5.7", CONFIG_BPF_LSM, CONFIG_SECURITY_NETWORK) __success
int cgroup_lsm_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}
