/* SPDX-License-Identifier: GPL-2.0-only */
/* Counters, each beside its res_spin_lock; for the *res_spin_lock*.bpf.c files. */
#ifndef RES_SPIN_LOCK_COUNTERS_H
#define RES_SPIN_LOCK_COUNTERS_H

#include "kfuncs.h"

struct res_spin_lock_counter {
	struct bpf_res_spin_lock lock;
	__u32 value;
};

MAP(ARRAY, counters, __u32, struct res_spin_lock_counter, 2)

#endif
