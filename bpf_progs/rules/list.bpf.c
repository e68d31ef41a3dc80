// SPDX-License-Identifier: GPL-2.0-only
/*
 * Linked lists, which belong to the lock that stands beside them: in a map's value, among globals of
 * one section, in an allocated object.
 *
 * libbpf only, as all that calls kernel functions (kfuncs.h).
 */
#include "locked_list.h"

MAP(ARRAY, other_lists, __u32, struct list, 1)
MAP(ARRAY, counters, __u32, struct counter, 1)

/*
 * Rule: Lists and trees are changed under the lock by these functions
 * Topic: Lists and trees
 * With a lock held a program may call those kernel functions, and hardly another, that push to and
 * pop from a list, add to, remove from and walk a tree, and take one more reference to an object.
 * commit 8cab76ec6349 ("bpf: Introduce single ownership BPF linked list API") (in v6.2)
 * commit bd1279ae8a69 ("bpf: Add bpf_rbtree_{add,remove,first} kfuncs") (in v6.3)
 * commit 7c50b1cb76ac ("bpf: Add bpf_refcount_acquire kfunc") (in v6.4)
 * commit d2dcc67df910 ("bpf: Migrate bpf_rbtree_add and bpf_list_push_{front,back} to possibly fail") (in v6.4)
 * commit fb5b480205ba ("bpf: Add bpf_list_{front,back} kfunc") (in v6.16)
 * commit 9e3e66c553f7 ("bpf: Add bpf_rbtree_{root,left,right} kfunc") (in v6.16)
 * commit 187baa10963a ("bpf: Introduce the bpf_list_del kfunc.") (in v7.2)
 * commit a3493ca504f1 ("bpf: Add bpf_list_add to insert node after a given list node") (in v7.2)
 * commit 745515d386eb ("bpf: add bpf_list_is_first/last/empty kfuncs") (in v7.2)
 */

SEC("tc") __rule("Lists and trees are changed under the lock by these functions") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __success __retval(321)
__description("push three, pop three")
int push_back_pop_front(struct __sk_buff *skb)
{
	__u32 key = 0, sum;
	struct list *l = map_lookup(lists, &key);

	if (!l)
		return 0;
	push(l, 1);
	push(l, 2);
	push(l, 3);
	sum = pop(l);
	sum += pop(l) * 10;
	sum += pop(l) * 100;
	return sum + pop(l) * 1000;
}

SEC("tc") __rule("Lists and trees are changed under the lock by these functions") __loader(libbpf)
__needs(bpf_list_push_front_impl, "6.4") __success __retval(12)
__description("push two to the front and pop one from the back, in one section")
int push_front_pop_back(struct __sk_buff *skb)
{
	__u32 key = 0, first;
	struct list *l = map_lookup(lists, &key);
	struct bpf_list_node *node;
	struct item *a, *b;

	if (!l)
		return 0;
	a = new_item(2);
	if (!a)
		return 0;
	b = new_item(1);
	if (!b) {
		object_drop(a);
		return 0;
	}
	bpf_spin_lock(&l->lock);
	list_push_front(&l->head, &a->node);
	list_push_front(&l->head, &b->node);
	node = bpf_list_pop_back(&l->head);
	bpf_spin_unlock(&l->lock);
	first = drop(node);
	return pop(l) * 10 + first;
}

SEC("tc") __rule("Lists and trees are changed under the lock by these functions") __loader(libbpf)
__needs(bpf_list_push_front_impl, "6.4") __success __retval(123)
__description("push three to the front and pop them there: last in, first out")
int push_front_pop_front(struct __sk_buff *skb)
{
	__u32 key = 0, sum;
	struct list *l = map_lookup(lists, &key);
	struct item *i;

	if (!l)
		return 0;
	for (__u32 value = 1; value < 4; value++) {
		i = new_item(value);
		if (!i)
			return 0;
		bpf_spin_lock(&l->lock);
		list_push_front(&l->head, &i->node);
		bpf_spin_unlock(&l->lock);
	}
	sum = pop(l);
	sum += pop(l) * 10;
	sum += pop(l) * 100;
	return sum + pop(l) * 1000;
}

