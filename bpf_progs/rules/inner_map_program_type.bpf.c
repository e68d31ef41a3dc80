// SPDX-License-Identifier: GPL-2.0-only
/*
 * Locks in the values of inner maps, in the kinds of program that may not lock. The verifier looks at
 * the maps that a program names, and an outer map has no lock: what its inner maps have is not asked.
 * Found by `spinlock fuzz`.
 *
 * libbpf only: bcc leaves it to Python to put inner maps into an outer one.
 */
#include "kfuncs.h"

struct no_lock {
	__u32 other;
	__u32 value;
};

struct res_counter {
	struct bpf_res_spin_lock lock;
	__u32 value;
};

#define INNER_MAP(outer_type, name, value_type)            \
	struct name##_inner {                              \
		__uint(type, BPF_MAP_TYPE_ARRAY);          \
		__uint(max_entries, 1);                    \
		__type(key, __u32);                        \
		__type(value, value_type);                 \
	} name##_first SEC(".maps");                       \
	struct {                                           \
		__uint(type, BPF_MAP_TYPE_##outer_type);   \
		__uint(max_entries, 1);                    \
		__type(key, __u32);                        \
		__array(values, struct name##_inner);      \
	} name SEC(".maps") = { .values = { &name##_first } };

#define LOOK_UP_INNER(outer, value_type)                      \
	__u32 key = 0;                                        \
	void *inner = bpf_map_lookup_elem(&outer, &key);      \
	value_type *c;                                        \
							      \
	if (!inner)                                           \
		return 0;                                     \
	c = bpf_map_lookup_elem(inner, &key);                 \
	if (!c)                                               \
		return 0;

#define COUNT_UNDER_INNER_LOCK(outer)             \
	LOOK_UP_INNER(outer, struct counter)      \
	bpf_spin_lock(&c->lock);                  \
	c->value++;                               \
	bpf_spin_unlock(&c->lock);                \
	return 0;

#define COUNT_UNDER_INNER_RES_LOCK(outer)         \
	LOOK_UP_INNER(outer, struct res_counter)  \
	if (bpf_res_spin_lock(&c->lock))          \
		return 0;                         \
	c->value++;                               \
	bpf_res_spin_unlock(&c->lock);            \
	return 0;

/* The legal twins: the same with inner maps that have no lock. */
#if UNIT(inner_maps_without_lock)
INNER_MAP(ARRAY_OF_MAPS, plain_maps, struct no_lock)

SEC("socket") __rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__success
int socket_filter_without_inner_lock(void *ctx)
{
	LOOK_UP_INNER(plain_maps, struct no_lock)
	c->value++;
	return 0;
}

SEC("kprobe/do_nanosleep") __rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__success
int kprobe_without_inner_lock(void *ctx)
{
	LOOK_UP_INNER(plain_maps, struct no_lock)
	c->value++;
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_getpid")
__rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__success
int tracepoint_without_inner_lock(void *ctx)
{
	LOOK_UP_INNER(plain_maps, struct no_lock)
	c->value++;
	return 0;
}

SEC("raw_tp/sys_enter") __rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__success
int raw_tracepoint_without_inner_lock(void *ctx)
{
	LOOK_UP_INNER(plain_maps, struct no_lock)
	c->value++;
	return 0;
}

SEC("raw_tp.w/sys_enter") __rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__success
int writable_raw_tracepoint_without_inner_lock(void *ctx)
{
	LOOK_UP_INNER(plain_maps, struct no_lock)
	c->value++;
	return 0;
}

SEC("perf_event") __rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__success
int perf_event_without_inner_lock(void *ctx)
{
	LOOK_UP_INNER(plain_maps, struct no_lock)
	c->value++;
	return 0;
}
#endif

/*
 * There is no fix yet: commit b7ff97925b55 ("bpf: Allow locking bpf_spin_lock in inner map values")
 * (in v6.2) let inner maps have locks, and did not extend the check of the program's type to them.
 */
#if UNIT(array_of_maps)
INNER_MAP(ARRAY_OF_MAPS, array_of_maps, struct counter)

SEC("socket") __rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__twin(socket_filter_without_inner_lock) __known_bug("b7ff97925b55", ">=6.2")
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __refused(socket_filter)
int socket_filter_locks_in_array_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_LOCK(array_of_maps)
}

SEC("kprobe/do_nanosleep") __rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__twin(kprobe_without_inner_lock) __known_bug("b7ff97925b55", ">=6.2")
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __refused(tracing_program)
int kprobe_locks_in_array_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_LOCK(array_of_maps)
}

SEC("tracepoint/syscalls/sys_enter_getpid")
__rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__twin(tracepoint_without_inner_lock) __known_bug("b7ff97925b55", ">=6.2")
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __refused(tracing_program)
int tracepoint_locks_in_array_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_LOCK(array_of_maps)
}

SEC("raw_tp/sys_enter") __rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__twin(raw_tracepoint_without_inner_lock) __known_bug("b7ff97925b55", ">=6.2")
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __refused(tracing_program)
int raw_tracepoint_locks_in_array_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_LOCK(array_of_maps)
}

SEC("raw_tp.w/sys_enter") __rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__twin(writable_raw_tracepoint_without_inner_lock) __known_bug("b7ff97925b55", ">=6.2")
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __refused(tracing_program)
int writable_raw_tracepoint_locks_in_array_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_LOCK(array_of_maps)
}

