// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs that attach by the kernel's BTF, fentry, fexit, fmod_ret, BTF tracepoints, iterators and
 * LSM hooks: which of them may lock, and since when; and that none attaches to the lock's functions.
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
 * Rule: Programs that know the kernel's types may lock
 * Topic: Later programs, calls and places
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
__kernel("<5.15") __refused(unknown_func)
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
__kernel("<5.15") __refused(unknown_func)
__kernel(">=5.15") __success
int fexit_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("fmod_ret/security_file_open") __rule("Programs that know the kernel's types may lock")
__needs(security_file_open, "5.1", CONFIG_SECURITY) __success
int fmod_ret_without_lock(void *ctx)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("fmod_ret/security_file_open") __rule("Programs that know the kernel's types may lock")
__needs(security_file_open, "5.1", CONFIG_SECURITY) __twin(fmod_ret_without_lock)
__kernel("<5.15") __refused(unknown_func)
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
__kernel("<5.15") __refused(unknown_func)
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
__kernel("<5.15") __refused(unknown_func)
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
__kernel("<5.15") __refused(unknown_func)
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
__kernel("<5.15") __refused(unknown_func)
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
__kernel("<5.15") __refused(unknown_func)
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
__kernel("<5.15") __refused(unknown_func)
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
__kernel("<5.11") __refused(unknown_func)
__kernel(">=5.11") __success
int lsm_locks(void *ctx)
{
	COUNT_UNDER_LOCK
	return 0;
}

/*
 * Rule: Nothing attaches to the lock's own functions
 * Topic: Later programs, calls and places
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
