# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel said no to, in a class that has a name, a rule and a way out. Pure.

A class is known by the shortest stable text of what the verifier or libbpf prints; what they do not
print (map types, the BTF) by the answers to plain system calls. docs/refusals.md explains each
class under its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Mapping, Optional, Tuple

from packaging.version import Version

from harness.provision import elf

Json = Mapping[str, Any]
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
        "missing-unlock",
        "a path that returns without unlocking",
        "Unlock on every path to a return, early returns and loop exits among them.",
        "Unlock before return, on every path",
        (
            r"bpf_spin_unlock is missing",
            r"BPF_EXIT instruction .*cannot be used inside bpf_spin_lock-ed region",
        ),
    ),
    Class(
        "packet-load-under-lock",
        "LD_ABS or LD_IND while the lock is held",
        "Read the packet before bpf_spin_lock(); load_byte() and its like end the program.",
        "No LD_ABS or LD_IND while holding the lock",
        (r"BPF_LD_\[ABS\|IND\] cannot be used inside bpf_spin_lock-ed region",),
    ),
    Class(
        "unlock-without-lock",
        "an unlock without a lock",
        "Lock on every path that leads to the unlock, and unlock once.",
        "No unlock without a lock",
        (r"bpf_(res_)?spin_unlock without taking a lock",),
    ),
    Class(
        "different-lock",
        "an unlock of another lock than the one taken",
        "Unlock through the very pointer that was locked: a second lookup of the same key counts as"
        " another element.",
        "Unlock the lock that was taken",
        (r"bpf_(res_)?spin_unlock of different lock", r"spin_unlock cannot be out of order"),
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
        (r"has to have BTF in order to use bpf_(res_)?spin_lock",),
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
        "lock-offset",
        "the pointer to the lock has a variable offset",
        "Take the lock of the value by its name; an index must choose the element, by the key.",
        "The pointer to the lock has a known, constant offset",
        (r"doesn't have constant offset. bpf_(res_)?spin_lock has to be at the constant offset",),
    ),
    Class(
        "program-type",
        "this type of program may not use the lock",
        "Do the locked update in a program of another type (fentry, tp_btf and LSM may lock), or"
        " use atomic operations or a per-CPU map here.",
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
        (r"helper access to the packet is not allowed",),
    ),
    Class(
        "null-check",
        "a lookup's result is used without a test for NULL",
        "Return, or go another way, where the lookup gave NULL, before the value is used.",
        "",
        (
            r"invalid mem access '\w+_or_null'",
            r"pointer arithmetic on \w+_or_null prohibited",
            r"R\d type=\w+_or_null expected=",
        ),
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
        ),
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
        (r"\w+ is not sleepable", r"programs can be sleepable"),
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
        "the program extends another one, which only its own loader knows",
        "`check` cannot load it alone; test it through its loader.",
        "",
        (
            r"attach program FD is not set",
            r"attach_prog_fd",
            r"failed to find .*prog.* FD",
            r"Invalid target program",
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
        "Make max_entries smaller, or add BPF_F_NO_PREALLOC to a hash; `check` allows 400 MiB, and"
        " kernels before v5.11 what RLIMIT_MEMLOCK does.",
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
    Class("time", "verification did not end in time", "See too-complex: it may be without end."),
    Class("memory", "it took more memory than the guest allows", "Make its maps smaller."),
    Class("libbpf", "libbpf broke on it", "The object is damaged: compile it again."),
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
    Class("other", "another reason", "Read the verifier's log (--json has it)."),
)
BY_NAME: Dict[str, Class] = {row.name: row for row in CLASSES}

_MAPS_OF_MAPS = (12, 13)  # ARRAY_OF_MAPS, HASH_OF_MAPS
# Types up to INSN_ARRAY, without HASH, ARRAY, CGROUP_STORAGE and those of sockets, inodes, tasks and
# cgroups, which some kernel lets hold a lock.
_WITHOUT_LOCKS = frozenset(range(1, 35)) - {1, 2, 19, 24, 28, 29, 32}
_INSN = re.compile(r"^(?:\d+: )*(\d+): \(([0-9a-f]{2})\) (.*)", re.MULTILINE)
_SOURCE = re.compile(r"^; (.*?)(?: @ ([^@\n]+?):(\d+))?$", re.MULTILINE)
_VALUE_CALLBACKS = r"call bpf_(for_each_map_elem|timer_set_callback)"
_FINAL = re.compile(r"^processed \d+ insns|^verification time|^stack depth|^max_states|^$")


