// SPDX-License-Identifier: GPL-2.0-only
/*
 * List heads: the accesses and program types that are allowed, and the fields beside them.
 *
 * libbpf only, as all that calls kernel functions (kfuncs.h).
 */
#include "locked_list.h"

/*
 * Rule: A list head or tree root is no memory to read or write
 * Topic: Lists and trees
 * The pointers in it belong to the kernel's functions alone, under the lock or not.
 * commit 8cab76ec6349 ("bpf: Introduce single ownership BPF linked list API") (in v6.2)
 */

SEC("tc") __rule("A list head or tree root is no memory to read or write") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __twin(push_back_pop_front) __refused(head_accessed)
int read_list_head_under_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);
	__u64 word;

	if (!l)
		return 0;
	bpf_spin_lock(&l->lock);
	word = *(volatile __u64 *)&l->head;
	bpf_spin_unlock(&l->lock);
	return !!word;
}

/*
 * Rule: No list or tree in tracing programs
 * Topic: Lists and trees
 * They need a lock, and a tracing program may interrupt its holder on the same CPU.
 * commit 8cab76ec6349 ("bpf: Introduce single ownership BPF linked list API") (in v6.2)
 * commit 9c395c1b99bd ("bpf: Add basic bpf_rb_{root,node} support") (in v6.3)
 */

SEC("tc") __rule("No list or tree in tracing programs") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __success __retval(1)
int look_up_list(void *ctx)
{
	__u32 key = 0;

	return !!map_lookup(lists, &key);
}

SEC("kprobe") __rule("No list or tree in tracing programs") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __twin(look_up_list) __refused(list_in_tracing_program)
int look_up_list_in_kprobe(void *ctx)
{
	__u32 key = 0;

	return !!map_lookup(lists, &key);
}

SEC("perf_event") __rule("No list or tree in tracing programs") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __twin(look_up_list) __refused(list_in_tracing_program)
int look_up_list_in_perf_event(void *ctx)
{
	__u32 key = 0;

	return !!map_lookup(lists, &key);
}

SEC("raw_tp/sys_enter") __rule("No list or tree in tracing programs") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __twin(look_up_list) __refused(list_in_tracing_program)
int look_up_list_in_raw_tracepoint(void *ctx)
{
	__u32 key = 0;

	return !!map_lookup(lists, &key);
}

/*
 * Rule: A list or tree needs a lock beside it
 * Topic: Lists and trees
 * A struct with a list head or tree root but without a lock is refused with all of its object's
 * BTF, whether it is used or not. One lock serves all lists and trees of the struct.
 * commit 865ce09a49d7 ("bpf: Verify ownership relationships for user BTF types") (in v6.2)
 * commit 9c395c1b99bd ("bpf: Add basic bpf_rb_{root,node} support") (in v6.3)
 */
struct two_lists {
	struct bpf_list_head first __contains(item, node);
	struct bpf_spin_lock lock;
	struct bpf_list_head second __contains(item, node);
};
MAP(ARRAY, two_list_map, __u32, struct two_lists, 1)

SEC("tc") __rule("A list or tree needs a lock beside it") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __success __retval(3)
__description("an item goes from one list to the other in one section")
int two_lists_under_one_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct two_lists *l = map_lookup(two_list_map, &key);
	struct bpf_list_node *node;
	struct item *i;

	if (!l)
		return 0;
	i = new_item(3);
	if (!i)
		return 0;
	bpf_spin_lock(&l->lock);
	list_push_back(&l->first, &i->node);
	node = bpf_list_pop_front(&l->first);
	if (node)
		list_push_back(&l->second, node);
	node = bpf_list_pop_front(&l->second);
	bpf_spin_unlock(&l->lock);
	return drop(node);
}

#if UNIT(list_without_lock)
struct lockless {
	__u64 value;
	struct bpf_list_head head __contains(item, node);
};
MAP(ARRAY, lockless_lists, __u32, struct lockless, 1)

SEC("tc") __rule("A list or tree needs a lock beside it") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __twin(look_up_list) __failure
__stage(btf_load) __errno(EINVAL)
int list_without_lock(void *ctx)
{
	__u32 key = 0;

	return !!map_lookup(lockless_lists, &key);
}
#endif
