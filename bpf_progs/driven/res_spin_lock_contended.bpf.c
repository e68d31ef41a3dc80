// SPDX-License-Identifier: GPL-2.0-only
/*
 * bpf_res_spin_lock() on many CPUs. It serializes like bpf_spin_lock(), and returns an error where that
 * would wait for ever.
 *
 * libbpf only, like all programs that call kernel functions (kfuncs.h). These programs are driven by
 * tests/lock/res_spin_lock/test_res_spin_lock.py.
 */
#include "res_spin_lock_answers.h"

/*
 * Rule: A res_spin_lock serializes, and ends a deadlock
 * Topic: res_spin_lock
 * If bpf_res_spin_lock() returns 0, no other CPU is inside until the unlock. If it returns an error, the
 * caller does not have the lock. A lock that is always held briefly is not refused, except to a CPU that
 * the host stopped for longer than the timeout. A CPU that re-acquires its own lock gets -EDEADLK (AA).
 * If two CPUs each wait for a lock that the other holds, one of them gets -EDEADLK (ABBA). A CPU that
 * waits too long for any reason gets -ETIMEDOUT; before v6.19, a CPU that queued behind another waiter
 * could get -EDEADLK instead. Errors do not disturb the owner, and a released lock works as before. If
 * all CPUs take their locks in the same order, there is no deadlock.
 * commit 97eb35f3ad42 ("bpf: Introduce rqspinlock kfuncs") (in v6.15)
 * commit 0de2046137f9 ("bpf: Implement verifier support for rqspinlock") (in v6.15)
 */

#define NS_PER_S 1000000000ULL

MAP(HASH, table, __u32, struct res_spin_lock_shared, ELEMENTS)
MAP_FLAGS(HASH, lazy, __u32, struct res_spin_lock_shared, ELEMENTS, BPF_F_NO_PREALLOC)

/*
 * The operation of contended_counter.h with a bpf_res_spin_lock. A refused operation only adds to the
 * answers.
 */
static __always_inline int count_in(struct res_spin_lock_shared *r, __u32 element, int irqsave)
{
	struct passage p = { .element = element };
	struct answers *a = answers_of(COUNT);
	struct shared *s = (void *)r;
	__u32 source = 0, key = 0;
	struct order *order;
	unsigned long flags;
	struct visits *v;
	int result;

	v = map_lookup(runs, &source);
	order = map_lookup(orders, &key);
	if (!r || !v || !order || !a)
		return 0;
	a->runs++;
	if (!is_worth_it(a))
		return 0;
	begin(&p, s, order, v);
	if (p.bare) {
		read_all(s, &p.found);
		spend(order->turns);
		write_all(s, &p.found, p.cpu);
	} else {
		result = take(r, irqsave, &flags);
		if (result) {
			note(a, result, p.arrive);
			return 0;
		}
		read_all(s, &p.found);
		spend(order->turns);
		write_all(s, &p.found, p.cpu);
		release(r, irqsave, &flags);
	}
	note(a, 0, p.arrive);
	end(&p, order, v);
	return 0;
}

SEC("tc")
int count_res(struct __sk_buff *skb)
{
	__u32 element = choose(0);

	return count_in(map_lookup(state, &element), element, 0);
}

SEC("tc")
int count_res_irqsave(struct __sk_buff *skb)
{
	__u32 element = choose(0);

	return count_in(map_lookup(state, &element), element, 1);
}

SEC("tc")
int count_res_table(struct __sk_buff *skb)
{
	__u32 element = choose(0);

	return count_in(map_lookup(table, &element), element, 0);
}

SEC("tc")
int count_res_lazy(struct __sk_buff *skb)
{
	__u32 element = choose(0);

	return count_in(map_lookup(lazy, &element), element, 0);
}

/* Return the number of lock words that are not 0. */
SEC("tc")
int count_held(struct __sk_buff *skb)
{
	__u32 element, held = 0;

	for (element = 0; element < ELEMENTS; element++) {
		__u32 key = element;
		struct res_spin_lock_shared *r = map_lookup(state, &key);

		if (r)
			held += lock_word((void *)r) != 0;
	}
	return held;
}

/*
 * AA: take one lock twice, by two lookups, so that the verifier does not know that both are the same.
 * With `around`, another lock is taken and released in between.
 */