SEC("tc") __rule("Lists and trees are changed under the lock by these functions") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __success __retval(123)
__description("push three to the back and pop them there, the last one too: last in, first out")
int push_back_pop_back(struct __sk_buff *skb)
{
	__u32 key = 0, sum = 0, place = 1;
	struct list *l = map_lookup(lists, &key);
	struct bpf_list_node *node;

	if (!l)
		return 0;
	push(l, 1);
	push(l, 2);
	push(l, 3);
	for (__u32 turn = 0; turn < 4; turn++) {
		bpf_spin_lock(&l->lock);
		node = bpf_list_pop_back(&l->head);
		bpf_spin_unlock(&l->lock);
		sum += drop(node) * place;
		place *= 10;
	}
	return sum;
}

SEC("tc") __rule("Lists and trees are changed under the lock by these functions") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __success __retval(1)
__description("what is left in the list is freed with the map")
int push_and_leave(struct __sk_buff *skb)
{
	__u32 key = 1;
	struct list *l = map_lookup(lists, &key);

	if (!l)
		return 0;
	push(l, 1);
	push(l, 2);
	return 1;
}

SEC("tc") __rule("Lists and trees are changed under the lock by these functions") __loader(libbpf)
__needs(bpf_list_front, "6.16") __success __retval(21)
int peek_at_both_ends(struct __sk_buff *skb)
{
	__u32 key = 0, first = 0, last = 0;
	struct list *l = map_lookup(lists, &key);
	struct bpf_list_node *node;

	if (!l)
		return 0;
	push(l, 1);
	push(l, 2);
	bpf_spin_lock(&l->lock);
	node = bpf_list_front(&l->head);
	if (node)
		first = container_of(node, struct item, node)->value;
	node = bpf_list_back(&l->head);
	if (node)
		last = container_of(node, struct item, node)->value;
	bpf_spin_unlock(&l->lock);
	return last * 10 + first;
}

SEC("tc") __rule("Lists and trees are changed under the lock by these functions") __loader(libbpf)
__needs(bpf_list_del, "7.2") __success __retval(32)
__description("take the first of the two by its pointer")
int delete_from_list(struct __sk_buff *skb)
{
	__u32 key = 0, first;
	struct list *l = map_lookup(lists, &key);
	struct bpf_list_node *node;

	if (!l)
		return 0;
	push(l, 2);
	push(l, 3);
	bpf_spin_lock(&l->lock);
	node = bpf_list_front(&l->head);
	if (node)
		node = bpf_list_del(&l->head, node);
	bpf_spin_unlock(&l->lock);
	first = drop(node);
	return pop(l) * 10 + first;
}

SEC("tc") __rule("Lists and trees are changed under the lock by these functions") __loader(libbpf)
__needs(bpf_list_add, "7.2") __success __retval(321)
__description("add the second behind the first of the two others")
int add_behind_first(struct __sk_buff *skb)
{
	__u32 key = 0, sum;
	struct list *l = map_lookup(lists, &key);
	struct bpf_list_node *first;
	struct item *i;

	if (!l)
		return 0;
	push(l, 1);
	push(l, 3);
	i = new_item(2);
	if (!i)
		return 0;
	bpf_spin_lock(&l->lock);
	first = bpf_list_front(&l->head);
	if (first)
		bpf_list_add(&l->head, &i->node, first);
	else
		list_push_back(&l->head, &i->node);
	bpf_spin_unlock(&l->lock);
	sum = pop(l);
	sum += pop(l) * 10;
	return sum + pop(l) * 100;
}

