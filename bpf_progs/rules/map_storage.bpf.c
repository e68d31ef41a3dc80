// SPDX-License-Identifier: GPL-2.0-only
/*
 * Storage that belongs to a kernel object, and may hold a lock. libbpf only: bcc gives these maps
 * other macros. One unit each: not every kernel has them all.
 */
#include "spinlock.h"

MAP(HASH, plain_hash, __u32, struct counter, 4)

SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf) __success __retval(1)
__description("the twin of the kinds of storage")
int plain_hash_holds_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter zero = {};
	struct counter *c;

	map_update(plain_hash, &key, &zero);
	c = map_lookup(plain_hash, &key);
	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

#if UNIT(cgroup_storage)
MAP(CGROUP_STORAGE, storage, struct bpf_cgroup_storage_key, struct counter, 0)

SEC("cgroup_skb/egress") __rule("Only some map types hold a lock") __loader(libbpf)
__success __retval(1)
int cgroup_storage_holds_lock(struct __sk_buff *skb)
{
	struct counter *c = bpf_get_local_storage(&storage, 0);

	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value == 1;
}
#endif

#if UNIT(sk_storage)
MAP_FLAGS(SK_STORAGE, sockets, int, struct counter, 0, BPF_F_NO_PREALLOC)

/* commit 6ac99e8f23d4 ("bpf: Introduce bpf sk local storage") (in v5.2). */
SEC("tc") __rule("Only some map types hold a lock") __loader(libbpf)
__success __retval(1)
int sk_storage_holds_lock(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct counter *c;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	c = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value;
}

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__loader(libbpf) __twin(sk_storage_holds_lock) __refused(unchecked_value)
int sk_storage_not_checked(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct counter *c;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	c = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	return 1;
}

/* The value that a new storage begins with is memory for a helper like any other. */
SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__twin(sk_storage_holds_lock) __refused(lock_accessed)
int value_with_lock_as_first_value(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	__u32 key = 0;
	struct counter *c = map_lookup(plain_hash, &key);

	if (!sk || !c)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	bpf_sk_storage_get(&sockets, sk, c, BPF_SK_STORAGE_GET_F_CREATE);
	return 1;
}
#endif

#if UNIT(many_sk_storages)
/*
 * Each owner remembers where its elements of 16 maps of a kind are; a map more shares one of these
 * places with another map, but neither its elements nor their locks.
 * commit 6ac99e8f23d4 ("bpf: Introduce bpf sk local storage") (in v5.2)
 */
#define STORAGES(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) \
	X(15) X(16) X(17)
#define STORAGE(number) \
	MAP_FLAGS(SK_STORAGE, storage_##number, int, struct counter, 0, BPF_F_NO_PREALLOC)

STORAGES(STORAGE)

/* Add to a socket's element of a map; return what is there then. */
static __always_inline __u32 add(void *map, struct bpf_sock *sk, __u32 number)
{
	struct counter *c = bpf_sk_storage_get(map, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	__u32 value;

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value += number;
	value = c->value;
	bpf_spin_unlock(&c->lock);
	return value;
}

#define ADD(number) add(&storage_##number, sk, number);
#define COUNT_OWN(number) own += add(&storage_##number, sk, 0) == number;

SEC("tc") __rule("A lock serializes wherever it lives") __loader(libbpf)
__description("a socket has one element, and one lock, of each of 17 maps")
__success __retval(17)
int many_sk_storages_are_as_many(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	int own = 0;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	STORAGES(ADD)
	STORAGES(COUNT_OWN)
	return own;
}
#endif

/*
 * No packet belongs to an inode, a task or a cgroup as such: these programs are only loaded. What
 * kinds of program may lock is the matter of the program_*.bpf.c files.
 */
#if UNIT(inode_storage)
MAP_FLAGS(INODE_STORAGE, inodes, int, struct counter, 0, BPF_F_NO_PREALLOC)

/*
 * commit 8ea636848aca ("bpf: Implement bpf_local_storage for inodes") (in v5.10); the program needs
 * commit 9e7a4d9831e8 ("bpf: Allow LSM programs to use bpf spin locks") (in v5.11).
 */
SEC("lsm/inode_unlink") __rule("Only some map types hold a lock") __loader(libbpf)
__needs(bpf_lsm_inode_unlink, "5.7", CONFIG_BPF_LSM) __twin(plain_hash_holds_lock)
__kernel("<5.11") __refused(unknown_func)
__kernel(">=5.11") __success
int inode_storage_holds_lock(unsigned long long *ctx)
{
	struct inode *directory = (void *)ctx[0];
	struct counter *c;

	c = bpf_inode_storage_get(&inodes, directory, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return 0;
}
#endif

#if UNIT(task_storage)
MAP_FLAGS(TASK_STORAGE, tasks, int, struct counter, 0, BPF_F_NO_PREALLOC)

/*
 * commit 4cf1bc1f1045 ("bpf: Implement task local storage") (in v5.11). A v5.10 kernel does not
 * know the type.
 */
SEC("lsm/task_alloc") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(plain_hash_holds_lock)
__kernel("<5.11") __failure __stage(map_create) __errno(EINVAL)
__kernel(">=5.11") __success
int task_storage_holds_lock(unsigned long long *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct counter *c;

	c = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return 0;
}
#endif

#if UNIT(cgrp_storage)
MAP_FLAGS(CGRP_STORAGE, cgroups, int, struct counter, 0, BPF_F_NO_PREALLOC)

/*
 * commit c4bcfb38a95e ("bpf: Implement cgroup storage available to non-cgroup-attached bpf progs")
 * (in v6.2). A v6.1 kernel does not know the type.
 */
SEC("tp_btf/cgroup_mkdir") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(plain_hash_holds_lock)
__kernel("<6.2") __failure __stage(map_create) __errno(EINVAL)
__kernel(">=6.2") __success
int cgrp_storage_holds_lock(unsigned long long *ctx)
{
	struct cgroup *cgroup = (void *)ctx[0];
	struct counter *c;

	c = bpf_cgrp_storage_get(&cgroups, cgroup, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return 0;
}
#endif

#if UNIT(percpu_cgroup_storage)
MAP(PERCPU_CGROUP_STORAGE, percpu_storage, struct bpf_cgroup_storage_key, struct counter, 0)

SEC("cgroup_skb/egress") __rule("Only some map types hold a lock") __loader(libbpf)
__twin(cgroup_storage_holds_lock) __refused(map_type_without_lock)
int percpu_cgroup_storage_holds_lock(struct __sk_buff *skb)
{
	struct counter *c = bpf_get_local_storage(&percpu_storage, 0);

	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	return c->value == 1;
}
#endif
