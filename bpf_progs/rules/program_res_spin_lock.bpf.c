// SPDX-License-Identifier: GPL-2.0-only
/*
 * Kinds of program that may take a res_spin_lock.
 *
 * libbpf only, as all that calls kernel functions (kfuncs.h).
 */
#include "res_spin_lock_counters.h"

/*
 * Rule: No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program
 * Topic: res_spin_lock
 * It came under the rule of the plain lock, although it was made for contexts that interrupt its
 * holder. v7.3 lets kprobe, tracepoint, raw tracepoint and perf event programs have it.
 * commit 0de2046137f9 ("bpf: Implement verifier support for rqspinlock") (in v6.15)
 */

SEC("kprobe") __rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock)
__kernel("<7.3") __refused(tracing_program)
__kernel(">=7.3") __success
int res_lock_in_kprobe(void *ctx)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c || bpf_res_spin_lock(&c->lock))
		return 0;
	bpf_res_spin_unlock(&c->lock);
	return 0;
}

SEC("tracepoint/raw_syscalls/sys_enter")
__rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock)
__kernel("<7.3") __refused(tracing_program)
__kernel(">=7.3") __success
int res_lock_in_tracepoint(void *ctx)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c || bpf_res_spin_lock(&c->lock))
		return 0;
	bpf_res_spin_unlock(&c->lock);
	return 0;
}

SEC("raw_tp/sys_enter")
__rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock)
__kernel("<7.3") __refused(tracing_program)
__kernel(">=7.3") __success
int res_lock_in_raw_tracepoint(void *ctx)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c || bpf_res_spin_lock(&c->lock))
		return 0;
	bpf_res_spin_unlock(&c->lock);
	return 0;
}

SEC("perf_event")
__rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock)
__kernel("<7.3") __refused(tracing_program)
__kernel(">=7.3") __success
int res_lock_in_perf_event(void *ctx)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c || bpf_res_spin_lock(&c->lock))
		return 0;
	bpf_res_spin_unlock(&c->lock);
	return 0;
}

SEC("xdp") __rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __success __retval(2)
int res_lock_in_xdp(void *ctx)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c || bpf_res_spin_lock(&c->lock))
		return 0;
	bpf_res_spin_unlock(&c->lock);
	return 2;
}

/* Looking the value up is enough, as with a plain lock. */
SEC("socket") __rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __twin(look_up_res_lock)
__refused(socket_filter)
int look_up_res_lock_in_socket_filter(void *ctx)
{
	__u32 key = 0;

	return !!map_lookup(counters, &key);
}

SEC("tc") __rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __success __retval(1)
int look_up_res_lock(void *ctx)
{
	__u32 key = 0;

	return !!map_lookup(counters, &key);
}
