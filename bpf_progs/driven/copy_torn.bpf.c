// SPDX-License-Identifier: GPL-2.0-only
/*
 * Elements of every kind of map with a lock. Programs use them under the lock, while user space copies
 * them in and out with BPF_F_LOCK. Driven and judged by tests/lock/copies/test_copy_torn.py.
 */
#include "busy_wait.h"
#include "spinlock.h"

#ifndef LOADER_BCC /* bcc has no local storages, and its update has no flags */

/*
 * Rule: A copy with BPF_F_LOCK is whole
 * Topic: System calls
 * With BPF_F_LOCK the kernel holds the element's lock while it copies. So a read never mixes two
 * writes that programs made under the lock, and programs never find half of a value that was copied
 * in. This holds for every call that copies and for every kind of map that may hold a lock.
 * commit 96049f3afd50 ("bpf: introduce BPF_F_LOCK flag") (in v5.1)
 * commit cb4d03ab499d ("bpf: Add generic support for lookup batch op") (in v5.6)
 * commit 3e87f192b405 ("bpf: Add lookup_and_delete_elem support to hashtab") (in v5.14)
 */

#define FIELDS 14
#define TURNS 1000 /* of waiting, half way through the fields */

#define WRITE 1	  /* modes: what programs do under the lock */
#define INSPECT 2

#define PAGE 4096 /* bytes */

/*
 * The lock is neither first nor last, so the kernel copies two pieces. Its offset is not a multiple of
 * 8, unlike that in tests/lock/copies/test_map_copy.py.
 */
struct guarded {
	__u64 before;
	__u32 beside;
	struct bpf_spin_lock lock; /* at 12 */
	__u64 fields[FIELDS]; /* at 16; written together, so always equal under the lock */
};

/* The same in more than a page: the lock is in one page, the fields are in the next. */
struct guarded_page {
	__u64 before;
	__u32 beside;
	struct bpf_spin_lock lock;
	__u64 between[PAGE / 8];
	__u64 fields[FIELDS];
};

/* The same without a lock, because helpers refuse memory with a lock in it. */
struct image {
	__u64 before;
	__u32 beside, word;
	__u64 fields[FIELDS];
};

struct image_page {
	__u64 before;
	__u32 beside, word;
	__u64 between[PAGE / 8];
	__u64 fields[FIELDS];
};

struct visits {
	__u64 runs;
	__u64 torn;	 /* fields differed under the lock */
	__u64 intruders; /* another CPU was inside at the same time */
};

MAP(ARRAY, mode, __u32, __u32, 1)
MAP(ARRAY, images, __u32, struct image, 2) /* two values that differ in all fields */
MAP(ARRAY, page_images, __u32, struct image_page, 2)
MAP(ARRAY, inside, __u32, __u32, 1)	   /* CPU + 1 of who is between lock and unlock */
MAP(PERCPU_ARRAY, seen, __u32, struct visits, 1)

static __always_inline void write_fields(volatile __u64 *field)
{
	__u64 next = field[0] + 1;
	int i;

#pragma unroll
	for (i = 0; i < FIELDS / 2; i++)
		field[i] = next;
	spend(TURNS);
#pragma unroll
	for (i = FIELDS / 2; i < FIELDS; i++)
		field[i] = next;
}

/* Return whether the fields differ. */
static __always_inline int inspect_fields(volatile __u64 *field)
{
	__u64 first = field[0], differ = 0;
	int i;

#pragma unroll
	for (i = 1; i < FIELDS / 2; i++)
		differ |= field[i] ^ first;
	spend(TURNS);
#pragma unroll
	for (i = FIELDS / 2; i < FIELDS; i++)
		differ |= field[i] ^ first;
	return differ != 0;
}

/* Take the lock, and write or inspect the fields at an offset; do nothing without an element. */
static __always_inline int stir_at(struct guarded *g, const __u32 offset)
{
	volatile __u64 *fields = (void *)g + offset;
	__u32 key = 0, me = bpf_get_smp_processor_id() + 1, how, *wanted;
	int torn = 0, intruded;
	volatile __u32 *within;
	struct visits *v;

	wanted = bpf_map_lookup_elem(&mode, &key);
	within = bpf_map_lookup_elem(&inside, &key);
	v = bpf_map_lookup_elem(&seen, &key);
	if (!g || !wanted || !within || !v)
		return 0;
	how = *wanted;
	bpf_spin_lock(&g->lock);
	*within = me;
	if (how == WRITE)
		write_fields(fields);
	else if (how == INSPECT)
		torn = inspect_fields(fields);
	intruded = *within != me;
	bpf_spin_unlock(&g->lock);
	v->runs++;
	v->torn += torn;
	v->intruders += intruded;
	return 0;
}

static __always_inline int stir(struct guarded *g)
{
	return stir_at(g, offsetof(struct guarded, fields));
}