SEC("perf_event") __rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__twin(perf_event_without_inner_lock) __known_bug("b7ff97925b55", ">=6.2")
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __refused(tracing_program)
int perf_event_locks_in_array_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_LOCK(array_of_maps)
}
#endif

#if UNIT(hash_of_maps)
INNER_MAP(HASH_OF_MAPS, hash_of_maps, struct counter)

SEC("socket") __rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__twin(socket_filter_without_inner_lock) __known_bug("b7ff97925b55", ">=6.2")
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __refused(socket_filter)
int socket_filter_locks_in_hash_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_LOCK(hash_of_maps)
}

SEC("kprobe/do_nanosleep") __rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__twin(kprobe_without_inner_lock) __known_bug("b7ff97925b55", ">=6.2")
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __refused(tracing_program)
int kprobe_locks_in_hash_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_LOCK(hash_of_maps)
}

SEC("tracepoint/syscalls/sys_enter_getpid")
__rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__twin(tracepoint_without_inner_lock) __known_bug("b7ff97925b55", ">=6.2")
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __refused(tracing_program)
int tracepoint_locks_in_hash_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_LOCK(hash_of_maps)
}

SEC("raw_tp/sys_enter") __rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__twin(raw_tracepoint_without_inner_lock) __known_bug("b7ff97925b55", ">=6.2")
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __refused(tracing_program)
int raw_tracepoint_locks_in_hash_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_LOCK(hash_of_maps)
}

SEC("raw_tp.w/sys_enter") __rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__twin(writable_raw_tracepoint_without_inner_lock) __known_bug("b7ff97925b55", ">=6.2")
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __refused(tracing_program)
int writable_raw_tracepoint_locks_in_hash_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_LOCK(hash_of_maps)
}

SEC("perf_event") __rule("Tracing programs and socket filters may not lock") __loader(libbpf)
__twin(perf_event_without_inner_lock) __known_bug("b7ff97925b55", ">=6.2")
__kernel("<6.2") __refused(map_type_without_lock)
__kernel(">=6.2") __refused(tracing_program)
int perf_event_locks_in_hash_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_LOCK(hash_of_maps)
}
#endif

/* The same of the res_spin_lock, which tracing programs may have since v7.3. */
#if UNIT(array_of_maps_of_res_locks)
INNER_MAP(ARRAY_OF_MAPS, res_array_of_maps, struct res_counter)

SEC("socket")
__rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __twin(socket_filter_without_inner_lock)
__known_bug("b7ff97925b55", ">=6.15")
__refused(socket_filter)
int socket_filter_res_locks_in_array_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_RES_LOCK(res_array_of_maps)
}

SEC("kprobe/do_nanosleep")
__rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __twin(kprobe_without_inner_lock)
__known_bug("b7ff97925b55", ">=6.15,<7.3")
__kernel("<7.3") __refused(tracing_program)
__kernel(">=7.3") __success
int kprobe_res_locks_in_array_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_RES_LOCK(res_array_of_maps)
}

