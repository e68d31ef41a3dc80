// SPDX-License-Identifier: GPL-2.0-only
/*
 * Extension programs, which replace a function of a program that is loaded already: which of them
 * may lock, the kind of that program decides.
 *
 * libbpf only: bcc does not know them.
 */
#include "spinlock.h"

/* The value of a map without a lock. */
struct plain {
	__u32 other;
	__u32 value;
};

MAP(ARRAY, counters, __u32, struct counter, 1)
MAP(ARRAY, plain, __u32, struct plain, 1)

/* The same program for all. */
#define COUNT_UNDER_LOCK                                  \
	__u32 key = 0;                                    \
	struct counter *c = map_lookup(counters, &key);   \
							  \
	if (c) {                                          \
		bpf_spin_lock(&c->lock);                  \
		c->value++;                               \
		bpf_spin_unlock(&c->lock);                \
	}

/* What the refused kinds may do: the same with a map whose value has no lock. */
#define COUNT_WITHOUT_LOCK                                \
	__u32 key = 0;                                    \
	struct plain *p = map_lookup(plain, &key);        \
							  \
	if (p)                                            \
		p->value++;

/* What is replaced and what replaces it must take the same; the kernel knows these by their names. */
struct pt_regs {
	unsigned long word;
};

SEC("tc")
int replaced_classifier(struct __sk_buff *skb)
{
	return 0;
}

SEC("socket")
int replaced_socket_filter(struct __sk_buff *skb)
{
	return 0;
}

SEC("kprobe/do_nanosleep")
int replaced_kprobe(struct pt_regs *context)
{
	return 0;
}

SEC("freplace/replaced_classifier") __rule("Tracing programs and socket filters may not lock")
__loader(libbpf) __success
int extension_of_classifier_locks(struct __sk_buff *skb)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("freplace/replaced_socket_filter") __rule("Tracing programs and socket filters may not lock")
__loader(libbpf) __success
int extension_of_socket_filter_without_lock(struct __sk_buff *skb)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

/*
 * commit 7e40781cc8b7 ("bpf: verifier: Use target program's type for access verifications") (in
 * v5.10). It is refused again in v7.3. Before, commit 81f6d0530ba0 ("bpf: check changes_pkt_data
 * property for extension programs") (in v6.13, and in v6.12.25) brought that the maps are looked at
 * before it is known what is replaced.
 */
SEC("freplace/replaced_socket_filter") __rule("Tracing programs and socket filters may not lock")
__loader(libbpf) __known_bug("81f6d0530ba0", ">=6.12.25,<7.3")
__twin(extension_of_socket_filter_without_lock)
__kernel("<5.11") __refused(tracing_program)
__kernel(">=5.11") __refused(socket_filter)
int extension_of_socket_filter_locks(struct __sk_buff *skb)
{
	COUNT_UNDER_LOCK
	return 0;
}

SEC("freplace/replaced_kprobe") __rule("Tracing programs and socket filters may not lock")
__loader(libbpf) __success
int extension_of_kprobe_without_lock(struct pt_regs *context)
{
	COUNT_WITHOUT_LOCK
	return 0;
}

SEC("freplace/replaced_kprobe") __rule("Tracing programs and socket filters may not lock")
__loader(libbpf) __known_bug("81f6d0530ba0", ">=6.12.25,<7.3")
__twin(extension_of_kprobe_without_lock) __refused(tracing_program)
int extension_of_kprobe_locks(struct pt_regs *context)
{
	COUNT_UNDER_LOCK
	return 0;
}
