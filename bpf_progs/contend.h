/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The operation whose serialization is put to the proof, whatever hook it is run from and wherever
 * its lock lives: take a ticket and update several fields under the lock; outside of it, note when
 * that was. And every way to do it wrong, chosen at run time, so that a broken twin is the very
 * same program as the real one.
 *
 * harness/serialization.py and harness/history.py judge what it leaves behind and know the layout
 * of all structures here; harness/experiment.py fills in struct order.
 */
#ifndef CONTEND_H
#define CONTEND_H

#include "spinlock.h"

/* Hooks and places that take part in one run. Each has visits and a history of its own. */
#define SOURCES 8

#define OPERATIONS (1 << 19) /* of all sources and CPUs, as many as are written down */
#define SPARES 64

/* As long as the lock is held. Bounded because the verifier walks every turn. */
#define MOST_TURNS 2000

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

#define READ(field) (*(volatile __u64 *)&(field))
#define WRITE(field, value) (*(volatile __u64 *)&(field) = (value))
#define INLINE static inline __attribute__((always_inline))

/* What add_one() found, between reading and writing. */
struct found {
	__u64 count, inverse, doubled, handovers;
	__u32 last;
};

INLINE void read_all(struct shared *s, struct found *f)
{
	f->count = READ(s->count);
	f->inverse = READ(s->inverse);
	f->doubled = READ(s->doubled);
	f->handovers = READ(s->handovers);
	f->last = *(volatile __u32 *)&s->last_cpu;
}

INLINE void work(__u32 turns)
{
	__u32 turn;

	for (turn = 0; turn < turns && turn < MOST_TURNS; turn++)
		asm volatile("" : "+r"(turn));
}

INLINE void write_all(struct shared *s, const struct found *f, __u32 cpu)
{
	*(volatile __u32 *)&s->last_cpu = cpu + 1;
	WRITE(s->count, f->count + 1);
	WRITE(s->inverse, ~(f->count + 1));
	if (f->last && f->last != cpu + 1)
		WRITE(s->handovers, f->handovers + 1);
	WRITE(s->doubled, 2 * (f->count + 1));
}

/* A program may not load the word, but it may read kernel memory. */
INLINE __u32 lock_word(struct shared *s)
{
	__u32 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), (void *)s + offsetof(struct shared, lock));
	return word;
}

/* Tell whether to go in without the lock. */
INLINE int is_bare(struct shared *s, const struct order *order, __u64 number, __u32 cpu)
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

/* The operation, on an element that this source has found. */
INLINE int contend(struct shared *s, __u32 element, __u32 source)
{
	__u32 key = 0, cpu = bpf_get_smp_processor_id(), spare = cpu % SPARES, slot;
	struct operation *o;
	struct counter *other;
	struct order *order;
	__u64 number, arrive;
	struct found f;
	struct visits *v;
	int bare, busy;
	__u32 turns, mode;

	v = map_lookup(runs, &source);
	order = map_lookup(orders, &key);
	other = map_lookup(spares, &spare);
	if (!s || !v || !order || !other)
		return 0;
	turns = order->turns;
	mode = order->mode;
	number = v->runs;
	arrive = bpf_ktime_get_ns();
	busy = lock_word(s) != 0;
	bare = is_bare(s, order, number, cpu);
	if (bare) {
		read_all(s, &f);
		work(turns);
		write_all(s, &f, cpu);
	} else if (mode == OTHER) {
		bpf_spin_lock(&other->lock);
		read_all(s, &f);
		work(turns);
		write_all(s, &f, cpu);
		bpf_spin_unlock(&other->lock);
	} else if (mode == EARLY) {
		bpf_spin_lock(&s->lock);
		read_all(s, &f);
		bpf_spin_unlock(&s->lock);
		work(turns);
		write_all(s, &f, cpu);
	} else {
		bpf_spin_lock(&s->lock);
		read_all(s, &f);
		work(turns);
		write_all(s, &f, cpu);
		bpf_spin_unlock(&s->lock);
	}
	if (!v->first_ns)
		v->first_ns = arrive;
	v->last_ns = bpf_ktime_get_ns();
	v->runs = number + 1;
	v->busy += busy;
	v->bare += bare;
	/* Zeroed by user space before the first run: ~0 is not there yet. */
	v->torn += f.count && (f.inverse != ~f.count || f.doubled != 2 * f.count);
	if (number >= order->room)
		return 0;
	slot = order->begin[source % SOURCES] + cpu * order->room + number;
	o = map_lookup(operations, &slot);
	if (!o)
		return 0;
	o->ticket = f.count;
	o->arrive = arrive;
	o->leave = v->last_ns;
	o->element = element;
	o->bare = bare;
	return 0;
}

/* Choose one of so many elements; neighbours in time and CPUs next to each other meet in all. */
INLINE __u32 choose(__u32 source)
{
	__u32 key = 0, cpu = bpf_get_smp_processor_id();
	struct order *order = map_lookup(orders, &key);
	struct visits *v = map_lookup(runs, &source);

	if (!order || !v || order->elements < 2)
		return 0;
	return (v->runs * 7 + cpu * 3) % order->elements;
}

#endif
