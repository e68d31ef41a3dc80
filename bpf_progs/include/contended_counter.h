/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The operation whose serialization is put to the proof, whatever hook it is run from and wherever
 * its lock lives: take a ticket and update several fields under the lock; outside of it, note when
 * that was. And every way to do it wrong, chosen at run time, so that a broken twin is the very
 * same program as the real one.
 *
 * harness/judging/serialization.py and harness/judging/history.py judge what it leaves behind;
 * harness/running/experiment.py fills in struct order and reads the others, all by names of members.
 */
#ifndef CONTENDED_COUNTER_H
#define CONTENDED_COUNTER_H

#include "busy_wait.h"

/* Hooks and places that take part in one run. Each has visits and a history of its own. */
#define SOURCES 8

#define OPERATIONS (1 << 19) /* of all sources and CPUs, as many as are written down */
#define SPARES 64

/* Who takes the lock how. */
#define LOCKED 0    /* as it must be */
#define UNLOCKED 1  /* not at all */
#define OTHER 2	    /* that of another element, one of each CPU's own */
#define EARLY 3	    /* but lets go of it before it writes */
#define SOMETIMES 4 /* but for one operation in `every` */
#define IMPATIENT 5 /* but goes on without it when it was held each of three times it looked */

/* What user space asks for, before the run. */
struct order {
	__u32 turns;	/* length of the critical section */
	__u32 mode;
	__u32 every;
	__u32 room;	/* operations in each CPU's history; later ones are only counted */
	__u32 elements; /* to choose from */
	__u32 begin[SOURCES]; /* where among all operations each source's histories begin */
};

/*
 * What the lock protects. A write outside of the critical section, or a torn one, leaves them at
 * odds. The upper half of count is the epoch: how often user space has set all of it.
 */
struct shared {
	struct bpf_spin_lock lock;
	__u32 last_cpu;	 /* who wrote last: its CPU + 1 */
	__u64 count;	 /* the next ticket */
	__u64 inverse;	 /* ~count */
	__u64 handovers; /* how often last_cpu changed */
	__u64 doubled;	 /* 2 * count */
};

/* What each CPU saw of one source, added to by nobody else. */
struct visits {
	__u64 runs;
	__u64 busy; /* the lock word was held when the program arrived */
	__u64 torn; /* the fields of struct shared did not agree, seen from inside */
	__u64 bare; /* went in without the lock */
	__u64 first_ns; /* bpf_ktime_get_ns() of the first run, 0 before it */
	__u64 last_ns;
};

/* One operation, as its CPU wrote it down after it. */
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

/* What add_one() found, between reading and writing. */
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

/* A program may not load the word, but it may read kernel memory. */
static __always_inline __u32 lock_word(struct shared *s)
{
	__u32 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), (void *)s + offsetof(struct shared, lock));
	return word;
}

/* Tell whether to go in without the lock. */
static __always_inline int is_bare(struct shared *s, const struct order *order, __u64 number, __u32 cpu)
{
	__u32 every = order->every;

	if (order->mode == UNLOCKED)
		return 1;
	if (order->mode == SOMETIMES) /* not all CPUs at once */
		return every && (number + 29 * cpu) % every == every - 1;
	if (order->mode != IMPATIENT)
		return 0;
	return lock_word(s) && lock_word(s) && lock_word(s);
}

/* One passage through the critical section: whose, when, and what was found there. */
struct passage {
	__u32 source;
	__u32 element;
	__u32 cpu;
	int busy;
	int bare;
	__u64 number; /* of this source's on this CPU */
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

/* Write it down; return where in `operations`, or past its end if there was no room left. */
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
	/* Zeroed by user space before the first run: ~0 is not there yet. */
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

/* The operation, on an element that this source has found. */
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

/* Choose one of so many elements; neighbours in time and CPUs next to each other meet in all. */
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
