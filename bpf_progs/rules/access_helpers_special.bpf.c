// SPDX-License-Identifier: GPL-2.0-only
/*
 * Helpers that only some programs have, or that take a value's address by another way than most:
 * none may touch the lock.
 */
#include "spinlock.h"

struct record {
	__u64 before;
	struct bpf_spin_lock lock;
	__u32 after;
	__u64 more;
};

MAP(ARRAY, records, __u32, struct record, 1)

#if UNIT(sysctl)
/* commit d7a4cb9b6705 ("bpf: Introduce bpf_strtol and bpf_strtoul helpers") (in v5.2). */
SEC("cgroup/sysctl") __rule("The lock field is opaque to helpers") __loader(libbpf) __success
int text_to_number_beside_lock(struct bpf_sysctl *ctx)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_strtol((char *)&r->after, 4, 0, (long *)&r->more);
	return 1;
}

SEC("cgroup/sysctl") __rule("The lock field is opaque to helpers") __loader(libbpf)
__twin(text_to_number_beside_lock) __refused(lock_accessed)
int lock_to_number(struct bpf_sysctl *ctx)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_strtol((char *)&r->lock, 4, 0, (long *)&r->more);
	return 1;
}

SEC("cgroup/sysctl") __rule("The lock field is opaque to helpers") __loader(libbpf)
__twin(text_to_number_beside_lock) __refused(lock_accessed)
int number_into_lock(struct bpf_sysctl *ctx)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_strtol((char *)&r->more, 4, 0, (long *)&r->lock);
	return 1;
}

SEC("cgroup/sysctl") __rule("The lock field is opaque to helpers") __loader(libbpf) __success
int sysctl_name_beside_lock(struct bpf_sysctl *ctx)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_sysctl_get_name(ctx, (char *)&r->more, 8, 0);
	return 1;
}

SEC("cgroup/sysctl") __rule("The lock field is opaque to helpers") __loader(libbpf)
__twin(sysctl_name_beside_lock) __refused(lock_accessed)
int sysctl_name_into_lock(struct bpf_sysctl *ctx)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_sysctl_get_name(ctx, (char *)&r->lock, 8, 0);
	return 1;
}
#endif

/* A program that runs for a task. It is only loaded. */
#if UNIT(task)
SEC("fentry/bpf_fentry_test1") __rule("The lock field is opaque to helpers") __loader(libbpf)
__success
int command_name_beside_lock(unsigned long long *ctx)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_get_current_comm(&r->more, 8);
	return 0;
}

SEC("fentry/bpf_fentry_test1") __rule("The lock field is opaque to helpers") __loader(libbpf)
__twin(command_name_beside_lock) __refused(lock_accessed)
int command_name_into_lock(unsigned long long *ctx)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_get_current_comm(&r->lock, 8);
	return 0;
}
#endif

/* commit 263ae152e962 ("bpf: Add bpf_dynptr_from_mem for local dynptrs") (in v5.19). */
#if UNIT(dynptr)
SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__needs(BPF_FUNC_dynptr_from_mem, "5.19") __success __retval(0)
int dynptr_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);
	struct bpf_dynptr memory;

	if (!r)
		return -1;
	return bpf_dynptr_from_mem(&r->more, 8, 0, &memory);
}

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__needs(BPF_FUNC_dynptr_from_mem, "5.19") __twin(dynptr_beside_lock) __refused(lock_accessed)
int dynptr_over_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);
	struct bpf_dynptr memory;

	if (!r)
		return -1;
	return bpf_dynptr_from_mem(&r->lock, 8, 0, &memory);
}
#endif

/* commit 66e3a13e7c2c ("bpf: Add bpf_dynptr_slice and bpf_dynptr_slice_rdwr") (in v6.4). */
#if UNIT(function)
extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags, struct bpf_dynptr *ptr) __ksym;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *ptr, __u32 offset, void *buffer,
			      __u32 size) __ksym;

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__needs(bpf_dynptr_slice, "6.4") __success __retval(1)
__description("nor to the kernel's functions")
int function_s_buffer_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);
	struct bpf_dynptr packet;

	if (!r || bpf_dynptr_from_skb(skb, 0, &packet))
		return 0;
	return bpf_dynptr_slice(&packet, 0, &r->more, 8) ? 1 : 0;
}

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__needs(bpf_dynptr_slice, "6.4") __twin(function_s_buffer_beside_lock) __refused(lock_accessed)
int function_s_buffer_over_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);
	struct bpf_dynptr packet;

	if (!r || bpf_dynptr_from_skb(skb, 0, &packet))
		return 0;
	return bpf_dynptr_slice(&packet, 0, &r->lock, 8) ? 1 : 0;
}
#endif
