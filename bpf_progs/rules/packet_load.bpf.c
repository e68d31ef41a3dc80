// SPDX-License-Identifier: GPL-2.0-only
/*
 * LD_ABS in subprograms and callbacks. Where the packet is too short, the load ends the function it
 * stands in, with the result 0, by a return that the source does not show: what that function has
 * done to the lock until then is all it does.
 *
 * libbpf only: bcc knows neither callbacks nor static subprograms.
 */
#include "spinlock.h"

MAP(ARRAY, counters, __u32, struct counter, 1)

static __noinline int load_alone(struct __sk_buff *skb)
{
	return load_byte(skb, 12) & 1;
}

SEC("tc") __rule("No LD_ABS or LD_IND while holding the lock") __loader(libbpf) __success
int static_subprog_loads_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	int byte;

	if (!c)
		return 0;
	byte = load_alone(skb);
	bpf_spin_lock(&c->lock);
	c->value += byte;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("No LD_ABS or LD_IND while holding the lock") __loader(libbpf)
__twin(static_subprog_loads_before_lock)
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __refused(ld_abs_under_lock)
int static_subprog_loads_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	int byte;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	byte = load_alone(skb);
	c->value += byte;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

static __noinline int load_and_lock(struct __sk_buff *skb, struct counter *c)
{
	int byte = load_byte(skb, 12) & 1, locked = 1;

	bpf_spin_lock(&c->lock);
	c->value += byte;
	barrier_var(locked); /* clang would tell the caller that it is always 1 */
	return locked;
}

/* The result says whether the lock is held: it is not where the load has failed. */
SEC("tc") __rule("No LD_ABS or LD_IND while holding the lock") __loader(libbpf)
__twin(static_subprog_loads_before_lock)
__kernel("<6.9") __refused(missing_unlock)
__kernel(">=6.9") __success
int unlock_if_static_subprog_got_to_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	if (load_and_lock(skb, c))
		bpf_spin_unlock(&c->lock);
	return 1;
}

/*
 * commit ee861486e377 ("bpf: Fix ld_{abs,ind} failure path analysis in subprogs") (in v7.1, v7.0.10,
 * v6.18.42 and v6.12.101; CVE-2026-53090): before it the verifier did not see the hidden return, and
 * took the lock to be held after the call. It must only be loaded.
 */
SEC("tc") __rule("No LD_ABS or LD_IND while holding the lock") __loader(libbpf)
__known_bug("ee861486e377", "<6.12.101") __known_bug("ee861486e377", ">=6.13,<6.18.42")
__known_bug("ee861486e377", ">=6.19,<7.0.10")
__needs(bpf_arena_alloc_pages, "6.9") __twin(unlock_if_static_subprog_got_to_lock)
__refused(unlock_without_lock)
int unlock_whether_static_subprog_got_to_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	load_and_lock(skb, c);
	bpf_spin_unlock(&c->lock);
	return 1;
}

struct context {
	struct __sk_buff *skb;
	struct counter *counter;
};

static long lock_in_turn(__u32 index, struct context *context)
{
	struct counter *c = context->counter;

	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return 0;
}

static long load_and_lock_in_turn(__u32 index, struct context *context)
{
	struct counter *c = context->counter;
	int byte = load_byte(context->skb, 12) & 1;

	bpf_spin_lock(&c->lock);
	c->value += byte;
	bpf_spin_unlock(&c->lock);
	return 0;
}

static long load_under_lock_in_turn(__u32 index, struct context *context)
{
	struct counter *c = context->counter;

	bpf_spin_lock(&c->lock);
	c->value += load_byte(context->skb, 12) & 1;
	bpf_spin_unlock(&c->lock);
	return 0;
}

#define LOOP(callback)                                      \
	__u32 key = 0;                                      \
	struct context context = {                          \
		.skb = skb,                                 \
		.counter = map_lookup(counters, &key),      \
	};                                                  \
							    \
	if (!context.counter)                               \
		return 0;                                   \
	bpf_loop(2, callback, &context, 0);                 \
	return 1;

SEC("tc") __rule("No LD_ABS or LD_IND while holding the lock") __loader(libbpf)
__needs(BPF_FUNC_loop, "5.17") __success __retval(1)
int callback_locks_without_load(struct __sk_buff *skb)
{
	LOOP(lock_in_turn)
}

/*
 * Refusal: ld_abs_in_callback
 * EINVAL "cannot use BPF_LD_[ABS|IND] within callback"
 * Of v7.3 and of stable kernels from v6.12.118 and v7.2.7 on.
 */

/*
 * commit e7d28823c662 ("bpf: Reject legacy packet loads from callbacks") (in v7.3; v7.2.7, and by
 * v6.12.118): with the hidden return walked, as above, one from a callback upset the verifier.
 */
SEC("tc") __rule("No LD_ABS or LD_IND while holding the lock") __loader(libbpf)
__needs(BPF_FUNC_loop, "5.17") __twin(callback_locks_without_load)
__known_bug("e7d28823c662", ">=7.0.10,<7.2.7")
__kernel("<6.12") __success
__kernel(">=6.12.118,<6.13") __refused(ld_abs_in_callback)
__kernel(">=6.13,<7.2.7") __success
__kernel(">=7.2.7") __refused(ld_abs_in_callback)
int callback_loads_before_lock(struct __sk_buff *skb)
{
	LOOP(load_and_lock_in_turn)
}

SEC("tc") __rule("No LD_ABS or LD_IND while holding the lock") __loader(libbpf)
__needs(BPF_FUNC_loop, "5.17") __twin(callback_locks_without_load) __failure __errno(EINVAL)
__msg("BPF_LD_[ABS|IND]")
int callback_loads_under_lock(struct __sk_buff *skb)
{
	LOOP(load_under_lock_in_turn)
}
