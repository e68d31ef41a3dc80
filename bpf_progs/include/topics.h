/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The chapters of docs/rules.md, in their order: first the restrictions of the lock's first kernel,
 * then what later kernels added. There is no code here: no program includes this file.
 */

/*
 * Topic: Lock and unlock
 * The rules of the lock's first kernel, v5.1: a program unlocks every lock that it takes, once, and
 * takes no second one meanwhile.
 */

/*
 * Topic: Under the lock
 * In v5.1 a program could not do these things while it held the lock. Later kernels made exceptions.
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
 * The program types that could lock in v5.1, and the users who may load them.
 */

/*
 * Topic: System calls
 * How user space and helpers access elements with a lock, with and without BPF_F_LOCK.
 */

/*
 * Topic: Running programs
 * The guarantees of the lock at run time, tested on several CPUs.
 */

/*
 * Topic: Later programs, calls and places
 * Features of later kernels, and their rules for the lock.
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
 * Since v6.15 there is a lock that returns an error instead of a deadlock or too long a wait.
 */
