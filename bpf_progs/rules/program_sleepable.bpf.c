// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sleepable programs: which of them may lock, and since when.
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

/*
 * Rule: Sleepable programs may lock
 * Topic: Later programs, calls and places
 * A program that may sleep must not do so with the lock. Until v6.6 such a program was kept from
 * maps with a lock; since then a region disables preemption and calls are refused in it anyway,
 * so that it cannot sleep there.
 * commit 5861d1e8dbc4 ("bpf: Allow bpf_spin_{lock,unlock} in sleepable progs") (in v6.6)
 */

/*
 * Refusal: hook_not_sleepable
 * EINVAL "is not sleepable"
 * A hook that may not sleep on this kernel.
 */

/*
 * commit 423f16108c9d ("bpf: Augment the set of sleepable LSM hooks") (in v5.11): v5.10 had
 * other hooks that may sleep.
 */
SEC("lsm.s/bpf") __rule("Sleepable programs may lock")
__twin(lsm_without_lock)
__kernel("<5.11") __refused(hook_not_sleepable)
__kernel(">=5.11") __success
int sleepable_lsm_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("lsm.s/bpf") __rule("Sleepable programs may lock")
__twin(lsm_without_lock)
__kernel("<5.11") __refused(hook_not_sleepable)
__kernel(">=5.11,<6.6") __refused(sleepable_program)
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
__kernel("<6.3") __refused(hook_not_sleepable)
__kernel(">=6.3") __success
int sleepable_fentry_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("fentry.s/bpf_fentry_test1") __rule("Sleepable programs may lock")
__twin(fentry_without_lock)
__kernel("<6.3") __refused(hook_not_sleepable)
__kernel(">=6.3,<6.6") __refused(sleepable_program)
__kernel(">=6.6") __success
int sleepable_fentry_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("fexit.s/bpf_fentry_test1") __rule("Sleepable programs may lock")
__twin(fentry_without_lock)
__kernel("<6.3") __refused(hook_not_sleepable)
__kernel(">=6.3") __success
int sleepable_fexit_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("fexit.s/bpf_fentry_test1") __rule("Sleepable programs may lock")
__twin(fentry_without_lock)
__kernel("<6.3") __refused(hook_not_sleepable)
__kernel(">=6.3,<6.6") __refused(sleepable_program)
__kernel(">=6.6") __success
int sleepable_fexit_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("fmod_ret.s/bpf_fentry_test1") __rule("Sleepable programs may lock")
__twin(fentry_without_lock)
__kernel("<6.3") __refused(hook_not_sleepable)
__kernel(">=6.3") __success
int sleepable_fmod_ret_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("fmod_ret.s/bpf_fentry_test1") __rule("Sleepable programs may lock")
__twin(fentry_without_lock)
__kernel("<6.3") __refused(hook_not_sleepable)
__kernel(">=6.3,<6.6") __refused(sleepable_program)
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
__kernel("<5.11") __refused(unknown_func)
__kernel(">=5.11,<6.6") __refused(sleepable_program)
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
__kernel("<6.6") __refused(sleepable_program)
__kernel(">=6.6") __success __retval(1)
int syscall_program_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return c && c->value == 1;
}

/*
 * Refusal: type_not_sleepable
 * EINVAL "programs can be sleepable"
 * A kind of program that may not sleep on this kernel.
 */

SEC("uprobe.s") __rule("Sleepable programs may lock")
__twin(uprobe_without_lock)
__kernel("<6.0") __refused(type_not_sleepable)
__kernel(">=6.0") __success
int sleepable_uprobe_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

/* It may sleep since v6.0, but it is a kprobe to the verifier. */
SEC("uprobe.s") __rule("Sleepable programs may lock")
__twin(uprobe_without_lock)
__kernel("<6.0") __refused(type_not_sleepable)
__kernel(">=6.0") __refused(tracing_program)
int sleepable_uprobe_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}