SEC("tc") __rule("Lists and trees are changed under the lock by these functions") __loader(libbpf)
__needs(bpf_list_is_first, "7.2") __success __retval(1001)
__description("of two, the one is first and not last, the other is last and not first")
int tell_first_from_last(struct __sk_buff *skb)
{
	__u32 key = 0, answers = 0;
	struct list *l = map_lookup(lists, &key);
	struct bpf_list_node *node;

	if (!l)
		return 0;
	push(l, 1);
	push(l, 2);
	bpf_spin_lock(&l->lock);
	node = bpf_list_front(&l->head);
	if (node)
		answers = list_is_first(&l->head, node) * 1000 +
			  list_is_last(&l->head, node) * 100;
	node = bpf_list_back(&l->head);
	if (node)
		answers += list_is_first(&l->head, node) * 10 +
			   list_is_last(&l->head, node);
	bpf_spin_unlock(&l->lock);
	return answers;
}

static __always_inline __u32 is_empty(struct list *l)
{
	__u32 empty;

	bpf_spin_lock(&l->lock);
	empty = list_empty(&l->head);
	bpf_spin_unlock(&l->lock);
	return empty;
}

SEC("tc") __rule("Lists and trees are changed under the lock by these functions") __loader(libbpf)
__needs(bpf_list_empty, "7.2") __success __retval(101)
__description("before the first push, with one in it, and after the pop")
int tell_whether_list_is_empty(struct __sk_buff *skb)
{
	__u32 key = 0, answers;
	struct list *l = map_lookup(lists, &key);

	if (!l)
		return 0;
	answers = is_empty(l) * 100;
	push(l, 1);
	answers += is_empty(l) * 10;
	pop(l);
	return answers + is_empty(l);
}

static __noinline struct bpf_list_node *pop_locked(struct list *l)
{
	return bpf_list_pop_front(&l->head);
}

/*
 * Rule: A list is touched only under its own lock
 * Topic: Lists and trees
 * Every function that takes a list head wants the lock of that very value, object or section to be
 * held; the verifier checks it when the program is loaded, so that nothing is checked when it runs.
 * commit 8cab76ec6349 ("bpf: Introduce single ownership BPF linked list API") (in v6.2)
 */

/*
 * Refusal: list_lock_not_held
 * EINVAL "bpf_spin_lock at off=0 must be held for bpf_list_head"
 * A list is changed without its lock.
 */

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_back_pop_front) __refused(list_lock_not_held)
int push_back_without_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);
	struct item *i;

	if (!l)
		return 0;
	i = new_item(1);
	if (!i)
		return 0;
	list_push_back(&l->head, &i->node);
	return 1;
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_push_front_impl, "6.4") __twin(push_front_pop_back) __refused(list_lock_not_held)
int push_front_without_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);
	struct item *i;

	if (!l)
		return 0;
	i = new_item(1);
	if (!i)
		return 0;
	list_push_front(&l->head, &i->node);
	return 1;
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __twin(push_back_pop_front) __refused(list_lock_not_held)
int pop_front_without_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);

	return l ? drop(bpf_list_pop_front(&l->head)) : 0;
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_pop_back, "6.2") __twin(push_front_pop_back) __refused(list_lock_not_held)
int pop_back_without_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);

	return l ? drop(bpf_list_pop_back(&l->head)) : 0;
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_front, "6.16") __twin(peek_at_both_ends) __refused(list_lock_not_held)
int peek_without_lock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);

	return l ? !bpf_list_front(&l->head) : 0;
}

#define EMPTY 1
#define FIRST 2
#define LAST 4

