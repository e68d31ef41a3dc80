// SPDX-License-Identifier: GPL-2.0-only
/*
 * The counter of contended_counter.h in every place of a lock that user space can read: map values,
 * global variables, local storages of kernel objects. places_objects.bpf.c has the other places.
 *
 * These programs are driven by test_places.py and test_storage.py in tests/lock/serialization/.
 */
#include "contended_counter.h"

/*
 * Rule: A lock serializes wherever it lives
 * Topic: Running programs
 * Each kind of map lays out, finds, creates and replaces its elements in its own way. In all of them,
 * CPUs that look up one element must get one lock, at the offset that the verifier knows from the map's
 * BTF. Two elements must have two locks, however close they are.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit b7ff97925b55 ("bpf: Allow locking bpf_spin_lock in inner map values") (in v6.2)
 * commit d0d78c1df9b1 ("bpf: Allow locking bpf_spin_lock global variables") (in v6.2)
 */

#define ELEMENTS 64
#define SOURCE 0 /* all have one driver */

MAP(ARRAY, array, __u32, struct shared, ELEMENTS)
MAP(HASH, table, __u32, struct shared, ELEMENTS)
MAP_FLAGS(HASH, lazy, __u32, struct shared, ELEMENTS, BPF_F_NO_PREALLOC)

#define COUNT_IN(map)                                 \
	__u32 element = choose(SOURCE);               \
	struct shared *s = map_lookup(map, &element); \
						      \
	if (s)                                        \
		contend(s, element, SOURCE);          \
	return 0;

SEC("tc")
int count_array(struct __sk_buff *skb)
{
	COUNT_IN(array)
}

SEC("tc")
int count_table(struct __sk_buff *skb)
{
	COUNT_IN(table)
}

SEC("tc")
int count_lazy(struct __sk_buff *skb)
{
	COUNT_IN(lazy)
}

#define BPF_MAP_TYPE_RHASH 35 /* the image's headers may not have it */

#if UNIT(rhash)
MAP_FLAGS(RHASH, rhash, __u32, struct shared, ELEMENTS, BPF_F_NO_PREALLOC)

/* commit 16b4d3e2fb24 ("bpf: Implement resizable hashmap basic functions") (in v7.2) */
SEC("tc")
int count_rhash(struct __sk_buff *skb)
{
	COUNT_IN(rhash)
}
#endif

