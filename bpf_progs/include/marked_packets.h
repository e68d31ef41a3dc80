/* SPDX-License-Identifier: GPL-2.0-only */
/* Markers of the packets sent by harness/guest/drivers.py: programs must not count other traffic. */
#ifndef MARKED_PACKETS_H
#define MARKED_PACKETS_H

#include "spinlock.h"

#define MARKER_ETHERTYPE 0x88b5 /* at tc and XDP: the ethertype for local experiments */
#define MARKER_UDP_PORT 23312	/* at cgroup_skb, where packets begin with the IP header */
#define UDP 17

#define TC_ACT_OK 0
#define TC_ACT_STOLEN 4 /* consumed: unlike a drop, no error for the sender */

static __always_inline int is_marked_frame(void *data, void *end)
{
	unsigned char *frame = data;

	return data + 14 <= end && frame[12] == MARKER_ETHERTYPE >> 8 &&
	       frame[13] == (MARKER_ETHERTYPE & 0xff);
}

static __always_inline int is_marked_datagram(void *data, void *end)
{
	unsigned char *packet = data;

	return data + 28 <= end && packet[0] == 0x45 && packet[9] == UDP &&
	       packet[22] == MARKER_UDP_PORT >> 8 && packet[23] == (MARKER_UDP_PORT & 0xff);
}

#endif
