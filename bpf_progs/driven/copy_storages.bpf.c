// SPDX-License-Identifier: GPL-2.0-only
/*
 * Values with a lock in map types that some kernels lack. Driven and judged by
 * tests/lock/copies/test_copy_layouts.py, which uses their names and numbers.
 */
#ifndef LOADER_BCC /* system calls do not depend on who made the map */
#include "value_layouts.h"

#define STORAGE(kind, name, value) \
	MAP_FLAGS(kind, name, int, struct value, 0, BPF_F_NO_PREALLOC)

#if UNIT(rhash)
#define BPF_MAP_TYPE_RHASH 35 /* newer than the headers */
#define RHASH(number, name) \
	MAP_FLAGS(RHASH, name##_rhash, __u32, struct name, 2, BPF_F_NO_PREALLOC)
#define SERVE_RHASH(number, name)       \
	if (order->map == number + 100) \
		return serve(&name##_rhash, sizeof(struct name), what);
#define HOLD_RHASH(number, name)        \
	if (order->map == number + 100) \
		return hold_lock(&name##_rhash, offsetof(struct name, lock));

LAYOUTS(RHASH)

SEC("tc")
int work_on_rhash(struct __sk_buff *skb)
{
	WORK(LAYOUTS, SERVE_RHASH)
}

SEC("tc")
int hold_in_rhash(struct __sk_buff *skb)
{
	HOLD(GUARDED_LAYOUTS, HOLD_RHASH)
}
#endif

#if UNIT(socket)
#include "loopback_socket.h"

#define SOCKET(number, name) STORAGE(SK_STORAGE, name##_socket, name)
#define SERVE_SOCKET(number, name)      \
	if (order->map == number + 100) \
		return serve_socket(&name##_socket, sk, sizeof(struct name), what);
#define HOLD_SOCKET(number, name)       \
	if (order->map == number + 100) \
		return hold_socket(&name##_socket, sk, offsetof(struct name, lock));

LAYOUTS(SOCKET)

/* The program can only store when it creates the element. */
static __always_inline int
serve_socket(void *map, struct bpf_sock *sk, const __u32 size, __u32 what)
{
	__u32 key = 0;
	void *stored = bpf_map_lookup_elem(&image, &key);

	if (!stored)
		return -1;
	if (what == STORE)
		return bpf_sk_storage_get(map, sk, stored, BPF_SK_STORAGE_GET_F_CREATE) ? 0 : -1;
	if (what == REMOVE)
		return bpf_sk_storage_delete(map, sk);
	return show(bpf_sk_storage_get(map, sk, 0, 0), size);
}

static __always_inline int serve_sockets(struct bpf_sock *sk)
{
	WORK(LAYOUTS, SERVE_SOCKET)
}

static __always_inline int
hold_socket(void *map, struct bpf_sock *sk, const __u32 offset)
{
	void *value = bpf_sk_storage_get(map, sk, 0, 0);

	if (value)
		hold_value(value, offset);
	return 0;
}

static __always_inline int hold_sockets(struct bpf_sock *sk)
{
	HOLD(GUARDED_LAYOUTS, HOLD_SOCKET)
}

SEC("tc")
int work_on_socket(struct __sk_buff *skb)
{
	struct bpf_sock *sk = find_socket(skb);
	int result;

	if (!sk)
		return -1;
	result = serve_sockets(sk);
	bpf_sk_release(sk);
	return result;
}

SEC("tc")
int hold_in_socket(struct __sk_buff *skb)
{
	struct bpf_sock *sk = find_socket(skb);

	if (!sk)
		return -1;
	hold_sockets(sk);
	bpf_sk_release(sk);
	return 0;
}
#endif

#if UNIT(process)
#define PROCESS(number, name) STORAGE(TASK_STORAGE, name##_process, name)

LAYOUTS(PROCESS)
#endif

#if UNIT(file)
#define FILE(number, name) STORAGE(INODE_STORAGE, name##_file, name)

LAYOUTS(FILE)
#endif

#if UNIT(cgroup)
#define CGROUP(number, name) STORAGE(CGRP_STORAGE, name##_cgroup, name)

LAYOUTS(CGROUP)
#endif

#if UNIT(attached)
MAP(CGROUP_STORAGE, middle_odd_attached, struct bpf_cgroup_storage_key, struct middle_odd, 0)

SEC("cgroup_skb/egress")
int use_storage(struct __sk_buff *skb)
{
	return bpf_get_local_storage(&middle_odd_attached, 0) != 0;
}
#endif
#endif
