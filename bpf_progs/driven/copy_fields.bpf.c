// SPDX-License-Identifier: GPL-2.0-only
/*
 * Values with a lock and other special fields. Driven and judged by
 * tests/lock/copies/test_copy_layouts.py, which uses their names and numbers.
 */
#ifndef LOADER_BCC /* system calls do not depend on who made the map */
#include "value_layouts.h"

#if UNIT(timer)
struct lock_then_timer {
	__u8 before[4];
	struct bpf_spin_lock lock; /* at 4 */
	__u8 between[8];
	struct bpf_timer timer; /* at 16, of 16 bytes */
	__u8 after[9];
} PACKED;

struct timer_then_lock {
	__u8 before[8];
	struct bpf_timer timer; /* at 8 */
	__u8 between[4];
	struct bpf_spin_lock lock; /* at 28 */
	__u8 after[7];
} PACKED;

struct side_by_side {
	struct bpf_timer timer;
	struct bpf_spin_lock lock; /* at 16 */
	__u8 after[4];
} PACKED;

#define WITH_TIMER(X) X(1, lock_then_timer) X(2, timer_then_lock) X(3, side_by_side)

WITH_TIMER(TABLES)

SEC("tc")
int work_on_timer(struct __sk_buff *skb)
{
	WORK(WITH_TIMER, SERVE_TABLES)
}

SEC("tc")
int hold_with_timer(struct __sk_buff *skb)
{
	HOLD(WITH_TIMER, HOLD_TABLES)
}
#endif

#if UNIT(fields)
struct element {
	struct bpf_list_node node;
	__u64 data;
};

/* The type of a list's elements must be in the object's BTF, too. */
struct element *elements SEC(".data.elements") __attribute__((visibility("hidden")));

struct lock_then_list {
	struct bpf_spin_lock lock; /* at 0 */
	__u8 between[12];
	struct bpf_list_head head __contains(element, node); /* at 16, of 16 bytes */
	__u8 after[16];
} PACKED;

struct list_then_lock {
	__u8 before[8];
	struct bpf_list_head head __contains(element, node); /* at 8 */
	struct bpf_spin_lock lock;			     /* at 24 */
	__u8 after[12];
} PACKED;

struct all_of_them {
	__u8 before[8];
	struct bpf_timer timer; /* at 8 */
	__u8 gap[4];
	struct bpf_spin_lock lock; /* at 28 */
	__u8 between[8];
	struct bpf_list_head head __contains(element, node); /* at 40 */
	__u8 after[8];
} PACKED;

#define WITH_FIELDS(X) X(1, lock_then_list) X(2, list_then_lock) X(3, all_of_them)

WITH_FIELDS(TABLES)

SEC("tc")
int work_on_fields(struct __sk_buff *skb)
{
	WORK(WITH_FIELDS, SERVE_TABLES)
}

SEC("tc")
int hold_with_fields(struct __sk_buff *skb)
{
	HOLD(WITH_FIELDS, HOLD_TABLES)
}
#endif
#endif
