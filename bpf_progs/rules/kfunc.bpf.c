// SPDX-License-Identifier: GPL-2.0-only
/*
 * Kernel functions under the lock: the verifier has a list of those that may be called there, and
 * since commit ed3b3093b624 ("bpf: Add KF_SPINLOCK_SAFE flag for kfuncs under bpf_spin_lock") (in
 * v7.3) a flag of theirs instead. Those of lists, trees, iterators and res_spin_locks have files of
 * their own.
 *
 * libbpf only: bcc calls no kernel functions.
 */
#include "spinlock.h"

#define KFUNC extern __ksym __weak

MAP(ARRAY, counters, __u32, struct counter, 1)

/*
 * Rule: Only some kernel functions are called under the lock
 * Topic: Under the lock
 * A kernel function may sleep, take locks, or leave interrupts and preemption in another state than
 * it found them in. Those that do nothing of the kind were let in one after the other, by hand.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 * commit 39f77533b6c1 ("bpf: Allow calls to arena functions while holding spinlocks") (in v7.0)
 * commit ed3b3093b624 ("bpf: Add KF_SPINLOCK_SAFE flag for kfuncs under bpf_spin_lock") (in v7.3)
 */

/* Functions that never were on the list: the same call before the lock and under it. */
#define BEFORE_LOCK(call)                                \
	__u32 key = 0;                                   \
	struct counter *c = map_lookup(counters, &key);  \
							 \
	if (!c)                                          \
		return 0;                                \
	call;                                            \
	bpf_spin_lock(&c->lock);                         \
	c->value++;                                      \
	bpf_spin_unlock(&c->lock);                       \
	return c->value;

#define UNDER_LOCK(call)                                 \
	__u32 key = 0;                                   \
	struct counter *c = map_lookup(counters, &key);  \
							 \
	if (!c)                                          \
		return 0;                                \
	bpf_spin_lock(&c->lock);                         \
	c->value++;                                      \
	call;                                            \
	bpf_spin_unlock(&c->lock);                       \
	return c->value;

KFUNC void *bpf_cast_to_kern_ctx(void *context);
KFUNC void *bpf_rdonly_cast(const void *object, __u32 type);
KFUNC void bpf_local_irq_save(unsigned long *flags);
KFUNC void bpf_local_irq_restore(unsigned long *flags);
KFUNC int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags, struct bpf_dynptr *dynptr);

struct bpf_iter_bits {
	__u64 opaque[2];
} __attribute__((aligned(8)));
KFUNC int bpf_iter_bits_new(struct bpf_iter_bits *it, const __u64 *words, __u32 count);
KFUNC int *bpf_iter_bits_next(struct bpf_iter_bits *it);
KFUNC void bpf_iter_bits_destroy(struct bpf_iter_bits *it);

/* commit fd264ca02094 ("bpf: Add a kfunc to type cast from bpf uapi ctx to kernel ctx") (in v6.2) */
SEC("tc") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_cast_to_kern_ctx, "6.2") __success __retval(1)
int cast_context_before_lock(struct __sk_buff *skb)
{
	BEFORE_LOCK(bpf_cast_to_kern_ctx(skb))
}

SEC("tc") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_cast_to_kern_ctx, "6.2") __twin(cast_context_before_lock)
__description("the call is no call in the end, but an assignment") __refused(call_under_lock)
int cast_context_under_lock(struct __sk_buff *skb)
{
	UNDER_LOCK(bpf_cast_to_kern_ctx(skb))
}

/* The type is given by its id in the kernel's BTF, which libbpf fills in. */
struct sk_buff {
	__u32 len;
} __attribute__((preserve_access_index));
#define CAST_TO_PACKET(object) \
	bpf_rdonly_cast(object, __builtin_btf_type_id(*(struct sk_buff *)0, BPF_TYPE_ID_TARGET))
#define BPF_TYPE_ID_TARGET 1

/* commit a35b9af4ec2c ("bpf: Add a kfunc for generic type cast") (in v6.2) */
SEC("tc") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_rdonly_cast, "6.2") __success __retval(1)
int cast_to_type_before_lock(struct __sk_buff *skb)
{
	BEFORE_LOCK(CAST_TO_PACKET(skb))
}

SEC("tc") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_rdonly_cast, "6.2") __twin(cast_to_type_before_lock)
__description("nor is this call one in the end") __refused(call_under_lock)
int cast_to_type_under_lock(struct __sk_buff *skb)
{
	UNDER_LOCK(CAST_TO_PACKET(skb))
}