static __always_inline int ask_twice(int irqsave, int around)
{
	struct answers *outer = answers_of(OUTER), *inner = answers_of(INNER);
	unsigned long flags, flags_between, flags_again;
	struct res_spin_lock_shared *r, *between, *again;
	__u32 key = 0, second = 1;
	__u64 asked;
	int result;

	r = map_lookup(state, &key);
	again = map_lookup(state, &key);
	between = map_lookup(state, &second);
	if (!r || !between || !again || !outer || !inner)
		return 0;
	outer->runs++;
	if (!is_worth_it(inner) || !is_worth_it(outer))
		return 0;
	asked = bpf_ktime_get_ns();
	result = take(r, irqsave, &flags);
	if (result) {
		note(outer, result, asked);
		return 0;
	}
	if (around && !take(between, irqsave, &flags_between))
		release(between, irqsave, &flags_between);
	result = take(again, irqsave, &flags_again);
	if (!result)
		release(again, irqsave, &flags_again);
	release(r, irqsave, &flags);
	note(outer, 0, asked);
	note(inner, result, asked);
	return result;
}

SEC("tc")
int take_twice(struct __sk_buff *skb)
{
	return ask_twice(0, 0);
}

SEC("tc")
int take_twice_irqsave(struct __sk_buff *skb)
{
	return ask_twice(1, 0);
}

SEC("tc")
int take_twice_around(struct __sk_buff *skb)
{
	return ask_twice(0, 1);
}

#define MOST_LOOKS 8000000
#define ROUND 20000 /* turns of a loop: no clock may be read under the lock */
#define MEASUREMENTS 5

/* Return the shortest time of a round: the host may stop the CPU in some of them. `zero` stays 0. */
static __always_inline __u64 round_ns(const __u32 *zero)
{
	__u64 began, took, best = ~0ULL;
	int i, j;

	bpf_for(j, 0, MEASUREMENTS) {
		began = bpf_ktime_get_ns();
		bpf_for(i, 0, ROUND)
			if (READ_ONCE(*zero))
				break;
		took = bpf_ktime_get_ns() - began;
		if (took < best)
			best = took;
	}
	return best + 1;
}

#define MOST_CPUS 64

/* The locks that a CPU takes, in this order, and releases in the opposite order. */
struct route {
	__u32 elements[3]; /* the first is taken by `follow_long_route` only */
	__u32 turns; /* for which it holds them all; found out by the first runs */
	__u32 waits; /* how often one of the last two was held when it came, and long enough */
	__u32 zero;
	__u64 shortest_ns; /* of those who got all of them */
};

MAP(ARRAY, routes, __u32, struct route, MOST_CPUS)

/*
 * Take all locks of this CPU's route, then increment the counters of the last two. The locks are held for
 * so long that waiting CPUs check for deadlocks, which the kernel does once a millisecond.
 */
#define ROUTE_NS 3000000ULL
#define LOOKED_NS 1500000ULL

static __always_inline int follow(int is_long, int irqsave)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct answers *told_here = answers_of(ROUTE);
	unsigned long flags, flags_a, flags_b;
	struct res_spin_lock_shared *outer, *a, *b;
	struct found found_a, found_b;
	struct route *route;
	__u64 asked;
	int result, busy, i;
	__u64 took;

	route = map_lookup(routes, &cpu);
	if (!told_here || !route)
		return 0;
	outer = map_lookup(state, &route->elements[0]);
	a = map_lookup(state, &route->elements[1]);
	b = map_lookup(state, &route->elements[2]);
	if (!outer || !a || !b)
		return 0;
	told_here->runs++;
	if (!is_worth_it(told_here))
		return 0;
	if (!route->turns)
		route->turns = ROUTE_NS * ROUND / round_ns(&route->zero) + 1;
	/* A random delay: else the CPUs could run in step, and always the same one would wait. */
	bpf_for(i, 0, bpf_get_prandom_u32() % route->turns)
		if (READ_ONCE(route->zero))
			break;
	busy = lock_word((void *)a) || lock_word((void *)b);
	asked = bpf_ktime_get_ns();
	if (is_long) {
		result = take(outer, irqsave, &flags);
		if (result)
			goto without_outer;
	}
	result = take(a, irqsave, &flags_a);
	if (result)
		goto without_a;
	bpf_for(i, 0, route->turns / 4)
		if (READ_ONCE(route->zero))
			break;
	result = take(b, irqsave, &flags_b);
	if (result)
		goto without_b;
	read_all((void *)a, &found_a);
	read_all((void *)b, &found_b);
	bpf_for(i, 0, route->turns)
		if (READ_ONCE(route->zero))
			break;
	write_all((void *)a, &found_a, cpu);
	write_all((void *)b, &found_b, cpu);
	release(b, irqsave, &flags_b);
