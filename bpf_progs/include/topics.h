/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The chapters of docs/rules.md, in their order: first the restrictions of the lock's first kernel,
 * then what later kernels added. There is no code here: no program includes this file.
 */

/*
 * Topic: Lock and unlock
 * What the lock's first kernel, v5.1, asked of a program: every lock is unlocked, once, by the
 * program that took it, and no second one is taken meanwhile.
 */

/*
 * Topic: Under the lock
 * What a program of v5.1 could not do while it held the lock. Later kernels made exceptions.
 */

/*
 * Topic: The lock's place
 * Where a lock could live in v5.1, how the kernel finds it there, and what later kernels added.
 */

/*
 * Topic: The lock's bytes
 * Only bpf_spin_lock() and bpf_spin_unlock() touch the lock.
 */

/*
 * Topic: Programs and users
 * Which kinds of program could lock in v5.1, and by whom they are loaded.
 */

/*
 * Topic: System calls
 * What user space, and helpers, do to elements with a lock: BPF_F_LOCK came with it.
 */

/*
 * Topic: Running programs
 * What the lock promises when programs run; asked by tests on several CPUs.
 */

/*
 * Topic: Later programs, calls and places
 * What later kernels brought, and what they ask of the lock there.
 */

/*
 * Topic: Allocated objects
 * Since v6.2 a program can allocate objects, with a lock in them.
 */

/*
 * Topic: Lists and trees
 * Since v6.2 a lock can guard a list of allocated objects, since v6.3 a tree.
 */

/*
 * Topic: res_spin_lock
 * Since v6.15 there is a lock that fails where it would deadlock or take too long.
 */
