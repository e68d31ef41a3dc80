// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where a res_spin_lock may stand, and beside what.
 *
 * libbpf only, as all that calls kernel functions (kfuncs.h).
 */
#include "res_spin_lock_counters.h"

/*
 * Rule: A res_spin_lock stands in a map's value or an allocated object
 * Topic: res_spin_lock
 * Where a plain one may, at its own constant offset, and nowhere else.
 * commit 0de2046137f9 ("bpf: Implement verifier support for rqspinlock") (in v6.15)
 */
struct res_spin_lock_object {
	__u64 value;
	struct bpf_res_spin_lock lock;
};

/*
 * The text below promises allocated objects too, and so do the sources; but the search for types with
 * fields of the kernel's goes by names, and that of the res_spin_lock is not among them.
 */
SEC("tc") __rule("A res_spin_lock stands in a map's value or an allocated object") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock) __failure __errno(EINVAL)
__msg("local 'kptr' has no valid bpf_res_spin_lock")
int res_lock_in_object(struct __sk_buff *skb)
{
	struct res_spin_lock_object *o = object_new(struct res_spin_lock_object);

	if (!o)
		return 0;
	if (bpf_res_spin_lock(&o->lock)) {
		object_drop(o);
		return 0;
	}
	o->value = 1;
	bpf_res_spin_unlock(&o->lock);
	object_drop(o);
	return 1;
}

struct item {
	struct bpf_list_node node;
	__u64 value;
};

struct res_spin_lock_list {
	struct bpf_res_spin_lock lock;
	struct bpf_list_head head __contains(item, node);
};

SEC("tc") __rule("A res_spin_lock stands in a map's value or an allocated object") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success
__description("what such a type needs besides is a field whose name is")
int res_lock_in_object_with_list(struct __sk_buff *skb)
{
	struct res_spin_lock_list *o = object_new(struct res_spin_lock_list);
	struct item *i;

	if (!o)
		return 0;
	i = object_new(struct item);
	if (!i || bpf_res_spin_lock(&o->lock)) {
		if (i)
			object_drop(i);
		object_drop(o);
		return 0;
	}
	list_push_back(&o->head, &i->node);
	bpf_res_spin_unlock(&o->lock);
	object_drop(o);
	return 1;
}

SEC("tc") __rule("A res_spin_lock stands in a map's value or an allocated object") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock) __failure __errno(EINVAL)
__msg("doesn't point to map value or allocated object")
int res_lock_on_stack(struct __sk_buff *skb)
{
	struct bpf_res_spin_lock lock = {};

	if (bpf_res_spin_lock(&lock))
		return 0;
	bpf_res_spin_unlock(&lock);
	return 1;
}

SEC("tc") __rule("A res_spin_lock stands in a map's value or an allocated object") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock) __failure __errno(EINVAL)
__msg("off 4 doesn't point to 'struct bpf_res_spin_lock' that is at 0")
int res_lock_at_wrong_offset(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c || bpf_res_spin_lock((void *)&c->value))
		return 0;
	bpf_res_spin_unlock((void *)&c->value);
	return 1;
}

SEC("tc") __rule("A res_spin_lock stands in a map's value or an allocated object") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock) __failure __errno(EINVAL)
__msg("doesn't have constant offset. bpf_res_spin_lock has to be at the constant offset")
int res_lock_at_variable_offset(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);
	__u64 offset = skb->mark & 4;
	void *lock;

	if (!c)
		return 0;
	lock = (void *)c + offset;
	barrier_var(lock);
	if (bpf_res_spin_lock(lock))
		return 0;
	bpf_res_spin_unlock(lock);
	return 1;
}

/*
 * Refusal: res_spin_lock_accessed
 * EACCES "bpf_res_spin_lock cannot be accessed directly by load/store"
 * A load, store or helper that touches a byte of the lock.
 */

SEC("tc") __rule("A res_spin_lock stands in a map's value or an allocated object") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock) __refused(res_spin_lock_accessed)
int write_res_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	*(volatile __u32 *)&c->lock = 1;
	return 1;
}

MAP(HASH, by_word, __u32, __u32, 4)

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __success __retval(0)
int update_value_beside_res_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	return c ? map_update(by_word, &key, &c->value) : -1;
}

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(update_value_beside_res_lock)
__refused(res_spin_lock_accessed)
int res_lock_as_update_value(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	return c ? map_update(by_word, &key, &c->lock) : -1;
}

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(update_value_beside_res_lock)
__refused(res_spin_lock_accessed)
int load_bytes_into_res_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_counter *c = map_lookup(counters, &key);

	return c ? bpf_skb_load_bytes(skb, 0, &c->lock, 4) : -1;
}

/* With a bpf_spin_lock its BTF is refused; with a res_spin_lock the map is made, and has none. */
#if UNIT(res_lock_at_offset_2)
struct res_spin_lock_at_offset_2 {
	__u16 before;
	struct bpf_res_spin_lock lock;
	__u16 after;
} __attribute__((packed));
MAP(ARRAY, offset_2_map, __u32, struct res_spin_lock_at_offset_2, 1)

