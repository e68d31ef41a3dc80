// SPDX-License-Identifier: GPL-2.0-only
/*
 * State pruning must not forget which lock is held. The verifier does not walk a path again from
 * where it has been in a state that allows as much; a pointer to another element looks like the
 * same to it, unless it compares the identities that lookups gave. So each case here joins two
 * paths that differ in nothing but which element a pointer means: the right one on the path that is
 * walked first, another on the second, which a verifier that forgets takes for walked already.
 */
#include "spinlock.h"
#include "joining_paths.h"

MAP(ARRAY, counters, __u32, struct counter, 2)
MAP(ARRAY, others, __u32, struct counter, 1)

/*
 * Rule: State pruning does not forget which lock is held
 * Topic: Lock and unlock
 * The verifier skips a path when it has walked one like it. Two paths that hold different locks, or
 * on which a pointer means different elements, are not alike, wherever the pointer is kept: in a
 * register, on the stack, in a subprogram's or callback's frame, or over the turns of a loop.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit 7c884339bbff ("bpf: regsafe() must not skip check_ids()") (in v6.2)
 * commit 4ea2bb158bec ("bpf: use check_ids() for active_lock comparison") (in v6.2)
 */

static __always_inline int spilled(struct __sk_buff *skb, int right)
{
	__u32 first = 0, second = 1, mark = skb->mark;
	struct counter *a = map_lookup(counters, &first);
	struct counter *b = map_lookup(counters, &second);
	struct counter *held = a;

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	REPLACE_ON_STACK_IF(mark, held, right ? a : b);
	bpf_spin_unlock(&held->lock);
	return a->value;
}

SEC("tc") __rule("State pruning does not forget which lock is held")
__success __retval(1)
int same_lock_spilled_on_two_paths(struct __sk_buff *skb)
{
	return spilled(skb, 1);
}

SEC("tc") __rule("State pruning does not forget which lock is held")
__known_bug("7c884339bbff", "<6.2")
__twin(same_lock_spilled_on_two_paths) __refused(different_lock)
int other_lock_spilled_on_second_path(struct __sk_buff *skb)
{
	return spilled(skb, 0);
}

static __always_inline int locked_after_join(struct __sk_buff *skb, int right)
{
	__u32 first = 0, second = 1, mark = skb->mark;
	struct counter *a = map_lookup(counters, &first);
	struct counter *b = map_lookup(counters, &second);
	struct counter *taken = a;

	if (!a || !b)
		return 0;
	REPLACE_IF(mark, taken, right ? a : b);
	bpf_spin_lock(&taken->lock);
	a->value++;
	bpf_spin_unlock(&a->lock);
	return a->value;
}

SEC("tc") __rule("State pruning does not forget which lock is held")
__success __retval(1)
int lock_same_on_two_paths(struct __sk_buff *skb)
{
	return locked_after_join(skb, 1);
}

SEC("tc") __rule("State pruning does not forget which lock is held")
__known_bug("7c884339bbff", "<6.2")
__twin(lock_same_on_two_paths) __refused(different_lock)
int lock_of_other_on_second_path(struct __sk_buff *skb)
{
	return locked_after_join(skb, 0);
}

static __always_inline int exchanged(struct __sk_buff *skb, int right)
{
	__u32 first = 0, second = 1, mark = skb->mark;
	struct counter *a = map_lookup(counters, &first);
	struct counter *b = map_lookup(counters, &second);
	struct counter *one = a, *two = b;

	if (!a || !b)
		return 0;
	if (right)
		EXCHANGE_IF(mark, one, two);
	bpf_spin_lock(&one->lock);
	one->value++;
	if (!right)
		EXCHANGE_IF(mark, one, two);
	bpf_spin_unlock(&one->lock);
	return one->value + two->value;
}

SEC("tc") __rule("State pruning does not forget which lock is held")
__success __retval(1)
int pointers_change_places_before_lock(struct __sk_buff *skb)
{
	return exchanged(skb, 1);
}

/*
 * commit 4ea2bb158bec ("bpf: use check_ids() for active_lock comparison") (in v6.2): every identity
 * of the one path answers to one of the other, but not that of the held lock.
 */
