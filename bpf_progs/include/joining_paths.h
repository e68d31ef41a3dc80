/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Two paths that differ and join, for pruning.bpf.c.
 *
 * At a conditional jump the verifier walks the fall-through path first and the target later. The
 * assembly keeps clang from swapping the two. The verifier saves states for pruning only every few jumps
 * and instructions, so EMPTY_JUMPS are added.
 */
#ifndef JOINING_PATHS_H
#define JOINING_PATHS_H

#define EMPTY_JUMPS     \
	".rept 8\n"     \
	"goto +0\n"     \
	".endr\n"
#define REPLACE_IF(condition, to, from)           \
	asm volatile(EMPTY_JUMPS                  \
		     "if %[c] != 0 goto +1\n"     \
		     "goto +1\n"                  \
		     "%[t] = %[f]\n"              \
		     EMPTY_JUMPS                  \
		     : [t] "+r"(to)               \
		     : [c] "r"(condition), [f] "r"(from))
#define REPLACE_ON_STACK_IF(condition, to, from)             \
	asm volatile(EMPTY_JUMPS                             \
		     "if %[c] != 0 goto +1\n"                \
		     "goto +1\n"                             \
		     "*(u64 *)(%[t] + 0) = %[f]\n"           \
		     EMPTY_JUMPS                             \
		     :                                       \
		     : [c] "r"(condition), [t] "r"(&(to)), [f] "r"(from) \
		     : "memory")
#define EXCHANGE_IF(condition, one, two)                              \
	do {                                                          \
		void *third;                                          \
								      \
		asm volatile(EMPTY_JUMPS                              \
			     "if %[c] != 0 goto +1\n"                 \
			     "goto +3\n"                              \
			     "%[z] = %[x]\n"                          \
			     "%[x] = %[y]\n"                          \
			     "%[y] = %[z]\n"                          \
			     EMPTY_JUMPS                              \
			     : [x] "+r"(one), [y] "+r"(two), [z] "=&r"(third) \
			     : [c] "r"(condition));                   \
	} while (0)

#endif
