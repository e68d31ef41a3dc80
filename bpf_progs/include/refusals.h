/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Refusals for __refused() that cases of several files share. A refusal of only one file is declared in
 * that file, beside its cases. There is no code here: no program includes this file.
 */

/*
 * Refusal: call_under_lock
 * EINVAL "function calls are not allowed while holding a lock"
 * Most calls of helpers, functions of the kernel and subprograms where a lock is held. A second
 * bpf_spin_lock() is such a call.
 */

/*
 * Refusal: global_call_under_lock
 * EINVAL "global function calls are not allowed while holding a lock"
 *	"use static function instead"
 * A global function is verified by itself, where the lock is not held.
 */

/*
 * Refusal: ld_abs_under_lock
 * EINVAL "BPF_LD_[ABS|IND] cannot be used inside bpf_spin_lock-ed region"
 * The load returns from the program where the packet is too short.
 */

/*
 * Refusal: missing_unlock
 * EINVAL "bpf_spin_unlock is missing"
 * since v6.13: EINVAL "BPF_EXIT instruction" "cannot be used inside bpf_spin_lock-ed region"
 * The program returns with the lock held. v6.14 put "in main prog" between the two new texts.
 * commit d402755ced2e ("bpf: Unify resource leak checks") (in v6.13)
 */

/*
 * Refusal: unlock_without_lock
 * EACCES "bpf_spin_unlock without taking a lock"
 * since v6.2: EINVAL "bpf_spin_unlock without taking a lock"
 * bpf_spin_unlock() where no lock is held.
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 */

/*
 * Refusal: different_lock
 * EACCES "bpf_spin_unlock of different lock"
 * since v6.2: EINVAL "bpf_spin_unlock of different lock"
 * bpf_spin_unlock() of another lock than the held one.
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 */

/*
 * Refusal: lock_accessed
 * EACCES "bpf_spin_lock cannot be accessed directly by load/store"
 * A load, store or helper that touches a byte of the lock in a map's value.
 */

/*
 * Refusal: no_lock_in_value
 * EACCES "doesn't have 'struct bpf_spin_lock'"
 * since v6.2: EINVAL "has no valid bpf_spin_lock"
 * The kernel found no lock in the type of the map's value.
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 */

/*
 * Refusal: lock_mangled
 * EACCES "is not a struct type or bpf_spin_lock is mangled"
 * The kernel found no sound lock in the map's value. Since v6.2 that is no_lock_in_value.
 */

/*
 * Refusal: two_locks_in_value
 * EACCES "has more than one 'struct bpf_spin_lock'"
 * Until v6.2; later kernels refuse the BTF or find no lock.
 */

/*
 * Refusal: map_without_btf
 * EACCES "has to have BTF in order to use bpf_spin_lock"
 * since v6.2: EINVAL "has to have BTF in order to use bpf_spin_lock"
 * The kernel knows the lock by the type of the map's value.
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 */

/*
 * Refusal: unchecked_value
 * EACCES "type=map_value_or_null expected=map_value"
 * The result of a lookup that was not compared with NULL.
 */

/*
 * Refusal: map_type_without_lock
 * map_create ENOTSUPP
 * since v6.2: map_create EOPNOTSUPP
 * A map type that may not hold a lock.
 * commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)
 */

/*
 * Refusal: tracing_program
 * EINVAL "tracing progs cannot use bpf_spin_lock yet"
 * A kind of program that may interrupt the holder of a lock.
 */

/*
 * Refusal: socket_filter
 * EINVAL "socket filter progs cannot use bpf_spin_lock yet"
 * A socket filter. Until v5.11 it had the text of tracing programs.
 */

/*
 * Refusal: sleepable_program
 * EINVAL "sleepable progs cannot use bpf_spin_lock yet"
 * A program that may sleep; since v6.6 it may lock.
 */

/*
 * Refusal: unknown_func
 * EINVAL "unknown func bpf_spin_lock#93"
 * A kind of program that is not offered the helper.
 */

/*
 * Refusal: other_allocation
 * EINVAL "held lock and object are not in the same allocation"
 * A list or tree is changed under a lock that is not the one beside it.
 */

/*
 * Refusal: list_in_tracing_program
 * EINVAL "tracing progs cannot use bpf_{list_head,rb_root} yet"
 * A kind of program that may interrupt the holder of the list's or tree's lock.
 */

/*
 * Refusal: pointer_ended
 * EACCES "invalid mem access 'scalar'"
 * A pointer into a list or tree is a number once its section has ended.
 */

/*
 * Refusal: not_an_object
 * EINVAL "expected pointer to allocated object"
 * A function for objects is given something else.
 */

/*
 * Refusal: no_res_spin_lock_in_value
 * EINVAL "has no valid bpf_res_spin_lock"
 * The kernel found no res_spin_lock in the type of the map's value.
 */

/*
 * Refusal: different_res_spin_lock
 * EINVAL "bpf_res_spin_unlock of different lock"
 * bpf_res_spin_unlock() of another lock than the one that was taken last.
 */

/*
 * Refusal: irq_state_out_of_order
 * EACCES "cannot restore irq state out of order"
 * The flags of the lock that was taken last are restored first.
 */

/*
 * Refusal: res_unlock_out_of_order
 * EINVAL "bpf_res_spin_unlock cannot be out of order"
 * The lock that was taken last is released first.
 */

/*
 * Refusal: lock_of_list_not_held
 * EINVAL "must be held for bpf_list_head"
 * A list is changed without its lock, which is at an offset of the compiler's choice.
 */

/*
 * Refusal: variable_object_offset
 * EACCES "variable ptr_ access var_off=(0x0; 0x8) disallowed"
 * A place in an allocated object that is known only when the program runs.
 */

/*
 * Refusal: not_value_or_object
 * EINVAL "expected pointer to map value or allocated object"
 * A list head or tree root that is in neither.
 */

/*
 * Refusal: unchecked_node
 * EACCES "invalid mem access 'ptr_or_null_'"
 * What a function of lists and trees returned and was not compared with NULL.
 */

/*
 * Refusal: no_lock_in_object
 * EINVAL "local 'kptr' has no valid bpf_spin_lock"
 * An allocated object has no lock at the place that is locked.
 */

/*
 * Refusal: head_accessed
 * EACCES "bpf_list_head cannot be accessed directly by load/store"
 * A load or store that touches a list head in a map's value.
 */

/*
 * Refusal: unreleased_reference
 * EINVAL "Unreleased reference"
 * The program ends and owns an object still.
 */
