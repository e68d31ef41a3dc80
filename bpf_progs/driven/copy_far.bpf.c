// SPDX-License-Identifier: GPL-2.0-only
/*
 * Values with the lock at an offset above 16 bits. Driven and judged by
 * tests/lock/copies/test_copy_layouts.py, which uses their names.
 */
#ifndef LOADER_BCC /* system calls do not depend on who made the map */
#define LARGEST 66000 /* bytes */
#include "value_layouts.h"

LAYOUT(far, 65548, 31) /* at 65548, which is 12 in 16 bits */

#define FAR(X) X(1, far)

FAR(TABLES)

SEC("tc")
int work_on_far(struct __sk_buff *skb)
{
	WORK(FAR, SERVE_TABLES)
}
#endif
