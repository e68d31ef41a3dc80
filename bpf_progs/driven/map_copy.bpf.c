// SPDX-License-Identifier: GPL-2.0-only
/*
 * Values with a lock, which user space copies in and out. Meanwhile programs hold the lock and write,
 * read the lock word, and copy values in themselves. Driven and judged by
 * tests/lock/copies/test_map_copy.py.
 */
#include "busy_wait.h"
#include "spinlock.h"

/*
 * Rule: User space neither sees nor writes the lock
 * Topic: System calls
 * A value that user space reads has zeros in place of the lock. A write by user space leaves the lock as
 * it is, because a wrong lock word would hang a program.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit 96049f3afd50 ("bpf: introduce BPF_F_LOCK flag") (in v5.1)
 */

#define FIELDS 14
#define TURNS 200 /* of waiting, half way through writing the fields */

/* The lock is neither first nor last, so the kernel copies two pieces. */
struct guarded {
	__u64 before;
	struct bpf_spin_lock lock; /* at 8 */
	__u32 beside;
	__u64 fields[FIELDS]; /* at 16; written together, so always equal under the lock */
};

struct visits {
	__u64 runs;
	__u64 busy;	 /* the lock word was held when the program arrived */
	__u64 intruders; /* another CPU was inside at the same time */
};

MAP(ARRAY, guarded_array, __u32, struct guarded, 2)
MAP(HASH, guarded_table, __u32, struct guarded, 4)
MAP(ARRAY, plain_array, __u32, __u64, 2)
MAP(HASH, plain_table, __u32, __u64, 4)
MAP(PERCPU_ARRAY, runs, __u32, struct visits, 1)
MAP(ARRAY, inside, __u32, __u32, 1) /* CPU + 1 of who is between lock and unlock */

static __always_inline __u32 lock_word(struct guarded *g)
{
	__u32 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), (void *)g + offsetof(struct guarded, lock));
	return word;
}

static __always_inline struct guarded *in_array(void)
{
	__u32 key = 0;

	return map_lookup(guarded_array, &key);
}

static __always_inline struct guarded *in_table(void)
{
	__u32 key = 0;

	return map_lookup(guarded_table, &key);
}

/* Return whether another CPU entered meanwhile. */
static __always_inline int write_fields(struct guarded *g,
							      volatile __u32 *inside, __u32 me)
{
	volatile __u64 *field = g->fields;
	__u64 next = field[0] + 1;
	int i;

	*inside = me;
#pragma unroll
	for (i = 0; i < FIELDS / 2; i++)
		field[i] = next;
	spend(TURNS);
#pragma unroll
	for (i = FIELDS / 2; i < FIELDS; i++)
		field[i] = next;
	return *inside != me;
}

static __always_inline int visit(struct guarded *g, int locked)
{
	__u32 key = 0, me = bpf_get_smp_processor_id() + 1, *within;
	struct visits *v;
	int intruded, busy;

	v = map_lookup(runs, &key);
	within = map_lookup(inside, &key);
	if (!v || !within)
		return 0;
	busy = lock_word(g) != 0;
	if (locked) {
		bpf_spin_lock(&g->lock);
		intruded = write_fields(g, within, me);
		bpf_spin_unlock(&g->lock);
	} else {
		intruded = write_fields(g, within, me);
	}
	v->runs++;
	v->busy += busy;
	v->intruders += intruded;
	return 0;
}

SEC("tc")
int write_array(struct __sk_buff *skb)
{
	struct guarded *g = in_array();

	return g ? visit(g, 1) : 0;
}

/* The broken twin, without the lock: it must have intruders. */
SEC("tc")
int careless_array(struct __sk_buff *skb)
{
	struct guarded *g = in_array();

	return g ? visit(g, 0) : 0;
}

/* User space may have taken the element away. */
SEC("tc")
int write_table(struct __sk_buff *skb)
{
	struct guarded *g = in_table();
	struct guarded zero = {};
	__u32 key = 0;

	if (g)
		return visit(g, 1);
	map_update(guarded_table, &key, &zero);
	return 0;
}

SEC("tc")
int careless_table(struct __sk_buff *skb)
{
	struct guarded *g = in_table();

	return g ? visit(g, 0) : 0;
}

/* Return the lock word, which reads by user space do not show. */
SEC("tc")
int peek_array(struct __sk_buff *skb)
{
	struct guarded *g = in_array();

	return g ? lock_word(g) : 0;
}

SEC("tc")
int peek_table(struct __sk_buff *skb)
{
	struct guarded *g = in_table();

	return g ? lock_word(g) : 0;
}

/* A value on the stack with wrong bytes in place of the lock. */
#define POISONED(name)                             \
	struct guarded name;                       \
	__builtin_memset(&name, 0xab, sizeof(name))

SEC("tc")
int store_array(struct __sk_buff *skb)
{
	__u32 key = 0;

	POISONED(value);
	return map_update(guarded_array, &key, &value);
}

SEC("tc")
int store_table(struct __sk_buff *skb)
{
	__u32 key = 0;

	POISONED(value);
	return map_update(guarded_table, &key, &value);
}

#ifndef LOADER_BCC /* whose map.update() has no flags */
SEC("tc")
int store_array_locked(struct __sk_buff *skb)
{
	__u32 key = 0;

	POISONED(value);
	return bpf_map_update_elem(&guarded_array, &key, &value, BPF_F_LOCK);
}

SEC("tc")
int store_table_locked(struct __sk_buff *skb)
{
	__u32 key = 0;

	POISONED(value);
	return bpf_map_update_elem(&guarded_table, &key, &value, BPF_F_LOCK);
}
#endif
