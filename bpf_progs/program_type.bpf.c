// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which kinds of program may lock. Networking programs may, each kind since it exists; commit
 * d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1) kept tracing programs and socket filters
 * from it for want of preemption checks. What is refused is the map, with or without a call.
 */
#include "spinlock.h"

/* The value of a map without a lock. */
struct plain {
	__u32 other;
	__u32 value;
};

MAP(ARRAY, counters, __u32, struct counter, 1)
MAP(ARRAY, plain, __u32, struct plain, 1)

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

/* What the refused kinds may do: the same with a map whose value has no lock. */
#define COUNT_WITHOUT_LOCK                                \
	__u32 key = 0;                                    \
	struct plain *p = map_lookup(plain, &key);        \
							  \
	if (p)                                            \
		p->value++;

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

SEC("xdp") __rule("Networking program types may lock") __success __retval(1)
int xdp_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

SEC("cgroup_skb/ingress") __rule("Networking program types may lock") __success __retval(1)
int cgroup_ingress_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

SEC("cgroup_skb/egress") __rule("Networking program types may lock") __success __retval(1)
int cgroup_egress_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
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
 * commit e420bed02507 ("bpf: Add fd-based tcx multi-prog infra with link support") (in v6.6).
 */
SEC("tcx/ingress") __rule("Networking program types may lock")
__kernel(">=6.6") __success __retval(1)
int tcx_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

/* commit 35dfaad7188c ("netkit, bpf: Add bpf programmable net device") (in v6.7). */
SEC("netkit/primary") __rule("Networking program types may lock")
__kernel(">=6.7") __success __retval(1)
int netkit_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

/* The run of an old kernel returns whether the packet was dissected, not what the program says. */
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

SEC("cgroup/dev") __rule("Networking program types may lock") __success
int cgroup_device_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/sock_create") __rule("Networking program types may lock") __success
int cgroup_socket_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/post_bind4") __rule("Networking program types may lock") __success
int cgroup_post_bind_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/bind4") __rule("Networking program types may lock") __success
int cgroup_bind_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/connect4") __rule("Networking program types may lock") __success
int cgroup_connect_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/connect6") __rule("Networking program types may lock") __success
int cgroup_connect6_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/sendmsg4") __rule("Networking program types may lock") __success
int cgroup_sendmsg_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/recvmsg4") __rule("Networking program types may lock") __kernel(">=5.2") __success
int cgroup_recvmsg_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/sysctl") __rule("Networking program types may lock") __kernel(">=5.2") __success
int cgroup_sysctl_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/getsockopt") __rule("Networking program types may lock") __kernel(">=5.3") __success
int cgroup_getsockopt_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("cgroup/setsockopt") __rule("Networking program types may lock") __kernel(">=5.3") __success
int cgroup_setsockopt_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("sockops") __rule("Networking program types may lock") __success
int sockops_locks(void *ctx)
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

/*
 * commit e9ddbb7707ff ("bpf: Introduce SK_LOOKUP program type with a dedicated attach point")
 * (in v5.9).
 */
SEC("sk_lookup") __rule("Networking program types may lock") __kernel(">=5.9") __success
int sk_lookup_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

/*
 * commit fd9c663b9ad6 ("bpf: minimal support for programs hooked into netfilter framework")
 * (in v6.4).
 */
SEC("netfilter") __rule("Networking program types may lock") __kernel(">=6.4") __success
int netfilter_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 1;
}

SEC("socket") __rule("Tracing programs and socket filters may not lock")
__success __retval(1)
int socket_filter_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return p && p->value == 1;
}

SEC("socket") __rule("Tracing programs and socket filters may not lock")
__twin(socket_filter_without_lock) __failure __errno(EINVAL)
__kernel("<5.11") __msg("tracing progs cannot use bpf_spin_lock yet")
__kernel(">=5.11") __msg("socket filter progs cannot use bpf_spin_lock yet")
int socket_filter_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("socket") __rule("Tracing programs and socket filters may not lock")
__twin(socket_filter_without_lock) __failure __errno(EINVAL)
__kernel("<5.11") __msg("tracing progs cannot use bpf_spin_lock yet")
__kernel(">=5.11") __msg("socket filter progs cannot use bpf_spin_lock yet")
int socket_filter_uses_map(void *ctx)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (c)
		c->value++;
	return 0;
}

SEC("kprobe/do_nanosleep") __rule("Tracing programs and socket filters may not lock")
__success
int kprobe_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("kprobe/do_nanosleep") __rule("Tracing programs and socket filters may not lock")
__twin(kprobe_without_lock) __failure __errno(EINVAL)
__msg("tracing progs cannot use bpf_spin_lock yet")
int kprobe_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("kprobe/do_nanosleep") __rule("Tracing programs and socket filters may not lock")
__twin(kprobe_without_lock) __failure __errno(EINVAL)
__msg("tracing progs cannot use bpf_spin_lock yet")
int kprobe_uses_map(void *ctx)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (c)
		c->value++;
	return 0;
}

