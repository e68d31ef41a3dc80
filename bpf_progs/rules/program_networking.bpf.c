// SPDX-License-Identifier: GPL-2.0-only
/*
 * Kinds of program that see packets and sockets: each may lock since it exists. The kinds that
 * belong to a cgroup are in program_cgroup.bpf.c, those that trace in program_tracing.bpf.c.
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
 * Rule: Networking program types may lock
 * Topic: Programs and users
 * The helper is offered to all kinds of program that are privileged, and to each new kind with
 * the first kernel that has it. Networking programs run where the lock is safe: a region runs
 * with interrupts off.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 */

/* BPF_PROG_TEST_RUN runs these: they return 1 when they counted. */
SEC("tc") __rule("Networking program types may lock") __success __retval(1)
int tc_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

SEC("action") __rule("Networking program types may lock") __success __retval(1)
int action_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

/* commit e420bed02507 ("bpf: Add fd-based tcx multi-prog infra with link support") (in v6.6). */
SEC("tcx/ingress") __rule("Networking program types may lock")
__needs(BPF_TCX_INGRESS, "6.6") __success __retval(1)
int tcx_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

SEC("tcx/egress") __rule("Networking program types may lock")
__needs(BPF_TCX_EGRESS, "6.6") __success __retval(1)
int tcx_egress_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

/* commit 35dfaad7188c ("netkit, bpf: Add bpf programmable net device") (in v6.7). */
SEC("netkit/primary") __rule("Networking program types may lock")
__needs(BPF_NETKIT_PRIMARY, "6.7") __success __retval(1)
int netkit_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

SEC("netkit/peer") __rule("Networking program types may lock")
__needs(BPF_NETKIT_PEER, "6.7") __success __retval(1)
int netkit_peer_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

SEC("xdp") __rule("Networking program types may lock") __success __retval(1)
int xdp_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

/* A program for packets of several buffers, with a flag that only libbpf sets here. */
SEC("xdp.frags") __rule("Networking program types may lock")
__loader(libbpf) __needs(bpf_xdp_get_buff_len, "5.18")
__success __retval(1)
int xdp_frags_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

/* Runs at the entry of a map, hence not under BPF_PROG_TEST_RUN. */
SEC("xdp/cpumap") __rule("Networking program types may lock") __success
int xdp_cpumap_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 2;
}

SEC("xdp/devmap") __rule("Networking program types may lock") __success
int xdp_devmap_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 2;
}

SEC("lwt_in") __rule("Networking program types may lock") __success __retval(1)
int lwt_in_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

SEC("lwt_out") __rule("Networking program types may lock") __success __retval(1)
int lwt_out_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

SEC("lwt_xmit") __rule("Networking program types may lock") __success __retval(1)
int lwt_xmit_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

/*
 * The run of an old kernel returns whether the packet was dissected, not what the program says.
 */
SEC("flow_dissector") __rule("Networking program types may lock")
__kernel("<6.12") __success
__kernel(">=6.12") __success __retval(1)
int flow_dissector_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

/* These are only loaded: BPF_PROG_TEST_RUN cannot run them or needs more than a packet. */
SEC("lwt_seg6local") __rule("Networking program types may lock") __success
int lwt_seg6local_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("sockops") __rule("Networking program types may lock") __success
int sockops_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("sk_skb") __rule("Networking program types may lock") __success
int sk_skb_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("sk_skb/stream_parser") __rule("Networking program types may lock") __success
int sk_skb_parser_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("sk_skb/stream_verdict") __rule("Networking program types may lock") __success
int sk_skb_verdict_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("sk_msg") __rule("Networking program types may lock") __success
int sk_msg_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("sk_reuseport") __rule("Networking program types may lock") __success
int sk_reuseport_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("sk_reuseport/migrate") __rule("Networking program types may lock")
__needs(BPF_SK_REUSEPORT_SELECT_OR_MIGRATE, "5.14") __success
int sk_reuseport_migrate_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

/*
 * commit e9ddbb7707ff ("bpf: Introduce SK_LOOKUP program type with a dedicated attach point")
 * (in v5.9).
 */
SEC("sk_lookup") __rule("Networking program types may lock") __success
int sk_lookup_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

/*
 * commit fd9c663b9ad6 ("bpf: minimal support for programs hooked into netfilter framework") (in
 * v6.4).
 */
SEC("netfilter") __rule("Networking program types may lock")
__needs(BPF_PROG_TYPE_NETFILTER, "6.4") __success
int netfilter_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}