@dataclass(frozen=True)
class Refusal:
    """Why one kernel refused one program."""

    name: str  # of a Class
    line: str  # the telling line
    insn: Optional[int] = None
    source: str = ""  # the C text there, as the log shows it
    file: str = ""
    line_number: int = 0
    since: str = ""  # the kernel from which on it is known to be accepted, "" if never or unknown
    advice: str = ""
    errno: str = ""

    @property
    def of(self) -> Class:
        """Its class."""
        return BY_NAME[self.name]

    @property
    def where(self) -> str:
        """Return file:line, or ""."""
        return f"{self.file}:{self.line_number}" if self.file else ""


def explain(
    seen: Json,
    asked: Json,
    release: Version,
    program: Optional[elf.Function],
    maps: Mapping[str, elf.Map],
) -> Refusal:
    """Tell why a program was refused.

    `seen` is what the guest reports of the program, `asked` what the kernel answered to plain calls
    for the object's BTF and maps; `program` and `maps` are what the object itself says, if it is
    readable.
    """
    errno = str(seen.get("errno") or "")
    if seen.get("died"):
        how = str(seen["died"])
        name = how if how in ("time", "memory") else "libbpf"
        return _plain(name, f"the process that loaded it was ended by: {how}", "")
    log = str(seen.get("log", ""))
    messages = [str(message) for message in seen.get("messages", ())]
    name, line, at = _by_text(log, messages)
    if name in ("no-btf", "other", "lock-place", "") or errno == "EPERM":
        hidden = _hidden(asked, maps, seen, release, line)
        if hidden is not None and (name != "lock-place" or hidden[0] == "two-locks"):
            name, line = hidden[0], hidden[1] if name in ("", "other") else line
    if not line:
        line = _last(log) or (messages[-1] if messages else "") or errno
    insn, code, source, file, number = _place(log, at if at >= 0 else len(log))
    if insn is not None and program is not None and insn < len(program.insns):
        file, number = program.line(insn) or (file, number)
    name = name or "other"
    if name == "call-under-lock" and re.search(r"call bpf_(res_)?spin_lock\b", code):
        name = "second-lock"
    if name == "other" and re.search(r"R\d type=\w+ expected=.*map_value", line):
        name = "lock-pointer" if "spin_" in code else "other"
    if name == "helper-missing" and re.search(r"bpf_spin_(un)?lock#", line):
        name = "program-type"
    row = BY_NAME[name]
    since, advice = _since(name, code, line, release, maps, log)
    return Refusal(
        name, line.strip(), insn, source, file, number, since, advice or row.advice, errno
    )


def _plain(name: str, line: str, errno: str) -> Refusal:
    return Refusal(name, line, advice=BY_NAME[name].advice, errno=errno)


def broken(event: Json) -> Refusal:
    """Tell why a whole object could not be opened."""
    if event.get("died"):
        how = str(event["died"])
        return _plain(how if how in ("time", "memory") else "libbpf", f"ended by: {how}", "")
    messages = [str(message) for message in event.get("messages", ())]
    errno = str(event.get("errno") or "")
    name, line, _ = _by_text("", messages)
    told = line or next(iter(messages[-1:]), errno)
    return _plain("object" if name in ("", "other") else name, told, errno)


def by_bcc(seen: Json, release: Version) -> Refusal:
    """Tell why bcc or the kernel refused a program of a text; `seen` is the fields of an observation."""
    detail = str(seen.get("detail") or "")
    if seen["stage"] == "compile":
        errors = [line for line in detail.splitlines() if " error: " in line]
        return _plain("compile", (errors or detail.splitlines() or ["no reason given"])[0], "")
    asked: Dict[str, Any] = {"btf": None, "maps": {}}
    if seen["stage"] == "map_create":
        answer = str(seen.get("errno") or "")
        named = re.search(r"map '([^']+)'", detail)
        asked["maps"] = {named.group(1) if named else "": answer}
        # bcc drops a map's BTF that the kernel does not take, and then the kernel misses it.
        if answer in ("EOPNOTSUPP", "ENOTSUPP"):
            return _plain("map-type", detail, answer)
    return explain({**seen, "messages": [detail] if detail else []}, asked, release, None, {})


