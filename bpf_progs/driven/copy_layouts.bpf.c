// SPDX-License-Identifier: GPL-2.0-only
/*
 * Values with a lock in arrays and hash tables, copied in and out as a whole. Driven and judged by
 * tests/lock/copies/test_copy_layouts.py, which uses their names and numbers.
 *
 * value_layouts.h has the layouts, copy_storages.bpf.c other kinds of map, copy_fields.bpf.c values
 * with more special fields, and copy_res_spin_lock.bpf.c values with a bpf_res_spin_lock.
 */
#ifndef LOADER_BCC /* system calls do not depend on who made the map */
#include "value_layouts.h"

/*
 * Rule: All but the lock is copied
 * Topic: System calls
 * A copy transfers every byte of a value except the lock, for any offset of the lock and any size of
 * the value. It leaves other special fields, such as a timer, alone too.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit a8abb0c3dc1e ("bpf: Fix crash due to incorrect copy_map_value") (in v5.17)
 * commit 1f6e04a1c7b8 ("bpf: Fix offset calculation error in __copy_map_value and zero_map_value")
 * (in v6.1)
 * commit 0de2046137f9 ("bpf: Implement verifier support for rqspinlock") (in v6.15)
 */
LAYOUTS(TABLES)

SEC("tc")
int work(struct __sk_buff *skb)
{
	WORK(LAYOUTS, SERVE_TABLES)
}

SEC("tc")
int hold(struct __sk_buff *skb)
{
	HOLD(GUARDED_LAYOUTS, HOLD_TABLES)
}
#endif
