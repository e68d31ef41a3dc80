// SPDX-License-Identifier: GPL-2.0-only
/*
 * Helpers under the lock, one or more of each class: all are refused alike. Each case has a twin that
 * makes the same call before it locks. calls.bpf.c declares the rule and has the other calls.
 *
 * libbpf only: what is asked does not depend on the loader, and bcc takes seconds for a file.
 */
#include "spinlock.h"

MAP(ARRAY, counters, __u32, struct counter, 1)
MAP(PERCPU_ARRAY, each_cpus, __u32, __u32, 1)

struct { /* no type: a queue may not have one */
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 4);
	__uint(value_size, sizeof(__u32));
} queue SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} events SEC(".maps");

/* The same program for all, but for the call and its place. */
#define CALL_BEFORE_LOCK(call)                            \
	__u32 key = 0, word = 0;                          \
	struct counter *c = map_lookup(counters, &key);   \
							  \
	if (!c)                                           \
		return word;                              \
	call;                                             \
	bpf_spin_lock(&c->lock);                          \
	c->value++;                                       \
	bpf_spin_unlock(&c->lock);                        \
	return c->value;

#define CALL_UNDER_LOCK(call)                             \
	__u32 key = 0, word = 0;                          \
	struct counter *c = map_lookup(counters, &key);   \
							  \
	if (!c)                                           \
		return word;                              \
	bpf_spin_lock(&c->lock);                          \
	c->value++;                                       \
	call;                                             \
	bpf_spin_unlock(&c->lock);                        \
	return c->value;

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int boot_time_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_ktime_get_boot_ns())
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(boot_time_before_lock) __refused(call_under_lock)
int boot_time_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_ktime_get_boot_ns())
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(BPF_FUNC_ktime_get_coarse_ns, "5.11") __success __retval(1)
int coarse_time_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_ktime_get_coarse_ns())
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(coarse_time_before_lock) __needs(BPF_FUNC_ktime_get_coarse_ns, "5.11")
__refused(call_under_lock)
int coarse_time_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_ktime_get_coarse_ns())
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int jiffies_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_jiffies64())
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(jiffies_before_lock) __refused(call_under_lock)
int jiffies_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_jiffies64())
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int random_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_get_prandom_u32())
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(random_before_lock) __refused(call_under_lock)
int random_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_get_prandom_u32())
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int numa_node_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_get_numa_node_id())
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(numa_node_before_lock) __refused(call_under_lock)
int numa_node_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_get_numa_node_id())
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int trace_printk_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_trace_printk("spinlock", 9))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(trace_printk_before_lock) __refused(call_under_lock)
int trace_printk_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_trace_printk("spinlock", 9))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(BPF_FUNC_snprintf, "5.13") __success __retval(1)
int snprintf_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_snprintf((char *)&word, sizeof(word), "x", 0, 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(snprintf_before_lock) __needs(BPF_FUNC_snprintf, "5.13") __refused(call_under_lock)
int snprintf_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_snprintf((char *)&word, sizeof(word), "x", 0, 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int read_kernel_memory_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_probe_read_kernel(&word, sizeof(word), skb))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(read_kernel_memory_before_lock) __refused(call_under_lock)
int read_kernel_memory_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_probe_read_kernel(&word, sizeof(word), skb))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int load_packet_bytes_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_skb_load_bytes(skb, 0, &word, sizeof(word)))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(load_packet_bytes_before_lock) __refused(call_under_lock)
int load_packet_bytes_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_skb_load_bytes(skb, 0, &word, sizeof(word)))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int store_packet_bytes_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_skb_store_bytes(skb, 0, &word, sizeof(word), 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(store_packet_bytes_before_lock) __refused(call_under_lock)
int store_packet_bytes_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_skb_store_bytes(skb, 0, &word, sizeof(word), 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int pull_packet_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_skb_pull_data(skb, 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(pull_packet_before_lock) __refused(call_under_lock)
int pull_packet_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_skb_pull_data(skb, 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int packet_hash_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_get_hash_recalc(skb))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(packet_hash_before_lock) __refused(call_under_lock)
int packet_hash_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_get_hash_recalc(skb))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int checksum_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_csum_diff(&word, sizeof(word), &word, sizeof(word), 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(checksum_before_lock) __refused(call_under_lock)
int checksum_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_csum_diff(&word, sizeof(word), &word, sizeof(word), 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int redirect_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_redirect(1, 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(redirect_before_lock) __refused(call_under_lock)
int redirect_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_redirect(1, 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int socket_cookie_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_get_socket_cookie(skb))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(socket_cookie_before_lock) __refused(call_under_lock)
int socket_cookie_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_get_socket_cookie(skb))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int push_to_queue_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_map_push_elem(&queue, &word, 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(push_to_queue_before_lock) __refused(call_under_lock)
int push_to_queue_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_map_push_elem(&queue, &word, 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int pop_from_queue_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_map_pop_elem(&queue, &word))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(pop_from_queue_before_lock) __refused(call_under_lock)
int pop_from_queue_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_map_pop_elem(&queue, &word))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int peek_at_queue_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_map_peek_elem(&queue, &word))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(peek_at_queue_before_lock) __refused(call_under_lock)
int peek_at_queue_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_map_peek_elem(&queue, &word))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int output_to_ring_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_ringbuf_output(&ring, &word, sizeof(word), 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(output_to_ring_before_lock) __refused(call_under_lock)
int output_to_ring_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_ringbuf_output(&ring, &word, sizeof(word), 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int query_ring_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_ringbuf_query(&ring, 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(query_ring_before_lock) __refused(call_under_lock)
int query_ring_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_ringbuf_query(&ring, 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__success __retval(1)
int output_perf_event_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_perf_event_output(skb, &events, 0, &word, sizeof(word)))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(output_perf_event_before_lock) __refused(call_under_lock)
int output_perf_event_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_perf_event_output(skb, &events, 0, &word, sizeof(word)))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(BPF_FUNC_map_lookup_percpu_elem, "5.19") __success __retval(1)
int lookup_other_cpu_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_map_lookup_percpu_elem(&each_cpus, &word, 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__twin(lookup_other_cpu_before_lock) __needs(BPF_FUNC_map_lookup_percpu_elem, "5.19")
__refused(call_under_lock)
int lookup_other_cpu_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_map_lookup_percpu_elem(&each_cpus, &word, 0))
}

/*
 * Variables of the kernel, of which every CPU has its own. Debian's v5.10 does not name them in its
 * BTF.
 * commit eaa6bcb71ef6 ("bpf: Introduce bpf_per_cpu_ptr()") (in v5.10)
 * commit 63d9b80dcf2c ("bpf: Introducte bpf_this_cpu_ptr()") (in v5.10)
 */
#if UNIT(kernel_variable)
extern const int bpf_prog_active __ksym;

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(bpf_prog_active, "5.11", CONFIG_SMP) __success __retval(1)
int this_cpus_variable_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_this_cpu_ptr(&bpf_prog_active))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(bpf_prog_active, "5.11", CONFIG_SMP) __twin(this_cpus_variable_before_lock) __refused(call_under_lock)
int this_cpus_variable_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_this_cpu_ptr(&bpf_prog_active))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(bpf_prog_active, "5.11", CONFIG_SMP) __success __retval(1)
int other_cpus_variable_before_lock(struct __sk_buff *skb)
{
	CALL_BEFORE_LOCK(bpf_per_cpu_ptr(&bpf_prog_active, 0))
}

SEC("tc") __rule("No calls while holding the lock") __loader(libbpf)
__needs(bpf_prog_active, "5.11", CONFIG_SMP) __twin(other_cpus_variable_before_lock) __refused(call_under_lock)
int other_cpus_variable_under_lock(struct __sk_buff *skb)
{
	CALL_UNDER_LOCK(bpf_per_cpu_ptr(&bpf_prog_active, 0))
}
#endif
