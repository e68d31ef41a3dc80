// SPDX-License-Identifier: GPL-2.0-only
/*
 * Counters that every CPU increments, from hooks that counter.bpf.c lacks. One hook is tested at a time,
 * so all share one history. contended_counter.h has the operation and its broken versions.
 *
 * These programs are driven by tests/lock/serialization/test_hooks.py; harness/guest/drivers.py has
 * their drivers. Other processes may reach these hooks too, so each program counts only the drivers'
 * requests.
 */
#include "contended_counter.h"
#include "marked_packets.h"

#define SOURCE 0

#define MARKER_NAME 0x6b636f6c6e697073ULL /* "spinlock", a process's name, on x86-64 */
#define AF_INET 2
#define SOCK_DGRAM 2
#define SOL_SOCKET 1
#define SO_MARK 36
#define DEV_FULL_MAJOR 1
#define DEV_FULL_MINOR 7
#define SYS_GETPPID 110 /* on x86-64 */

#define TCX_PASS 0
#define TCX_DROP 2

MAP(ARRAY, state, __u32, struct shared, 1)

static __always_inline void count(void)
{
	__u32 key = 0;
	struct shared *s = map_lookup(state, &key);

	if (s)
		contend(s, 0, SOURCE);
}

static __always_inline __u32 big_endian(__u32 port)
{
	return (port & 0xff) << 8 | port >> 8;
}

static __always_inline int is_sender(void)
{
	__u64 name[2] = {};

	bpf_get_current_comm(name, sizeof(name));
	return name[0] == MARKER_NAME && !name[1];
}

/* Return the lock word. A lookup by user space always shows zeros in its place. */
SEC("tc")
int lock_word_of_hooks(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct shared *s = map_lookup(state, &key);

	return s ? lock_word(s) : -1;
}

SEC("tcx/ingress")
int count_tcx_ingress(struct __sk_buff *skb)
{
	if (!is_marked_frame((void *)(long)skb->data, (void *)(long)skb->data_end))
		return TCX_PASS;
	count();
	return TCX_DROP;
}

/* Let the frames pass: dropping them at egress would be an error for the sender. */
SEC("tcx/egress")
int count_tcx_egress(struct __sk_buff *skb)
{
	if (is_marked_frame((void *)(long)skb->data, (void *)(long)skb->data_end))
		count();
	return TCX_PASS;
}

SEC("cgroup/connect4")
int count_cgroup_connect4(struct bpf_sock_addr *address)
{
	if (address->user_port == big_endian(MARKER_UDP_PORT))
		count();
	return 1;
}

SEC("cgroup/sendmsg4")
int count_cgroup_sendmsg4(struct bpf_sock_addr *address)
{
	if (address->user_port == big_endian(MARKER_UDP_PORT))
		count();
	return 1;
}

SEC("cgroup/sock_create")
int count_cgroup_sock_create(struct bpf_sock *sk)
{
	if (sk->family == AF_INET && sk->type == SOCK_DGRAM)
		count();
	return 1;
}

SEC("cgroup/setsockopt")
int count_cgroup_setsockopt(struct bpf_sockopt *option)
{
	if (option->level == SOL_SOCKET && option->optname == SO_MARK)
		count();
	return 1;
}

SEC("cgroup/getsockopt")
int count_cgroup_getsockopt(struct bpf_sockopt *option)
{
	if (option->level == SOL_SOCKET && option->optname == SO_MARK)
		count();
	return 1;
}

SEC("cgroup/dev")
int count_cgroup_device(struct bpf_cgroup_dev_ctx *device)
{
	if (device->major == DEV_FULL_MAJOR && device->minor == DEV_FULL_MINOR)
		count();
	return 1;
}

/* Only the senders of this cgroup read a sysctl, and always the same one. */
SEC("cgroup/sysctl")
int count_cgroup_sysctl(struct bpf_sysctl *sysctl)
{
	if (!sysctl->write)
		count();
	return 1;
}

/* Count only getppid(), which the senders call. */
SEC("tp_btf/sys_enter")
int count_tp_btf_sys_enter(__u64 *arguments)
{
	if (arguments[1] == SYS_GETPPID && is_sender())
		count();
	return 0;
}

/* The kernel calls this function for test runs only. */
SEC("fentry/bpf_fentry_test1")
int count_fentry(__u64 *arguments)
{
	count();
	return 0;
}

SEC("lsm/file_open")
int count_lsm_file_open(__u64 *arguments)
{
	if (is_sender())
		count();
	return 0;
}