SEC("tc") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_local_irq_save, "6.14") __success __retval(1)
int lock_with_interrupts_off(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	unsigned long flags;

	if (!c)
		return 0;
	bpf_local_irq_save(&flags);
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	bpf_local_irq_restore(&flags);
	return c->value;
}

SEC("tc") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_local_irq_save, "6.14") __twin(lock_with_interrupts_off) __refused(call_under_lock)
int interrupts_off_under_lock(struct __sk_buff *skb)
{
	unsigned long flags;

	UNDER_LOCK(bpf_local_irq_save(&flags); bpf_local_irq_restore(&flags))
}

SEC("tc") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_dynptr_from_skb, "6.4") __success __retval(1)
int dynptr_of_packet_before_lock(struct __sk_buff *skb)
{
	struct bpf_dynptr dynptr;

	BEFORE_LOCK(bpf_dynptr_from_skb(skb, 0, &dynptr))
}

SEC("tc") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_dynptr_from_skb, "6.4") __twin(dynptr_of_packet_before_lock) __refused(call_under_lock)
int dynptr_of_packet_under_lock(struct __sk_buff *skb)
{
	struct bpf_dynptr dynptr;

	UNDER_LOCK(bpf_dynptr_from_skb(skb, 0, &dynptr))
}

/* An iterator, but not that of numbers. */
#define COUNT_BITS                             \
	bpf_iter_bits_new(&it, &word, 1);      \
	while (bpf_iter_bits_next(&it))        \
		bits++;                        \
	bpf_iter_bits_destroy(&it)

SEC("tc") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_iter_bits_new, "6.11") __success __retval(1)
int bits_iterator_before_lock(struct __sk_buff *skb)
{
	struct bpf_iter_bits it;
	__u64 word = 5;
	__u32 bits = 0;

	BEFORE_LOCK(COUNT_BITS)
}

SEC("tc") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_iter_bits_new, "6.11") __twin(bits_iterator_before_lock) __refused(call_under_lock)
int bits_iterator_under_lock(struct __sk_buff *skb)
{
	struct bpf_iter_bits it;
	__u64 word = 5;
	__u32 bits = 0;

	UNDER_LOCK(COUNT_BITS)
}

#if UNIT(arena)
/* Pages that programs and user space share. Before v7.0 these functions slept. */
struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 8);
} arena SEC(".maps");

KFUNC void *bpf_arena_alloc_pages(void *map, void *address, __u32 pages, int node, __u64 flags);
KFUNC void bpf_arena_free_pages(void *map, void *pages, __u32 count);
KFUNC int bpf_arena_reserve_pages(void *map, void *pages, __u32 count);

#define ANY_NODE (-1)

SEC("syscall") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_arena_alloc_pages, "6.9") __success
int arena_pages_before_lock(void *context)
{
	void *pages;

	BEFORE_LOCK(pages = bpf_arena_alloc_pages(&arena, 0, 1, ANY_NODE, 0);
		    bpf_arena_free_pages(&arena, pages, 1))
}

SEC("syscall") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_arena_alloc_pages, "6.9") __twin(arena_pages_before_lock)
__kernel("<7.0") __refused(call_under_lock)
__kernel(">=7.0") __success
int arena_alloc_under_lock(void *context)
{
	UNDER_LOCK(bpf_arena_alloc_pages(&arena, 0, 1, ANY_NODE, 0))
}

SEC("syscall") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_arena_alloc_pages, "6.9") __twin(arena_pages_before_lock)
__kernel("<7.0") __refused(call_under_lock)
__kernel(">=7.0") __success
int arena_free_under_lock(void *context)
{
	void *pages = bpf_arena_alloc_pages(&arena, 0, 1, ANY_NODE, 0);

	UNDER_LOCK(bpf_arena_free_pages(&arena, pages, 1))
}

SEC("syscall") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_arena_reserve_pages, "6.17") __success
int arena_reserve_before_lock(void *context)
{
	void *pages = bpf_arena_alloc_pages(&arena, 0, 1, ANY_NODE, 0);

	bpf_arena_free_pages(&arena, pages, 1);
	BEFORE_LOCK(bpf_arena_reserve_pages(&arena, pages, 1))
}

SEC("syscall") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_arena_reserve_pages, "6.17") __twin(arena_reserve_before_lock)
__kernel("<7.0") __refused(call_under_lock)
__kernel(">=7.0") __success
int arena_reserve_under_lock(void *context)
{
	void *pages = bpf_arena_alloc_pages(&arena, 0, 1, ANY_NODE, 0);

	bpf_arena_free_pages(&arena, pages, 1);
	UNDER_LOCK(bpf_arena_reserve_pages(&arena, pages, 1))
}
#endif

