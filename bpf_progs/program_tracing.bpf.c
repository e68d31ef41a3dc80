// SPDX-License-Identifier: GPL-2.0-only
/*
 * Kinds of program that trace, and the others that the verifier once kept from the lock: which of
 * them may lock, and since when. "Tracing" has two meanings. The verifier's "tracing progs" are
 * kprobes, tracepoints and such; the program type of that name is fentry, fexit, iterators and the
 * like.
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

/* What is refused is the map: nothing here locks. */
#define COUNT_IN_MAP_WITH_LOCK                            \
	__u32 key = 0;                                    \
	struct counter *c = map_lookup(counters, &key);   \
							  \
	if (c)                                            \
		c->value++;

/*
 * Rule: Tracing programs and socket filters may not lock
 * A tracing program can run anywhere, also in an NMI or inside a region of its own lock, and
 * would then wait for itself; a socket filter was held back for want of checks of preemption. It
 * is the map that is refused, used or not.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 */

SEC("socket") __rule("Tracing programs and socket filters may not lock") __success __retval(1)
int socket_filter_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return p && p->value == 1;
}

/* The texts are two since v5.11. */
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
	COUNT_IN_MAP_WITH_LOCK
	return 0;
}

SEC("kprobe/do_nanosleep") __rule("Tracing programs and socket filters may not lock") __success
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
	COUNT_IN_MAP_WITH_LOCK
	return 0;
}

SEC("kretprobe/do_nanosleep") __rule("Tracing programs and socket filters may not lock") __success
int kretprobe_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("kretprobe/do_nanosleep") __rule("Tracing programs and socket filters may not lock")
__twin(kretprobe_without_lock) __failure __errno(EINVAL)
__msg("tracing progs cannot use bpf_spin_lock yet")
int kretprobe_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("ksyscall/nanosleep") __rule("Tracing programs and socket filters may not lock") __success
int ksyscall_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("ksyscall/nanosleep") __rule("Tracing programs and socket filters may not lock")
__twin(ksyscall_without_lock) __failure __errno(EINVAL)
__msg("tracing progs cannot use bpf_spin_lock yet")
int ksyscall_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("kprobe.multi/do_nanosleep") __rule("Tracing programs and socket filters may not lock")
__needs(BPF_TRACE_KPROBE_MULTI, "5.18") __success
int kprobe_multi_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("kprobe.multi/do_nanosleep") __rule("Tracing programs and socket filters may not lock")
__twin(kprobe_multi_without_lock) __needs(BPF_TRACE_KPROBE_MULTI, "5.18") __failure __errno(EINVAL)
__msg("tracing progs cannot use bpf_spin_lock yet")
int kprobe_multi_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("kprobe.session/do_nanosleep") __rule("Tracing programs and socket filters may not lock")
__needs(BPF_TRACE_KPROBE_SESSION, "6.10") __success
int kprobe_session_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("kprobe.session/do_nanosleep") __rule("Tracing programs and socket filters may not lock")
__twin(kprobe_session_without_lock) __needs(BPF_TRACE_KPROBE_SESSION, "6.10")
__failure __errno(EINVAL)
__msg("tracing progs cannot use bpf_spin_lock yet")
int kprobe_session_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("uprobe") __rule("Tracing programs and socket filters may not lock") __success
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

SEC("uretprobe") __rule("Tracing programs and socket filters may not lock") __success
int uretprobe_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("uretprobe") __rule("Tracing programs and socket filters may not lock")
__twin(uretprobe_without_lock) __failure __errno(EINVAL)
__msg("tracing progs cannot use bpf_spin_lock yet")
int uretprobe_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("uprobe.multi") __rule("Tracing programs and socket filters may not lock")
__needs(BPF_TRACE_UPROBE_MULTI, "6.6") __success
int uprobe_multi_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("uprobe.multi") __rule("Tracing programs and socket filters may not lock")
__twin(uprobe_multi_without_lock) __needs(BPF_TRACE_UPROBE_MULTI, "6.6") __failure __errno(EINVAL)
__msg("tracing progs cannot use bpf_spin_lock yet")
int uprobe_multi_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("usdt") __rule("Tracing programs and socket filters may not lock") __success
int usdt_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("usdt") __rule("Tracing programs and socket filters may not lock")
__twin(usdt_without_lock) __failure __errno(EINVAL)
__msg("tracing progs cannot use bpf_spin_lock yet")
int usdt_locks(void *ctx)
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

