// SPDX-License-Identifier: GPL-2.0-only
/*
 * A lock with the right name and the wrong size. In a file of its own, because here the name is not
 * the kernel's struct: spinlock.h must not claim it, and no other program could use it.
 */
#define bpf_spin_lock real_spin_lock
#include "spinlock.h"
#undef bpf_spin_lock

struct bpf_spin_lock {
	__u64 val;
};

struct wrong_size {
	__u64 value;
	struct bpf_spin_lock lock;
};
MAP(ARRAY, wrong_size_map, __u32, struct wrong_size, 1)

/* libbpf only: bcc drops BTF that the kernel refuses without a word, and makes its maps without. */
SEC("tc") __rule("The value is a struct with the lock at top level") __loader(libbpf)
__twin(lock_last) __failure
__kernel("<6.2") __errno(EACCES) __msg("doesn't have 'struct bpf_spin_lock'")
__kernel(">=6.2") __stage(btf_load) __errno(EFAULT)
int lock_of_wrong_size(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct wrong_size *v = map_lookup(wrong_size_map, &key);

	if (!v)
		return 0;
	real_spin_lock((void *)&v->lock);
	bpf_spin_unlock((void *)&v->lock);
	return 1;
}