#if UNIT(streams)
/* A program's own output. Text goes through a function that had another name in v6.18 and v6.19. */
KFUNC int bpf_stream_print_stack(int stream);
KFUNC int bpf_stream_vprintk(int stream, const char *format, const void *arguments, __u32 size);
KFUNC int bpf_stream_vprintk_impl(int stream, const char *format, const void *arguments, __u32 size,
				  void *program);

#define STDOUT 1
static const char word[] = "word\n";

SEC("tc") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_stream_print_stack, "7.0") __success __retval(1)
int print_stack_before_lock(struct __sk_buff *skb)
{
	BEFORE_LOCK(bpf_stream_print_stack(STDOUT))
}

SEC("tc") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_stream_print_stack, "7.0") __success __retval(1)
int print_stack_under_lock(struct __sk_buff *skb)
{
	UNDER_LOCK(bpf_stream_print_stack(STDOUT))
}

#define PRINT_TEXT(stream, format, arguments)                                     \
	do {                                                                      \
		if (bpf_ksym_exists(bpf_stream_print_stack))                      \
			bpf_stream_vprintk(stream, format, arguments, 0);         \
		else                                                              \
			bpf_stream_vprintk_impl(stream, format, arguments, 0, 0); \
	} while (0)

SEC("tc") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_stream_vprintk_impl, "6.18") __success __retval(1)
int print_text_before_lock(struct __sk_buff *skb)
{
	__u64 arguments[1] = {};

	BEFORE_LOCK(PRINT_TEXT(STDOUT, word, arguments))
}

SEC("tc") __rule("Only some kernel functions are called under the lock") __loader(libbpf)
__needs(bpf_stream_vprintk_impl, "6.18") __twin(print_text_before_lock)
__kernel("<7.0") __refused(call_under_lock)
__kernel(">=7.0") __success __retval(1)
int print_text_under_lock(struct __sk_buff *skb)
{
	__u64 arguments[1] = {};

	UNDER_LOCK(PRINT_TEXT(STDOUT, word, arguments))
}
#endif

/* Weak, or a kernel without one of these kfuncs refused all programs of the object. */
#if UNIT(kfuncs)
extern void bpf_rcu_read_lock(void) __weak __ksym;
extern void bpf_rcu_read_unlock(void) __weak __ksym;
extern void bpf_preempt_disable(void) __weak __ksym;
extern void bpf_preempt_enable(void) __weak __ksym;
extern void bpf_throw(__u64 cookie) __weak __ksym;

/* commit 9bb00b2895cb ("bpf: Add kfunc bpf_rcu_read_lock/unlock()") (in v6.2). */
SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(bpf_rcu_read_lock, "6.2") __success __retval(1)
int lock_inside_rcu_section(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_rcu_read_lock();
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	bpf_rcu_read_unlock();
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(lock_inside_rcu_section)
__needs(bpf_rcu_read_lock, "6.2") __refused(call_under_lock)
int rcu_section_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	bpf_rcu_read_lock();
	c->value++;
	bpf_rcu_read_unlock();
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/* Only a program that may sleep has an RCU section to begin; in all others there always is one. */
SEC("syscall") __rule("Sleepable programs may lock") __loader(libbpf)
__needs(bpf_rcu_read_lock, "6.2") __twin(syscall_program_without_lock)
__kernel("<6.6") __refused(sleepable_program)
__kernel(">=6.6") __success __retval(1)
int syscall_program_locks_in_rcu_section(void *ctx)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_rcu_read_lock();
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	bpf_rcu_read_unlock();
	return c->value;
}

/* commit fc7566ad0a82 ("bpf: Introduce bpf_preempt_[disable,enable] kfuncs") (in v6.10). */
SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(bpf_preempt_disable, "6.10") __success __retval(1)
int lock_with_preemption_disabled(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_preempt_disable();
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	bpf_preempt_enable();
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(lock_with_preemption_disabled)
__needs(bpf_preempt_disable, "6.10") __refused(call_under_lock)
int preempt_disable_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	bpf_preempt_disable();
	c->value++;
	bpf_preempt_enable();
	bpf_spin_unlock(&c->lock);
	return c->value;
}

/* commit f18b03fabaa9 ("bpf: Implement BPF exceptions") (in v6.7). */
SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(bpf_throw, "6.7") __success __retval(1)
int throw_after_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	bpf_spin_unlock(&c->lock);
	if (c->value != 1)
		bpf_throw(0);
	return c->value;
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(throw_after_unlock)
__needs(bpf_throw, "6.7") __refused(call_under_lock)
int throw_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	c->value++;
	if (c->value != 1)
		bpf_throw(0);
	bpf_spin_unlock(&c->lock);
	return c->value;
}
#endif
