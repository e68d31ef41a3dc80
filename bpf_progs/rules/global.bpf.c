// SPDX-License-Identifier: GPL-2.0-only
/*
 * Locks that are global variables. A section of variables is a map of one element, whose value is
 * described like a struct. libbpf only: bcc knows no variables.
 *
 * They are static, in sections of their own: libbpf maps a section with exported variables into
 * user space, which the kernel does not allow with a lock, and so fails to load the object.
 */
#include "spinlock.h"

/* Lock and unlock with one load of the address, or with two: the compiler must not choose. */
#define LOCK_WITH_ONE_LOAD(variable)                                       \
	asm volatile("r6 = %[lock] ll; r1 = r6; call %[take];"             \
		     "r1 = r6; call %[release]"                            \
		     :                                                     \
		     : [lock] "i"(&variable), [take] "i"(BPF_FUNC_spin_lock), \
		       [release] "i"(BPF_FUNC_spin_unlock)                 \
		     : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "memory")
#define LOCK_WITH_TWO_LOADS(taken, released)                               \
	asm volatile("r1 = %[first] ll; call %[take];"                     \
		     "r1 = %[second] ll; call %[release]"                  \
		     :                                                     \
		     : [first] "i"(&taken), [second] "i"(&released),       \
		       [take] "i"(BPF_FUNC_spin_lock),                     \
		       [release] "i"(BPF_FUNC_spin_unlock)                 \
		     : "r0", "r1", "r2", "r3", "r4", "r5", "memory")

#if UNIT(global_variable)
static struct bpf_spin_lock global_lock SEC(".bss.lock");
static __u32 global_count SEC(".bss.lock");

/*
 * Rule: Global variables
 * Topic: Later programs, calls and places
 * A section of global variables is the value of a map. A lock was not found in one until v5.15,
 * and until v6.2 each load of its address was taken for that of another lock, so that it was up to
 * the compiler whether a program passed. Since then a lock may be a variable: one per section, and
 * none that user space maps.
 * commit 68134668c17f ("bpf: Add map side support for bpf timers.") (in v5.15)
 * commit d0d78c1df9b1 ("bpf: Allow locking bpf_spin_lock global variables") (in v6.2)
 */
SEC("tc") __rule("Global variables") __loader(libbpf) __success __retval(1)
int global_without_lock(struct __sk_buff *skb)
{
	__sync_fetch_and_add(&global_count, 1);
	return global_count;
}

SEC("tc") __rule("Global variables") __loader(libbpf) __twin(global_without_lock)
__kernel("<5.15") __refused(lock_mangled)
__kernel(">=5.15") __success __retval(1)
int global_lock_loaded_once(struct __sk_buff *skb)
{
	LOCK_WITH_ONE_LOAD(global_lock);
	return 1;
}

SEC("tc") __rule("Global variables") __loader(libbpf) __twin(global_without_lock)
__kernel("<5.15") __refused(lock_mangled)
__kernel(">=5.15,<6.2") __refused(different_lock)
__kernel(">=6.2") __success __retval(1)
int global_lock_loaded_twice(struct __sk_buff *skb)
{
	LOCK_WITH_TWO_LOADS(global_lock, global_lock);
	return 1;
}