SEC("uprobe") __rule("Tracing programs and socket filters may not lock")
__success
int uprobe_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("uprobe") __rule("Tracing programs and socket filters may not lock")
__twin(uprobe_without_lock) __failure __errno(EINVAL)
__msg("tracing progs cannot use bpf_spin_lock yet")
int uprobe_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_getpid")
__rule("Tracing programs and socket filters may not lock")
__success
int tracepoint_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_getpid")
__rule("Tracing programs and socket filters may not lock")
__twin(tracepoint_without_lock) __failure __errno(EINVAL)
__msg("tracing progs cannot use bpf_spin_lock yet")
int tracepoint_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("raw_tp/sys_enter") __rule("Tracing programs and socket filters may not lock")
__success
int raw_tracepoint_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("raw_tp/sys_enter") __rule("Tracing programs and socket filters may not lock")
__twin(raw_tracepoint_without_lock) __failure __errno(EINVAL)
__msg("tracing progs cannot use bpf_spin_lock yet")
int raw_tracepoint_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("perf_event") __rule("Tracing programs and socket filters may not lock")
__success
int perf_event_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("perf_event") __rule("Tracing programs and socket filters may not lock")
__twin(perf_event_without_lock) __failure __errno(EINVAL)
__msg("tracing progs cannot use bpf_spin_lock yet")
int perf_event_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("raw_tp.w/sys_enter") __rule("Tracing programs and socket filters may not lock")
__kernel(">=5.2") __success
int writable_raw_tracepoint_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

/* The type counts as tracing since v6.0; in v5.10 it had no such helper. */
SEC("raw_tp.w/sys_enter") __rule("Tracing programs and socket filters may not lock")
__twin(writable_raw_tracepoint_without_lock) __failure __errno(EINVAL)
__kernel(">=5.10,<5.11") __msg("unknown func bpf_spin_lock#93")
__kernel(">=6.0") __msg("tracing progs cannot use bpf_spin_lock yet")
int writable_raw_tracepoint_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

/*
 * Programs of the type called "tracing", which know the kernel's types, are no "tracing progs" to
 * the verifier. They may lock since v5.15.
 */
SEC("fentry/bpf_fentry_test1") __rule("Tracing programs and socket filters may not lock")
__kernel(">=5.5") __success
int fentry_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("fentry/bpf_fentry_test1") __rule("Tracing programs and socket filters may not lock")
__twin(fentry_without_lock)
__kernel(">=5.10,<5.11") __failure __errno(EINVAL) __msg("unknown func bpf_spin_lock#93")
__kernel(">=5.15") __success
int fentry_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("fexit/bpf_fentry_test1") __rule("Tracing programs and socket filters may not lock")
__twin(fentry_without_lock)
__kernel(">=5.10,<5.11") __failure __errno(EINVAL) __msg("unknown func bpf_spin_lock#93")
__kernel(">=5.15") __success
int fexit_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

/* Not so on 6.1, where this function may not be modified; between the two nothing was measured. */
SEC("fmod_ret/bpf_modify_return_test") __rule("Tracing programs and socket filters may not lock")
__kernel(">=6.12") __success
int fmod_ret_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("tp_btf/sched_switch") __rule("Tracing programs and socket filters may not lock")
__kernel(">=5.15") __success
int btf_tracepoint_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("iter/task") __rule("Tracing programs and socket filters may not lock")
__twin(fentry_without_lock)
__kernel(">=5.10,<5.11") __failure __errno(EINVAL) __msg("unknown func bpf_spin_lock#93")
__kernel(">=5.15") __success
int task_iterator_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

/* commit 9e7a4d9831e8 ("bpf: Allow LSM programs to use bpf spin locks") (in v5.11). */
SEC("lsm/file_open") __rule("Tracing programs and socket filters may not lock")
__kernel(">=5.11") __success
int lsm_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

/*
 * commit 5861d1e8dbc4 ("bpf: Allow bpf_spin_{lock,unlock} in sleepable progs") (in v6.6): a region
 * disables preemption, so that the program cannot sleep with the lock.
 */
SEC("lsm.s/file_open") __rule("Tracing programs and socket filters may not lock")
__twin(lsm_locks)
__kernel(">=5.11,<6.6") __failure __errno(EINVAL)
		    __msg("sleepable progs cannot use bpf_spin_lock yet")
__kernel(">=6.6") __success
int sleepable_lsm_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("fentry.s/bpf_fentry_test1") __rule("Tracing programs and socket filters may not lock")
__twin(fentry_locks)
__kernel(">=6.3,<6.6") __failure __errno(EINVAL)
		    __msg("sleepable progs cannot use bpf_spin_lock yet")
__kernel(">=6.6") __success
int sleepable_fentry_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("iter.s/task") __rule("Tracing programs and socket filters may not lock")
__kernel(">=6.6") __success
int sleepable_iterator_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("syscall") __rule("Tracing programs and socket filters may not lock")
__kernel(">=5.14") __success __retval(1)
int syscall_program_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return p && p->value == 1;
}

SEC("syscall") __rule("Tracing programs and socket filters may not lock")
__twin(syscall_program_without_lock)
__kernel(">=5.14,<6.6") __failure __errno(EINVAL)
		    __msg("sleepable progs cannot use bpf_spin_lock yet")
__kernel(">=6.6") __success __retval(1)
int syscall_program_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}