without_b:
	release(a, irqsave, &flags_a);
without_a:
	if (is_long)
		release(outer, irqsave, &flags);
without_outer:
	note(told_here, result, asked);
	if (result)
		return 0;
	took = bpf_ktime_get_ns() - asked;
	if (took < ROUTE_NS && route->turns < MOST_LOOKS) /* the host may have been slow at first */
		route->turns += route->turns / 2;
	else if (!route->shortest_ns || took < route->shortest_ns)
		route->shortest_ns = took;
	else
		route->waits += busy && took > route->shortest_ns + LOOKED_NS;
	return 0;
}

SEC("tc")
int follow_route(struct __sk_buff *skb)
{
	return follow(0, 0);
}

SEC("tc")
int follow_route_irqsave(struct __sk_buff *skb)
{
	return follow(0, 1);
}

SEC("tc")
int follow_long_route(struct __sk_buff *skb)
{
	return follow(1, 0);
}

/*
 * A circle: each CPU takes the lock of its own number, waits until all have theirs, and then takes the
 * next CPU's. With three or more CPUs, no two of them wait for each other.
 */
struct circle {
	__u32 cpus; /* user space says how many */
	__u32 ready;
	__u32 early; /* went on before all had theirs: the host may not run one of them */
};

MAP(ARRAY, circle, __u32, struct circle, 1)

SEC("tc")
int close_circle(struct __sk_buff *skb)
{
	__u32 key = 0, own = bpf_get_smp_processor_id(), next;
	struct answers *outer = answers_of(OUTER), *inner = answers_of(INNER);
	struct circle *c = map_lookup(circle, &key);
	struct res_spin_lock_shared *a, *b;
	int result, i;
	__u64 asked;

	if (!c || !outer || !inner)
		return 0;
	next = own + 1 < c->cpus ? own + 1 : 0;
	a = map_lookup(state, &own);
	b = map_lookup(state, &next);
	if (!a || !b)
		return 0;
	outer->runs++;
	asked = bpf_ktime_get_ns();
	result = bpf_res_spin_lock(&a->lock);
	if (result) {
		note(outer, result, asked);
		return 0;
	}
	__sync_fetch_and_add(&c->ready, 1);
	bpf_for(i, 0, MOST_LOOKS)
		if (READ_ONCE(c->ready) >= READ_ONCE(c->cpus))
			break;
	if (READ_ONCE(c->ready) < READ_ONCE(c->cpus))
		__sync_fetch_and_add(&c->early, 1);
	result = bpf_res_spin_lock(&b->lock);
	if (!result)
		bpf_res_spin_unlock(&b->lock);
	bpf_res_spin_unlock(&a->lock);
	note(outer, 0, asked);
	note(inner, result, asked);
	return 0;
}

/*
 * Timeout: one CPU holds a lock until all other CPUs have got an answer, or for much longer than the
 * kernel's timeout.
 */
struct hold {
	__u32 waiters; /* user space says how many there will be */
	__u32 held;    /* by the one who holds it for long */
	__u32 answered;
	__u32 intruders; /* got the lock meanwhile */
	__u64 held_ns;
};

MAP(ARRAY, hold, __u32, struct hold, 1)

#define HOLD_S 6
#define MOST_ROUNDS 500000

