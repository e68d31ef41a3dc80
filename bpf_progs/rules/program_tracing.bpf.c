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
 * Topic: Programs and users
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
__twin(socket_filter_without_lock)
__kernel("<5.11") __refused(tracing_program)
__kernel(">=5.11") __refused(socket_filter)
int socket_filter_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("socket") __rule("Tracing programs and socket filters may not lock")
__twin(socket_filter_without_lock)
__kernel("<5.11") __refused(tracing_program)
__kernel(">=5.11") __refused(socket_filter)
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
__twin(kprobe_without_lock) __refused(tracing_program)
int kprobe_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("kprobe/do_nanosleep") __rule("Tracing programs and socket filters may not lock")
__twin(kprobe_without_lock) __refused(tracing_program)
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
__twin(kretprobe_without_lock) __refused(tracing_program)
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
__twin(ksyscall_without_lock) __refused(tracing_program)
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
__twin(kprobe_multi_without_lock) __needs(BPF_TRACE_KPROBE_MULTI, "5.18") __refused(tracing_program)
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
__refused(tracing_program)
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
__twin(uprobe_without_lock) __refused(tracing_program)
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
__twin(uretprobe_without_lock) __refused(tracing_program)
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
__twin(uprobe_multi_without_lock) __needs(BPF_TRACE_UPROBE_MULTI, "6.6") __refused(tracing_program)
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
__twin(usdt_without_lock) __refused(tracing_program)
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
__twin(tracepoint_without_lock) __refused(tracing_program)
int tracepoint_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_getpid")
__rule("Tracing programs and socket filters may not lock")
__twin(tracepoint_without_lock) __refused(tracing_program)
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
__twin(raw_tracepoint_without_lock) __refused(tracing_program)
int raw_tracepoint_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("raw_tp/sys_enter") __rule("Tracing programs and socket filters may not lock")
__twin(raw_tracepoint_without_lock) __refused(tracing_program)
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
__twin(perf_event_without_lock) __refused(tracing_program)
int perf_event_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("perf_event") __rule("Tracing programs and socket filters may not lock")
__twin(perf_event_without_lock) __refused(tracing_program)
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
__twin(writable_raw_tracepoint_without_lock)
__kernel(">=5.10,<5.11") __refused(unknown_func)
__kernel(">=6.0") __refused(tracing_program)
int writable_raw_tracepoint_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}
