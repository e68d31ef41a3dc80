/* SPDX-License-Identifier: GPL-2.0-only */
/* The sockets of harness/guest on the loopback device; for units of tc programs. */
#ifndef LOOPBACK_SOCKET_H
#define LOOPBACK_SOCKET_H

#include "spinlock.h"

#define LOOPBACK 0x0100007f /* 127.0.0.1 in network byte order */
#define PORT 0x115b	    /* 23313 in network byte order */

/* Look up the UDP socket; the caller must release it. */
static __always_inline struct bpf_sock *find_socket(struct __sk_buff *skb)
{
	struct bpf_sock_tuple tuple = {};

	tuple.ipv4.daddr = LOOPBACK;
	tuple.ipv4.dport = PORT;
	return bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
}

#endif
