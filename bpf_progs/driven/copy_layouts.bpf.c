// SPDX-License-Identifier: GPL-2.0-only
/*
 * Values with a lock in arrays and hash tables, copied in and out as a whole. Driven and judged by
 * tests/test_copy_layouts.py and tests/test_new_element.py, which know them by name and number;
 * the layouts are in value_layouts.h, other kinds of map in copy_storages.bpf.c, values with more
 * than a lock in copy_fields.bpf.c, and those with the other kind of lock in copy_res_spin_lock.bpf.c.
 */
#ifndef LOADER_BCC /* system calls do not depend on who made the map */
#include "value_layouts.h"

/*
 * Rule: All but the lock is copied
 * Topic: System calls
 * Around the lock, every byte of a value arrives where it belongs, whatever the offset of the lock
 * and the size of the value; and what else belongs to the kernel in it, as a timer, is left alone.
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