SEC("tracepoint/syscalls/sys_enter_getpid")
__rule("Tracing programs and socket filters may not lock")
__twin(tracepoint_without_lock) __failure __errno(EINVAL)
__msg("tracing progs cannot use bpf_spin_lock yet")
int tracepoint_uses_map(void *ctx)
{
	COUNT_IN_MAP_WITH_LOCK
	return 0;
}

SEC("raw_tp/sys_enter") __rule("Tracing programs and socket filters may not lock") __success
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

SEC("raw_tp/sys_enter") __rule("Tracing programs and socket filters may not lock")
__twin(raw_tracepoint_without_lock) __failure __errno(EINVAL)
__msg("tracing progs cannot use bpf_spin_lock yet")
int raw_tracepoint_uses_map(void *ctx)
{
	COUNT_IN_MAP_WITH_LOCK
	return 0;
}

SEC("perf_event") __rule("Tracing programs and socket filters may not lock") __success
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

SEC("perf_event") __rule("Tracing programs and socket filters may not lock")
__twin(perf_event_without_lock) __failure __errno(EINVAL)
__msg("tracing progs cannot use bpf_spin_lock yet")
int perf_event_uses_map(void *ctx)
{
	COUNT_IN_MAP_WITH_LOCK
	return 0;
}

SEC("raw_tp.w/sys_enter") __rule("Tracing programs and socket filters may not lock") __success
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
 * Rule: Programs that know the kernel's types may lock
 * Programs of the type called tracing (fentry, fexit, fmod_ret, BTF tracepoints and iterators)
 * were not offered the helper at first. They are since v5.15, and LSM programs since v5.11: the
 * verifier does not count them among the tracing programs it refuses.
 * commit 9e7a4d9831e8 ("bpf: Allow LSM programs to use bpf spin locks") (in v5.11)
 */

SEC("fentry/bpf_fentry_test1") __rule("Programs that know the kernel's types may lock") __success
int fentry_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("fentry/bpf_fentry_test1") __rule("Programs that know the kernel's types may lock")
__twin(fentry_without_lock)
__kernel("<5.15") __failure __errno(EINVAL) __msg("unknown func bpf_spin_lock#93")
__kernel(">=5.15") __success
int fentry_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("fexit/bpf_fentry_test1") __rule("Programs that know the kernel's types may lock") __success
int fexit_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("fexit/bpf_fentry_test1") __rule("Programs that know the kernel's types may lock")
__twin(fexit_without_lock)
__kernel("<5.15") __failure __errno(EINVAL) __msg("unknown func bpf_spin_lock#93")
__kernel(">=5.15") __success
int fexit_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("fmod_ret/security_file_open") __rule("Programs that know the kernel's types may lock")
__success
int fmod_ret_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("fmod_ret/security_file_open") __rule("Programs that know the kernel's types may lock")
__twin(fmod_ret_without_lock)
__kernel("<5.15") __failure __errno(EINVAL) __msg("unknown func bpf_spin_lock#93")
__kernel(">=5.15") __success
int fmod_ret_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("tp_btf/sched_switch") __rule("Programs that know the kernel's types may lock") __success
int btf_tracepoint_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("tp_btf/sched_switch") __rule("Programs that know the kernel's types may lock")
__twin(btf_tracepoint_without_lock)
__kernel("<5.15") __failure __errno(EINVAL) __msg("unknown func bpf_spin_lock#93")
__kernel(">=5.15") __success
int btf_tracepoint_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("iter/task") __rule("Programs that know the kernel's types may lock") __success
int task_iterator_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("iter/task") __rule("Programs that know the kernel's types may lock")
__twin(task_iterator_without_lock)
__kernel("<5.15") __failure __errno(EINVAL) __msg("unknown func bpf_spin_lock#93")
__kernel(">=5.15") __success
int task_iterator_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("iter/bpf_map") __rule("Programs that know the kernel's types may lock") __success
int map_iterator_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("iter/bpf_map") __rule("Programs that know the kernel's types may lock")
__twin(map_iterator_without_lock)
__kernel("<5.15") __failure __errno(EINVAL) __msg("unknown func bpf_spin_lock#93")
__kernel(">=5.15") __success
int map_iterator_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("iter/bpf_map_elem") __rule("Programs that know the kernel's types may lock") __success
int element_iterator_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("iter/bpf_map_elem") __rule("Programs that know the kernel's types may lock")
__twin(element_iterator_without_lock)
__kernel("<5.15") __failure __errno(EINVAL) __msg("unknown func bpf_spin_lock#93")
__kernel(">=5.15") __success
int element_iterator_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("iter/tcp") __rule("Programs that know the kernel's types may lock") __success
int tcp_iterator_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("iter/tcp") __rule("Programs that know the kernel's types may lock")
__twin(tcp_iterator_without_lock)
__kernel("<5.15") __failure __errno(EINVAL) __msg("unknown func bpf_spin_lock#93")
__kernel(">=5.15") __success
int tcp_iterator_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("iter/netlink") __rule("Programs that know the kernel's types may lock") __success
int netlink_iterator_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("iter/netlink") __rule("Programs that know the kernel's types may lock")
__twin(netlink_iterator_without_lock)
__kernel("<5.15") __failure __errno(EINVAL) __msg("unknown func bpf_spin_lock#93")
__kernel(">=5.15") __success
int netlink_iterator_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("iter/ksym") __rule("Programs that know the kernel's types may lock")
__needs(bpf_iter__ksym, "6.0") __success
int symbol_iterator_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("iter/cgroup") __rule("Programs that know the kernel's types may lock")
__needs(bpf_iter__cgroup, "6.1") __success
int cgroup_iterator_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("lsm/file_open") __rule("Programs that know the kernel's types may lock") __success
int lsm_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("lsm/file_open") __rule("Programs that know the kernel's types may lock")
__twin(lsm_without_lock)
__kernel("<5.11") __failure __errno(EINVAL) __msg("unknown func bpf_spin_lock#93")
__kernel(">=5.11") __success
int lsm_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

