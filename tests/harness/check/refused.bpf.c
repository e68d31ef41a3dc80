// SPDX-License-Identifier: GPL-2.0-only
/* Programs for `spinlock check` to refuse, each for the reason that it is named after. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

struct item {
	struct bpf_spin_lock lock;
	__u32 count;
	__u64 sum;
};

#if defined(TWO_LOCKS)
struct value {
	struct bpf_spin_lock lock;
	struct bpf_spin_lock other;
	__u32 count;
};
#elif defined(NESTED)
struct value {
	__u32 count;
	struct {
		struct bpf_spin_lock lock;
	} inner;
};
#define lock inner.lock
#else
struct value {
	struct bpf_spin_lock lock;
	__u32 count;
};
#endif

struct {
#ifdef PERCPU
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
#else
	__uint(type, BPF_MAP_TYPE_HASH);
#endif
	__uint(max_entries, 4);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
#ifdef NO_BTF
	__uint(value_size, sizeof(struct value));
#else
	__type(value, struct value);
#endif
} values SEC(".maps");

SEC("tc")
int of_the_map(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct value *v = bpf_map_lookup_elem(&values, &key);

	if (!v)
		return 0;
	bpf_spin_lock(&v->lock);
	v->count++;
	bpf_spin_unlock(&v->lock);
	return 0;
}

#undef lock

#ifdef EACH
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct item);
} items SEC(".maps");

static struct item *find(__u32 key)
{
	return bpf_map_lookup_elem(&items, &key);
}

static __attribute__((noinline)) void add(struct item *i, __u32 n)
{
	i->count += n;
	i->sum += 2 * n;
}

SEC("tc")
int loads(struct __sk_buff *skb)
{
	struct item *i = find(0);

	if (!i)
		return 0;
	bpf_spin_lock(&i->lock);
	i->count++;
	bpf_spin_unlock(&i->lock);
	return 0;
}

SEC("tc")
int static_call(struct __sk_buff *skb)
{
	struct item *i = find(0);

	if (!i)
		return 0;
	bpf_spin_lock(&i->lock);
	add(i, 1);
	add(i, 2);
	bpf_spin_unlock(&i->lock);
	return 0;
}

SEC("tc")
int call_under_lock(struct __sk_buff *skb)
{
	struct item *i = find(0);

	if (!i)
		return 0;
	bpf_spin_lock(&i->lock);
	i->sum = bpf_ktime_get_ns();
	bpf_spin_unlock(&i->lock);
	return 0;
}

SEC("tc")
int missing_unlock(struct __sk_buff *skb)
{
	struct item *i = find(0);

	if (!i)
		return 0;
	bpf_spin_lock(&i->lock);
	if (i->count > 7)
		return 0;
	bpf_spin_unlock(&i->lock);
	return 0;
}

SEC("tc")
int unlock_without_lock(struct __sk_buff *skb)
{
	struct item *i = find(0);

	if (i)
		bpf_spin_unlock(&i->lock);
	return 0;
}

SEC("tc")
int different_lock(struct __sk_buff *skb)
{
	struct item *i = find(0), *j = find(0);

	if (!i || !j)
		return 0;
	bpf_spin_lock(&i->lock);
	bpf_spin_unlock(&j->lock);
	return 0;
}

SEC("tc")
int second_lock(struct __sk_buff *skb)
{
	struct item *i = find(0), *j = find(1);

	if (!i || !j)
		return 0;
	bpf_spin_lock(&i->lock);
	bpf_spin_lock(&j->lock);
	bpf_spin_unlock(&j->lock);
	bpf_spin_unlock(&i->lock);
	return 0;
}

SEC("tc")
int direct_access(struct __sk_buff *skb)
{
	struct item *i = find(0);

	return i ? *(volatile __u32 *)&i->lock : 0;
}

SEC("tc")
int lock_place(struct __sk_buff *skb)
{
	struct item *i = find(0);

	if (!i)
		return 0;
	bpf_spin_lock((void *)&i->count);
	bpf_spin_unlock((void *)&i->count);
	return 0;
}

SEC("tc")
int lock_pointer(struct __sk_buff *skb)
{
	struct bpf_spin_lock lock = {};

	bpf_spin_lock(&lock);
	bpf_spin_unlock(&lock);
	return 0;
}

SEC("kprobe/do_nanosleep")
int program_type(void *ctx)
{
	return find(0) ? 1 : 0;
}

SEC("tc")
int null_check(struct __sk_buff *skb)
{
	struct item *i = find(0);

	i->count++;
	return 0;
}

SEC("no/such/section")
int section(void *ctx)
{
	return 0;
}

SEC("fentry/no_such_function_anywhere")
int hook_missing(void *ctx)
{
	return 0;
}
#endif
