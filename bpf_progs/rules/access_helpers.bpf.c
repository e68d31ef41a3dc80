// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory for helpers and functions of the kernel: what a program may not read or write itself, it
 * may not let them, either. Each legal case hands out the bytes beside the lock.
 */
#include "spinlock.h"

struct record {
	__u64 before;
	struct bpf_spin_lock lock;
	__u32 after;
	__u64 more;
};

MAP(ARRAY, records, __u32, struct record, 1)
MAP(HASH, by_word, __u32, __u32, 4)

/*
 * Rule: The lock field is opaque to helpers
 * Topic: The lock's bytes
 * A pointer into a value is memory for a helper, to read or to write, but for the four bytes of the
 * lock. That holds for a whole value as well: that the kernel would leave out the lock when it
 * copies is not the verifier's concern.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 */
SEC("tc") __rule("The lock field is opaque to helpers") __success __retval(0)
int update_value_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return map_update(by_word, &key, &r->after);
}

SEC("tc") __rule("The lock field is opaque to helpers")
__twin(update_value_beside_lock) __refused(lock_accessed)
int lock_as_update_value(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return map_update(by_word, &key, (__u32 *)&r->lock);
}

SEC("tc") __rule("The lock field is opaque to helpers") __success __retval(0)
int update_value_from_stack(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);
	struct record copy = {};

	if (!r)
		return -1;
	return map_update(records, &key, &copy);
}

/* What a helper would leave out when it copies is not the verifier's concern. */
SEC("tc") __rule("The lock field is opaque to helpers")
__twin(update_value_from_stack) __refused(lock_accessed)
int whole_value_as_update_value(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return map_update(records, &key, r);
}

SEC("tc") __rule("The lock field is opaque to helpers") __success __retval(0)
int lookup_key_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0, *word;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	word = map_lookup(by_word, &r->after);
	return word ? *word : 0;
}

SEC("tc") __rule("The lock field is opaque to helpers")
__twin(lookup_key_beside_lock) __refused(lock_accessed)
int lock_as_lookup_key(struct __sk_buff *skb)
{
	__u32 key = 0, *word;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	word = map_lookup(by_word, (__u32 *)&r->lock);
	return word ? *word : 0;
}

SEC("tc") __rule("The lock field is opaque to helpers") __success __retval(0)
int load_bytes_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_skb_load_bytes(skb, 0, &r->after, 4);
}

SEC("tc") __rule("The lock field is opaque to helpers")
__twin(load_bytes_beside_lock) __refused(lock_accessed)
int load_bytes_into_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_skb_load_bytes(skb, 0, &r->lock, 4);
}

SEC("tc") __rule("The lock field is opaque to helpers") __success __retval(0)
int store_bytes_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_skb_store_bytes(skb, 0, &r->after, 4, 0);
}

SEC("tc") __rule("The lock field is opaque to helpers")
__twin(store_bytes_beside_lock) __refused(lock_accessed)
int store_bytes_from_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_skb_store_bytes(skb, 0, &r->lock, 4, 0);
}

SEC("tc") __rule("The lock field is opaque to helpers") __success __retval(0)
int checksum_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_csum_diff(0, 0, &r->after, 4, 0);
}

SEC("tc") __rule("The lock field is opaque to helpers")
__twin(checksum_beside_lock) __refused(lock_accessed)
int checksum_of_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_csum_diff(0, 0, (__u32 *)&r->lock, 4, 0);
}

SEC("tc") __rule("The lock field is opaque to helpers")
__twin(checksum_beside_lock) __refused(lock_accessed)
int checksum_of_whole_value(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_csum_diff(0, 0, (__u32 *)r, sizeof(*r), 0);
}

/* The length is known by its bounds only; the whole range must be free of the lock. */
SEC("tc") __rule("The lock field is opaque to helpers") __success __retval(0)
int checksum_of_unknown_length_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u32 length = skb->mark & 8;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_csum_diff(0, 0, &r->after, length, 0);
}