def no_headers(release: str) -> Refusal:
    """Tell that bcc has nothing to compile against."""
    return _plain("no-headers", f"no headers of {release} are in the guest", "")


def not_tried(called: bool) -> Refusal:
    """Tell why a program was not loaded: libbpf takes it for one that others call, or time was over."""
    if called:
        return _plain("section", "libbpf finds no program of this name: it is in .text", "")
    advice = "Choose it by --program."
    return replace(_plain("time", "the object's time was over", ""), advice=advice)


def crashed(reason: str) -> Refusal:
    """Tell that the guest was lost."""
    return _plain("crash", reason, "")


def _by_text(log: str, messages: List[str]) -> Tuple[str, str, int]:
    """Return (class, telling line, its position in the verifier's log or -1)."""
    for row in CLASSES:
        for pattern in row.texts:
            for found in re.finditer(pattern, log):
                start = log.rfind("\n", 0, found.start()) + 1
                if log.startswith(";", start):  # the program's own text, which the log quotes
                    continue
                end = log.find("\n", found.end())
                whole = log[start : end if end >= 0 else len(log)]
                glued = re.match(r"\d+: \([0-9a-f]{2}\) ", whole)  # to the instruction's line
                return row.name, log[found.start() :].split("\n")[0] if glued else whole, start
            for message in messages:
                if re.search(pattern, message):
                    return row.name, message, -1
    last = _last(log)
    return ("other", last, log.rfind(last)) if last else ("", "", -1)


def _last(log: str) -> str:
    """Return the last line that says something; later kernels explain it further below."""
    told = log.split("\nVerification failed:")[0]
    lines = [line for line in told.split("\n") if not _FINAL.match(line.strip())]
    return lines[-1].strip() if lines else ""


def _hidden(
    asked: Json, maps: Mapping[str, elf.Map], seen: Json, release: Version, line: str
) -> Optional[Tuple[str, str]]:
    """Return the class of what libbpf hides: it drops the BTF when the kernel refuses it."""
    errno, log = str(seen.get("errno") or ""), str(seen.get("log", ""))
    named = re.search(r"map '([^']+)'", line)
    chosen = [m for m in maps.values() if named is None or m.name.startswith(named.group(1))]
    btf = asked.get("btf")
    if any(len(m.locks) > 1 for m in chosen) and (btf or named):
        return "two-locks", f"the kernel refuses the object's BTF: {btf or errno}"
    if btf in ("E2BIG", "EFAULT"):
        return _by_btf(btf, maps, release), f"the kernel refuses the object's BTF: {btf}"
    for name, answer in dict(asked.get("maps", {})).items():
        if named is None or name.startswith(named.group(1)):
            found = _by_map(maps.get(name), answer, release, log)
            if found is not None:
                return found[0], f"map '{name}': {answer}{found[1]}"
    if errno == "EPERM":
        return "capability", line or "EPERM"
    if errno in ("ENOMEM", "E2BIG") and not log:
        messages = seen.get("messages", ())
        return "map-size", str(messages[-1]) if messages else errno
    if seen.get("bare") is False:
        return "kind-missing", f"{errno}, as to a program of its kind that does nothing"
    return None


def _by_btf(answer: str, maps: Mapping[str, elf.Map], release: Version) -> str:
    """Return the class of a BTF that the kernel does not take."""
    if answer == "EFAULT":
        return "lock-place"
    # Before v6.2 the kernel counted a map's locks alone. Types that are too deep for it are not
    # read here either, so nothing is known of the maps then.
    return "two-locks" if maps and release >= Version("6.2") else "btf-depth"