SEC("tc") __rule("The lock is 4-byte aligned") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock) __refused(no_res_spin_lock_in_value)
int res_lock_at_offset_2(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct res_spin_lock_at_offset_2 *v = map_lookup(offset_2_map, &key);

	if (!v || bpf_res_spin_lock((void *)&v->lock))
		return 0;
	bpf_res_spin_unlock((void *)&v->lock);
	return 1;
}
#endif

#if UNIT(both_kinds_of_lock)
struct both {
	struct bpf_spin_lock plain;
	struct bpf_res_spin_lock res_spin_lock;
};
MAP(ARRAY, both_map, __u32, struct both, 1)

/*
 * commit 04e19012efae ("bpf: Fix offset warn check for bpf_res_spin_lock") (in v7.3): until then the
 * refusal came with a WARN, because the check before it asked for the wrong kind. 7.2.12 has it.
 */
SEC("tc") __rule("One lock per value") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __known_bug("04e19012efae", ">=6.15,<7.2")
__twin(look_up_res_lock) __failure __stage(btf_load) __errno(EINVAL)
int both_kinds_of_lock(void *ctx)
{
	__u32 key = 0;

	return !!map_lookup(both_map, &key);
}
#endif

#if UNIT(both_kinds_of_lock_res_spin_lock_first)
struct both_res_spin_lock_first {
	struct bpf_res_spin_lock res_spin_lock;
	struct bpf_spin_lock plain;
};
MAP(ARRAY, both_res_spin_lock_first_map, __u32, struct both_res_spin_lock_first, 1)

SEC("tc") __rule("One lock per value") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15")
__twin(look_up_res_lock) __failure __stage(btf_load) __errno(EINVAL)
int both_kinds_of_lock_res_spin_lock_first(void *ctx)
{
	__u32 key = 0;

	return !!map_lookup(both_res_spin_lock_first_map, &key);
}
#endif

/* Two bpf_spin_locks in a struct have its BTF refused; with two res_spin_locks the map has none. */
#if UNIT(two_res_locks_in_value)
struct two_res_spin_locks {
	struct bpf_res_spin_lock first;
	struct bpf_res_spin_lock second;
};
MAP(ARRAY, two_res_map, __u32, struct two_res_spin_locks, 1)

SEC("tc") __rule("One lock per value") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(res_lock_and_unlock) __refused(no_res_spin_lock_in_value)
int two_res_locks_in_value(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct two_res_spin_locks *c = map_lookup(two_res_map, &key);

	if (!c || bpf_res_spin_lock(&c->first))
		return 0;
	bpf_res_spin_unlock(&c->first);
	return 1;
}
#endif

#if UNIT(res_lock_in_lru_hash)
MAP(LRU_HASH, lru, __u32, struct res_spin_lock_counter, 2)

SEC("tc") __rule("A res_spin_lock stands in a map's value or an allocated object") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(look_up_res_lock) __refused(map_type_without_lock)
int res_lock_in_lru_hash(void *ctx)
{
	__u32 key = 0;

	return !!map_lookup(lru, &key);
}
#endif

#if UNIT(res_lock_in_lpm_trie)
struct prefix {
	__u32 bits;
	__u32 data;
};
MAP_FLAGS(LPM_TRIE, trie, struct prefix, struct res_spin_lock_counter, 2, BPF_F_NO_PREALLOC)

SEC("tc") __rule("A res_spin_lock stands in a map's value or an allocated object") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(look_up_res_lock) __refused(map_type_without_lock)
int res_lock_in_lpm_trie(void *ctx)
{
	struct prefix key = {32, 0};

	return !!map_lookup(trie, &key);
}
#endif

#if UNIT(res_lock_in_percpu_array)
MAP(PERCPU_ARRAY, percpu, __u32, struct res_spin_lock_counter, 1)

SEC("tc") __rule("A res_spin_lock stands in a map's value or an allocated object") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __twin(look_up_res_lock) __refused(map_type_without_lock)
int res_lock_in_percpu_array(void *ctx)
{
	__u32 key = 0;

	return !!map_lookup(percpu, &key);
}
#endif

#if UNIT(list_under_res_lock)
MAP(ARRAY, lists, __u32, struct res_spin_lock_list, 1)

/*
 * A list may have a res_spin_lock, but what frees its map looks for a plain one and WARNs, once per
 * boot; by the source the list's items leak as well. Nothing mends it yet: the commit is the one
 * that let such a value pass.
 */
SEC("tc") __rule("A list or tree needs a lock beside it") __loader(libbpf)
__needs(bpf_res_spin_lock, "6.15") __known_bug("0de2046137f9", ">=6.15") __success __retval(5)
int list_under_res_lock(struct __sk_buff *skb)
{
	__u32 key = 0, value;
	struct res_spin_lock_list *l = map_lookup(lists, &key);
	struct bpf_list_node *node;
	struct item *i;

	if (!l)
		return 0;
	i = object_new(struct item);
	if (!i)
		return 0;
	i->value = 5;
	if (bpf_res_spin_lock(&l->lock)) {
		object_drop(i);
		return 0;
	}
	list_push_back(&l->head, &i->node);
	node = bpf_list_pop_front(&l->head);
	bpf_res_spin_unlock(&l->lock);
	if (!node)
		return 0;
	i = container_of(node, struct item, node);
	value = i->value;
	object_drop(i);
	return value;
}
#endif
