// SPDX-License-Identifier: GPL-2.0-only
/*
 * Values with a bpf_res_spin_lock in arrays and hash tables. The kernel copies around it as around
 * the other lock, but never takes it for that. Driven and judged by tests/test_copy_layouts.py, which
 * knows them by name and number.
 */
#ifndef LOADER_BCC /* system calls do not depend on who made the map */
#define RES_SPIN_LOCK
#include "value_layouts.h"

LAYOUTS(TABLES)

SEC("tc")
int work_on_res_spin_lock(struct __sk_buff *skb)
{
	WORK(LAYOUTS, SERVE_TABLES)
}

SEC("tc")
int hold_res_spin_lock(struct __sk_buff *skb)
{
	HOLD(GUARDED_LAYOUTS, HOLD_TABLES)
}
#endif