SEC("tc") __rule("State pruning does not forget which lock is held")
__known_bug("7c884339bbff", "<6.2")
__twin(pointers_change_places_before_lock) __refused(different_lock)
int pointers_change_places_under_lock(struct __sk_buff *skb)
{
	return exchanged(skb, 0);
}

static __always_inline int two_maps(struct __sk_buff *skb, int right)
{
	__u32 key = 0, mark = skb->mark;
	struct counter *a = map_lookup(counters, &key);
	struct counter *b = map_lookup(others, &key);
	struct counter *held = a;

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	REPLACE_IF(mark, held, right ? a : b);
	bpf_spin_unlock(&held->lock);
	return a->value + b->value;
}

SEC("tc") __rule("State pruning does not forget which lock is held")
__success __retval(1)
int same_map_on_two_paths(struct __sk_buff *skb)
{
	return two_maps(skb, 1);
}

/* The states differ in their map, which was always compared. */
SEC("tc") __rule("State pruning does not forget which lock is held")
__twin(same_map_on_two_paths) __refused(different_lock)
int other_map_on_second_path(struct __sk_buff *skb)
{
	return two_maps(skb, 0);
}

static __always_inline int two_lookups(struct __sk_buff *skb, int right)
{
	__u32 key = 0, mark = skb->mark;
	struct counter *a = map_lookup(counters, &key);
	struct counter *b = map_lookup(counters, &key);
	struct counter *held = a;

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	REPLACE_IF(mark, held, right ? a : b);
	bpf_spin_unlock(&held->lock);
	return b->value;
}

SEC("tc") __rule("State pruning does not forget which lock is held")
__success __retval(1)
int same_lookup_of_key_on_two_paths(struct __sk_buff *skb)
{
	return two_lookups(skb, 1);
}

SEC("tc") __rule("State pruning does not forget which lock is held")
__known_bug("7c884339bbff", "<6.2")
__twin(same_lookup_of_key_on_two_paths) __refused(different_lock)
int other_lookup_of_key_on_second_path(struct __sk_buff *skb)
{
	return two_lookups(skb, 0);
}

static __always_inline int taken_on_branches(struct __sk_buff *skb, int right)
{
	__u32 first = 0, second = 1, mark = skb->mark;
	struct counter *a = map_lookup(counters, &first);
	struct counter *b = map_lookup(counters, &second);

	if (!a || !b)
		return 0;
	if (mark) {
		struct counter *taken = right ? a : b;

		bpf_spin_lock(&taken->lock);
		taken->value += 2;
	} else {
		bpf_spin_lock(&a->lock);
		a->value++;
	}
	asm volatile(EMPTY_JUMPS);
	bpf_spin_unlock(&a->lock);
	return a->value;
}

SEC("tc") __rule("State pruning does not forget which lock is held")
__success __retval(1)
int same_lock_taken_on_two_paths(struct __sk_buff *skb)
{
	return taken_on_branches(skb, 1);
}

/* Here it is the held lock that differs, which was always compared. */
SEC("tc") __rule("State pruning does not forget which lock is held")
__twin(same_lock_taken_on_two_paths) __refused(different_lock)
int other_lock_taken_on_second_path(struct __sk_buff *skb)
{
	return taken_on_branches(skb, 0);
}

/* An element that is looked up anew in every turn is another to the verifier in every turn. */
static __always_inline int turns(struct __sk_buff *skb, int right)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key), *held;
	__u32 i;

	if (!c)
		return 0;
	held = c;
	for (i = 0; i < 3; i++) {
		struct counter *next = map_lookup(counters, &key);

		if (!next)
			return 0;
		bpf_spin_lock(&next->lock);
		next->value++;
		if (right)
			held = next;
		bpf_spin_unlock(&held->lock);
		held = next;
		asm volatile("" : "+r"(i)); /* keeps clang from unrolling the loop */
	}
	return c->value;
}

SEC("tc") __rule("State pruning does not forget which lock is held")
__success __retval(3)
int lookup_lock_unlock_in_each_turn(struct __sk_buff *skb)
{
	return turns(skb, 1);
}

