// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pointers to memory that is neither a value nor a stack: of ring buffers, dynptrs, per-CPU
 * variables, packet slices and the kernel itself. No lock is there.
 */
#include "spinlock.h"

#if UNIT(ring_buffer)
/*
 * libbpf only: bcc's module would have to be opened as a ring buffer by its Python side.
 * commit 457f44363a88 ("bpf: Implement BPF ring buffer and verifier support for it") (in v5.8).
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

/*
 * Refusal: memory_for_lock
 * EACCES "type={{[a-z_]*mem}} expected=map_value"
 * A lock in memory that is no map's value.
 */

SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__loader(libbpf) __twin(lock_in_value) __refused(memory_for_lock)
int lock_in_ring_buffer_record(struct __sk_buff *skb)
{
	struct counter *c = bpf_ringbuf_reserve(&ring, sizeof(*c), 0);

	if (!c)
		return 0;
	bpf_spin_lock(&c->lock);
	bpf_spin_unlock(&c->lock);
	bpf_ringbuf_discard(c, 0);
	return 1;
}
#endif

/*
 * Memory that the kernel hands out by other helpers and functions: libbpf only, bcc knows no
 * functions and no variables of the kernel.
 */
#if UNIT(per_cpu_variable)
/* Any per-CPU variable of the kernel; before v5.11 the BTF of kernels did not describe them. */
extern const int bpf_prog_active __ksym;

/* commit 63d9b80dcf2c ("bpf: Introducte bpf_this_cpu_ptr()") (in v5.10). */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__loader(libbpf) __needs(bpf_prog_active, "5.11", CONFIG_SMP) __twin(lock_in_value) __refused(memory_for_lock)
int per_cpu_variable_as_lock(struct __sk_buff *skb)
{
	void *lock = bpf_this_cpu_ptr(&bpf_prog_active);

	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	return 1;
}
#endif

#if UNIT(dynptr)
MAP(ARRAY, bytes, __u32, __u64, 1)

/* commit 34d4ef5775f7 ("bpf: Add dynptr data slices") (in v5.19). */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__loader(libbpf) __needs(BPF_FUNC_dynptr_data, "5.19")
__twin(lock_in_value) __refused(memory_for_lock)
int lock_in_slice_of_dynptr(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 *v = map_lookup(bytes, &key);
	struct bpf_dynptr memory;
	void *lock;

	if (!v)
		return 0;
	bpf_dynptr_from_mem(v, sizeof(*v), 0, &memory);
	lock = bpf_dynptr_data(&memory, 0, sizeof(*v));
	if (!lock)
		return 0;
	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	return 1;
}
#endif

#if UNIT(packet_slice)
extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags, struct bpf_dynptr *ptr) __ksym;
extern void *bpf_dynptr_slice_rdwr(const struct bpf_dynptr *ptr, __u32 offset, void *buffer,
				   __u32 size) __ksym;

/* commit 66e3a13e7c2c ("bpf: Add bpf_dynptr_slice and bpf_dynptr_slice_rdwr") (in v6.4). */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__loader(libbpf) __needs(bpf_dynptr_slice_rdwr, "6.4")
__twin(lock_in_value) __refused(memory_for_lock)
int lock_in_slice_of_packet(struct __sk_buff *skb)
{
	struct bpf_dynptr packet;
	struct counter buffer = {};
	void *lock;

	if (bpf_dynptr_from_skb(skb, 0, &packet))
		return 0;
	lock = bpf_dynptr_slice_rdwr(&packet, 0, &buffer, sizeof(buffer));
	if (!lock)
		return 0;
	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	return 1;
}
#endif

#if UNIT(kernel_pointer)
/*
 * commit 478cfbdf5f13 ("bpf: Add bpf_skc_to_{tcp, tcp_timewait, tcp_request}_sock() helpers") (in
 * v5.9).
 */
SEC("tc") __rule("The lock lives in a map value, not on the stack, in ctx or in a packet")
__loader(libbpf) __twin(lock_in_value) __failure __errno(EACCES)
__msg("type={{[a-z_]*ptr_}} expected=map_value")
int kernel_struct_as_lock(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	void *lock;

	if (!sk)
		return 0;
	lock = bpf_skc_to_tcp_sock(sk);
	if (!lock)
		return 0;
	bpf_spin_lock(lock);
	bpf_spin_unlock(lock);
	return 1;
}
#endif
