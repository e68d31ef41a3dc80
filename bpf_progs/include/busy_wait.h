/* SPDX-License-Identifier: GPL-2.0-only */
/* Time that a program spends where others must not come in meanwhile. */
#ifndef BUSY_WAIT_H
#define BUSY_WAIT_H

#include "spinlock.h"

#define MOST_TURNS 2000

/*
 * Spend as many turns, a few nanoseconds each, in whole fifties. The verifier walks all that there
 * might be and compares every round of a loop with those before it: hence few rounds, of
 * instructions that take long.
 */
static __always_inline void spend(__u32 turns)
{
	__u32 turn, quotient, divisor = 3;
	int i;

	asm volatile("" : "+r"(divisor));
	for (turn = 0; turn < turns && turn < MOST_TURNS; turn += 50) {
		quotient = turn;
#pragma unroll
		for (i = 0; i < 16; i++) {
			quotient /= divisor;
			asm volatile("" : "+r"(quotient));
		}
	}
}

#endif
