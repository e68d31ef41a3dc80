/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The operation of all serialization tests, for every hook and every place of a lock. It takes a
 * ticket and updates several fields under the lock. Outside of the lock it records the times before
 * and after. The broken ways to do this are chosen at run time, so a broken twin is the same program as
 * the real one.
 *
 * harness/judging/serialization.py and harness/judging/history.py judge the recorded operations.
 * harness/running/experiment.py fills in struct order and reads the other maps, by member names.
 */
#ifndef CONTENDED_COUNTER_H
#define CONTENDED_COUNTER_H

#include "busy_wait.h"

/* The most hooks and places in one run. Each has its own visits and history. */
#define SOURCES 8

#define OPERATIONS (1 << 19) /* the most recorded operations of all sources and CPUs */
#define SPARES 64

/* How an operation uses the lock. All but the first are broken. */
#define LOCKED 0    /* takes it */
#define UNLOCKED 1  /* does not take it */
#define OTHER 2	    /* takes another element's lock, a different one per CPU */
#define EARLY 3	    /* takes it, but unlocks before it writes */
#define SOMETIMES 4 /* takes it, except in one operation of `every` */
#define IMPATIENT 5 /* takes it, but enters unlocked if three looks found it held */

/* The parameters of a run, set by user space before it. */
struct order {
	__u32 turns;	/* length of the critical section */
	__u32 mode;
	__u32 every;
	__u32 room;	/* size of each CPU's history; later operations are only counted */
	__u32 elements; /* number of elements in use */
	__u32 begin[SOURCES]; /* index in `operations` of each source's first history */
};

/*
 * The fields that the lock protects. After a lost or torn write they do not agree any more. The upper
 * half of count is the epoch: the number of times that user space has set all fields.
 */
struct shared {
	struct bpf_spin_lock lock;
	__u32 last_cpu;	 /* CPU + 1 of the last writer */
	__u64 count;	 /* the next ticket */
	__u64 inverse;	 /* ~count */
	__u64 handovers; /* how often last_cpu changed */
	__u64 doubled;	 /* 2 * count */
};

/* Counts of one source on one CPU; only that CPU writes them. */
struct visits {
	__u64 runs;
	__u64 busy; /* runs that found the lock held on arrival */
	__u64 torn; /* runs that found, under the lock, fields of struct shared that do not agree */
	__u64 bare; /* runs that entered without the lock */
	__u64 first_ns; /* bpf_ktime_get_ns() of the first run, 0 before it */
	__u64 last_ns;
};

/* The record of one operation, written after it. */
struct operation {
	__u64 ticket;
	__u64 arrive; /* bpf_ktime_get_ns() */
	__u64 leave;
	__u32 element;
	__u32 bare;
};

MAP(ARRAY, orders, __u32, struct order, 1)
MAP(ARRAY, spares, __u32, struct counter, SPARES)
MAP(PERCPU_ARRAY, runs, __u32, struct visits, SOURCES)
MAP_FLAGS(ARRAY, operations, __u32, struct operation, OPERATIONS, BPF_F_MMAPABLE)

/* The fields of struct shared as an operation read them. */
struct found {
	__u64 count, inverse, doubled, handovers;
	__u32 last;
};

static __always_inline void read_all(struct shared *s, struct found *f)
{
	f->count = READ_ONCE(s->count);
	f->inverse = READ_ONCE(s->inverse);
	f->doubled = READ_ONCE(s->doubled);
	f->handovers = READ_ONCE(s->handovers);
	f->last = READ_ONCE(s->last_cpu);
}

static __always_inline void write_all(struct shared *s, const struct found *f, __u32 cpu)
{
	WRITE_ONCE(s->last_cpu, cpu + 1);
	WRITE_ONCE(s->count, f->count + 1);
	WRITE_ONCE(s->inverse, ~(f->count + 1));
	if (f->last && f->last != cpu + 1)
		WRITE_ONCE(s->handovers, f->handovers + 1);
	WRITE_ONCE(s->doubled, 2 * (f->count + 1));
}

/* The verifier refuses a load from the lock, but allows reads of kernel memory by the helper. */
static __always_inline __u32 lock_word(struct shared *s)
{
	__u32 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), (void *)s + offsetof(struct shared, lock));
	return word;
}