static __always_inline int ask(int questions, int locked)
{
	__u32 key = 0, answers = 0;
	struct list *l = map_lookup(lists, &key);
	struct item *i;

	if (!l)
		return 0;
	i = new_item(1);
	if (!i)
		return 0;
	if (locked)
		bpf_spin_lock(&l->lock);
	if (questions & EMPTY && list_empty(&l->head))
		answers |= EMPTY;
	if (questions & FIRST && list_is_first(&l->head, &i->node))
		answers |= FIRST;
	if (questions & LAST && list_is_last(&l->head, &i->node))
		answers |= LAST;
	if (locked)
		bpf_spin_unlock(&l->lock);
	object_drop(i);
	return answers;
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_empty, "7.2") __success __retval(1)
__description("whether it is empty, and whether a node is its first or last: it is, and is not")
int ask_under_lock(struct __sk_buff *skb)
{
	return ask(EMPTY | FIRST | LAST, 1);
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_empty, "7.2") __twin(ask_under_lock) __refused(list_lock_not_held)
int ask_whether_empty_without_lock(struct __sk_buff *skb)
{
	return ask(EMPTY, 0);
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_is_first, "7.2") __twin(ask_under_lock) __refused(list_lock_not_held)
int ask_whether_first_without_lock(struct __sk_buff *skb)
{
	return ask(FIRST, 0);
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_is_last, "7.2") __twin(ask_under_lock) __refused(list_lock_not_held)
int ask_whether_last_without_lock(struct __sk_buff *skb)
{
	return ask(LAST, 0);
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __twin(push_back_pop_front) __refused(list_lock_not_held)
int pop_after_unlock(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);

	if (!l)
		return 0;
	bpf_spin_lock(&l->lock);
	bpf_spin_unlock(&l->lock);
	return drop(bpf_list_pop_front(&l->head));
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __twin(push_back_pop_front) __refused(other_allocation)
int pop_under_lock_of_other_element(struct __sk_buff *skb)
{
	__u32 first = 0, second = 1;
	struct list *a = map_lookup(lists, &first);
	struct list *b = map_lookup(lists, &second);
	struct bpf_list_node *node;

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	node = bpf_list_pop_front(&b->head);
	bpf_spin_unlock(&a->lock);
	return drop(node);
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __twin(push_back_pop_front) __refused(other_allocation)
int pop_under_lock_of_same_key_looked_up_again(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *a = map_lookup(lists, &key);
	struct list *b = map_lookup(lists, &key);
	struct bpf_list_node *node;

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	node = bpf_list_pop_front(&b->head);
	bpf_spin_unlock(&a->lock);
	return drop(node);
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __twin(push_back_pop_front) __refused(other_allocation)
int pop_under_lock_of_other_map(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *a = map_lookup(lists, &key);
	struct list *b = map_lookup(other_lists, &key);
	struct bpf_list_node *node;

	if (!a || !b)
		return 0;
	bpf_spin_lock(&a->lock);
	node = bpf_list_pop_front(&b->head);
	bpf_spin_unlock(&a->lock);
	return drop(node);
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(push_back_pop_front) __refused(other_allocation)
int push_under_lock_of_plain_map(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *c = map_lookup(counters, &key);
	struct list *l = map_lookup(lists, &key);
	struct item *i;

	if (!c || !l)
		return 0;
	i = new_item(1);
	if (!i)
		return 0;
	bpf_spin_lock(&c->lock);
	list_push_back(&l->head, &i->node);
	bpf_spin_unlock(&c->lock);
	return 1;
}

/*
 * commit a44b1334aadd ("bpf: Allow calling static subprogs while holding a bpf_spin_lock") (in v6.9)
 */
SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __twin(push_back_pop_front)
__description("a static subprogram pops, its caller holds the lock")
__kernel("<6.9") __refused(call_under_lock)
__kernel(">=6.9") __success __retval(5)
int pop_in_subprogram(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *l = map_lookup(lists, &key);
	struct bpf_list_node *node;

	if (!l)
		return 0;
	push(l, 5);
	bpf_spin_lock(&l->lock);
	node = pop_locked(l);
	bpf_spin_unlock(&l->lock);
	return drop(node);
}

/*
 * Globals: the section is the map's one value. commit d0d78c1df9b1 ("bpf: Allow locking
 * bpf_spin_lock global variables") (in v6.2)
 */
PRIVATE(A) struct bpf_spin_lock lock_a;
PRIVATE(A) struct bpf_list_head head_a __contains(item, node);
PRIVATE(B) struct bpf_spin_lock lock_b;
PRIVATE(B) struct bpf_list_head head_b __contains(item, node);

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __success __retval(4)
int global_list_under_its_lock(struct __sk_buff *skb)
{
	struct item *i = new_item(4);
	struct bpf_list_node *node;

	if (!i)
		return 0;
	bpf_spin_lock(&lock_a);
	list_push_back(&head_a, &i->node);
	node = bpf_list_pop_front(&head_a);
	bpf_spin_unlock(&lock_a);
	return drop(node);
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __twin(global_list_under_its_lock)
__refused(lock_of_list_not_held)
int global_list_without_lock(struct __sk_buff *skb)
{
	return drop(bpf_list_pop_front(&head_a));
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(global_list_under_its_lock)
__refused(other_allocation)
int global_list_under_lock_of_other_section(struct __sk_buff *skb)
{
	struct item *i = new_item(4);
	struct bpf_list_node *node;

	if (!i)
		return 0;
	bpf_spin_lock(&lock_b);
	list_push_back(&head_a, &i->node);
	node = bpf_list_pop_front(&head_b);
	bpf_spin_unlock(&lock_b);
	return drop(node);
}

/* A list in an allocated object: what is in it is dropped with the object. */
SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __success __retval(6)
int list_in_object(struct __sk_buff *skb)
{
	struct bpf_list_node *node;
	struct item *a, *b;
	struct list *l;

	l = object_new(struct list);
	if (!l)
		return 0;
	a = new_item(6);
	if (!a)
		goto out;
	b = new_item(7);
	if (!b) {
		object_drop(a);
		goto out;
	}
	bpf_spin_lock(&l->lock);
	list_push_back(&l->head, &a->node);
	list_push_back(&l->head, &b->node);
	node = bpf_list_pop_front(&l->head);
	bpf_spin_unlock(&l->lock);
	object_drop(l);
	return drop(node);
out:
	object_drop(l);
	return 0;
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(list_in_object) __refused(lock_of_list_not_held)
int list_in_object_without_lock(struct __sk_buff *skb)
{
	struct bpf_list_node *node;
	struct list *l = object_new(struct list);

	if (!l)
		return 0;
	node = bpf_list_pop_front(&l->head);
	object_drop(l);
	return drop(node);
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_push_back_impl, "6.4") __twin(list_in_object) __refused(other_allocation)
int list_in_object_under_lock_of_map(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct list *held = map_lookup(lists, &key);
	struct bpf_list_node *node;
	struct list *l;

	if (!held)
		return 0;
	l = object_new(struct list);
	if (!l)
		return 0;
	bpf_spin_lock(&held->lock);
	node = bpf_list_pop_front(&l->head);
	bpf_spin_unlock(&held->lock);
	object_drop(l);
	return drop(node);
}

SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __success __retval(1)
int lists_in_two_objects_in_turn(struct __sk_buff *skb)
{
	struct list *a, *b;
	__u32 sum;

	a = object_new(struct list);
	if (!a)
		return 0;
	b = object_new(struct list);
	if (!b) {
		object_drop(a);
		return 0;
	}
	sum = pop(a) + pop(b);
	object_drop(a);
	object_drop(b);
	return sum + 1;
}

/* Two objects of one type: no more than the lock's identity tells them apart. */
SEC("tc") __rule("A list is touched only under its own lock") __loader(libbpf)
__needs(bpf_list_pop_front, "6.2") __twin(lists_in_two_objects_in_turn) __refused(other_allocation)
int list_in_object_under_lock_of_other_object(struct __sk_buff *skb)
{
	struct bpf_list_node *node;
	struct list *a, *b;
	__u32 sum;

	a = object_new(struct list);
	if (!a)
		return 0;
	b = object_new(struct list);
	if (!b) {
		object_drop(a);
		return 0;
	}
	bpf_spin_lock(&a->lock);
	node = bpf_list_pop_front(&b->head);
	bpf_spin_unlock(&a->lock);
	sum = drop(node);
	object_drop(a);
	object_drop(b);
	return sum + 1;
}
