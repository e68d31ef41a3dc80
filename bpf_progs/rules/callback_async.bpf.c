// SPDX-License-Identifier: GPL-2.0-only
/*
 * Callbacks that run later: of a timer and of a work queue. Nobody called them when they run, so each
 * must leave with the locks it came with, none; and their value is the map's, which has an identity.
 *
 * libbpf only: bcc knows no callbacks.
 */
#include "spinlock.h"

struct timed {
	struct bpf_spin_lock lock;
	__u32 value;
	struct bpf_timer timer;
};

MAP(ARRAY, timed, __u32, struct timed, 1)

/*
 * Rule: A callback that runs later begins and ends without a lock
 * Topic: Later programs, calls and places
 * Timers and work queues call back from outside any program. The verifier walks such a callback as
 * it walks a program, on its own; to set it is a call like any other, hence not under the lock.
 * commit b00628b1c7d5 ("bpf: Introduce bpf timers.") (in v5.15)
 * commit d56b63cf0c0f ("bpf: add support for bpf_wq user type") (in v6.10)
 * commit d0d78c1df9b1 ("bpf: Allow locking bpf_spin_lock global variables") (in v6.2)
 */

static int timer_counts(void *map, __u32 *key, struct timed *t)
{
	bpf_spin_lock(&t->lock);
	t->value++;
	bpf_spin_unlock(&t->lock);
	return 0;
}

static int timer_keeps_lock(void *map, __u32 *key, struct timed *t)
{
	bpf_spin_lock(&t->lock);
	t->value++;
	return 0;
}

static int timer_unlocks(void *map, __u32 *key, struct timed *t)
{
	bpf_spin_unlock(&t->lock);
	return 0;
}

static int timer_calls_before_lock(void *map, __u32 *key, struct timed *t)
{
	__u64 now = bpf_ktime_get_ns();

	bpf_spin_lock(&t->lock);
	t->value += !!now;
	bpf_spin_unlock(&t->lock);
	return 0;
}

static int timer_calls_under_lock(void *map, __u32 *key, struct timed *t)
{
	bpf_spin_lock(&t->lock);
	t->value += !!bpf_ktime_get_ns();
	bpf_spin_unlock(&t->lock);
	return 0;
}

#define SET_TIMER(callback)                            \
	__u32 key = 0;                                 \
	struct timed *t = map_lookup(timed, &key);     \
						       \
	if (!t)                                        \
		return 0;                              \
	bpf_timer_init(&t->timer, &timed, 0);          \
	bpf_timer_set_callback(&t->timer, callback);   \
	return 1;

/*
 * Up to v6.1 the value had no identity, as that of bpf_for_each_map_elem(): every unlock is refused
 * there, so that two refusals below have nothing to say of it. What they need is v6.2's.
 */
SEC("tc") __rule("A callback that runs later begins and ends without a lock") __loader(libbpf)
__needs(BPF_FUNC_timer_init, "5.15") __known_bug("d0d78c1df9b1", "<6.2") __success __retval(1)
int timer_callback_locks_and_unlocks(struct __sk_buff *skb)
{
	SET_TIMER(timer_counts)
}

SEC("tc") __rule("A callback that runs later begins and ends without a lock") __loader(libbpf)
__needs(BPF_FUNC_timer_init, "5.15") __known_bug("d0d78c1df9b1", "<6.2")
__twin(timer_callback_locks_and_unlocks) __refused(missing_unlock)
int timer_callback_returns_locked(struct __sk_buff *skb)
{
	SET_TIMER(timer_keeps_lock)
}

SEC("tc") __rule("A callback that runs later begins and ends without a lock") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(timer_callback_locks_and_unlocks)
__refused(unlock_without_lock)
int timer_callback_unlocks(struct __sk_buff *skb)
{
	SET_TIMER(timer_unlocks)
}

SEC("tc") __rule("A callback that runs later begins and ends without a lock") __loader(libbpf)
__needs(BPF_FUNC_timer_init, "5.15") __known_bug("d0d78c1df9b1", "<6.2") __success __retval(1)
int timer_callback_calls_before_lock(struct __sk_buff *skb)
{
	SET_TIMER(timer_calls_before_lock)
}

