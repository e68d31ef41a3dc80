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

from harness.check import since
from harness.check.circumstances import Circumstances
from harness.check.classes import BY_NAME, CLASSES, Class
from harness.check.linked import Linked
from harness.provision import elf

Json = Mapping[str, Any]

_MAPS_OF_MAPS = (12, 13)  # ARRAY_OF_MAPS, HASH_OF_MAPS
# Types up to INSN_ARRAY, without HASH, ARRAY, CGROUP_STORAGE and those of sockets, inodes, tasks and
# cgroups, which some kernel lets hold a lock.
WITHOUT_LOCKS = frozenset(range(1, 35)) - {1, 2, 19, 24, 28, 29, 32}
_INSN = re.compile(r"^(?:\d+: )*(\d+): \(([0-9a-f]{2})\) (.*)", re.MULTILINE)
_SOURCE = re.compile(r"^; (.*?)(?: @ ([^@\n]+?):(\d+))?$", re.MULTILINE)
_EXPLAINED = "\nVerification failed:"  # what v7.3 says after the telling line
_LOG_OF_OTHER = "-- BEGIN PROG LOAD LOG --"  # that of the program itself is not among the messages
_UNRESOLVED = r"call unknown#2002\d{6}|<invalid kfunc call>"  # libbpf's mark of a kernel function
# What is said of types, and is a symptom where the kernel knows none of the object's.
_OF_TYPES = (
    *("no-btf", "lock-place", "field-place", "contains", "type-forward"),
    *("list-lock", "tree-lock"),
)
_INTO_LISTS = (
    r"bpf_(obj_drop|list_(push|pop|front|back|add|del)|rbtree_(add|remove|first|root|left|right))"
)
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
    claim: Optional[since.Claim] = None  # what the rule book says of other kernels
    advice: str = ""
    errno: str = ""
    reason: str = ""  # in the kernel's own words, since v7.3
    suggestion: str = ""

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
    linked: Optional[Linked],
    maps: Mapping[str, elf.Map],
) -> Refusal:
    """Tell why a program was refused.

    `seen` is what the guest reports of the program, `asked` what the kernel answered to plain calls
    for the object's BTF and maps; `linked` and `maps` are what the object itself says, if it is
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
    if asked.get("btf") and name in _OF_TYPES:
        name, told = _by_btf(asked, maps, release)
        line = f"{told}; so: {line}" if line else told
    elif name in ("no-btf", "other", "lock-place", "") or errno == "EPERM":
        hidden = _hidden(asked, maps, seen, release, line)
        if hidden is not None and (name != "lock-place" or hidden[0] == "two-locks"):
            name, line = hidden[0], hidden[1] if name in ("", "other") else line
    if not line:
        line = _last(log) or (messages[-1] if messages else "") or errno
    insn, code, source, file, number = _place(log, at if at >= 0 else len(log))
    if linked is not None:
        file, number = linked.line(insn) or (file, number)
    case = Circumstances(line, code, log, insn, linked, maps, asked.get("names", {}))
    name = _refined(name or "other", case)
    if name == "kernel-function" and re.search(_UNRESOLVED, code) and case.called_extern:
        told = f"this kernel has no {case.called_extern}()"
        line = line if case.called_extern in line else f"{told}; so: {line}"
    # The kernel explains the symptom, where that is what it saw.
    reason, suggestion = ("", "") if "; so: " in line else _own_words(log)
    return Refusal(
        name,
        line.strip(),
        insn,
        source,
        file,
        number,
        _claim(name, case, release),
        case.advice(name) or BY_NAME[name].advice,
        errno,
        reason,
        suggestion,
    )


def _refined(name: str, case: Circumstances) -> str:
    """Return the class that fits what the text leaves open."""
    if re.search(_UNRESOLVED, case.code):
        return "kernel-function"
    if name == "call-under-lock" and re.search(r"call bpf_(res_)?spin_lock\b", case.code):
        return "second-lock"
    if name == "argument" and "spin_" in case.code:
        return "lock-pointer"
    if name == "helper-missing" and re.search(r"bpf_spin_(un)?lock#", case.line):
        return "program-type"
    places = re.search(r"off (\d+) doesn't point to .* that is at (\d+)", case.line)
    if name == "lock-place" and places is not None:
        both = {int(places[1]), int(places[2])}
        if any(both <= {lock.offset for lock in m.locks} for m in case.used):
            return "two-locks"  # of which the kernel remembers the other one
    if name == "list-lock" and "bpf_rbtree_" in case.code:
        return "tree-lock"
    if name == "not-a-pointer" and re.search(_INTO_LISTS, case.log):
        return "stale-reference"
    return name


def _claim(name: str, case: Circumstances, release: Version) -> Optional[since.Claim]:
    """Return what the rule book says of the same on other kernels."""
    if name == "kernel-function":
        return since.has(case.called_extern, release)
    helper = re.search(r"unknown func bpf_(\w+)#", case.line) if name == "helper-missing" else None
    if helper is not None:
        return since.has(f"BPF_FUNC_{helper[1]}", release)
    hook = re.search(r"no attach type (\w+)", case.line) if name == "hook-missing" else None
    if hook is not None:
        return since.has(hook[1], release)
    return since.claim(name, (case.line, case.code), case.traits(), release)


def _own_words(log: str) -> Tuple[str, str]:
    """Return the reason and the suggestion that kernels give in words since v7.3, "" if none."""
    _, _, told = log.partition(_EXPLAINED)
    words = []
    for title in ("Reason", "Suggestion"):
        found = re.search(rf"^{title}:\n((?:  .*\n?)+)", told, re.MULTILINE)
        words.append(" ".join(found.group(1).split()) if found else "")
    return words[0], words[1]


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


def by_bcc(seen: Json, release: Version, kinds: Mapping[str, int]) -> Refusal:
    """Tell why bcc or the kernel refused a program of a text; `seen` is the fields of an observation.

    `kinds` are the types of the maps that the text declares.
    """
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
            told = f"{detail}: {answer}; bcc makes all maps of a text, used or not"
            return _plain("map-type", told, answer)
    why = explain({**seen, "messages": [detail] if detail else []}, asked, release, None, {})
    missing = re.search(r"map '([^']+)' has to have BTF", why.line)
    if missing and any(n.startswith(missing[1]) and k in WITHOUT_LOCKS for n, k in kinds.items()):
        # Before v6.2 bcc makes a map again without BTF when the kernel does not support it.
        return replace(why, name="map-type", advice=BY_NAME["map-type"].advice)
    return why


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
    told = log.split(_EXPLAINED)[0]
    own = [line for m in messages if _LOG_OF_OTHER not in m for line in m.splitlines()]
    for row in CLASSES:
        for pattern in row.texts:
            for found in re.finditer(pattern, told):
                start = told.rfind("\n", 0, found.start()) + 1
                if told.startswith(";", start):  # the program's own text, which the log quotes
                    continue
                glued = re.match(
                    r"\d+: \([0-9a-f]{2}\) ", told[start:]
                )  # to the instruction's line
                line, _, rest = told[found.start() if glued else start :].partition("\n")
                if line.endswith(","):  # it goes on
                    line += " " + rest.split("\n")[0]
                return row.name, line, start
            for line in own:
                if re.search(pattern, line):
                    return row.name, line, -1
    last = _last(log)
    return ("other", last, log.rfind(last)) if last else ("", "", -1)


def _last(log: str) -> str:
    """Return the last line that says something; later kernels explain it further below."""
    told = log.split(_EXPLAINED)[0]
    lines = [line for line in told.split("\n") if not _FINAL.match(line.strip())]
    return lines[-1].strip() if lines else ""


def _hidden(
    asked: Json, maps: Mapping[str, elf.Map], seen: Json, release: Version, line: str
) -> Optional[Tuple[str, str]]:
    """Return the class of what libbpf hides: it drops the BTF when the kernel refuses it."""
    errno, log = str(seen.get("errno") or ""), str(seen.get("log", ""))
    named = re.search(r"map '([^']+)'", line)
    chosen = [m for m in maps.values() if named is None or m.name.startswith(named.group(1))]
    if named and any(len(m.locks) > 1 and _sees_one(m, release) for m in chosen):
        return "two-locks", line
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


def _sees_one(declared: elf.Map, release: Version) -> bool:
    """Tell whether the kernel sees any of a map's locks; those in inner structures not always."""
    nested = all("." in lock.name for lock in declared.locks)
    return not nested or since.takes("lock_in_inner_struct", release)


