// SPDX-License-Identifier: GPL-2.0-only
/*
 * One counter that every CPU adds to: under the lock (locked_*), and its twin, the same work with
 * no lock (unlocked_*), for every hook that carries packets. What the locked ones add up must equal
 * what ran; if the twin adds up as well, the run had no power to show anything.
 *
 * These programs are driven by tests/test_serialization.py and judged by harness/serialization.py,
 * which knows the layout of the values below.
 */
#include "spinlock.h"

/*
 * Rule: Locked updates of all CPUs are serialized
 * Between lock and unlock no other CPU is inside, nor an interrupt of the same CPU: interrupts are
 * off meanwhile. So no update under the lock is lost, whatever hooks the programs run from.
 * commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)
 */

/* Only what the drivers send is counted: other traffic on the way must not disturb the sums. */
#define MARKER_ETHERTYPE 0x88b5 /* for local experiments; at tc and XDP */
#define MARKER_UDP_PORT 23312	/* at cgroup_skb, where packets begin with the IP header */
#define UDP 17

#define TC_ACT_OK 0
#define TC_ACT_STOLEN 4 /* consumed; unlike a drop this is no error for the sender */

/* As long as the lock is held. Bounded because the verifier walks every turn. */
#define MOST_TURNS 2000

/* What the lock protects. A write outside a critical section, or a torn one, leaves them at odds. */
struct shared {
	struct bpf_spin_lock lock;
	__u32 last_cpu;	 /* who wrote last: its CPU + 1 */
	__u64 count;
	__u64 inverse;	 /* ~count */
	__u64 handovers; /* how often last_cpu changed */
	__u64 doubled;	 /* 2 * count */
};

/* What each CPU saw, added to by nobody else. */
struct visits {
	__u64 runs;
	__u64 busy;	/* the lock word was held when the program arrived */
	__u64 torn;	/* the fields of struct shared did not agree, seen from inside */
	__u64 first_ns; /* bpf_ktime_get_ns() of the first run, 0 before it */
	__u64 last_ns;
};

MAP(ARRAY, state, __u32, struct shared, 1)
MAP(PERCPU_ARRAY, runs, __u32, struct visits, 1)
MAP(ARRAY, turns, __u32, __u32, 1) /* length of the critical section, set before the run */

#define READ(field) (*(volatile __u64 *)&(field))
#define WRITE(field, value) (*(volatile __u64 *)&(field) = (value))

/* Reading, work and writing back; in that order, or an unlocked twin would rarely lose anything. */
static inline __attribute__((always_inline)) int add_one(struct shared *s, __u32 cpu, __u32 most)
{
	__u64 count = READ(s->count), inverse = READ(s->inverse), doubled = READ(s->doubled);
	__u64 handovers = READ(s->handovers);
	__u32 last = *(volatile __u32 *)&s->last_cpu, turn;

	for (turn = 0; turn < most && turn < MOST_TURNS; turn++)
		asm volatile("" : "+r"(turn));

	*(volatile __u32 *)&s->last_cpu = cpu + 1;
	WRITE(s->count, count + 1);
	WRITE(s->inverse, ~(count + 1));
	if (last && last != cpu + 1)
		WRITE(s->handovers, handovers + 1);
	WRITE(s->doubled, 2 * (count + 1));
	/* Zeroed by user space before the first run: ~0 is not there yet. */
	return count && (inverse != ~count || doubled != 2 * count);
}

static inline __attribute__((always_inline)) void visit(int locked)
{
	__u32 key = 0, cpu = bpf_get_smp_processor_id(), word = 0, *most;
	struct visits *v;
	struct shared *s;
	__u64 now;
	int torn;

	s = map_lookup(state, &key);
	v = map_lookup(runs, &key);
	most = map_lookup(turns, &key);
	if (!s || !v || !most)
		return;
	now = bpf_ktime_get_ns();
	/* A program may not load the word, but it may read kernel memory. */
	bpf_probe_read_kernel(&word, sizeof(word), (void *)s + offsetof(struct shared, lock));
	if (locked) {
		__u32 length = *most;

		bpf_spin_lock(&s->lock);
		torn = add_one(s, cpu, length);
		bpf_spin_unlock(&s->lock);
	} else {
		torn = add_one(s, cpu, *most);
	}
	/* Atomic, because a packet in an interrupt may come between: a CPU is shared with itself. */
	__sync_fetch_and_add(&v->runs, 1);
	if (word)
		__sync_fetch_and_add(&v->busy, 1);
	if (torn)
		__sync_fetch_and_add(&v->torn, 1);
	if (!v->first_ns)
		v->first_ns = now;
	v->last_ns = now;
}

static inline __attribute__((always_inline)) int is_marked_frame(void *data, void *end)
{
	unsigned char *frame = data;

	return data + 14 <= end && frame[12] == MARKER_ETHERTYPE >> 8 &&
	       frame[13] == (MARKER_ETHERTYPE & 0xff);
}

static inline __attribute__((always_inline)) int is_marked_datagram(void *data, void *end)
{
	unsigned char *packet = data;

	return data + 28 <= end && packet[0] == 0x45 && packet[9] == UDP &&
	       packet[22] == MARKER_UDP_PORT >> 8 && packet[23] == (MARKER_UDP_PORT & 0xff);
}

SEC("tc")
int locked_tc(struct __sk_buff *skb)
{
	if (!is_marked_frame((void *)(long)skb->data, (void *)(long)skb->data_end))
		return TC_ACT_OK;
	visit(1);
	return TC_ACT_STOLEN;
}

SEC("tc")
int unlocked_tc(struct __sk_buff *skb)
{
	if (!is_marked_frame((void *)(long)skb->data, (void *)(long)skb->data_end))
		return TC_ACT_OK;
	visit(0);
	return TC_ACT_STOLEN;
}

SEC("xdp")
int locked_xdp(struct xdp_md *frame)
{
	if (!is_marked_frame((void *)(long)frame->data, (void *)(long)frame->data_end))
		return XDP_PASS;
	visit(1);
	return XDP_DROP;
}

SEC("xdp")
int unlocked_xdp(struct xdp_md *frame)
{
	if (!is_marked_frame((void *)(long)frame->data, (void *)(long)frame->data_end))
		return XDP_PASS;
	visit(0);
	return XDP_DROP;
}

/* The packets go on: to refuse them at egress would be an error for the sender. */
SEC("cgroup_skb/egress")
int locked_cgroup_egress(struct __sk_buff *skb)
{
	if (is_marked_datagram((void *)(long)skb->data, (void *)(long)skb->data_end))
		visit(1);
	return 1;
}

SEC("cgroup_skb/egress")
int unlocked_cgroup_egress(struct __sk_buff *skb)
{
	if (is_marked_datagram((void *)(long)skb->data, (void *)(long)skb->data_end))
		visit(0);
	return 1;
}

/* Refused: nobody reads them. */
SEC("cgroup_skb/ingress")
int locked_cgroup_ingress(struct __sk_buff *skb)
{
	if (!is_marked_datagram((void *)(long)skb->data, (void *)(long)skb->data_end))
		return 1;
	visit(1);
	return 0;
}

SEC("cgroup_skb/ingress")
int unlocked_cgroup_ingress(struct __sk_buff *skb)
{
	if (!is_marked_datagram((void *)(long)skb->data, (void *)(long)skb->data_end))
		return 1;
	visit(0);
	return 0;
}
