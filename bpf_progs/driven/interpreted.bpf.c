// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs that only the JIT can run, each beside one that the interpreter runs too. They are driven by
 * tests/lock/serialization/test_interpreter.py. The contest there is that of counter.bpf.c.
 *
 * libbpf only: bcc has neither kernel functions nor callbacks.
 */
#include "spinlock.h"

/*
 * Rule: The interpreter locks like compiled code
 * Topic: Running programs
 * With net.core.bpf_jit_enable=0 programs are interpreted, where the kernel was built without
 * CONFIG_BPF_JIT_ALWAYS_ON. The lock's helpers serialize there as well. Only what needs compiled code
 * is refused: kernel functions, callbacks and arenas.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit e6ac2450d6de ("bpf: Support bpf program calling kernel function") (in v5.13)
 * commit 69c087ba6225 ("bpf: Add bpf_for_each_map_elem() helper") (in v5.13)
 */

MAP(ARRAY, counters, __u32, struct counter, 2)

static __always_inline int add_one(void)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return 1;
}

SEC("tc")
int lock_alone(struct __sk_buff *skb)
{
	return add_one();
}

#if UNIT(callback)

static long lock_each(void *map, const void *key, struct counter *c, void *context)
{
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return 0;
}

SEC("tc")
int lock_each_in_callback(struct __sk_buff *skb)
{
	return bpf_for_each_map_elem(&counters, lock_each, NULL, 0) == 2;
}

#endif

#if UNIT(function)

extern void bpf_rcu_read_lock(void) __ksym __weak;
extern void bpf_rcu_read_unlock(void) __ksym __weak;

SEC("tc")
int lock_beside_function(struct __sk_buff *skb)
{
	int done;

	bpf_rcu_read_lock();
	done = add_one();
	bpf_rcu_read_unlock();
	return done;
}

#endif

#if UNIT(exception)

extern void bpf_throw(__u64 cookie) __ksym __weak;

SEC("tc")
int lock_beside_exception(struct __sk_buff *skb)
{
	if (!add_one())
		bpf_throw(0);
	return 1;
}

#endif

#if UNIT(arena)

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
} arena SEC(".maps");

SEC("tc")
int lock_beside_arena(struct __sk_buff *skb)
{
	void *volatile used = &arena;

	return used ? add_one() : 0;
}

#endif