/* As C has it: here the compiler loads the address twice. */
SEC("tc") __rule("Global variables") __loader(libbpf) __twin(global_without_lock)
__kernel("<5.15") __refused(lock_mangled)
__kernel(">=5.15,<6.2") __refused(different_lock)
__kernel(">=6.2") __success __retval(1)
int global_lock_increment_unlock(struct __sk_buff *skb)
{
	bpf_spin_lock(&global_lock);
	global_count++;
	bpf_spin_unlock(&global_lock);
	return global_count;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(global_without_lock)
__kernel("<5.15") __success __retval(0)
__kernel(">=5.15") __refused(lock_accessed)
int read_global_lock(struct __sk_buff *skb)
{
	return *(volatile __u32 *)&global_lock;
}
#endif

#if UNIT(initialised_variable)
static struct bpf_spin_lock data_lock SEC(".data.lock") = { .val = 0 };
static __u32 data_count SEC(".data.lock") = 41;

SEC("tc") __rule("Global variables") __loader(libbpf) __success __retval(42)
int initialised_global_without_lock(struct __sk_buff *skb)
{
	__sync_fetch_and_add(&data_count, 1);
	return data_count;
}

/* In .data, beside a variable with a value, as in .bss. */
SEC("tc") __rule("Global variables") __loader(libbpf) __twin(initialised_global_without_lock)
__kernel("<5.15") __refused(lock_mangled)
__kernel(">=5.15") __success __retval(1)
int lock_in_initialised_section(struct __sk_buff *skb)
{
	LOCK_WITH_ONE_LOAD(data_lock);
	return 1;
}
#endif

/* In a struct that is a variable, the lock is an inner one. */
#if UNIT(global_struct)
static struct counter global_counter SEC(".bss.counter");

SEC("tc") __rule("Global variables") __loader(libbpf) __success __retval(1)
int global_struct_without_lock(struct __sk_buff *skb)
{
	__sync_fetch_and_add(&global_counter.value, 1);
	return global_counter.value;
}

SEC("tc") __rule("Global variables") __loader(libbpf) __twin(global_struct_without_lock)
__kernel("<5.15") __refused(lock_mangled)
__kernel(">=5.15,<6.11") __refused(no_lock_in_value)
__kernel(">=6.11") __success __retval(1)
int lock_in_global_struct(struct __sk_buff *skb)
{
	LOCK_WITH_ONE_LOAD(global_counter.lock);
	return 1;
}
#endif

/* In a section that programs may only read, there is no lock to be found: its variable is const. */
#if UNIT(constant)
static const struct bpf_spin_lock constant_lock SEC(".rodata.lock") = {};

SEC("tc") __rule("Global variables") __loader(libbpf) __twin(global_without_lock)
__kernel("<5.15") __refused(lock_mangled)
__kernel(">=5.15") __refused(no_lock_in_value)
int lock_in_constant(struct __sk_buff *skb)
{
	LOCK_WITH_ONE_LOAD(constant_lock);
	return 1;
}
#endif

#if UNIT(two_global_locks)
static struct bpf_spin_lock lock_a SEC(".bss.a");
static __u32 word_a SEC(".bss.a");
static struct bpf_spin_lock lock_b SEC(".bss.b");
static __u32 word_b SEC(".bss.b");

SEC("tc") __rule("Global variables") __loader(libbpf) __success __retval(2)
int two_global_words(struct __sk_buff *skb)
{
	__sync_fetch_and_add(&word_a, 1);
	__sync_fetch_and_add(&word_b, 1);
	return word_a + word_b;
}

SEC("tc") __rule("Global variables") __loader(libbpf) __twin(two_global_words)
__kernel("<5.15") __refused(lock_mangled)
__kernel(">=5.15") __success __retval(1)
int two_global_locks_in_turn(struct __sk_buff *skb)
{
	LOCK_WITH_ONE_LOAD(lock_a);
	LOCK_WITH_ONE_LOAD(lock_b);
	return 1;
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__twin(two_global_words)
__kernel("<5.15") __refused(lock_mangled)
__kernel(">=5.15") __refused(different_lock)
int unlock_of_other_global_lock(struct __sk_buff *skb)
{
	LOCK_WITH_TWO_LOADS(lock_a, lock_b);
	return 1;
}
#endif

/* A section is one value. */
#if UNIT(two_global_locks_in_one_section)
static struct bpf_spin_lock section_lock_a SEC(".bss.both");
static struct bpf_spin_lock section_lock_b SEC(".bss.both");

SEC("tc") __rule("One lock per value") __loader(libbpf) __twin(two_global_words)
__kernel("<5.15") __refused(lock_mangled)
__kernel(">=5.15,<6.2") __refused(two_locks_in_value)
__kernel(">=6.2") __refused(no_lock_in_value)
int two_global_locks_in_section(struct __sk_buff *skb)
{
	LOCK_WITH_ONE_LOAD(section_lock_a);
	LOCK_WITH_ONE_LOAD(section_lock_b);
	return 1;
}
#endif