SEC("tc") __rule("The lock field is opaque to helpers")
__twin(checksum_of_unknown_length_beside_lock) __refused(lock_accessed)
int checksum_of_unknown_length_over_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u32 length = skb->mark & 12;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_csum_diff(0, 0, (__u32 *)&r->before, length, 0);
}

SEC("tc") __rule("The lock field is opaque to helpers") __success __retval(0)
int delete_key_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return map_delete(by_word, &r->after) ? 0 : 1;
}

SEC("tc") __rule("The lock field is opaque to helpers")
__twin(delete_key_beside_lock) __refused(lock_accessed)
int delete_key_is_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return map_delete(by_word, (__u32 *)&r->lock) ? 0 : 1;
}

SEC("tc") __rule("The lock field is opaque to helpers") __success __retval(0)
int update_key_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return map_update(by_word, &r->after, &key);
}

SEC("tc") __rule("The lock field is opaque to helpers")
__twin(update_key_beside_lock) __refused(lock_accessed)
int update_key_is_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return map_update(by_word, (__u32 *)&r->lock, &key);
}

/*
 * libbpf only from here: bcc has macros of its own for these helpers and maps, or none, and its
 * module would have to be opened by its Python side.
 */
#ifndef LOADER_BCC
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 4);
	__uint(value_size, sizeof(__u32));
} queue SEC(".maps");

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__success __retval(0)
int print_text_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	bpf_trace_printk((char *)&r->more, 4);
	return 0;
}

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__twin(print_text_beside_lock) __refused(lock_accessed)
int print_text_over_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	bpf_trace_printk((char *)&r->lock, 4);
	return 0;
}

/* commit 457f44363a88 ("bpf: Implement BPF ring buffer and verifier support for it") (in v5.8). */
SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__success __retval(0)
int ring_buffer_output_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_ringbuf_output(&ring, &r->after, 4, 0);
}

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__twin(ring_buffer_output_beside_lock) __refused(lock_accessed)
int ring_buffer_output_of_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_ringbuf_output(&ring, &r->lock, 4, 0);
}

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__twin(ring_buffer_output_beside_lock) __refused(lock_accessed)
int ring_buffer_output_of_whole_value(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_ringbuf_output(&ring, r, sizeof(*r), 0);
}

/* Nobody has opened the event, which the helper finds at run time. */
SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__success __retval(0)
int perf_event_output_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_perf_event_output(skb, &events, BPF_F_CURRENT_CPU, &r->after, 4) ? 0 : 1;
}

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__twin(perf_event_output_beside_lock) __refused(lock_accessed)
int perf_event_output_of_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_perf_event_output(skb, &events, BPF_F_CURRENT_CPU, &r->lock, 4) ? 0 : 1;
}

/* commit f1a2e44a3aec ("bpf: add queue and stack maps") (in v4.20). */
SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__success __retval(0)
int push_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_map_push_elem(&queue, &r->after, 0);
}

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__twin(push_beside_lock) __refused(lock_accessed)
int push_of_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_map_push_elem(&queue, &r->lock, 0);
}

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__success __retval(0)
int pop_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_map_pop_elem(&queue, &r->after) ? 0 : 1;
}

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__twin(pop_beside_lock) __refused(lock_accessed)
int pop_into_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_map_pop_elem(&queue, &r->lock) ? 0 : 1;
}

/*
 * commit 6ae08ae3dea2 ("bpf: Add probe_read_{user, kernel} and probe_read_{user, kernel}_str
 * helpers") (in v5.5).
 */
SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__success __retval(1)
int read_kernel_memory_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_probe_read_kernel(&r->after, 4, skb) ? 0 : 1;
}

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__twin(read_kernel_memory_beside_lock) __refused(lock_accessed)
int read_kernel_memory_into_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_probe_read_kernel(&r->lock, 4, skb) ? 0 : 1;
}

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__success __retval(0)
int read_kernel_string_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_probe_read_kernel_str(&r->after, 4, skb) < 0;
}

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__twin(read_kernel_string_beside_lock) __refused(lock_accessed)
int read_kernel_string_into_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_probe_read_kernel_str(&r->lock, 4, skb) < 0;
}

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__success __retval(0)
int tunnel_key_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_skb_get_tunnel_key(skb, (void *)&r->more, 8, 0) ? 0 : 1;
}

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__twin(tunnel_key_beside_lock) __refused(lock_accessed)
int tunnel_key_into_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	return bpf_skb_get_tunnel_key(skb, (void *)&r->lock, 8, 0) ? 0 : 1;
}