def cause_words(cause: Mapping[str, str]) -> str:
    """Say for what a BTF is refused, as the guest found it."""
    if cause["in"] in ("the global variables", "the tags"):
        return f"{cause['member']} of {cause['in']}, {cause['type']}"
    return f"the member {cause['member']} of {cause['in']}, {cause['type']}"


def _by_btf(asked: Json, maps: Mapping[str, elf.Map], release: Version) -> Tuple[str, str]:
    """Return (class, words) of a BTF that the kernel does not take."""
    answer = str(asked["btf"])
    causes = [dict(cause) for cause in asked.get("causes", ())]
    told = f"the kernel refuses the object's BTF ({answer})"
    if causes:
        told += f" for {'; '.join(map(cause_words, causes))}"
    kinds = {cause["type"] for cause in causes}
    if answer == "EFAULT":
        return "lock-place", told
    if kinds & {"struct bpf_list_head", "struct bpf_rb_root"}:
        return "contains", told
    two = any(len(m.locks) > 1 for m in maps.values())
    if kinds & {"struct bpf_spin_lock", "struct bpf_res_spin_lock"} or two and not causes:
        return "two-locks", told
    if answer != "E2BIG" or causes:
        return "btf-refused", told
    # Before v6.2 the kernel counted a map's locks alone. Types that are too deep for it are not
    # read here either, so nothing is known of the maps then.
    return ("two-locks" if maps and release >= Version("6.2") else "btf-depth"), told


def _by_map(
    declared: Optional[elf.Map], answer: str, release: Version, log: str
) -> Optional[Tuple[str, str]]:
    """Return the class of a map that the kernel does not take, and words on it; None: it is not why."""
    has_lock = declared is not None and bool(declared.locks)
    unsupported = answer in ("EOPNOTSUPP", "ENOTSUPP")
    if declared is not None and declared.inner is not None and declared.inner.locks and unsupported:
        return "inner-map", ""
    if declared is not None and has_lock and declared.type in WITHOUT_LOCKS:
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