/*
 * Rule: Sleepable programs may lock
 * A program that may sleep must not do so with the lock. Until v6.6 such a program was kept from
 * maps with a lock; since then a region disables preemption and calls are refused in it anyway,
 * so that it cannot sleep there.
 * commit 5861d1e8dbc4 ("bpf: Allow bpf_spin_{lock,unlock} in sleepable progs") (in v6.6)
 */

/*
 * commit 423f16108c9d ("bpf: Augment the set of sleepable LSM hooks") (in v5.11): v5.10 had
 * other hooks that may sleep.
 */
SEC("lsm.s/bpf") __rule("Sleepable programs may lock")
__twin(lsm_without_lock)
__kernel("<5.11") __failure __errno(EINVAL) __msg("is not sleepable")
__kernel(">=5.11") __success
int sleepable_lsm_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("lsm.s/bpf") __rule("Sleepable programs may lock")
__twin(lsm_without_lock)
__kernel("<5.11") __failure __errno(EINVAL) __msg("is not sleepable")
__kernel(">=5.11,<6.6") __failure __errno(EINVAL)
			__msg("sleepable progs cannot use bpf_spin_lock yet")
__kernel(">=6.6") __success
int sleepable_lsm_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

/*
 * This kernel function is one that may sleep since commit 5b481acab4ce ("bpf: do not rely on
 * ALLOW_ERROR_INJECTION for fmod_ret") (in v6.3); what else may is a matter of configuration.
 */
SEC("fentry.s/bpf_fentry_test1") __rule("Sleepable programs may lock")
__twin(fentry_without_lock)
__kernel("<6.3") __failure __errno(EINVAL) __msg("is not sleepable")
__kernel(">=6.3") __success
int sleepable_fentry_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("fentry.s/bpf_fentry_test1") __rule("Sleepable programs may lock")
__twin(fentry_without_lock)
__kernel("<6.3") __failure __errno(EINVAL) __msg("is not sleepable")
__kernel(">=6.3,<6.6") __failure __errno(EINVAL)
		       __msg("sleepable progs cannot use bpf_spin_lock yet")
__kernel(">=6.6") __success
int sleepable_fentry_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("fexit.s/bpf_fentry_test1") __rule("Sleepable programs may lock")
__twin(fentry_without_lock)
__kernel("<6.3") __failure __errno(EINVAL) __msg("is not sleepable")
__kernel(">=6.3") __success
int sleepable_fexit_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("fexit.s/bpf_fentry_test1") __rule("Sleepable programs may lock")
__twin(fentry_without_lock)
__kernel("<6.3") __failure __errno(EINVAL) __msg("is not sleepable")
__kernel(">=6.3,<6.6") __failure __errno(EINVAL)
		       __msg("sleepable progs cannot use bpf_spin_lock yet")
