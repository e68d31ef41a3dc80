// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs that must not pass: the harness is run on them and must say no, each in its own way.
 * Not part of the suite; see tests/harness/test_says_no.py.
 */
#include "spinlock.h"

MAP(ARRAY, counters, __u32, struct counter, 1)

SEC("tc") __rule("Healthy") __success __retval(1)
int healthy(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("Wrong expectations") __success
int expected_to_load(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	return 0;
}

SEC("tc") __rule("Wrong expectations") __twin(healthy)
__failure __errno(EINVAL) __msg("{{missing|BPF_EXIT}}")
int expected_to_be_refused(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return 0;
}

SEC("tc") __rule("Wrong expectations") __twin(healthy) __failure __errno(EACCES) __msg("a text of no kernel")
int wrong_text(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	return 0;
}

SEC("tc") __rule("Wrong expectations") __success __retval(2)
int wrong_return_value(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/* It is refused as expected, but its twin does not load on any kernel either. */
SEC("tc") __rule("Blind") __twin(expected_to_load)
__failure __errno(EINVAL) __msg("{{missing|BPF_EXIT}}")
int refused_like_its_twin(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	return 1;
}

#ifndef LOADER_BCC /* callbacks */

static int spin_inside(__u32 index, void *context)
{
	return 0;
}

static int spin(__u32 index, void *context)
{
	bpf_loop(1 << 23, spin_inside, NULL, 0);
	return 0;
}

/* Runs for hours with softirqs off: a soft lockup. */
SEC("tc") __rule("Hang") __loader(libbpf) __success __retval(0)
int hang(struct __sk_buff *skb)
{
	bpf_loop(1 << 23, spin, NULL, 0);
	return 0;
}

/* The same in a timer interrupt, whose handler has not set the timer again yet. */
SEC("tp_btf/local_timer_entry")
int hang_in_tick(void *ctx)
{
	bpf_loop(1 << 23, spin, NULL, 0);
	return 0;
}

/* Leaves the lock taken, as only an iterator can: whoever takes it next spins with interrupts off. */
SEC("iter/bpf_map_elem")
int takes_for_good(unsigned long long *ctx)
{
	volatile __u32 *value = (void *)ctx[3];

	if (value)
		*value = 1;
	return 0;
}

#endif