/* The outer map has one inner map; choose() selects the contended element of that. */
#define INNER_MAP(outer_type, outer, inner_type, inner)      \
	struct inner {                                       \
		__uint(type, BPF_MAP_TYPE_##inner_type);     \
		__uint(max_entries, ELEMENTS);               \
		__type(key, __u32);                          \
		__type(value, struct shared);                \
	} inner SEC(".maps");                                \
	struct {                                             \
		__uint(type, BPF_MAP_TYPE_##outer_type);     \
		__uint(max_entries, 1);                      \
		__type(key, __u32);                          \
		__array(values, struct inner);               \
	} outer SEC(".maps") = { .values = { &inner } };

#define COUNT_INSIDE(outer)                                                \
	__u32 first = 0, element = choose(SOURCE);                         \
	void *inner = bpf_map_lookup_elem(&outer, &first);                 \
	struct shared *s;                                                  \
									   \
	if (!inner)                                                        \
		return 0;                                                  \
	s = bpf_map_lookup_elem(inner, &element);                          \
	if (s)                                                             \
		contend(s, element, SOURCE);                               \
	return 0;

#if UNIT(inner_array)
INNER_MAP(ARRAY_OF_MAPS, array_of_maps, ARRAY, inner_array)

SEC("tc")
int count_inner_array(struct __sk_buff *skb)
{
	COUNT_INSIDE(array_of_maps)
}
#endif

#if UNIT(inner_table)
INNER_MAP(HASH_OF_MAPS, hash_of_maps, HASH, inner_table)

SEC("tc")
int count_inner_table(struct __sk_buff *skb)
{
	COUNT_INSIDE(hash_of_maps)
}
#endif

/*
 * A section of variables is one map value. The variables have the layout of struct shared, but are not
 * members of it: before v6.11 a lock must be a variable itself.
 */
#define VARIABLES(section, name)                          \
	static struct bpf_spin_lock name##_lock SEC(section); \
	static __u32 name##_last_cpu SEC(section);            \
	static __u64 name##_fields[4] SEC(section);

#define COUNT_VARIABLES(name)                                        \
	struct shared *s = (void *)&name##_lock;                     \
								     \
	/* Reference all variables, so that clang keeps them and their order. */ \
	asm volatile("" : "+r"(s) : "r"(&name##_last_cpu), "r"(&name##_fields)); \
	return contend(s, 0, SOURCE);

#if UNIT(global)
VARIABLES(".data.shared", data)
VARIABLES(".bss.shared", bss)

SEC("tc")
int count_data(struct __sk_buff *skb)
{
	COUNT_VARIABLES(data)
}

SEC("tc")
int count_bss(struct __sk_buff *skb)
{
	COUNT_VARIABLES(bss)
}
#endif

/*
 * Local storages of kernel objects. A test run would get a socket and cgroup storage of its own, so
 * packets and system calls must trigger these programs. User space creates the storage elements; objects
 * without one belong to other tasks and are ignored.
 */

#if UNIT(socket)
MAP_FLAGS(SK_STORAGE, socket, int, struct shared, 0, BPF_F_NO_PREALLOC)

SEC("cgroup_skb/egress")
int count_socket(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct shared *s;

	if (!sk)
		return 1;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 1;
	s = bpf_sk_storage_get(&socket, sk, 0, 0);
	if (s)
		contend(s, 0, SOURCE);
	return 1;
}
#endif

#if UNIT(attached)
MAP(CGROUP_STORAGE, attached, struct bpf_cgroup_storage_key, struct shared, 0)

SEC("cgroup_skb/egress")
int count_attached(struct __sk_buff *skb)
{
	contend(bpf_get_local_storage(&attached, 0), 0, SOURCE);
	return 1;
}
#endif

#if UNIT(made)
#include "loopback_socket.h"

/*
 * Two CPUs that create a socket's storage element at the same time must get one element, else each would
 * have a lock of its own. They do so in rounds. When both are done with a round, the first CPU checks and
 * deletes the element, and begins the next round; the second waits for that.
 */
#define PATIENCE 500	    /* looks for the next round */
#define DELAYS 64	    /* of the first, one after the other: which of the two is late varies */

struct meeting {
	__u32 round;
	__u32 done[2]; /* the last round that each has done */
};

struct judged {
	__u64 rounds;
	__u64 wrong; /* not both were counted in one element */
	__u64 late;  /* found that the other was just making it */
};

MAP_FLAGS(SK_STORAGE, made, int, struct counter, 0, BPF_F_NO_PREALLOC)
MAP_FLAGS(SK_STORAGE, stays, int, __u64, 0, BPF_F_NO_PREALLOC) /* so that only elements are made */
MAP(ARRAY, meetings, __u32, struct meeting, 1)
MAP(PERCPU_ARRAY, judgements, __u32, struct judged, 1)

static __always_inline void make(struct bpf_sock *sk, volatile __u32 *round, volatile __u32 *done, __u64 *late)
{
	__u32 now = *round;
	struct counter *c;

	if (*done == now)
		return;
	c = bpf_sk_storage_get(&made, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!c) {
		(*late)++;
		return;
	}
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	*done = now;
}

static __always_inline void judge(struct bpf_sock *sk, struct judged *judged)
{
	struct counter *c = bpf_sk_storage_get(&made, sk, 0, 0);
	__u32 counted = 0;

	if (c) {
		bpf_spin_lock(&c->lock);
		counted = c->value;
		bpf_spin_unlock(&c->lock);
	}
	judged->rounds++;
	judged->wrong += counted != 2;
	bpf_sk_storage_delete(&made, sk);
}

SEC("tc")
int make_first(struct __sk_buff *skb)
{
	__u32 key = 0, now, delay;
	struct meeting *m = map_lookup(meetings, &key);
	struct judged *judged = map_lookup(judgements, &key);
	volatile __u32 *round, *ours, *theirs;
	struct bpf_sock *sk;

	if (!m || !judged)
		return -1;
	sk = find_socket(skb);
	if (!sk)
		return -1;
	round = &m->round;
	ours = &m->done[0];
	theirs = &m->done[1];
	now = *round;
	if (*ours == now && *theirs == now) {
		if (now)
			judge(sk, judged);
		*round = now + 1;
		for (delay = 0; delay < now % DELAYS; delay++)
			asm volatile("" : "+r"(delay));
	}
	make(sk, round, ours, &judged->late);
	bpf_sk_release(sk);
	return 0;
}

SEC("tc")
int make_second(struct __sk_buff *skb)
{
	__u32 key = 0, look;
	struct meeting *m = map_lookup(meetings, &key);
	struct judged *judged = map_lookup(judgements, &key);
	volatile __u32 *round, *ours;
	struct bpf_sock *sk;

	if (!m || !judged)
		return -1;
	sk = find_socket(skb);
	if (!sk)
		return -1;
	round = &m->round;
	ours = &m->done[1];
	for (look = 0; look < PATIENCE; look++)
		if (*round != *ours)
			break;
	make(sk, round, ours, &judged->late);
	bpf_sk_release(sk);
	return 0;
}
#endif

#if UNIT(passage)
/*
 * The key includes the attach type, so programs of two attach types have two storages and two locks.
 * commit 7d9c3427894f ("bpf: Make cgroup storages shared between programs on the same cgroup")
 * (in v5.9)
 */
MAP(CGROUP_STORAGE, passages, struct bpf_cgroup_storage_key, struct counter, 0)

static __always_inline int pass(__u32 weight)
{
	struct counter *c = bpf_get_local_storage(&passages, 0);

	bpf_spin_lock(&c->lock);
	c->value += weight;
	bpf_spin_unlock(&c->lock);
	return 1;
}

SEC("cgroup_skb/egress")
int pass_out(struct __sk_buff *skb)
{
	return pass(1);
}

SEC("cgroup_skb/ingress")
int pass_in(struct __sk_buff *skb)
{
	return pass(1000);
}
#endif

/* The needed members of the kernel's structures; CO-RE relocations give their real offsets. */
#define KERNELS __attribute__((preserve_access_index))

#if UNIT(file)
MAP_FLAGS(INODE_STORAGE, file, int, struct shared, 0, BPF_F_NO_PREALLOC)

struct inode;
struct file {
	struct inode *f_inode;
} KERNELS;

/* commit 9e7a4d9831e8 ("bpf: Allow LSM programs to use bpf spin locks") (in v5.11) */
SEC("lsm/file_fcntl")
int count_file(unsigned long long *ctx)
{
	struct file *f = (void *)ctx[0];
	struct shared *s = bpf_inode_storage_get(&file, f->f_inode, 0, 0);

	if (s)
		contend(s, 0, SOURCE);
	return 0;
}
#endif

#if UNIT(process)
MAP_FLAGS(TASK_STORAGE, process, int, struct shared, 0, BPF_F_NO_PREALLOC)

/* The storage is that of the task that receives the signal. */
SEC("fentry/security_task_kill")
int count_process(unsigned long long *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct shared *s = bpf_task_storage_get(&process, task, 0, 0);

	if (s)
		contend(s, 0, SOURCE);
	return 0;
}
#endif

#if UNIT(cgroup)
MAP_FLAGS(CGRP_STORAGE, cgroup, int, struct shared, 0, BPF_F_NO_PREALLOC)

struct css_set {
	struct cgroup *dfl_cgrp;
} KERNELS;
struct task_struct {
	struct css_set *cgroups;
} KERNELS;

SEC("tc")
int count_cgroup(struct __sk_buff *skb)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct shared *s = bpf_cgrp_storage_get(&cgroup, task->cgroups->dfl_cgrp, 0, 0);

	if (s)
		contend(s, 0, SOURCE);
	return 0;
}
#endif
