/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Annotations that state the expected result of a program, and macros for two loaders.
 *
 * rules/ has the annotated programs, driven/ those of the run-time tests, include/ shared headers.
 *
 * 1. Annotations
 * --------------
 * They stand between SEC() and the function and expand to nothing, so they cannot change the object
 * under test. harness/scenarios/annotation.py reads them from the text. Where the kernel's BPF selftests
 * have a word for the same thing, it is used here.
 *
 *   __rule("...")          the rule this case belongs to, in words: a row of the rule table; see 2
 *   __description("...")   one line for people, when the function's name does not say it
 *   __twin(program)        the legal twin of a refused program: the same code without the violation.
 *                          If the twin is refused as well, the refusal proves nothing and the
 *                          verdict is INCONCLUSIVE. Obligatory with __refused and __failure.
 *   __loader(libbpf)       only this loader can express the case (the comment above says why)
 *   __success              it must load; with __retval it must also run
 *   __refused(name)        it must be refused as the Refusal of that name states (see 2), which is
 *                          declared in this file or, for several files, in include/refusals.h. In
 *                          a clause, only its texts for the clause's kernels count.
 *   __failure              it must be refused as __stage, __errno and __msg state; at least one of
 *                          __errno and __msg is needed. Use it for a refusal of a single case, and
 *                          __refused for all others.
 *   __stage(prog_load)     where: btf_load, map_create, prog_load (the default) or attach
 *   __errno(EINVAL)        with this errno
 *   __msg("text")          the verifier log holds this text, literally; {{...}} holds a regular
 *                          expression. Several must appear in this order.
 *   __not_msg("text")      the verifier log does not hold this text
 *   __retval(0)            BPF_PROG_TEST_RUN on one packet returns this
 *   __kernel(">=6.9")      starts a clause that holds for these kernels only. Annotations before the
 *                          first __kernel hold for all clauses. At most one clause may match a
 *                          kernel; if none does, the case is skipped there.
 *   __needs(name, "6.2")   the case needs a function, type or enumerator, by its name in the
 *                          kernel's BTF, which kernels have since that version. If the BTF lacks it,
 *                          an older kernel skips the case, and a newer one gives an ERROR. A third
 *                          argument such as CONFIG_BPF_LSM, and a fourth, name options: if one is
 *                          off, a newer kernel skips too. A name bpf_lsm_… also needs an active BPF LSM.
 *   __user(nobody)         load it as uid 65534 without any capability, or with those named, as in
 *                          __user(cap_bpf+cap_net_admin). Root loads its BTF and creates its maps,
 *                          unless a second argument names the first stage of the user:
 *                          __user(cap_bpf, btf_load) or __user(nobody, map_create). That needs
 *                          __loader(libbpf).
 *   __known_bug("commit", "<7.0")
 *                          these kernels are known to break the rule. The commit fixes the bug. If
 *                          there is no fix yet, it is the commit that introduced the bug, and the
 *                          comment says so.
 *
 * 2. Declarations
 * ---------------
 * A comment that begins with one of these words is a declaration. Each name is declared once.
 *
 *   Rule: its name         the rule and its reason, then the commits that introduced or changed it;
 *                          the first commit introduced it. The second line may name its topic:
 *                          "Topic: name".
 *   Topic: its name        a chapter of docs/rules.md, and what its rules have in common. Chapters
 *                          have the order of their declarations in include/topics.h.
 *   Refusal: its_name      the errno and text of a refusal: first a line per text, then the reason,
 *                          and the commits that changed the text
 *
 * The first text of a refusal holds from the first kernel on, every other from its own version on,
 * each until the next. So a new text is one new line. A line has an errno and strings that the verifier
 * log holds in this order, as in __msg. A stage other than prog_load stands before the errno:
 *
 *   Refusal: missing_unlock
 *   EINVAL "bpf_spin_unlock is missing"
 *   since v6.13: EINVAL "BPF_EXIT instruction" "cannot be used inside bpf_spin_lock-ed region"
 *   The program returns with the lock held.
 *   commit d402755ced2e ("bpf: Unify resource leak checks") (in v6.13)
 *
 * 3. Objects
 * ----------
 * The programs of a file share one object (libbpf) or module (bcc). The code inside
 * "#if UNIT(name)" ... "#endif" becomes an object of its own. This is needed for a map or BTF that the
 * kernel refuses, because no other program of the same object could be loaded. The program of
 * SEC("freplace/name") replaces the main function of the object's program of that name.
 *
 * 4. Two loaders
 * --------------
 * libbpf gets an object from clang. bcc gets the text after "clang -E -DLOADER_BCC": bcc rewrites map
 * calls in the source before the preprocessor runs, and refuses map calls inside a macro. No other
 * header may be included: bcc brings its own, and the guest's would differ.
 */
#ifndef SPINLOCK_H
#define SPINLOCK_H

#define __rule(name)
#define __description(text)
#define __twin(program)
#define __loader(name)
#define __success
#define __refused(name)
#define __failure
#define __stage(name)
#define __errno(name)
#define __msg(text)
#define __not_msg(text)
#define __retval(value)
#define __kernel(range)
#define __user(...)
#define __known_bug(commit, range)
#define __needs(name, ...)

#define UNIT(name) UNIT_##name

#ifdef LOADER_BCC

#define SEC(name)

/* bcc's own names of map types. */
#define BCC_HASH "hash"
#define BCC_ARRAY "array"
#define BCC_PERCPU_HASH "percpu_hash"
#define BCC_PERCPU_ARRAY "percpu_array"
#define BCC_LRU_HASH "lru_hash"
#define BCC_LRU_PERCPU_HASH "lru_percpu_hash"
#define BCC_LPM_TRIE "lpm_trie"
#define BCC_PROG_ARRAY "prog"
#define MAP(kind, name, key, value, entries) BPF_TABLE(BCC_##kind, key, value, name, entries);
#define MAP_FLAGS(kind, name, key, value, entries, flags) \
	BPF_F_TABLE(BCC_##kind, key, value, name, entries, flags);

#define map_lookup(map, key) map.lookup(key)
#define map_update(map, key, value) map.update(key, value)
#define map_delete(map, key) map.delete(key)
#define map_tail_call(ctx, map, index) map.call(ctx, index)

#else

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

#define MAP_FLAGS(kind, name, key_type, value_type, entries, flags) \
	struct {                                                    \
		__uint(type, BPF_MAP_TYPE_##kind);                  \
		__uint(max_entries, entries);                       \
		__uint(map_flags, flags);                           \
		__type(key, key_type);                              \
		__type(value, value_type);                          \
	} name SEC(".maps");
#define MAP(kind, name, key_type, value_type, entries) \
	MAP_FLAGS(kind, name, key_type, value_type, entries, 0)

#define map_lookup(map, key) bpf_map_lookup_elem(&map, key)
#define map_update(map, key, value) bpf_map_update_elem(&map, key, value, BPF_ANY)
#define map_delete(map, key) bpf_map_delete_elem(&map, key)
#define map_tail_call(ctx, map, index) bpf_tail_call(ctx, &map, index)

/* The classic packet loads; bcc declares the same. */
unsigned long long load_byte(void *skb, unsigned long long offset) asm("llvm.bpf.load.byte");

#endif

/* A load and a store that clang neither drops nor merges with others. */
#define READ_ONCE(variable) (*(volatile typeof(variable) *)&(variable))
#define WRITE_ONCE(variable, value) (*(volatile typeof(variable) *)&(variable) = (value))

/* A counter beside its lock, which most programs use. */
struct counter {
	struct bpf_spin_lock lock;
	__u32 value;
};

#endif
