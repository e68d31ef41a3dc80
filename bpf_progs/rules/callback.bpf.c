// SPDX-License-Identifier: GPL-2.0-only
/*
 * Callbacks that a helper calls at once: of bpf_loop() and of bpf_for_each_map_elem(). They take and
 * release the lock as a program does, and leave it as they found it.
 *
 * libbpf only: bcc has no callbacks.
 */
#include "spinlock.h"

MAP(ARRAY, counters, __u32, struct counter, 2)

/* commit e6f2dd0f8067 ("bpf: Add bpf_loop helper") (in v5.17); its context is on the stack. */
static long locked_turn(__u32 index, struct counter **context)
{
	struct counter *c = *context;

	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return 0;
}

static long plain_turn(__u32 index, struct counter **context)
{
	struct counter *c = *context;

	c->value++;
	return 0;
}

static long returns_locked(__u32 index, struct counter **context)
{
	struct counter *c = *context;

	bpf_spin_lock(&c->lock);
	c->value++;
	return 0;
}

SEC("tc") __rule("A locked update loads and runs") __loader(libbpf)
__needs(BPF_FUNC_loop, "5.17") __success __retval(8)
int bpf_loop_callback_locks_and_unlocks(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_loop(8, locked_turn, &c, 0);
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(BPF_FUNC_loop, "5.17") __success __retval(8)
int bpf_loop_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_loop(8, plain_turn, &c, 0);
	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(bpf_loop_before_lock)
__needs(BPF_FUNC_loop, "5.17") __refused(call_under_lock)
int bpf_loop_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	bpf_loop(8, plain_turn, &c, 0);
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/* The next turn would begin with the lock held: since v6.9 it is that call which is refused. */
SEC("tc") __rule("Unlock before return, on every path") __loader(libbpf)
__twin(bpf_loop_callback_locks_and_unlocks)
__needs(BPF_FUNC_loop, "5.17")
__kernel("<6.9") __refused(missing_unlock)
__kernel(">=6.9") __refused(call_under_lock)
int bpf_loop_callback_returns_locked(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_loop(8, returns_locked, &c, 0);
	return 0;
}

/*
 * The value that bpf_for_each_map_elem() passes to its callback had no identity, so up to v6.1 its
 * lock was not tracked at all: a program that kept it was accepted, one that released it was not.
 * What is accepted there must only be loaded, as it would hang. Since commit d0d78c1df9b1 ("bpf:
 * Allow locking bpf_spin_lock global variables") (in v6.2) a lock is known by its map as well.
 */
static long count_element(void *map, __u32 *key, struct counter *c, __u32 *sum)
{
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	*sum += c->value;
	return 0;
}

SEC("tc") __rule("A locked update loads and runs") __loader(libbpf)
__needs(BPF_FUNC_for_each_map_elem, "5.13") __known_bug("d0d78c1df9b1", "<6.2")
__success __retval(2)
int for_each_callback_locks_and_unlocks(struct __sk_buff *skb)
{
	__u32 sum = 0;

	bpf_for_each_map_elem(&counters, count_element, &sum, 0);
	return sum;
}

/*
 * The callback gets the element that a lookup finds: in an array each begins at a multiple of 8,
 * for any size of its value; in a hash table the value is behind a key that is padded to 8
 * bytes. The callback only reads: next to the element may be another one's lock.
 */
#define ELEMENTS 3

struct uneven {
	struct bpf_spin_lock lock;
	__u32 value;
	__u32 beside;
};

struct long_key {
	__u32 number;
	__u32 rest[2];
};

MAP(ARRAY, uneven_values, __u32, struct uneven, ELEMENTS)
MAP(HASH, short_keys, __u32, struct counter, ELEMENTS)

static long compare_uneven(void *map, __u32 *key, struct uneven *u, __u32 *same)
{
	__u32 value;

	bpf_spin_lock(&u->lock);
	value = u->value;
	bpf_spin_unlock(&u->lock);
	*same += value == *key + 1;
	return 0;
}

SEC("tc") __rule("A lock serializes wherever it lives") __loader(libbpf)
__description("callbacks get the elements of an array that lookups find")
__needs(BPF_FUNC_for_each_map_elem, "5.13") __known_bug("d0d78c1df9b1", "<6.2")
__success __retval(3)
int for_each_finds_lookups_element_of_array(struct __sk_buff *skb)
{
	__u32 key, same = 0;

	for (key = 0; key < ELEMENTS; key++) {
		__u32 copy = key;
		struct uneven *u = map_lookup(uneven_values, &copy);

		if (!u)
			return 0;
		bpf_spin_lock(&u->lock);
		u->value = key + 1;
		bpf_spin_unlock(&u->lock);
	}
	bpf_for_each_map_elem(&uneven_values, compare_uneven, &same, 0);
	return same;
}

static long compare_counter(void *map, __u32 *key, struct counter *c, __u32 *same)
{
	__u32 value;

	bpf_spin_lock(&c->lock);
	value = c->value;
	bpf_spin_unlock(&c->lock);
	*same += value == *key + 1;
	return 0;
}

/*
 * Of a map whose keys are of this type, or as many bytes of it as they have. Return how often lookups
 * and callbacks were right.
 */
static __always_inline int compare_counters(void *map)
{
	struct counter made = {};
	struct long_key key = {};
	struct counter *c;
	__u32 number, same = 0;

	for (number = 0; number < ELEMENTS; number++) {
		key.number = number;
		made.value = number + 1;
		bpf_map_update_elem(map, &key, &made, BPF_ANY);
		c = bpf_map_lookup_elem(map, &key);
		if (c)
			compare_counter(map, &key.number, c, &same);
	}
	bpf_for_each_map_elem(map, compare_counter, &same, 0);
	return same;
}

SEC("tc") __rule("A lock serializes wherever it lives") __loader(libbpf)
__description("callbacks get the elements of a hash table that lookups find")
__needs(BPF_FUNC_for_each_map_elem, "5.13") __known_bug("d0d78c1df9b1", "<6.2")
__success __retval(6)
int for_each_finds_lookups_element_of_hash(struct __sk_buff *skb)
{
	return compare_counters(&short_keys);
}

static long lock_element(void *map, __u32 *key, struct counter *c, void *unused)
{
	bpf_spin_lock(&c->lock);
	c->value++;
	return 0;
}

SEC("tc") __rule("Unlock before return, on every path") __loader(libbpf)
__twin(for_each_callback_locks_and_unlocks)
__needs(BPF_FUNC_for_each_map_elem, "5.13") __known_bug("d0d78c1df9b1", "<6.2")
__kernel("<6.9") __refused(missing_unlock)
__kernel(">=6.9") __refused(call_under_lock)
int for_each_callback_returns_locked(struct __sk_buff *skb)
{
	bpf_for_each_map_elem(&counters, lock_element, 0, 0);
	return 0;
}

static long count_before_lock(void *map, __u32 *key, struct counter *c, __u32 *sum)
{
	*sum += !!bpf_ktime_get_ns();
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return 0;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(BPF_FUNC_for_each_map_elem, "5.13") __known_bug("d0d78c1df9b1", "<6.2")
__success __retval(2)
int for_each_callback_calls_before_lock(struct __sk_buff *skb)
{
	__u32 sum = 0;

	bpf_for_each_map_elem(&counters, count_before_lock, &sum, 0);
	return sum;
}

static long clock_under_lock(void *map, __u32 *key, struct counter *c, __u32 *sum)
{
	bpf_spin_lock(&c->lock);
	*sum += !!bpf_ktime_get_ns();
	c->value++;
	bpf_spin_unlock(&c->lock);
	return 0;
}

/* v6.1 lets the call pass and refuses the unlock after it, so it has nothing to say of the call. */
SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(BPF_FUNC_for_each_map_elem, "5.13")
__twin(for_each_callback_calls_before_lock)
__kernel(">=6.2") __refused(call_under_lock)
int for_each_callback_calls_under_lock(struct __sk_buff *skb)
{
	__u32 sum = 0;

	bpf_for_each_map_elem(&counters, clock_under_lock, &sum, 0);
	return sum;
}

struct outer_value {
	struct counter *counter;
};

static long lock_outer_value(void *map, __u32 *key, struct counter *inner, struct outer_value *o)
{
	struct counter *outer = o->counter;

	bpf_spin_lock(&outer->lock);
	outer->value++;
	bpf_spin_unlock(&outer->lock);
	return 0;
}

static long lock_in_nested_callback(void *map, __u32 *key, struct counter *c, void *unused)
{
	struct outer_value o = { .counter = c };

	bpf_for_each_map_elem(&counters, lock_outer_value, &o, 0);
	return 0;
}

static long unlock_inner_value(void *map, __u32 *key, struct counter *inner, struct outer_value *o)
{
	struct counter *outer = o->counter;

	bpf_spin_lock(&outer->lock);
	outer->value++;
	bpf_spin_unlock(&inner->lock);
	return 0;
}

static long unlock_in_nested_callback(void *map, __u32 *key, struct counter *c, void *unused)
{
	struct outer_value o = { .counter = c };

	bpf_for_each_map_elem(&counters, unlock_inner_value, &o, 0);
	return 0;
}

/* Two elements, each of which is counted once for itself and once for the other. */
SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__needs(BPF_FUNC_for_each_map_elem, "5.13") __known_bug("d0d78c1df9b1", "<6.2")
__success __retval(2)
int unlock_of_same_callback_value(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c;

	bpf_for_each_map_elem(&counters, lock_in_nested_callback, 0, 0);
	c = map_lookup(counters, &key);
	return c ? c->value : 0;
}

/*
 * commit 71919742c83c ("bpf: Assign lock identity to callback map values") (in v7.3): until then
 * all values of a map that callbacks get passed for one and the same. v6.1 refuses any unlock here,
 * see above, and so has nothing to say.
 */
SEC("tc") __rule("Unlock the lock that was taken") __loader(libbpf)
__known_bug("71919742c83c", "<7.3") __twin(unlock_of_same_callback_value)
__needs(BPF_FUNC_for_each_map_elem, "5.13")
__kernel(">=6.2") __refused(different_lock)
int unlock_of_other_callback_value(struct __sk_buff *skb)
{
	bpf_for_each_map_elem(&counters, unlock_in_nested_callback, 0, 0);
	return 0;
}

#if UNIT(rhash)
/*
 * Behind the key as in a hash table; but there are three places that say so: what lookups are turned
 * into, what callbacks get, and all else. Keys of a word are found in a way of their own.
 * commit 16b4d3e2fb24 ("bpf: Implement resizable hashmap basic functions") (in v7.2)
 * commit 9dcbb5045fe5 ("bpf: Optimize word-sized keys for resizable hashtable") (in v7.2)
 */
#define BPF_MAP_TYPE_RHASH 35 /* the image's headers may not have it */
#define RHASH(name, key) MAP_FLAGS(RHASH, name, key, struct counter, ELEMENTS, BPF_F_NO_PREALLOC)
RHASH(short_keys_of_rhash, __u32)
RHASH(word_keys_of_rhash, __u64)
RHASH(long_keys_of_rhash, struct long_key)

SEC("tc") __rule("A lock serializes wherever it lives") __loader(libbpf)
__description("callbacks get the elements of a resizable hash table that lookups find")
__needs(BPF_MAP_TYPE_RHASH, "7.2") __success __retval(6)
int for_each_finds_lookups_element_of_rhash(struct __sk_buff *skb)
{
	return compare_counters(&short_keys_of_rhash);
}

SEC("tc") __rule("A lock serializes wherever it lives") __loader(libbpf)
__description("the same with keys of 8 bytes")
__needs(BPF_MAP_TYPE_RHASH, "7.2") __success __retval(6)
int for_each_finds_lookups_element_of_rhash_by_word(struct __sk_buff *skb)
{
	return compare_counters(&word_keys_of_rhash);
}

SEC("tc") __rule("A lock serializes wherever it lives") __loader(libbpf)
__description("the same with keys of 12 bytes")
__needs(BPF_MAP_TYPE_RHASH, "7.2") __success __retval(6)
int for_each_finds_lookups_element_of_rhash_by_long_key(struct __sk_buff *skb)
{
	return compare_counters(&long_keys_of_rhash);
}
#endif
