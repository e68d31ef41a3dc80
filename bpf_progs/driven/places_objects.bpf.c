// SPDX-License-Identifier: GPL-2.0-only
/*
 * Locks in places that user space cannot read: a list and a tree with their lock, and an allocated object
 * with a lock of its own. All CPUs use them at once.
 *
 * libbpf only, like all programs that call kernel functions (kfuncs.h). These programs are driven by
 * tests/lock/serialization/test_objects.py.
 */
#include "kfuncs.h"
#include "contended_counter.h"

/*
 * Rule: Lists and trees stay whole under their lock
 * Topic: Lists and trees
 * The kernel's functions for lists and trees take no lock themselves. The verifier makes sure that the
 * program holds the lock beside the root. So the results on many CPUs must equal those of some serial
 * order: a list is first in, first out, a tree gives its least element first, and every object comes out
 * exactly once. A node is in at most one list or tree at a time, however many references its object has:
 * no second list or tree accepts it, and none returns it.
 * commit 8cab76ec6349 ("bpf: Introduce single ownership BPF linked list API") (in v6.2)
 * commit bd1279ae8a69 ("bpf: Add bpf_rbtree_{add,remove,first} kfuncs") (in v6.3)
 * commit c3c510ce431c ("bpf: Add 'owner' field to bpf_{list,rb}_node") (in v6.6)
 */

#define SOURCE 0 /* all have one driver */
#define BURST 16 /* so many a CPU puts in or takes out before it does the opposite */

/* struct shared, with a root beside the lock: the verifier wants both in one value. */
#define SHARED_FIELDS             \
	struct bpf_spin_lock lock; \
	__u32 last_cpu;           \
	__u64 count;              \
	__u64 inverse;            \
	__u64 handovers;          \
	__u64 doubled;

struct item {
	struct bpf_list_node node;
	__u32 id;
};

struct list {
	SHARED_FIELDS
	struct bpf_list_head head __contains(item, node);
};

struct leaf {
	struct bpf_rb_node node;
	__u32 id;
	__u32 key;
};

struct tree {
	SHARED_FIELDS
	struct bpf_rb_root root __contains(leaf, node);
};

/* The id of the object that an operation added or removed. Both are 0 if there was none to remove. */
struct transfer {
	__u32 in;
	__u32 out;
};

MAP(ARRAY, list, __u32, struct list, 1)
MAP(ARRAY, tree, __u32, struct tree, 1)
MAP_FLAGS(ARRAY, transfers, __u32, struct transfer, OPERATIONS, BPF_F_MMAPABLE)

static __always_inline int puts_in(const struct passage *p)
{
	return !((p->number / BURST + p->cpu) & 1);
}

/* Make an id from the CPU and the operation's number; it is never 0. */
static __always_inline __u32 new_id(const struct passage *p)
{
	return (p->cpu << 24 | (p->number & 0xffffff)) + 1;
}

/* Scatter the keys over all numbers. They are distinct, because the factor is odd. */
static __always_inline __u32 key_of(__u32 id)
{
	return id * 0x9e3779b1;
}

static __always_inline void note_transfer(__u32 slot, __u32 in, __u32 out)
{
	struct transfer *t = map_lookup(transfers, &slot);

	if (!t)
		return;
	t->in = in;
	t->out = out;
}

/* Drop a removed object and return its id; 0 without an object. */
static __always_inline __u32 drop_item(struct bpf_list_node *node)
{
	struct item *i;
	__u32 id;

	if (!node)
		return 0;
	i = container_of(node, struct item, node);
	id = i->id;
	object_drop(i);
	return id;
}

static __always_inline __u32 drop_leaf(struct bpf_rb_node *node)
{
	struct leaf *l;
	__u32 id;

	if (!node)
		return 0;
	l = container_of(node, struct leaf, node);
	id = l->id;
	object_drop(l);
	return id;
}

static _Bool less(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return container_of(a, struct leaf, node)->key < container_of(b, struct leaf, node)->key;
}

/*
 * An operation adds or removes an object, and counts. The verifier demands the lock for the first part. A
 * broken twin counts without the lock, before that. Without memory for a new object, one is removed
 * instead.
 */
SEC("tc")
int change_list(struct __sk_buff *skb)
{
	struct passage p = { .source = SOURCE };
	struct bpf_list_node *node = 0;
	__u32 key = 0, source = SOURCE, in = 0;
	struct item *i = 0;
	struct order *order;
	struct visits *v;
	struct list *l;
	struct shared *s;

	l = map_lookup(list, &key);
	v = map_lookup(runs, &source);
	order = map_lookup(orders, &key);
	if (!l || !v || !order)
		return 0;
	s = (void *)l;
	begin(&p, s, order, v);
	if (puts_in(&p))
		i = object_new(struct item);
	if (i) {
		in = new_id(&p);
		i->id = in;
	}
	if (p.bare) {
		read_all(s, &p.found);
		spend(order->turns);
		write_all(s, &p.found, p.cpu);
	}
	bpf_spin_lock(&l->lock);
	if (!p.bare) {
		read_all(s, &p.found);
		spend(order->turns);
	}
	if (i)
		list_push_back(&l->head, &i->node);
	else
		node = bpf_list_pop_front(&l->head);
	if (!p.bare)
		write_all(s, &p.found, p.cpu);
	bpf_spin_unlock(&l->lock);
	note_transfer(end(&p, order, v), in, drop_item(node));
	return 0;
}