/* Return whether to enter without the lock. */
static __always_inline int is_bare(struct shared *s, const struct order *order, __u64 number, __u32 cpu)
{
	__u32 every = order->every;

	if (order->mode == UNLOCKED)
		return 1;
	if (order->mode == SOMETIMES) /* shifted per CPU, so that the CPUs do it at different times */
		return every && (number + 29 * cpu) % every == every - 1;
	if (order->mode != IMPATIENT)
		return 0;
	return lock_word(s) && lock_word(s) && lock_word(s);
}

/* One pass through the critical section. */
struct passage {
	__u32 source;
	__u32 element;
	__u32 cpu;
	int busy;
	int bare;
	__u64 number; /* of the operation, per source and CPU */
	__u64 arrive;
	struct found found;
};

static __always_inline void begin(struct passage *p, struct shared *s, const struct order *order,
		  const struct visits *v)
{
	p->cpu = bpf_get_smp_processor_id();
	p->number = v->runs;
	p->arrive = bpf_ktime_get_ns();
	p->busy = lock_word(s) != 0;
	p->bare = is_bare(s, order, p->number, p->cpu);
}

/* Record the pass; return its index in `operations`, or OPERATIONS if the history is full. */
static __always_inline __u32 end(const struct passage *p, const struct order *order, struct visits *v)
{
	const struct found *f = &p->found;
	struct operation *o;
	__u32 slot;

	if (!v->first_ns)
		v->first_ns = p->arrive;
	v->last_ns = bpf_ktime_get_ns();
	v->runs = p->number + 1;
	v->busy += p->busy;
	v->bare += p->bare;
	/* User space has zeroed all fields, so inverse is not ~count before the first operation. */
	v->torn += f->count && (f->inverse != ~f->count || f->doubled != 2 * f->count);
	if (p->number >= order->room)
		return OPERATIONS;
	slot = order->begin[p->source % SOURCES] + p->cpu * order->room + p->number;
	o = map_lookup(operations, &slot);
	if (!o)
		return OPERATIONS;
	o->ticket = f->count;
	o->arrive = p->arrive;
	o->leave = v->last_ns;
	o->element = p->element;
	o->bare = p->bare;
	return slot;
}

/* The operation on one element, which a program of hook `source` looked up. */
static __always_inline int contend(struct shared *s, __u32 element, __u32 source)
{
	__u32 key = 0, cpu = bpf_get_smp_processor_id(), spare = cpu % SPARES;
	struct passage p = { .source = source, .element = element };
	struct counter *other;
	struct order *order;
	struct visits *v;
	__u32 turns, mode;

	v = map_lookup(runs, &source);
	order = map_lookup(orders, &key);
	other = map_lookup(spares, &spare);
	if (!s || !v || !order || !other)
		return 0;
	turns = order->turns;
	mode = order->mode;
	begin(&p, s, order, v);
	if (p.bare) {
		read_all(s, &p.found);
		spend(turns);
		write_all(s, &p.found, cpu);
	} else if (mode == OTHER) {
		bpf_spin_lock(&other->lock);
		read_all(s, &p.found);
		spend(turns);
		write_all(s, &p.found, cpu);
		bpf_spin_unlock(&other->lock);
	} else if (mode == EARLY) {
		bpf_spin_lock(&s->lock);
		read_all(s, &p.found);
		bpf_spin_unlock(&s->lock);
		spend(turns);
		write_all(s, &p.found, cpu);
	} else {
		bpf_spin_lock(&s->lock);
		read_all(s, &p.found);
		spend(turns);
		write_all(s, &p.found, cpu);
		bpf_spin_unlock(&s->lock);
	}
	end(&p, order, v);
	return 0;
}

/* Choose an element, such that all CPUs meet in all elements. */
static __always_inline __u32 choose(__u32 source)
{
	__u32 key = 0, cpu = bpf_get_smp_processor_id();
	struct order *order = map_lookup(orders, &key);
	struct visits *v = map_lookup(runs, &source);

	if (!order || !v || order->elements < 2)
		return 0;
	return (v->runs * 7 + cpu * 3) % order->elements;
}

#endif