SEC("tc") __rule("State pruning does not forget which lock is held")
__twin(lookup_lock_unlock_in_each_turn) __refused(different_lock)
int unlock_lookup_of_turn_before(struct __sk_buff *skb)
{
	return turns(skb, 0);
}

static __always_inline int bounded_loop(struct __sk_buff *skb, int right)
{
	__u32 first = 0, second = 1, mark = skb->mark;
	struct counter *a = map_lookup(counters, &first);
	struct counter *b = map_lookup(counters, &second);
	struct counter *held = a;
	__u32 i;

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	for (i = 0; i < 3; i++)
		REPLACE_IF(mark & 1 << i, held, right ? a : b);
	bpf_spin_unlock(&held->lock);
	return a->value;
}

SEC("tc") __rule("State pruning does not forget which lock is held")
__success __retval(1)
int same_lock_over_bounded_loop(struct __sk_buff *skb)
{
	return bounded_loop(skb, 1);
}

SEC("tc") __rule("State pruning does not forget which lock is held")
__known_bug("7c884339bbff", "<6.2")
__twin(same_lock_over_bounded_loop) __refused(different_lock)
int other_lock_after_some_turn(struct __sk_buff *skb)
{
	return bounded_loop(skb, 0);
}

#ifndef LOADER_BCC

static __noinline struct counter *choose(struct counter *a, struct counter *b, __u32 mark)
{
	struct counter *chosen = a;

	REPLACE_IF(mark, chosen, b);
	return chosen;
}