SEC("tc")
int change_tree(struct __sk_buff *skb)
{
	struct passage p = { .source = SOURCE };
	__u32 key = 0, source = SOURCE, in = 0;
	struct bpf_rb_node *node = 0;
	struct leaf *leaf = 0;
	struct order *order;
	struct visits *v;
	struct tree *t;
	struct shared *s;

	t = map_lookup(tree, &key);
	v = map_lookup(runs, &source);
	order = map_lookup(orders, &key);
	if (!t || !v || !order)
		return 0;
	s = (void *)t;
	begin(&p, s, order, v);
	if (puts_in(&p))
		leaf = object_new(struct leaf);
	if (leaf) {
		in = new_id(&p);
		leaf->id = in;
		leaf->key = key_of(in);
	}
	if (p.bare) {
		read_all(s, &p.found);
		spend(order->turns);
		write_all(s, &p.found, p.cpu);
	}
	bpf_spin_lock(&t->lock);
	if (!p.bare) {
		read_all(s, &p.found);
		spend(order->turns);
	}
	if (leaf) {
		rbtree_add(&t->root, &leaf->node, less);
	} else {
		node = bpf_rbtree_first(&t->root);
		if (node)
			node = bpf_rbtree_remove(&t->root, node);
	}
	if (!p.bare)
		write_all(s, &p.found, p.cpu);
	bpf_spin_unlock(&t->lock);
	note_transfer(end(&p, order, v), in, drop_leaf(node));
	return 0;
}

/* Remove one remaining object; return its id, or 0 without an object. */
SEC("tc")
int take_from_list(struct __sk_buff *skb)
{
	struct bpf_list_node *node;
	struct list *l;
	__u32 key = 0;

	l = map_lookup(list, &key);
	if (!l)
		return 0;
	bpf_spin_lock(&l->lock);
	node = bpf_list_pop_front(&l->head);
	bpf_spin_unlock(&l->lock);
	return drop_item(node);
}

SEC("tc")
int take_from_tree(struct __sk_buff *skb)
{
	struct bpf_rb_node *node;
	struct tree *t;
	__u32 key = 0;

	t = map_lookup(tree, &key);
	if (!t)
		return 0;
	bpf_spin_lock(&t->lock);
	node = bpf_rbtree_first(&t->root);
	if (node)
		node = bpf_rbtree_remove(&t->root, node);
	bpf_spin_unlock(&t->lock);
	return drop_leaf(node);
}

/* An object with a lock. Each CPU gets a reference of its own through a kptr in a map value. */
struct object {
	SHARED_FIELDS
	struct bpf_refcount references;
};

/* The name without "struct" is for clang 14, which loses a tag between that and the asterisk. */
typedef struct object object_t;

struct holder {
	object_t __kptr *object;
};

MAP(ARRAY, holder, __u32, struct holder, 1)
MAP(ARRAY, shown, __u32, struct shared, 1) /* a copy, for user space */

SEC("tc")
int make_object(struct __sk_buff *skb)
{
	struct object *o;
	struct holder *h;
	__u32 key = 0;

	h = map_lookup(holder, &key);
	if (!h)
		return 0;
	o = object_new(struct object);
	if (!o)
		return 0;
	/* One by one, as the verifier wants it: not all at once, in whatever pieces. */
	WRITE_ONCE(o->last_cpu, 0);
	WRITE_ONCE(o->count, 0);
	WRITE_ONCE(o->inverse, 0);
	WRITE_ONCE(o->handovers, 0);
	WRITE_ONCE(o->doubled, 0);
	o = bpf_kptr_xchg(&h->object, o);
	if (o)
		object_drop(o);
	return 1;
}

static __always_inline struct object *get_object(void)
{
	struct object *o;
	struct holder *h;
	__u32 key = 0;

	h = map_lookup(holder, &key);
	if (!h)
		return 0;
	o = h->object;
	return o ? object_acquire(o) : 0;
}

SEC("tc")
int count_object(struct __sk_buff *skb)
{
	struct object *o = get_object();

	if (!o)
		return 0;
	contend((void *)o, 0, SOURCE);
	object_drop(o);
	return 0;
}

SEC("tc")
int show_object(struct __sk_buff *skb)
{
	struct object *o;
	struct shared *s;
	__u32 key = 0;

	s = map_lookup(shown, &key);
	if (!s)
		return 0;
	o = get_object();
	if (!o)
		return 0;
	s->last_cpu = o->last_cpu;
	s->count = READ_ONCE(o->count);
	s->inverse = READ_ONCE(o->inverse);
	s->handovers = READ_ONCE(o->handovers);
	s->doubled = READ_ONCE(o->doubled);
	object_drop(o);
	return 1;
}