SEC("tc")
int hold_long(struct __sk_buff *skb)
{
	struct answers *a = answers_of(HOLD);
	struct res_spin_lock_shared *r;
	struct hold *h;
	__u32 key = 0, rounds;
	int result, i, j;
	__u64 asked;

	r = map_lookup(state, &key);
	h = map_lookup(hold, &key);
	if (!a || !r || !h)
		return 0;
	a->runs++;
	rounds = HOLD_S * NS_PER_S / round_ns(&h->held) + 1;
	if (rounds > MOST_ROUNDS)
		rounds = MOST_ROUNDS;
	asked = bpf_ktime_get_ns();
	result = bpf_res_spin_lock(&r->lock);
	if (!result) {
		WRITE_ONCE(h->held, 1);
		bpf_for(j, 0, rounds) {
			if (READ_ONCE(h->answered) >= READ_ONCE(h->waiters))
				break;
			bpf_for(i, 0, ROUND)
				if (READ_ONCE(h->answered) >= READ_ONCE(h->waiters))
					break;
		}
		WRITE_ONCE(h->held, 0);
		bpf_res_spin_unlock(&r->lock);
		h->held_ns = bpf_ktime_get_ns() - asked;
	}
	note(a, result, asked);
	return 0;
}

static __always_inline int wait(int irqsave)
{
	struct answers *a = answers_of(WAIT);
	unsigned long flags;
	struct res_spin_lock_shared *r;
	struct hold *h;
	__u32 key = 0;
	int result, i;
	__u64 asked;

	r = map_lookup(state, &key);
	h = map_lookup(hold, &key);
	if (!a || !r || !h)
		return 0;
	a->runs++;
	bpf_for(i, 0, MOST_LOOKS)
		if (READ_ONCE(h->held))
			break;
	if (!READ_ONCE(h->held))
		return 0;
	asked = bpf_ktime_get_ns();
	result = take(r, irqsave, &flags);
	if (!result) {
		if (READ_ONCE(h->held))
			__sync_fetch_and_add(&h->intruders, 1);
		release(r, irqsave, &flags);
	}
	note(a, result, asked);
	__sync_fetch_and_add(&h->answered, 1);
	return 0;
}

SEC("tc")
int wait_long(struct __sk_buff *skb)
{
	return wait(0);
}

SEC("tc")
int wait_long_irqsave(struct __sk_buff *skb)
{
	return wait(1);
}

/*
 * More locks than the 31 entries of the kernel's per-CPU table of held locks. The first and the last of
 * them are taken once more: a lock that is not in the table ends in a timeout.
 */
#define EACH(X)                                                                              \
	X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) \
	X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29)   \
	X(30) X(31) X(32)
#define EACH_BACK(X)                                                                         \
	X(32) X(31) X(30) X(29) X(28) X(27) X(26) X(25) X(24) X(23) X(22) X(21) X(20) X(19)   \
	X(18) X(17) X(16) X(15) X(14) X(13) X(12) X(11) X(10) X(9) X(8) X(7) X(6) X(5) X(4)   \
	X(3) X(2) X(1) X(0)
#define LAST 32

#define FIND(n)                                     \
	key = n;                                    \
	struct res_spin_lock_shared *r##n = map_lookup(state, &key); \
	if (!r##n)                                  \
		return 0;
#define TAKE(n)                                     \
	result = bpf_res_spin_lock(&r##n->lock);    \
	if (result)                                 \
		goto without_##n;
#define RELEASE(n)                                  \
	bpf_res_spin_unlock(&r##n->lock);           \
	without_##n:;

SEC("tc")
int nest(struct __sk_buff *skb)
{
	struct answers *a = answers_of(NEST), *inner = answers_of(INNER);
	struct res_spin_lock_shared *first, *last;
	int result, result_first = 0, result_last = 0;
	__u64 asked = bpf_ktime_get_ns();
	__u32 key;

	if (!a || !inner)
		return 0;
	a->runs++;
	EACH(FIND)
	key = 0;
	first = map_lookup(state, &key);
	key = LAST;
	last = map_lookup(state, &key);
	if (!first || !last)
		return 0;
	EACH(TAKE)
	result_first = bpf_res_spin_lock(&first->lock);
	if (!result_first)
		bpf_res_spin_unlock(&first->lock);
	result_last = bpf_res_spin_lock(&last->lock);
	if (!result_last)
		bpf_res_spin_unlock(&last->lock);
	EACH_BACK(RELEASE)
	note(a, result, asked);
	if (!result) {
		note(inner, result_first, asked);
		note(inner, result_last, asked);
	}
	return 0;
}