def _by_map(
    declared: Optional[elf.Map], answer: str, release: Version, log: str
) -> Optional[Tuple[str, str]]:
    """Return the class of a map that the kernel does not take, and words on it; None: it is not why."""
    has_lock = declared is not None and bool(declared.locks)
    unsupported = answer in ("EOPNOTSUPP", "ENOTSUPP")
    if declared is not None and declared.inner is not None and declared.inner.locks:
        return "inner-map", ""
    if declared is not None and has_lock and declared.type in _WITHOUT_LOCKS:
        # Some types are refused for what they need themselves, before the lock is looked at.
        if unsupported or answer in ("EINVAL", "EACCES"):
            return "map-type", ""
    if unsupported:
        # Without a lock: this type takes no BTF at all (DEVMAP, XSKMAP, …), and libbpf gives it none.
        return ("map-type", "") if has_lock else None
    if answer == "EACCES" and has_lock:
        return "map-flags", ""
    if answer == "EPERM":
        # Before v5.11 maps count as locked memory, of which a process may have only so much.
        return "map-size" if release < Version("5.11") else "capability", ""
    if answer in ("ENOMEM", "E2BIG"):
        return "map-size", ""
    if log:
        return None
    if declared is not None and declared.type in _MAPS_OF_MAPS and not declared.inner:
        return "map-unknown", ", a map of maps, to which its own loader gives the inner one"
    return "map-unknown", ""


def _place(log: str, end: int) -> Tuple[Optional[int], str, str, str, int]:
    """Return (instruction, its text, C text, file, line) that the log was at."""
    line_end = log.find("\n", end)
    shown = log[: line_end if line_end >= 0 else len(log)]
    insn, code, source, file, number = None, "", "", "", 0
    for found in _INSN.finditer(shown):
        insn, code = int(found.group(1)), found.group(3)
    for found in _SOURCE.finditer(shown):
        source, file, number = found.group(1), found.group(2) or "", int(found.group(3) or 0)
    return insn, code, source, file, number


def _since(
    name: str, code: str, line: str, release: Version, maps: Mapping[str, elf.Map], log: str
) -> Tuple[str, str]:
    """Return (the kernel since which it is accepted, advice of its own), "" where there is none."""
    candidate, advice = "", ""
    if name == "call-under-lock":
        candidate, advice = _since_for_call(code, line, log)
    elif name == "program-type" and "unknown func" in line:
        candidate = "5.15"
    elif name == "helper-missing" and "func_info" in line:
        advice = "Do without callbacks (bpf_for_each_map_elem(), bpf_loop(), timers): v5.13 has the first."
    elif name == "unlock-without-lock" and re.search(_VALUE_CALLBACKS, log):
        candidate = "6.2"
        advice = (
            "Look the element up by its key in the callback: before v6.2 the lock of the value that"
            " a callback is given is not tracked."
        )
    elif name == "lock-place":
        candidate, advice = _since_for_place(line, maps)
    else:
        candidate = {"sleepable": "6.6", "inner-map": "6.2"}.get(name, "")
    if candidate and release >= Version(candidate):
        candidate = ""
    return candidate, advice


def _since_for_call(code: str, line: str, log: str) -> Tuple[str, str]:
    """Return the same for what is called while the lock is held."""
    if line.startswith("global function") or "global function calls" in log:
        return "", "Make the function static: static functions may run under the lock since v6.9."
    if re.search(r"call pc", code):
        advice = "Make the function __always_inline; since v6.9 a static one may be called."
        return "6.9", advice
    since = (("bpf_iter_num_", "6.14"), ("bpf_kptr_xchg", "7.1"))
    return next((version for called, version in since if called in code), ""), ""


def _since_for_place(line: str, maps: Mapping[str, elf.Map]) -> Tuple[str, str]:
    """Return the same for a lock that is in the wrong place of a value."""
    named = re.search(r"map '([^']+)'", line)
    if named is None:
        return "", ""
    own = [m for m in maps.values() if m.name.startswith(named.group(1))]
    in_section = any(m.name.startswith((".bss", ".data")) for m in own)
    if in_section or re.search(r"\.(bss|data)", named.group(1)):
        return "6.2", ""
    if any(len(m.locks) == 1 and "." in m.locks[0].name for m in own):
        advice = "Move the lock to the top level of the value; since v6.11 it may be nested."
        return "6.11", advice
    return "", ""