__kernel(">=6.6") __success
int sleepable_fexit_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("fmod_ret.s/bpf_fentry_test1") __rule("Sleepable programs may lock")
__twin(fentry_without_lock)
__kernel("<6.3") __failure __errno(EINVAL) __msg("is not sleepable")
__kernel(">=6.3") __success
int sleepable_fmod_ret_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("fmod_ret.s/bpf_fentry_test1") __rule("Sleepable programs may lock")
__twin(fentry_without_lock)
__kernel("<6.3") __failure __errno(EINVAL) __msg("is not sleepable")
__kernel(">=6.3,<6.6") __failure __errno(EINVAL)
		       __msg("sleepable progs cannot use bpf_spin_lock yet")
__kernel(">=6.6") __success
int sleepable_fmod_ret_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("iter.s/task") __rule("Sleepable programs may lock") __success
int sleepable_iterator_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("iter.s/task") __rule("Sleepable programs may lock")
__twin(sleepable_iterator_without_lock)
__kernel("<5.11") __failure __errno(EINVAL) __msg("unknown func bpf_spin_lock#93")
__kernel(">=5.11,<6.6") __failure __errno(EINVAL)
			__msg("sleepable progs cannot use bpf_spin_lock yet")
__kernel(">=6.6") __success
int sleepable_iterator_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

/* commit 79a7f8bdb159 ("bpf: Introduce bpf_sys_bpf() helper and program type.") (in v5.14). */
SEC("syscall") __rule("Sleepable programs may lock")
__needs(BPF_PROG_TYPE_SYSCALL, "5.14") __success __retval(1)
int syscall_program_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return p && p->value == 1;
}

SEC("syscall") __rule("Sleepable programs may lock")
__twin(syscall_program_without_lock) __needs(BPF_PROG_TYPE_SYSCALL, "5.14") 
__kernel("<6.6") __failure __errno(EINVAL)
		 __msg("sleepable progs cannot use bpf_spin_lock yet")
__kernel(">=6.6") __success __retval(1)
int syscall_program_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

SEC("uprobe.s") __rule("Sleepable programs may lock")
__twin(uprobe_without_lock)
__kernel("<6.0") __failure __errno(EINVAL) __msg("programs can be sleepable")
__kernel(">=6.0") __success
int sleepable_uprobe_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

/* It may sleep since v6.0, but it is a kprobe to the verifier. */
SEC("uprobe.s") __rule("Sleepable programs may lock")
__twin(uprobe_without_lock)
__kernel("<6.0") __failure __errno(EINVAL) __msg("programs can be sleepable")
__kernel(">=6.0") __failure __errno(EINVAL)
		 __msg("tracing progs cannot use bpf_spin_lock yet")
int sleepable_uprobe_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

/*
 * Rule: Nothing attaches to the lock's own functions
 * A program that ran on entry to bpf_spin_lock() and took the same lock would wait for itself.
 * The functions are marked as not to be traced, which the program learns when it attaches.
 * commit 178c54666f9c ("bpf: Mark bpf_spin_{lock,unlock}() helpers with notrace correctly")
 * (in v6.9)
 */

/*
 * v5.10 has no such function in its BTF. libbpf only: the errno of that is its own, as it looks the
 * function up.
 */
SEC("fentry/bpf_spin_lock") __rule("Nothing attaches to the lock's own functions")
__loader(libbpf) __twin(fentry_without_lock) __failure
__kernel("<5.11") __stage(prog_load) __errno(ESRCH)
__kernel(">=5.11") __stage(attach) __errno(EBUSY)
int fentry_of_bpf_spin_lock(void *ctx)
{
	return 0;
}

SEC("fentry/bpf_spin_unlock") __rule("Nothing attaches to the lock's own functions")
__loader(libbpf) __twin(fentry_without_lock) __failure
__kernel("<5.11") __stage(prog_load) __errno(ESRCH)
__kernel(">=5.11") __stage(attach) __errno(EBUSY)
int fentry_of_bpf_spin_unlock(void *ctx)
{
	return 0;
}

SEC("fexit/bpf_spin_unlock") __rule("Nothing attaches to the lock's own functions")
__loader(libbpf) __twin(fentry_without_lock) __failure
__kernel("<5.11") __stage(prog_load) __errno(ESRCH)
__kernel(">=5.11") __stage(attach) __errno(EBUSY)
int fexit_of_bpf_spin_unlock(void *ctx)
{
	return 0;
}
