// SPDX-License-Identifier: GPL-2.0-only
/*
 * Locks in the values of maps in maps. libbpf only: bcc leaves it to Python to put inner maps into
 * an outer one.
 */
#include "spinlock.h"

struct no_lock {
	__u32 lock;
	__u32 value;
};

#define INNER_MAPS(outer_type, name, value_type)           \
	struct name##_inner {                              \
		__uint(type, BPF_MAP_TYPE_ARRAY);          \
		__uint(max_entries, 1);                    \
		__type(key, __u32);                        \
		__type(value, value_type);                 \
	} name##_first SEC(".maps"), name##_second SEC(".maps");   \
	struct {                                           \
		__uint(type, BPF_MAP_TYPE_##outer_type);   \
		__uint(max_entries, 2);                    \
		__type(key, __u32);                        \
		__array(values, struct name##_inner);      \
	} name SEC(".maps") = { .values = { &name##_first, &name##_second } };

#define LOCK_IN_INNER_MAP(outer)                              \
	__u32 key = 0;                                        \
	void *inner = bpf_map_lookup_elem(&outer, &key);      \
	struct counter *c;                                    \
							      \
	if (!inner)                                           \
		return 0;                                     \
	c = bpf_map_lookup_elem(inner, &key);                 \
	if (!c)                                               \
		return 0;                                     \
	bpf_spin_lock(&c->lock);                              \
	c->value++;                                           \
	bpf_spin_unlock(&c->lock);                            \
	return c->value;

#if UNIT(inner_maps_without_lock)
INNER_MAPS(ARRAY_OF_MAPS, plain_maps, struct no_lock)

/*
 * Rule: Inner maps
 * Topic: The lock's place
 * An outer map tells the verifier of its inner maps by one that stands for all, and that did not
 * describe locks until v6.2. Since then it does, and a lookup in an inner map is one of its own.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit b7ff97925b55 ("bpf: Allow locking bpf_spin_lock in inner map values") (in v6.2)
 */
SEC("tc") __rule("Inner maps") __loader(libbpf) __success __retval(1)
int inner_map_without_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	void *inner = bpf_map_lookup_elem(&plain_maps, &key);
	struct no_lock *n;

	if (!inner)
		return 0;
	n = bpf_map_lookup_elem(inner, &key);
	if (!n)
		return 0;
	n->value++;
	return n->value;
}
#endif

/* commit b7ff97925b55 ("bpf: Allow locking bpf_spin_lock in inner map values") (in v6.2). */
#if UNIT(array_of_maps)
INNER_MAPS(ARRAY_OF_MAPS, array_of_maps, struct counter)

SEC("tc") __rule("Inner maps") __loader(libbpf) __twin(inner_map_without_lock)
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __success __retval(1)
int lock_in_array_of_maps(struct __sk_buff *skb)
{
	LOCK_IN_INNER_MAP(array_of_maps)
}

SEC("tc") __rule("Inner maps") __loader(libbpf) __twin(inner_map_without_lock)
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __success __retval(2)
int two_inner_maps_in_turn(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1;
	void *inner_a = bpf_map_lookup_elem(&array_of_maps, &first);
	void *inner_b = bpf_map_lookup_elem(&array_of_maps, &second);
	struct counter *a, *b;

	if (!inner_a || !inner_b)
		return 0;
	a = bpf_map_lookup_elem(inner_a, &first);
	b = bpf_map_lookup_elem(inner_b, &first);
	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	bpf_spin_unlock(&a->lock);
	bpf_spin_lock(&b->lock);
	b->value++;
	bpf_spin_unlock(&b->lock);
	return a->value + b->value;
}

SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__twin(inner_map_without_lock)
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __refused(different_lock)
int unlock_of_other_inner_map(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1;
	void *inner_a = bpf_map_lookup_elem(&array_of_maps, &first);
	void *inner_b = bpf_map_lookup_elem(&array_of_maps, &second);
	struct counter *a, *b;

	if (!inner_a || !inner_b)
		return 0;
	a = bpf_map_lookup_elem(inner_a, &first);
	b = bpf_map_lookup_elem(inner_b, &first);
	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	bpf_spin_unlock(&b->lock);
	return a->value + b->value;
}

/* Also when the two are one map: the lookups in the outer map differ. */
SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__twin(inner_map_without_lock)
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __refused(different_lock)
int unlock_of_same_inner_map_looked_up_again(struct __sk_buff *skb)
{
	__u32 first = 0;
	void *inner_a = bpf_map_lookup_elem(&array_of_maps, &first);
	void *inner_b = bpf_map_lookup_elem(&array_of_maps, &first);
	struct counter *a, *b;

	if (!inner_a || !inner_b)
		return 0;
	a = bpf_map_lookup_elem(inner_a, &first);
	b = bpf_map_lookup_elem(inner_b, &first);
	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	bpf_spin_unlock(&b->lock);
	return a->value + b->value;
}

SEC("tc") __rule("The lock field is opaque to loads and stores") __loader(libbpf)
__twin(inner_map_without_lock)
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __refused(lock_accessed)
int read_lock_in_inner_map(struct __sk_buff *skb)
{
	__u32 key = 0;
	void *inner = bpf_map_lookup_elem(&array_of_maps, &key);
	struct counter *c;

	if (!inner)
		return 0;
	c = bpf_map_lookup_elem(inner, &key);
	if (!c)
		return 0;
	return *(volatile __u32 *)&c->lock;
}
#endif

#if UNIT(hash_of_maps)
INNER_MAPS(HASH_OF_MAPS, hash_of_maps, struct counter)

SEC("tc") __rule("Inner maps") __loader(libbpf) __twin(inner_map_without_lock)
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __success __retval(1)
int lock_in_hash_of_maps(struct __sk_buff *skb)
{
	LOCK_IN_INNER_MAP(hash_of_maps)
}
#endif

#if UNIT(inner_hash)
struct inner_hash {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct counter);
} inner_hash SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct inner_hash);
} outer_of_hash SEC(".maps") = { .values = { &inner_hash } };

SEC("tc") __rule("Inner maps") __loader(libbpf) __twin(inner_map_without_lock)
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __success __retval(1)
int lock_in_inner_hash(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter zero = {};
	void *inner = bpf_map_lookup_elem(&outer_of_hash, &key);
	struct counter *c;

	if (!inner)
		return 0;
	bpf_map_update_elem(inner, &key, &zero, BPF_ANY);
	c = bpf_map_lookup_elem(inner, &key);
	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}
#endif

/* That the inner map may not hold a lock at all is found when it is made, not the outer one. */
#if UNIT(inner_lru_hash)
struct inner_lru_hash {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct counter);
} inner_lru_hash SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct inner_lru_hash);
} outer_of_lru_hash SEC(".maps") = { .values = { &inner_lru_hash } };

SEC("tc") __rule("Inner maps") __loader(libbpf) __twin(inner_map_without_lock)
__refused(map_type_without_lock)
int lock_in_inner_lru_hash(struct __sk_buff *skb)
{
	LOCK_IN_INNER_MAP(outer_of_lru_hash)
}
#endif
