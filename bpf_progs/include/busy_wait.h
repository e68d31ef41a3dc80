/* SPDX-License-Identifier: GPL-2.0-only */
/* A busy loop for critical sections, to make them long enough to contend for. */
#ifndef BUSY_WAIT_H
#define BUSY_WAIT_H

#include "spinlock.h"

#define MOST_TURNS 2000

/*
 * Spin for `turns` turns of a few nanoseconds each, rounded up to 50. The verifier walks every round
 * that the loop may have, and compares it with the rounds before. So there are few rounds, made of
 * slow instructions (divisions).
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