static __always_inline int chosen_before_lock(struct __sk_buff *skb, int right)
{
	__u32 first = 0, second = 1, mark = skb->mark;
	struct counter *a = map_lookup(counters, &first);
	struct counter *b = map_lookup(counters, &second);
	struct counter *held;

	if (!a || !b)
		return 0;
	held = choose(a, right ? a : b, mark);
	bpf_spin_lock(&a->lock);
	a->value++;
	bpf_spin_unlock(&held->lock);
	return a->value;
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__success __retval(1)
int static_subprog_chooses_same_before_lock(struct __sk_buff *skb)
{
	return chosen_before_lock(skb, 1);
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__known_bug("7c884339bbff", "<6.2")
__twin(static_subprog_chooses_same_before_lock) __refused(different_lock)
int static_subprog_chooses_other_before_lock(struct __sk_buff *skb)
{
	return chosen_before_lock(skb, 0);
}

static __always_inline int chosen_under_lock(struct __sk_buff *skb, int right)
{
	__u32 first = 0, second = 1, mark = skb->mark;
	struct counter *a = map_lookup(counters, &first);
	struct counter *b = map_lookup(counters, &second);
	struct counter *held;

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	a->value++;
	held = choose(a, right ? a : b, mark);
	bpf_spin_unlock(&held->lock);
	return a->value;
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__twin(static_subprog_chooses_same_before_lock)
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __success __retval(1)
int static_subprog_chooses_same_under_lock(struct __sk_buff *skb)
{
	return chosen_under_lock(skb, 1);
}

/*
 * Under the lock since commit a44b1334aadd ("bpf: Allow calling static subprogs while holding a
 * bpf_spin_lock") (in v6.9), as arenas exist, by whose function's name the kernels are told.
 */
SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(bpf_arena_alloc_pages, "6.9") __twin(static_subprog_chooses_same_under_lock)
__refused(different_lock)
int static_subprog_chooses_other_under_lock(struct __sk_buff *skb)
{
	return chosen_under_lock(skb, 0);
}

static __noinline void lock_one_of(struct counter *a, struct counter *b, __u32 mark)
{
	struct counter *taken = a;

	REPLACE_IF(mark, taken, b);
	bpf_spin_lock(&taken->lock);
}

static __always_inline int taken_by_subprog(struct __sk_buff *skb, int right)
{
	__u32 first = 0, second = 1, mark = skb->mark;
	struct counter *a = map_lookup(counters, &first);
	struct counter *b = map_lookup(counters, &second);

	if (!a || !b)
		return 0;
	lock_one_of(a, right ? a : b, mark);
	a->value++;
	bpf_spin_unlock(&a->lock);
	return a->value;
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__twin(static_subprog_chooses_same_before_lock)
__kernel("<6.9") __refused(missing_unlock)
__kernel(">=6.9") __success __retval(1)
int static_subprog_takes_same_lock(struct __sk_buff *skb)
{
	return taken_by_subprog(skb, 1);
}

/* Which of two it took is known to the subprogram only. */
SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(bpf_arena_alloc_pages, "6.9") __twin(static_subprog_takes_same_lock)
__refused(different_lock)
int static_subprog_takes_one_of_two_locks(struct __sk_buff *skb)
{
	return taken_by_subprog(skb, 0);
}

/* The choice is made in a callback and kept on the stack of its caller. */
struct choice {
	struct counter *chosen;
	struct counter *other;
};

static long choose_in_turn(__u32 index, struct choice *choice)
{
	__u32 odd = bpf_get_prandom_u32() & 1;

	REPLACE_ON_STACK_IF(odd, choice->chosen, choice->other);
	return 0;
}

static __always_inline int chosen_in_callback(struct __sk_buff *skb, int right)
{
	__u32 first = 0, second = 1;
	struct counter *a = map_lookup(counters, &first);
	struct counter *b = map_lookup(counters, &second);
	struct choice choice = {};

	if (!a || !b)
		return 0;
	choice.chosen = a;
	choice.other = right ? a : b;
	bpf_loop(3, choose_in_turn, &choice, 0);
	bpf_spin_lock(&a->lock);
	a->value++;
	bpf_spin_unlock(&choice.chosen->lock);
	return a->value;
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(BPF_FUNC_loop, "5.17") __success __retval(1)
int callback_chooses_same(struct __sk_buff *skb)
{
	return chosen_in_callback(skb, 1);
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__known_bug("7c884339bbff", "<6.2")
__needs(BPF_FUNC_loop, "5.17") __twin(callback_chooses_same) __refused(different_lock)
int callback_chooses_other(struct __sk_buff *skb)
{
	return chosen_in_callback(skb, 0);
}

static long lock_chosen_in_turn(__u32 index, struct choice *choice)
{
	struct counter *taken = choice->chosen, *released = choice->other;

	bpf_spin_lock(&taken->lock);
	taken->value++;
	bpf_spin_unlock(&released->lock);
	choice->chosen = released;
	return 0;
}

static __always_inline int locked_in_callback(struct __sk_buff *skb, int right)
{
	__u32 first = 0, second = 1;
	struct counter *a = map_lookup(counters, &first);
	struct counter *b = map_lookup(counters, &second);
	struct choice choice = {};

	if (!a || !b)
		return 0;
	choice.chosen = a;
	choice.other = right ? a : b;
	bpf_loop(3, lock_chosen_in_turn, &choice, 0);
	return a->value;
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(BPF_FUNC_loop, "5.17") __success __retval(3)
int callback_unlocks_what_it_locked(struct __sk_buff *skb)
{
	return locked_in_callback(skb, 1);
}

/* A lock that was right in the first turn may be wrong in the next. */
SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(BPF_FUNC_loop, "5.17") __twin(callback_unlocks_what_it_locked) __refused(different_lock)
int callback_unlocks_other(struct __sk_buff *skb)
{
	return locked_in_callback(skb, 0);
}

#endif

#if UNIT(second_path)
/*
 * Whether a lock is held at all: on the second path it is not as on the first. bcc's first pass is for the
 * host's processor and knows no such registers.
 */
#define STEP_LOCK "r1 = %[l]\ncall 93\n"
#define STEP_UNLOCK "r1 = %[l]\ncall 94\n"
#define STEPS_IF(condition, lock, count, steps)                      \
	asm volatile(EMPTY_JUMPS                                     \
		     "if %[c] != 0 goto +1\n"                        \
		     "goto +" #count "\n"                            \
		     steps                                           \
		     EMPTY_JUMPS                                     \
		     :                                               \
		     : [c] "r"(condition), [l] "r"(lock)             \
		     : "r0", "r1", "r2", "r3", "r4", "r5", "memory")

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__success __retval(1)
int lock_and_unlock_on_second_path(struct __sk_buff *skb)
{
	__u32 first = 0, mark = skb->mark;
	struct counter *a = map_lookup(counters, &first);

	if (!a)
		return 0;
	STEPS_IF(mark, &a->lock, 4, STEP_LOCK STEP_UNLOCK);
	a->value++;
	return a->value;
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__twin(lock_and_unlock_on_second_path) __refused(missing_unlock)
int lock_on_second_path(struct __sk_buff *skb)
{
	__u32 first = 0, mark = skb->mark;
	struct counter *a = map_lookup(counters, &first);

	if (!a)
		return 0;
	STEPS_IF(mark, &a->lock, 2, STEP_LOCK);
	a->value++;
	return a->value;
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__success __retval(1)
int unlock_and_lock_on_second_path(struct __sk_buff *skb)
{
	__u32 first = 0, mark = skb->mark;
	struct counter *a = map_lookup(counters, &first);

	if (!a)
		return 0;
	bpf_spin_lock(&a->lock);
	STEPS_IF(mark, &a->lock, 4, STEP_UNLOCK STEP_LOCK);
	a->value++;
	bpf_spin_unlock(&a->lock);
	return a->value;
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__twin(unlock_and_lock_on_second_path) __refused(unlock_without_lock)
int unlock_on_second_path(struct __sk_buff *skb)
{
	__u32 first = 0, mark = skb->mark;
	struct counter *a = map_lookup(counters, &first);

	if (!a)
		return 0;
	bpf_spin_lock(&a->lock);
	STEPS_IF(mark, &a->lock, 2, STEP_UNLOCK);
	a->value++;
	bpf_spin_unlock(&a->lock);
	return a->value;
}
#endif

#if UNIT(global_locks)
/*
 * Locks that are variables have no identity but their section: the registers of both paths are the
 * same, and of what is held only the map differs. Locks are found there since commit
 * 68134668c17f ("bpf: Add map side support for bpf timers.") (in v5.15). Until commit d0d78c1df9b1
 * ("bpf: Allow locking bpf_spin_lock global variables") (in v6.2) each load of an address was taken
 * for that of another lock, so each is loaded once. libbpf only: bcc knows no variables.
 */
static struct bpf_spin_lock lock_a SEC(".bss.a");
static struct bpf_spin_lock lock_b SEC(".bss.b");

#define UNLOCK_WHAT_IS_LOCKED_ON_BRANCHES(condition, second)            \
	asm volatile("r6 = %[a] ll\n"                                   \
		     second                                             \
		     EMPTY_JUMPS                                        \
		     "if %[c] != 0 goto +3\n"                           \
		     "r1 = r6\n"                                        \
		     "call 93\n"                                        \
		     "goto +2\n"                                        \
		     "r1 = r7\n"                                        \
		     "call 93\n"                                        \
		     EMPTY_JUMPS                                        \
		     "r1 = r6\n"                                        \
		     "call 94\n"                                        \
		     :                                                  \
		     : [c] "r"(condition), [a] "i"(&lock_a), [b] "i"(&lock_b) \
		     : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "memory")

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(BPF_FUNC_timer_init, "5.15") __success __retval(1)
int same_global_lock_taken_on_two_paths(struct __sk_buff *skb)
{
	__u32 mark = skb->mark;

	UNLOCK_WHAT_IS_LOCKED_ON_BRANCHES(mark, "r7 = r6\n");
	return 1;
}

SEC("tc") __rule("State pruning does not forget which lock is held") __loader(libbpf)
__needs(BPF_FUNC_timer_init, "5.15") __twin(same_global_lock_taken_on_two_paths)
__refused(different_lock)
int other_global_lock_taken_on_second_path(struct __sk_buff *skb)
{
	__u32 mark = skb->mark;

	UNLOCK_WHAT_IS_LOCKED_ON_BRANCHES(mark, "r7 = %[b] ll\n");
	return 1;
}
#endif
