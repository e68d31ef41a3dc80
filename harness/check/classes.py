# SPDX-License-Identifier: GPL-2.0-only
"""The classes of reasons for which kernels refuse programs: name, text, rule and way out. Pure.

docs/refusals.md explains each class under its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Tuple

PAGE = "docs/refusals.md"


@dataclass(frozen=True)
class Class:
    """A reason for which kernels refuse programs."""

    name: str  # also its anchor in docs/refusals.md
    title: str
    advice: str  # what to change
    rule: str = ""  # its heading in docs/rules.md, if it is about the lock
    texts: Tuple[str, ...] = ()  # regular expressions; the first class with one that fits is it


_CALLS = "No calls while holding the lock"
# The particular stands before the general.
CLASSES: Tuple[Class, ...] = (
    Class(
        "second-lock",
        "a second lock while one is held",
        "Unlock the first before you take the second, or put what both protect under one lock.",
        "One lock at a time",
        (r"Locking two bpf_spin_locks are not allowed",),
    ),
    Class(
        "call-under-lock",
        "a call while the lock is held",
        "Move the call before bpf_spin_lock() or after bpf_spin_unlock(), and carry values over in"
        " local variables.",
        _CALLS,
        (r"function calls are not allowed while holding a lock",),
    ),
    Class(
        "packet-load-under-lock",
        "LD_ABS or LD_IND while the lock is held",
        "Read the packet before bpf_spin_lock(); load_byte() and its like end the program.",
        "No LD_ABS or LD_IND while holding the lock",
        (r"BPF_LD_\[ABS\|IND\] cannot be used inside bpf_spin_lock-ed region",),
    ),
    Class(
        "missing-unlock",
        "a path that returns without unlocking",
        "Unlock on every path to a return, early returns and loop exits among them.",
        "Unlock before return, on every path",
        (
            r"bpf_spin_unlock is missing",
            r"cannot be used inside bpf_(res_)?spin_lock-ed region",
        ),
    ),
    Class(
        "packet-load",
        "LD_ABS or LD_IND where the program may not end",
        "Read the packet by bpf_skb_load_bytes(), or before the callback or section:"
        " load_byte() and its like end the program.",
        "",
        (r"BPF_LD_\[ABS\|IND\]",),
    ),
    Class(
        "deadlock",
        "a bpf_res_spin_lock that is taken while it is held",
        "Take each lock once: release it first, or pass the held state on to the function that"
        " takes it again.",
        "A deadlock with oneself is refused, or found when it runs",
        (r"AA deadlock detected",),
    ),
    Class(
        "unlock-order",
        "locks that are released in another order than the last first",
        "Release the lock first that was taken last.",
        "res_spin_locks nest, and are released innermost first",
        (r"spin_unlock(_irqrestore)? cannot be out of order",),
    ),
    Class(
        "irq-flags",
        "interrupt flags that are not those which the lock saved",
        "Give bpf_res_spin_unlock_irqrestore() the flags, a local variable, that its own"
        " bpf_res_spin_lock_irqsave() wrote, and restore what was saved last first.",
        "Interrupt flags go back to the lock that saved them",
        (
            r"cannot restore irq state out of order",
            r"irq flag",
            r"bpf_local_irq_(save|restore)-ed region",
        ),
    ),
    Class(
        "unlock-without-lock",
        "an unlock without a lock",
        "Lock on every path that leads to the unlock, and unlock once.",
        "No unlock without a lock",
        (r"bpf_(res_)?spin_unlock(_irqrestore)? without taking a lock",),
    ),
    Class(
        "different-lock",
        "an unlock of another lock than the one taken",
        "Unlock through the very pointer that was locked: a second lookup of the same key counts as"
        " another element.",
        "Unlock the lock that was taken",
        (r"bpf_(res_)?spin_unlock(_irqrestore)? of different lock",),
    ),
    Class(
        "list-lock",
        "a list is touched without its lock",
        "Hold the lock of the very value or object that the list's head is in, from the same lookup.",
        "A list is touched only under its own lock",
        (
            r"must be held for bpf_list_head",
            r"held lock and object are not in the same allocation",
        ),
    ),
    Class(
        "tree-lock",
        "a tree is touched without its lock",
        "Hold the lock of the very value or object that the tree's root is in, from the same lookup.",
        "A tree is touched only under its own lock",
        (r"must be held for bpf_rb_root",),
    ),
    Class(
        "tree-callback",
        "a callback that orders a tree, and locks, unlocks or changes it",
        "Let the callback do no more than compare the two nodes: the lock is held around"
        " bpf_rbtree_add() already.",
        "The callback that orders a tree leaves locks and trees alone",
        (
            r"can't (res_)?spin_\{lock,unlock\} in rbtree cb",
            r"not allowed in rbtree cb",
            r"rbtree_remove not allowed",
        ),
    ),
    Class(
        "contains",
        "a list, tree or node that does not match __contains",
        "Name in __contains(struct, member) the very struct and member that are put in, and pass the"
        " address of that member.",
        "Lists and trees are changed under the lock by these functions",
        (
            r"but expected bpf_(list|rb)_node at offset=",
            r"operation on \w+ expects arg#\d+ \w+ at offset=",
            r"bpf_(list_head|rb_root) not found at offset=",
            r"has no valid bpf_(list_head|rb_root)",
            r"bpf_(list|rb)_node not found at offset=",
        ),
    ),
    Class(
        "stale-reference",
        "a pointer into a list or tree after the section, or one that is given away",
        "Use what was put into a list or tree, or found there, before the unlock only; to keep it, take"
        " it out again, or take a reference (bpf_refcount_acquire()) before.",
        "A pointer into a list or tree ends with the section",
        (
            r"expected pointer to allocated object",
            r"must be referenced",
            r"expects referenced PTR_TO_BTF_ID",
            r"must be (an )?(owning|non-owning) ref",
            r"can only take non-owning or refcounted",
            r"neither owning or non-owning ref",
        ),
    ),
    Class(
        "read-only",
        "a store to what a program may only read",
        "Structs of the kernel are for reading. An object of your own is for writing while you own it:"
        " newly allocated, taken out of its map, list or tree, or found there under the lock.",
        "",
        (r"only read is supported", r"may write into memory pointed by"),
    ),
    Class(
        "unreleased",
        "a reference that is still held at the end",
        "Give what was allocated, popped, removed or acquired back on every path: put it into a list, a"
        " tree or a map, or drop it (bpf_obj_drop()) after the unlock.",
        "What is popped or removed is dropped after the section",
        (r"Unreleased reference", r"would lead to reference leak", r"reference has not been"),
    ),
    Class(
        "special-object",
        "an object that may not hold a lock, list or tree",
        "Allocate it by bpf_obj_new(); objects of bpf_percpu_obj_new() hold plain data only.",
        "No lock in a per-CPU object",
        (
            r"type ID argument must not contain special fields",
            r"bpf_percpu_obj_new type size \(\d+\) is greater than",
        ),
    ),
    Class(
        "type-forward",
        "a type that is no struct, or that the object only names",
        "Use the struct itself somewhere in the file (a variable, or sizeof), so that the compiler"
        " writes its members into the BTF.",
        "",
        (
            r"type ID argument must be (of a struct|in range)",
            r"unknown btf struct type ID",
            r"can't determine (key|value) size for type",
        ),
    ),
    Class(
        "exception",
        "an exception where none may be thrown",
        "Test before the callback or after it, and return a value from it instead of bpf_throw() or"
        " bpf_assert().",
        "No exception while holding the lock",
        (
            r"cannot be called from callback subprog",
            r"cannot call exception cb directly",
            r"cannot be used as exception callback",
            r"bpf_throw cannot be used inside",
        ),
    ),
    Class(
        "exception-callback",
        "a callback for exceptions that is none",
        "Give the program one __exception_cb(function), a global one that takes one integer and returns"
        " what the program itself may return.",
        "",
        (
            r"exception cb only supports single integer argument",
            r"multiple exception callback tags",
            r"exception callback .* (must|should|not)",
            r"Global function \S+ doesn't return scalar",
            r"Global function \S+ return value not void or scalar",
            r"exception cb cannot return void",
        ),
    ),
    Class(
        "return-value",
        "a return value that this kind of program may not give",
        "Return one of the values that the line names, on every path; bpf_throw() gives its argument"
        " back, too.",
        "",
        (r"At (program|callback|async callback) (exit|return) the register R\d ",),
    ),
    Class(
        "kernel-pointer",
        "a kernel pointer in a value that is used as another",
        "Put into a __kptr or __percpu_kptr member what has its very type, by bpf_kptr_xchg(), and drop"
        " it by the function of its kind (bpf_obj_drop(), bpf_percpu_obj_drop()).",
        "What else a value with a lock holds",
        (
            r"invalid kptr access",
            r"store to referenced kptr disallowed",
            r"(arg#|R)\d+ expected for bpf_(percpu_)?obj_drop",
            r"kptr access (size|cannot|from)",
            r"kptr cannot be accessed",
        ),
    ),
    Class(
        "object-start",
        "a pointer into an object where its start is needed",
        "Give back what the allocation returned: container_of() of a node, before bpf_obj_drop() and its"
        " like.",
        "",
        (
            r"must have zero offset when passed to release func",
            r"dereference of modified (?!\w*or_null)\w+ ptr",
        ),
    ),
    Class(
        "direct-access",
        "a load or store that touches the lock",
        "Copy and clear the fields beside the lock one by one, not the value as a whole, and give"
        " helpers a buffer without it.",
        "The lock field is opaque to loads and stores",
        (
            r"bpf_(res_)?spin_lock cannot be accessed directly by load/store",
            r"direct access to bpf_(res_)?spin_lock is disallowed",
        ),
    ),
    Class(
        "field-access",
        "a load or store that touches a field of the kernel's",
        "Leave lists, trees, nodes, timers, work queues and kernel pointers to their functions, and copy"
        " the fields beside them one by one.",
        "A list head or tree root is no memory to read or write",
        (
            r"(bpf_\w+|kptr) cannot be accessed (in)?directly by",
            r"direct access to \w+ is disallowed",
        ),
    ),
    Class(
        "two-locks",
        "two locks in one value",
        "Keep one struct bpf_spin_lock in the value, or put the second in a value of another map.",
        "One lock per value",
        (r"has more than one 'struct bpf_(res_)?spin_lock'",),
    ),
    Class(
        "no-btf",
        "no BTF for the map",
        'Declare the map in SEC(".maps") with __type(key, …) and __type(value, …), and compile'
        " with -g.",
        "The map has BTF",
        (r"has to have BTF in order to use bpf_\w+", r"requires prog(ram)? BTF"),
    ),
    Class(
        "btf-refused",
        "the kernel refuses the BTF of the whole object",
        "Move the member out of the struct that holds the lock, or give it a type that the kernel"
        " takes there.",
        "What else a value with a lock holds",
    ),
    Class(
        "lock-place",
        "the lock is not where BTF says",
        "Make the value a struct with `struct bpf_spin_lock lock;` as a direct member (no array,"
        " union, typedef or qualifier of it), aligned to 4 bytes, and pass its address as it is.",
        "The value is a struct with the lock at top level",
        (
            r"doesn't point to 'struct bpf_(res_)?spin_lock'",
            r"has no valid bpf_(res_)?spin_lock",
            r"doesn't have 'struct bpf_(res_)?spin_lock'",
            r"is not a struct type or bpf_(res_)?spin_lock is mangled",
        ),
    ),
    Class(
        "field-place",
        "a timer or work queue is not where BTF says",
        "Make it a direct member of the map's value, one of its kind, and pass its address as it is.",
        "What else a value with a lock holds",
        (
            r"doesn't point to 'struct bpf_\w+'",
            r"expected pointer to map value or allocated object",
            r"has no valid bpf_\w+",
            r"doesn't have 'struct bpf_\w+'",
            r"is not a struct type or bpf_\w+ is mangled",
            r"has more than one 'struct bpf_\w+'",
            r"doesn't have constant offset. bpf_(?!(res_)?spin_lock)\w+ has to be",
        ),
    ),
    Class(
        "lock-offset",
        "the pointer to the lock has a variable offset",
        "Take the lock of the value by its name; an index must choose the element, by the key.",
        "The pointer to the lock has a known, constant offset",
        (r"doesn't have constant offset. bpf_(res_)?spin_lock has to be at the constant offset",),
    ),
    Class(
        "program-type",
        "this type of program may not use the lock",
        "Lock in a program of another type (tc, XDP, cgroup, LSM), or use atomic operations or a"
        " per-CPU map here.",
        "Tracing programs and socket filters may not lock",
        (
            r"(tracing|socket filter) progs cannot use bpf_spin_lock yet",
            r"tracing progs cannot use bpf_\{list_head,rb_root\} yet",
            r"tracing progs cannot use bpf_list_head yet",
        ),
    ),
    Class(
        "sleepable",
        "a sleepable program may not use the lock",
        "Make the program one that does not sleep.",
        "Sleepable programs may lock",
        (r"sleepable progs cannot use bpf_spin_lock yet",),
    ),
    Class(
        "lock-pointer",
        "the argument is no lock of a map's value",
        "A lock lives in the value of a map: look the element up, test the pointer for NULL, and"
        " pass the address of its lock.",
        "The lock lives in a map value, not on the stack, in ctx or in a packet",
        (
            r"helper access to the packet is not allowed",
            r"doesn't point to map value or allocated object",
            r"variable ptr_ access var_off=",
        ),
    ),
    Class(
        "null-check",
        "a lookup's result is used without a test for NULL",
        "Return, or go another way, where the lookup gave NULL, before the value is used.",
        "",
        (
            r"invalid mem access '\w+_or_null_?'",
            r"pointer arithmetic on \w+_or_null_? prohibited",
            r"type=\w+_or_null_? expected=",
            r"dereference of modified \w+_or_null_? ptr",
            r"Possibly NULL pointer passed to",
        ),
    ),
    Class(
        "not-a-pointer",
        "a number is used as a pointer",
        "Load and store through what a lookup or an allocation returned; what was released, or went"
        " through arithmetic that the verifier cannot follow, is a number to it.",
        "",
        (r"invalid mem access '(inv|scalar)'",),
    ),
    Class(
        "argument",
        "an argument of another kind than the function takes",
        "Give the function what the line expects in that register (R1 is the first argument); what it"
        " holds instead is said before.",
        "",
        (
            r"\bexpected=\w+",
            r"(arg#|R)\d+ (is \w+ expected|expected|must be|should|has) ",
        ),
    ),
    Class(
        "map-function",
        "a function that does not go with this type of map",
        "Use the functions of the map's type: a local storage is asked by its owner"
        " (bpf_sk_storage_get() and its like), not by a key.",
        "",
        (r"cannot pass map_type \d+ into func",),
    ),
    Class(
        "open-section",
        "a section of RCU, preemption or interrupts that is not ended in time",
        "End the section on every path, before the return, the tail call or the exception.",
        "",
        (
            r"cannot be used inside bpf_(rcu_read_lock|preempt_disable)-ed region",
            r"bpf_rcu_read_(un)?lock is missing",
            r"unmatched rcu read (un)?lock",
            r"\d+ bpf_preempt_(enable|disable)",
            r"unmatched attempt to enable preemption",
        ),
    ),
    Class(
        "sleep-in-section",
        "a call that may sleep where nothing may",
        "Make the call before the section (a lock, RCU, preemption or interrupts off) or after it.",
        "",
        (
            r"sleepable helper \S+ in ",
            r"kernel func \S+ is sleepable within",
            r"sleepable global function \S+ called in",
            r"may sleep in ",
        ),
    ),
    Class(
        "struct-access",
        "an access beyond a member or a struct of the kernel's",
        "Access members by their names and in their sizes, as this kernel's BTF has them (CO-RE).",
        "",
        (
            r"access beyond (the end of member|struct)",
            r"invalid (sock|sock_common|tcp_sock|xdp_sock) access",
        ),
    ),
    Class(
        "tracing-drop",
        "an object that tracing programs may not drop",
        "Drop it in a program of another type, or leave out of the object what is freed with it (kernel"
        " pointers, lists, trees): tracing programs may run in an NMI.",
        "",
        (r"cannot be used in tracing programs on types with",),
    ),
    Class(
        "struct-ops",
        "another function of its struct_ops is refused",
        "Mend the function that is named first: a struct_ops is made of all of its functions.",
        "",
        (r"another function of its struct_ops is refused",),
    ),
    Class(
        "hook-denied",
        "a function to which this kernel lets nothing of this kind attach",
        "Attach to a function that calls it, or by another kind of program (kprobe, tracepoint).",
        "",
        (r"Attaching .* is rejected",),
    ),
    Class(
        "kernel-function",
        "this kernel has no such function to call",
        "Declare the function __weak and call it under `if (bpf_ksym_exists(…))`, or do without.",
        "",
        (
            r"extern \(func ksym\) '.*': not found",
            r"calling kernel function \w+ is not allowed",
            r"kernel function call .* not supported",
            r"calling kernel functions? (is|are) not (supported|allowed)",
            r"extern \(var ksym\) '.*'.*not found",
            r"failed to find BTF ID for extern",
            r"kfunc '.*' is referenced but wasn't resolved",  # a weak one, called all the same
            r"(invalid func|call) unknown#2002\d{6}",  # libbpf's mark of one
        ),
    ),
    Class(
        "lock-functions",
        "nothing attaches to the lock's own functions",
        "Attach to the functions that take the lock; a program that ran within bpf_spin_lock() could"
        " wait for itself.",
        "Nothing attaches to the lock's own functions",
        (r"the lock's own functions cannot be attached to",),
    ),
    Class(
        "no-preempt-call",
        "a global function is called without preemption or with interrupts off",
        "Make the function static, or call it outside the section; v6.15 takes global functions there"
        " that do not sleep.",
        "",
        (r"global function calls are not allowed with \w+ disabled",),
    ),
    Class(
        "hook-missing",
        "this kernel has nothing there to attach to",
        "The function, tracepoint or hook in SEC() does not exist in this kernel: name one that does,"
        " or leave the program out there (bpf_program__set_autoload()).",
        "",
        (
            r"failed to find kernel BTF type ID of",
            r"failed to find valid kernel BTF",
            r"FENTRY/FEXIT program can only be attached",
            r"attach to unsupported member",
            r"has no attach type BPF_\w+",  # though it loads
            r"struct_ops init_kern: .* is not found in kernel BTF",
        ),
    ),
    Class(
        "not-sleepable",
        "this kernel lets no program sleep there",
        "Leave out the .s in SEC(), and what only a program that sleeps may call, or leave the program"
        " out there (bpf_program__set_autoload()).",
        "",
        (r"is not sleepable", r"programs can be sleepable"),
    ),
    Class(
        "helper-missing",
        "this kernel has no such helper, or not for this type of program",
        "Do without the helper, or choose at load time: `if (bpf_core_enum_value_exists(…))`.",
        "",
        (
            r"unknown func \w+#\d+",
            r"invalid func \w+#\d+",
            r"program of this type cannot use helper",
            r"number of funcs in func_info doesn't match number of subprogs",  # a callback
        ),
    ),
    Class(
        "instruction",
        "an instruction that this kernel does not know",
        "Compile with a smaller -mcpu (all kernels know v2, and v4 needs v6.6), and do without the"
        " value that an atomic operation returns (v5.12).",
        "",
        (
            r"unknown opcode [0-9a-f]{2}",
            r"BPF_\w+ uses reserved fields",
            r"BPF_ATOMIC uses invalid atomic opcode",
        ),
    ),
    Class(
        "core",
        "a CO-RE relocation found nothing in this kernel",
        "Ask first: `if (bpf_core_field_exists(…))`, and give the other kernels another path.",
        "",
        (
            r"<invalid CO-RE relocation>",
            r"failed to (resolve|perform|relocate).*CO-RE",
            r"CO-RE relocations: ",
        ),
    ),
    Class(
        "section",
        "a section that libbpf does not know",
        'Name the kind of program in SEC(), as libbpf spells it: SEC("tc"), SEC("xdp"), …',
        "",
        (r"missing BPF prog type, check ELF section name",),
    ),
    Class(
        "needs-target",
        "the program extends another one, which is not there",
        '`check` loads an extension on a target that is in the same object, as SEC("freplace/function")'
        " names it; test others through their loader.",
        "",
        (
            r"attach program FD is not set",
            r"attach_prog_fd",
            r"failed to find .*prog.* FD",
            r"Invalid target program",
            r"its target '.*' is refused itself",
        ),
    ),
    Class(
        "global-data",
        "a lock among global variables that user space maps into memory",
        "Make the variables static, or put them into a section of their own:"
        ' `SEC(".bss.name") __hidden`.',
        "Global variables",
        (r"failed to re-mmap\(\) contents", r"failed to mmap"),
    ),
    Class(
        "context",
        "an access to its context that this kind of program may not make",
        "Use only the fields, or of a tracing or LSM program the arguments, that this kernel gives it.",
        "",
        (r"invalid bpf_context access", r"func '\w+' doesn't have \d+-th argument"),
    ),
    Class(
        "too-complex",
        "too much for the verifier",
        "Bound the loops, make fewer branches within them, or move parts into global functions.",
        "",
        (
            r"BPF program is too large. Processed",
            r"infinite loop detected",
            r"back-edge from insn",
            r"sequence of \d+ jumps is too complex",
            r"program is too large",
        ),
    ),
    Class(
        "legacy-maps",
        "maps declared as they were before libbpf v1.0",
        'Declare the maps in SEC(".maps") with __uint() and __type().',
        "The map has BTF",
        (r"legacy map definitions", r"bad map relo against '.*' in section '(.*/)?maps(/.*)?'"),
    ),
    Class(
        "static-program",
        "a program that is static",
        "Leave out `static`: libbpf takes global functions as programs, and static ones only as"
        " what they call.",
        "",
        (r"program '.*' is static and not supported",),
    ),
    Class(
        "not-linked",
        "a function or variable that is in another object",
        "Link the objects that belong together (`bpftool gen object`), and declare what the kernel"
        " has with __ksym.",
        "",
        (
            r"failed to find BTF for extern",
            r"extern function \S+ is unsupported under \S+ section",
            r"unrecognized extern section",
        ),
    ),
    Class(
        "map-mismatch",
        "a pinned map of this name is of another kind",
        "Give the maps of one pinned name the same type, sizes and flags.",
        "",
        (r"parameter mismatch",),
    ),
    # Below, those that no text tells.
    Class(
        "map-type",
        "this type of map holds no lock",
        "Use a hash, an array or a local storage; a per-CPU map needs no lock.",
        "Only some map types hold a lock",
    ),
    Class(
        "inner-map",
        "no lock in an inner map on this kernel",
        "Keep the locks in a map that is looked up directly.",
        "Inner maps",
    ),
    Class(
        "btf-depth",
        "types that are nested too deep for the kernel",
        "Nest structs in structs at most 31 deep.",
    ),
    Class(
        "map-flags",
        "a map with a lock may not be read-only or write-only for programs",
        "Leave out BPF_F_RDONLY_PROG and BPF_F_WRONLY_PROG.",
        "Map flags",
    ),
    Class(
        "map-unknown",
        "a map this kernel cannot make",
        "The type, a flag or the size of the map is not for this kernel.",
    ),
    Class(
        "map-size",
        "a map too large for memory",
        "Make max_entries smaller, or add BPF_F_NO_PREALLOC to a hash; `check` loads a map that is too"
        " large with fewer entries, and all together may take 400 MiB.",
    ),
    Class(
        "kind-missing",
        "this kernel does not know this kind of program",
        "Leave the program out on this kernel (bpf_program__set_autoload()).",
    ),
    Class(
        "capability",
        "a capability is missing",
        "Load it as root, or with CAP_BPF and what its type needs (CAP_NET_ADMIN, CAP_PERFMON).",
        "Only privileged users may lock",
    ),
    Class(
        "time",
        "`check` gave up: it did not end in its time",
        "This is a limit of `check`, not of the kernel; a verification that takes so long is too"
        " complex, too, or without end.",
    ),
    Class(
        "memory",
        "`check` gave up: it took more memory than a guest has for it",
        "This is a limit of `check`, not of the kernel: make the maps smaller, or load it elsewhere.",
    ),
    Class(
        "libbpf",
        "libbpf itself died of it",
        "This is a bug of the guest's libbpf, even if the object is damaged: compile the object again;"
        " if libbpf still dies, report it to libbpf.",
    ),
    Class(
        "object", "no object that libbpf opens", "Compile it again, with `clang -g -target bpf`."
    ),
    Class(
        "compile",
        "bcc does not compile it",
        "bcc compiles on the machine itself, with the headers of its kernel: use what both have.",
    ),
    Class(
        "no-headers",
        "no headers of this kernel, which bcc needs",
        "Check another kernel: `spinlock kernels list` says which have headers.",
    ),
    Class("crash", "the kernel crashed on it", "This is a bug of the kernel: report it."),
    Class(
        "loader",
        "your loader failed",
        "Its last words tell why (--json has all of them); its exit code counts.",
    ),
    Class(
        "loader-idle",
        "your loader loaded nothing",
        "Nothing speaks for this kernel then: let it load, or give it more time by --time-limit.",
    ),
    Class("other", "another reason", "Read the verifier's log (--json has it)."),
)
BY_NAME: Dict[str, Class] = {row.name: row for row in CLASSES}