/* commit 34b2021cc616 ("bpf: Add BPF-helper for MTU checking") (in v5.12). */
SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__needs(BPF_FUNC_check_mtu, "5.12")
__success __retval(0)
int mtu_beside_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	bpf_check_mtu(skb, 0, &r->after, 0, 0);
	return 0;
}

SEC("tc") __rule("The lock field is opaque to helpers") __loader(libbpf)
__needs(BPF_FUNC_check_mtu, "5.12")
__twin(mtu_beside_lock) __refused(lock_accessed)
int mtu_into_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return -1;
	bpf_check_mtu(skb, 0, (__u32 *)&r->lock, 0, 0);
	return 0;
}

/*
 * Programs that may sleep have a helper of their own, which reads what user space may have paged
 * out. They may use a map with a lock since commit 5861d1e8dbc4 ("bpf: Allow
 * bpf_spin_{lock,unlock} in sleepable progs") (in v6.6), as tcx exists, by whose enumerator the
 * kernels are told.
 */
SEC("syscall") __rule("The lock field is opaque to helpers") __loader(libbpf)
__needs(BPF_TCX_INGRESS, "6.6") __success __retval(1)
int sleepable_copy_beside_lock(void *ctx)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_copy_from_user(&r->after, 4, 0);
	return 1;
}

SEC("syscall") __rule("The lock field is opaque to helpers") __loader(libbpf)
__needs(BPF_TCX_INGRESS, "6.6") __twin(sleepable_copy_beside_lock) __refused(lock_accessed)
int sleepable_copy_into_lock(void *ctx)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_copy_from_user(&r->lock, 4, 0);
	return 1;
}

SEC("syscall") __rule("The lock field is opaque to helpers") __loader(libbpf)
__needs(BPF_TCX_INGRESS, "6.6") __success __retval(1)
int sleepable_read_of_kernel_beside_lock(void *ctx)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_probe_read_kernel(&r->after, 4, ctx);
	return 1;
}

SEC("syscall") __rule("The lock field is opaque to helpers") __loader(libbpf)
__needs(BPF_TCX_INGRESS, "6.6") __twin(sleepable_read_of_kernel_beside_lock)
__refused(lock_accessed)
int sleepable_read_of_kernel_into_lock(void *ctx)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_probe_read_kernel(&r->lock, 4, ctx);
	return 1;
}

SEC("syscall") __rule("The lock field is opaque to helpers") __loader(libbpf)
__needs(BPF_TCX_INGRESS, "6.6") __success __retval(1)
int sleepable_read_of_user_beside_lock(void *ctx)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_probe_read_user(&r->after, 4, 0);
	return 1;
}

SEC("syscall") __rule("The lock field is opaque to helpers") __loader(libbpf)
__needs(BPF_TCX_INGRESS, "6.6") __twin(sleepable_read_of_user_beside_lock) __refused(lock_accessed)
int sleepable_read_of_user_into_lock(void *ctx)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_probe_read_user(&r->lock, 4, 0);
	return 1;
}

SEC("syscall") __rule("The lock field is opaque to helpers") __loader(libbpf)
__needs(BPF_TCX_INGRESS, "6.6") __success __retval(1)
int sleepable_read_of_string_beside_lock(void *ctx)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_probe_read_user_str(&r->after, 4, 0);
	return 1;
}

SEC("syscall") __rule("The lock field is opaque to helpers") __loader(libbpf)
__needs(BPF_TCX_INGRESS, "6.6") __twin(sleepable_read_of_string_beside_lock)
__refused(lock_accessed)
int sleepable_read_of_string_into_lock(void *ctx)
{
	__u32 key = 0;
	struct record *r = map_lookup(records, &key);

	if (!r)
		return 0;
	bpf_probe_read_user_str(&r->lock, 4, 0);
	return 1;
}

#endif