SEC("tc") __rule("A callback that runs later begins and ends without a lock") __loader(libbpf)
__needs(bpf_obj_new_impl, "6.2") __twin(timer_callback_calls_before_lock) __refused(call_under_lock)
int timer_callback_calls_under_lock(struct __sk_buff *skb)
{
	SET_TIMER(timer_calls_under_lock)
}

static int timer_does_nothing(void *map, __u32 *key, struct timed *t)
{
	return 0;
}

SEC("tc") __rule("A callback that runs later begins and ends without a lock") __loader(libbpf)
__needs(BPF_FUNC_timer_init, "5.15") __success __retval(1)
int set_timer_before_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct timed *t = map_lookup(timed, &key);

	if (!t)
		return 0;
	bpf_timer_init(&t->timer, &timed, 0);
	bpf_timer_set_callback(&t->timer, timer_does_nothing);
	bpf_spin_lock(&t->lock);
	t->value++;
	bpf_spin_unlock(&t->lock);
	return t->value;
}

SEC("tc") __rule("A callback that runs later begins and ends without a lock") __loader(libbpf)
__needs(BPF_FUNC_timer_init, "5.15") __twin(set_timer_before_lock) __refused(call_under_lock)
int set_timer_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct timed *t = map_lookup(timed, &key);

	if (!t)
		return 0;
	bpf_timer_init(&t->timer, &timed, 0);
	bpf_spin_lock(&t->lock);
	t->value++;
	bpf_timer_set_callback(&t->timer, timer_does_nothing);
	bpf_spin_unlock(&t->lock);
	return t->value;
}

#if UNIT(work)
struct worked {
	struct bpf_spin_lock lock;
	__u32 value;
	struct bpf_wq work;
};

MAP(ARRAY, worked, __u32, struct worked, 1)

extern int bpf_wq_init(struct bpf_wq *work, void *map, unsigned int flags) __weak __ksym;
extern int bpf_wq_set_callback(struct bpf_wq *work, int (callback)(void *, int *, void *),
			       unsigned int flags) __weak __ksym;
extern int bpf_wq_set_callback_impl(struct bpf_wq *work, int (callback)(void *, int *, void *),
				    unsigned int flags, void *program) __weak __ksym;

static int work_counts(void *map, int *key, void *value)
{
	struct worked *w = value;

	bpf_spin_lock(&w->lock);
	w->value++;
	bpf_spin_unlock(&w->lock);
	return 0;
}

static int work_keeps_lock(void *map, int *key, void *value)
{
	struct worked *w = value;

	bpf_spin_lock(&w->lock);
	w->value++;
	return 0;
}

static int work_calls_under_lock(void *map, int *key, void *value)
{
	struct worked *w = value;

	bpf_spin_lock(&w->lock);
	w->value += !!bpf_ktime_get_ns();
	bpf_spin_unlock(&w->lock);
	return 0;
}

#define SET_WORK(callback)                                       \
	__u32 key = 0;                                           \
	struct worked *w = map_lookup(worked, &key);             \
								 \
	if (!w)                                                  \
		return 0;                                        \
	bpf_wq_init(&w->work, &worked, 0);                       \
	if (bpf_ksym_exists(bpf_wq_set_callback))                \
		bpf_wq_set_callback(&w->work, callback, 0);      \
	else /* up to v6.19 */                                   \
		bpf_wq_set_callback_impl(&w->work, callback, 0, 0); \
	return 1;

SEC("tc") __rule("A callback that runs later begins and ends without a lock") __loader(libbpf)
__needs(bpf_wq_init, "6.10") __success __retval(1)
int work_callback_locks_and_unlocks(struct __sk_buff *skb)
{
	SET_WORK(work_counts)
}

SEC("tc") __rule("A callback that runs later begins and ends without a lock") __loader(libbpf)
__needs(bpf_wq_init, "6.10") __twin(work_callback_locks_and_unlocks) __refused(missing_unlock)
int work_callback_returns_locked(struct __sk_buff *skb)
{
	SET_WORK(work_keeps_lock)
}

SEC("tc") __rule("A callback that runs later begins and ends without a lock") __loader(libbpf)
__needs(bpf_wq_init, "6.10") __twin(work_callback_locks_and_unlocks) __refused(call_under_lock)
int work_callback_calls_under_lock(struct __sk_buff *skb)
{
	SET_WORK(work_calls_under_lock)
}
#endif
