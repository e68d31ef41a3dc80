/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Values of many sizes with the lock at many offsets. A program stores a whole value in the first
 * element of a map, or shows the memory of that element.
 */
#ifndef VALUE_LAYOUTS_H
#define VALUE_LAYOUTS_H

#include "kfuncs.h"
#include "busy_wait.h"

#ifndef LARGEST
#define LARGEST 4096 /* bytes of a value */
#endif
#define TURNS 1000   /* length of the critical section */

/* Orders for the program. */
#define SHOW 0
#define STORE 1
#define STORE_LOCKED 2
#define REMOVE 3

struct order {
	__u32 map; /* number of the layout, plus 100, 200 or 300 for the kind of map */
	__u32 what;
};

struct bytes {
	__u8 byte[LARGEST];
};

MAP(ARRAY, orders, __u32, struct order, 1)
MAP(ARRAY, holds, __u32, struct order, 1) /* the map whose lock to hold */
MAP(ARRAY, image, __u32, struct bytes, 1)  /* the value to store */
MAP(ARRAY, memory, __u32, struct bytes, 1) /* the value read from the element's memory */

#ifdef RES_SPIN_LOCK
#define LOCK struct bpf_res_spin_lock
#else
#define LOCK struct bpf_spin_lock
#endif

#define PACKED __attribute__((packed))
#define LAYOUT(name, bytes_before, bytes_after) \
	struct name {                           \
		__u8 before[bytes_before];      \
		LOCK lock;                      \
		__u8 after[bytes_after];        \
	} PACKED;

LAYOUT(only, 0, 0)
LAYOUT(first, 0, 1)
LAYOUT(half, 0, 4)
LAYOUT(long_after, 0, 60)
LAYOUT(at_4, 4, 0)
LAYOUT(at_4_odd, 4, 3)
LAYOUT(at_8, 8, 0)
LAYOUT(at_8_more, 8, 8)
LAYOUT(at_12_odd, 12, 9)
LAYOUT(middle, 32, 28)
LAYOUT(middle_odd, 124, 122)
LAYOUT(last, 248, 0)
LAYOUT(large, 2000, 1999)

/* The twin. The kernel recognizes the lock by its type's name, so this is data and is copied. */
typedef LOCK other_name;
struct no_lock {
	__u8 before[8];
	other_name lock;
	__u8 after[8];
} PACKED;

#define GUARDED_LAYOUTS(X)                                                                 \
	X(1, only) X(2, first) X(3, half) X(4, long_after) X(5, at_4) X(6, at_4_odd)       \
	X(7, at_8) X(8, at_8_more) X(9, at_12_odd) X(10, middle) X(11, middle_odd)         \
	X(12, last) X(13, large)
#define LAYOUTS(X) GUARDED_LAYOUTS(X) X(14, no_lock)

#define TABLES(number, name)                            \
	MAP(ARRAY, name##_array, __u32, struct name, 2) \
	MAP(HASH, name##_hash, __u32, struct name, 2)   \
	MAP_FLAGS(HASH, name##_lazy, __u32, struct name, 2, BPF_F_NO_PREALLOC)
#define SERVE_TABLES(number, name)                                       \
	if (order->map == number + 100)                                  \
		return serve(&name##_array, sizeof(struct name), what);  \
	if (order->map == number + 200)                                  \
		return serve(&name##_hash, sizeof(struct name), what);   \
	if (order->map == number + 300)                                  \
		return serve(&name##_lazy, sizeof(struct name), what);

#define HOLD_TABLES(number, name)                                                  \
	if (order->map == number + 100)                                            \
		return hold_lock(&name##_array, offsetof(struct name, lock));      \
	if (order->map == number + 200)                                            \
		return hold_lock(&name##_hash, offsetof(struct name, lock));       \
	if (order->map == number + 300)                                            \
		return hold_lock(&name##_lazy, offsetof(struct name, lock));

static __always_inline void hold_value(void *value, const __u32 offset)
{
	LOCK *lock = value + offset;

#ifdef RES_SPIN_LOCK
	if (bpf_res_spin_lock(lock))
		return;
	spend(TURNS);
	bpf_res_spin_unlock(lock);
#else
	bpf_spin_lock(lock);
	spend(TURNS);
	bpf_spin_unlock(lock);
#endif
}

static __always_inline int hold_lock(void *map, const __u32 offset)
{
	__u32 key = 0;
	void *value = bpf_map_lookup_elem(map, &key);

	if (value)
		hold_value(value, offset);
	return 0;
}

static __always_inline int show(void *value, const __u32 size)
{
	__u32 key = 0;
	void *shown = bpf_map_lookup_elem(&memory, &key);

	return shown && value ? bpf_probe_read_kernel(shown, size, value) : -1;
}

static __always_inline int serve(void *map, const __u32 size, __u32 what)
{
	__u32 key = 0;
	void *stored = bpf_map_lookup_elem(&image, &key);

	if (!stored)
		return -1;
	if (what == STORE)
		return bpf_map_update_elem(map, &key, stored, BPF_ANY);
	if (what == STORE_LOCKED)
		return bpf_map_update_elem(map, &key, stored, BPF_F_LOCK);
	if (what == REMOVE)
		return bpf_map_delete_elem(map, &key);
	return show(bpf_map_lookup_elem(map, &key), size);
}

/* Carry out the order, if its map belongs to these layouts. */
#define WORK(layouts, serve_one)                            \
	struct order *order;                                \
	__u32 key = 0, what;                                \
							    \
	order = bpf_map_lookup_elem(&orders, &key);         \
	if (!order)                                         \
		return -1;                                  \
	what = order->what;                                 \
	layouts(serve_one)                                  \
	return -1;

/* Hold the lock of the map that `holds` names for a while. */
#define HOLD(layouts, hold_one)                             \
	struct order *order;                                \
	__u32 key = 0;                                      \
							    \
	order = bpf_map_lookup_elem(&holds, &key);          \
	if (!order)                                         \
		return -1;                                  \
	layouts(hold_one)                                   \
	return -1;

#endif
