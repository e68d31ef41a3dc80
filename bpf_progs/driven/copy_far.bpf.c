// SPDX-License-Identifier: GPL-2.0-only
/*
 * Values in which the lock is farther away than 16 bits can tell. Driven and judged by
 * tests/test_copy_layouts.py, which knows it by name.
 */
#ifndef LOADER_BCC /* system calls do not depend on who made the map */
#define LARGEST 66000 /* bytes */
#include "value_layouts.h"

LAYOUT(far, 65548, 31) /* at 65548; so far in, 16 bits would say 12 */

#define FAR(X) X(1, far)

FAR(TABLES)

SEC("tc")
int work_on_far(struct __sk_buff *skb)
{
	WORK(FAR, SERVE_TABLES)
}
#endif