/* Choose the one of the two values that the element does not have. */
#define OTHER_IMAGE(image_map, type, g)                               \
	({                                                            \
		volatile __u64 *field = (g)->fields;                  \
		struct type *chosen;                                  \
		__u32 which = 0;                                      \
								      \
		chosen = bpf_map_lookup_elem(&image_map, &which);     \
		if (chosen && chosen->fields[0] == field[0]) {        \
			which = 1;                                    \
			chosen = bpf_map_lookup_elem(&image_map, &which); \
		}                                                     \
		chosen;                                               \
	})

static __always_inline struct image *other_image(struct guarded *g)
{
	return OTHER_IMAGE(images, image, g);
}

/* A broken copy with BPF_F_LOCK, which does not take the lock. */
static __always_inline int smear(struct guarded *g)
{
	struct image *image = g ? other_image(g) : 0;

	if (!image)
		return -1;
	return bpf_probe_read_kernel(g->fields, sizeof(g->fields), image->fields);
}

#define CONTENDED 1 /* the key: of the elements of an array, the second */

static __always_inline void *contended_of(void *map)
{
	__u32 key = CONTENDED;

	return bpf_map_lookup_elem(map, &key);
}

/* Copy a value in by the helper. */
static __always_inline int put(void *map)
{
	struct guarded *g = contended_of(map);
	struct image *image = g ? other_image(g) : 0;
	__u32 key = CONTENDED;

	return image ? bpf_map_update_elem(map, &key, image, BPF_F_LOCK) : -1;
}

MAP(ARRAY, guarded_array, __u32, struct guarded, 2)
MAP(HASH, guarded_hash, __u32, struct guarded, 4)
MAP_FLAGS(HASH, guarded_lazy, __u32, struct guarded, 4, BPF_F_NO_PREALLOC)

SEC("tc")
int stir_array(struct __sk_buff *skb)
{
	return stir(contended_of(&guarded_array));
}

SEC("tc")
int smear_array(struct __sk_buff *skb)
{
	return smear(contended_of(&guarded_array));
}

SEC("tc")
int put_array(struct __sk_buff *skb)
{
	return put(&guarded_array);
}

MAP(ARRAY, guarded_page, __u32, struct guarded_page, 2)

SEC("tc")
int stir_page(struct __sk_buff *skb)
{
	return stir_at(contended_of(&guarded_page), offsetof(struct guarded_page, fields));
}

SEC("tc")
int smear_page(struct __sk_buff *skb)
{
	struct guarded_page *g = contended_of(&guarded_page);
	struct image_page *image = g ? OTHER_IMAGE(page_images, image_page, g) : 0;

	if (!image)
		return -1;
	return bpf_probe_read_kernel(g->fields, sizeof(g->fields), image->fields);
}

SEC("tc")
int put_page(struct __sk_buff *skb)
{
	struct guarded_page *g = contended_of(&guarded_page);
	struct image_page *image = g ? OTHER_IMAGE(page_images, image_page, g) : 0;
	__u32 key = CONTENDED;

	return image ? bpf_map_update_elem(&guarded_page, &key, image, BPF_F_LOCK) : -1;
}

SEC("tc")
int stir_hash(struct __sk_buff *skb)
{
	return stir(contended_of(&guarded_hash));
}

SEC("tc")
int smear_hash(struct __sk_buff *skb)
{
	return smear(contended_of(&guarded_hash));
}

SEC("tc")
int put_hash(struct __sk_buff *skb)
{
	return put(&guarded_hash);
}

SEC("tc")
int stir_lazy(struct __sk_buff *skb)
{
	return stir(contended_of(&guarded_lazy));
}

SEC("tc")
int smear_lazy(struct __sk_buff *skb)
{
	return smear(contended_of(&guarded_lazy));
}

SEC("tc")
int put_lazy(struct __sk_buff *skb)
{
	return put(&guarded_lazy);
}

#if UNIT(rhash)
#define BPF_MAP_TYPE_RHASH 35 /* newer than the headers */
MAP_FLAGS(RHASH, guarded_rhash, __u32, struct guarded, 4, BPF_F_NO_PREALLOC)

SEC("tc")
int stir_rhash(struct __sk_buff *skb)
{
	return stir(contended_of(&guarded_rhash));
}

SEC("tc")
int smear_rhash(struct __sk_buff *skb)
{
	return smear(contended_of(&guarded_rhash));
}

SEC("tc")
int put_rhash(struct __sk_buff *skb)
{
	return put(&guarded_rhash);
}
#endif

#if UNIT(inner)
/* The inner map is in the first slot of the outer one. */
struct template {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct guarded);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct template);
} outer SEC(".maps");

MAP(HASH, guarded_inner, __u32, struct guarded, 4)

static __always_inline void *inner(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&outer, &key);
}

SEC("tc")
int stir_inner(struct __sk_buff *skb)
{
	void *map = inner();

	return map ? stir(contended_of(map)) : 0;
}

SEC("tc")
int smear_inner(struct __sk_buff *skb)
{
	void *map = inner();

	return map ? smear(contended_of(map)) : -1;
}

SEC("tc")
int put_inner(struct __sk_buff *skb)
{
	void *map = inner();

	return map ? put(map) : -1;
}
#endif

#if UNIT(socket)
#include "loopback_socket.h"

MAP_FLAGS(SK_STORAGE, guarded_socket, int, struct guarded, 0, BPF_F_NO_PREALLOC)

