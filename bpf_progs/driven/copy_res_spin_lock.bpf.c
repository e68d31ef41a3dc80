// SPDX-License-Identifier: GPL-2.0-only
/*
 * Values with a bpf_res_spin_lock in arrays and hash tables. The kernel leaves the lock out of copies,
 * as it does for bpf_spin_lock, but never takes it for a copy. Driven and judged by
 * tests/lock/copies/test_copy_layouts.py, which uses their names and numbers.
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