SEC("tracepoint/syscalls/sys_enter_getpid")
__rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __twin(tracepoint_without_inner_lock)
__known_bug("b7ff97925b55", ">=6.15,<7.3")
__kernel("<7.3") __refused(tracing_program)
__kernel(">=7.3") __success
int tracepoint_res_locks_in_array_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_RES_LOCK(res_array_of_maps)
}

SEC("raw_tp/sys_enter")
__rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __twin(raw_tracepoint_without_inner_lock)
__known_bug("b7ff97925b55", ">=6.15,<7.3")
__kernel("<7.3") __refused(tracing_program)
__kernel(">=7.3") __success
int raw_tracepoint_res_locks_in_array_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_RES_LOCK(res_array_of_maps)
}

SEC("raw_tp.w/sys_enter")
__rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __twin(writable_raw_tracepoint_without_inner_lock)
__known_bug("b7ff97925b55", ">=6.15,<7.3")
__kernel("<7.3") __refused(tracing_program)
__kernel(">=7.3") __success
int writable_raw_tracepoint_res_locks_in_array_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_RES_LOCK(res_array_of_maps)
}

SEC("perf_event")
__rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __twin(perf_event_without_inner_lock)
__known_bug("b7ff97925b55", ">=6.15,<7.3")
__kernel("<7.3") __refused(tracing_program)
__kernel(">=7.3") __success
int perf_event_res_locks_in_array_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_RES_LOCK(res_array_of_maps)
}
#endif

#if UNIT(hash_of_maps_of_res_locks)
INNER_MAP(HASH_OF_MAPS, res_hash_of_maps, struct res_counter)

SEC("socket")
__rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __twin(socket_filter_without_inner_lock)
__known_bug("b7ff97925b55", ">=6.15")
__refused(socket_filter)
int socket_filter_res_locks_in_hash_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_RES_LOCK(res_hash_of_maps)
}

SEC("kprobe/do_nanosleep")
__rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __twin(kprobe_without_inner_lock)
__known_bug("b7ff97925b55", ">=6.15,<7.3")
__kernel("<7.3") __refused(tracing_program)
__kernel(">=7.3") __success
int kprobe_res_locks_in_hash_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_RES_LOCK(res_hash_of_maps)
}

SEC("tracepoint/syscalls/sys_enter_getpid")
__rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __twin(tracepoint_without_inner_lock)
__known_bug("b7ff97925b55", ">=6.15,<7.3")
__kernel("<7.3") __refused(tracing_program)
__kernel(">=7.3") __success
int tracepoint_res_locks_in_hash_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_RES_LOCK(res_hash_of_maps)
}

SEC("raw_tp/sys_enter")
__rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __twin(raw_tracepoint_without_inner_lock)
__known_bug("b7ff97925b55", ">=6.15,<7.3")
__kernel("<7.3") __refused(tracing_program)
__kernel(">=7.3") __success
int raw_tracepoint_res_locks_in_hash_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_RES_LOCK(res_hash_of_maps)
}

SEC("raw_tp.w/sys_enter")
__rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __twin(writable_raw_tracepoint_without_inner_lock)
__known_bug("b7ff97925b55", ">=6.15,<7.3")
__kernel("<7.3") __refused(tracing_program)
__kernel(">=7.3") __success
int writable_raw_tracepoint_res_locks_in_hash_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_RES_LOCK(res_hash_of_maps)
}

SEC("perf_event")
__rule("No res_spin_lock in a socket filter, nor, before v7.3, in a tracing program")
__loader(libbpf) __needs(bpf_res_spin_lock, "6.15") __twin(perf_event_without_inner_lock)
__known_bug("b7ff97925b55", ">=6.15,<7.3")
__kernel("<7.3") __refused(tracing_program)
__kernel(">=7.3") __success
int perf_event_res_locks_in_hash_of_maps(void *ctx)
{
	COUNT_UNDER_INNER_RES_LOCK(res_hash_of_maps)
}
#endif