SEC("tc")
int stir_socket(struct __sk_buff *skb)
{
	struct bpf_sock *sk = find_socket(skb);

	if (!sk)
		return -1;
	stir(bpf_sk_storage_get(&guarded_socket, sk, 0, 0));
	bpf_sk_release(sk);
	return 0;
}

SEC("tc")
int smear_socket(struct __sk_buff *skb)
{
	struct bpf_sock *sk = find_socket(skb);

	if (!sk)
		return -1;
	smear(bpf_sk_storage_get(&guarded_socket, sk, 0, 0));
	bpf_sk_release(sk);
	return 0;
}
#endif

#if UNIT(listener)
#include "loopback_socket.h"

/*
 * An accepted socket gets a copy of the listening socket's storage.
 * commit 8f51dfc73bf1 ("bpf: support cloning sk storage on accept()") (in v5.4)
 */
MAP_FLAGS(SK_STORAGE, guarded_listener, int, struct guarded, 0, BPF_F_NO_PREALLOC | BPF_F_CLONE)

static __always_inline struct bpf_sock *find_listener(struct __sk_buff *skb)
{
	struct bpf_sock_tuple tuple = {};

	tuple.ipv4.daddr = LOOPBACK;
	tuple.ipv4.dport = PORT;
	return bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
}

SEC("tc")
int stir_listener(struct __sk_buff *skb)
{
	struct bpf_sock *sk = find_listener(skb);

	if (!sk)
		return -1;
	stir(bpf_sk_storage_get(&guarded_listener, sk, 0, 0));
	bpf_sk_release(sk);
	return 0;
}

SEC("tc")
int smear_listener(struct __sk_buff *skb)
{
	struct bpf_sock *sk = find_listener(skb);

	if (!sk)
		return -1;
	smear(bpf_sk_storage_get(&guarded_listener, sk, 0, 0));
	bpf_sk_release(sk);
	return 0;
}
#endif

/* System calls that trigger the program: those that stir make the first, the copying one the second. */
#define STIR 110  /* getppid() */
#define SMEAR 140 /* getpriority() */

struct cgroup;

struct css_set {
	struct cgroup *dfl_cgrp;
} __attribute__((preserve_access_index));

struct task_struct {
	struct task_struct *real_parent;
	struct css_set *cgroups;
} __attribute__((preserve_access_index));

#if UNIT(process)
MAP_FLAGS(TASK_STORAGE, guarded_process, int, struct guarded, 0, BPF_F_NO_PREALLOC)

/* The storage belongs to the process that copies; the processes that stir are its children. */
SEC("tp_btf/sys_enter")
int stir_process(unsigned long long *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (ctx[1] == STIR)
		stir(bpf_task_storage_get(&guarded_process, task->real_parent, 0, 0));
	else if (ctx[1] == SMEAR)
		smear(bpf_task_storage_get(&guarded_process, task, 0, 0));
	return 0;
}
#endif

#if UNIT(cgroup)
MAP_FLAGS(CGRP_STORAGE, guarded_cgroup, int, struct guarded, 0, BPF_F_NO_PREALLOC)

SEC("tp_btf/sys_enter")
int stir_cgroup(unsigned long long *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (ctx[1] == STIR)
		stir(bpf_cgrp_storage_get(&guarded_cgroup, task->cgroups->dfl_cgrp, 0, 0));
	else if (ctx[1] == SMEAR)
		smear(bpf_cgrp_storage_get(&guarded_cgroup, task->cgroups->dfl_cgrp, 0, 0));
	return 0;
}
#endif

#if UNIT(file)
#define ASK 1		/* F_GETFD, of fcntl(): processes that stir ask that, and */
#define ASK_SMEARING 3 /* F_GETFL: the one that copies */

MAP_FLAGS(INODE_STORAGE, guarded_file, int, struct guarded, 0, BPF_F_NO_PREALLOC)

struct inode;
struct file {
	struct inode *f_inode;
} __attribute__((preserve_access_index));

/* commit 9e7a4d9831e8 ("bpf: Allow LSM programs to use bpf spin locks") (in v5.11) */
SEC("lsm/file_fcntl")
int stir_file(unsigned long long *ctx)
{
	struct file *file = (void *)ctx[0];

	if (ctx[1] == ASK)
		stir(bpf_inode_storage_get(&guarded_file, file->f_inode, 0, 0));
	else if (ctx[1] == ASK_SMEARING)
		smear(bpf_inode_storage_get(&guarded_file, file->f_inode, 0, 0));
	return 0;
}
#endif

#if UNIT(attached)
#define SMEARING 99 /* bytes of a datagram with its headers, sent by the process that copies */

MAP(CGROUP_STORAGE, guarded_attached, struct bpf_cgroup_storage_key, struct guarded, 0)

SEC("cgroup_skb/egress")
int stir_attached(struct __sk_buff *skb)
{
	struct guarded *g = bpf_get_local_storage(&guarded_attached, 0);

	if (skb->len == SMEARING)
		smear(g);
	else
		stir(g);
	return 1;
}
#endif
#endif
