# SPDX-License-Identifier: GPL-2.0-only
"""Which fields of values are touched under a lock and which without. Pure.

In the spirit of Eraser (Savage et al., 1997), but from the instructions, not from a run: walk.py
finds every access that can happen and the locks that are held there; this judges. A field is
*protected* only if one lock is held at all of its accesses: the lock of its own element, or one
that there is but once (a global variable). Whatever was not followed makes it *unknown*, with the
reason; an accusation rests on an access that is sure.

Its limits, which LIMITS says to the user: an unlocked access may be harmless (before others can see
the element), a path may never be taken, and what user space does to the map is not in the object.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, Sequence, Tuple

from harness.check.walk import ATOMIC, OWN, REPLACED, Access, Gap, Key, Walker
from harness.provision import elf
from harness.provision.btf import Field
from harness.provision.elf import Object

LIMITS = (
    "Found in the instructions, not in a run. Not seen: what user space does (a dump or a lookup"
    " without BPF_F_LOCK may be torn), and memory that is no value of a map. An access without the"
    " lock may be harmless where nobody else sees the element yet."
)
# Types of maps that may hold a lock: check_map_prog_compatibility() and map_check_btf().
HOLDERS = (1, 2, 19, 24, 28, 29, 32)
_TYPES = (
    "UNSPEC HASH ARRAY PROG_ARRAY PERF_EVENT_ARRAY PERCPU_HASH PERCPU_ARRAY STACK_TRACE CGROUP_ARRAY"
    " LRU_HASH LRU_PERCPU_HASH LPM_TRIE ARRAY_OF_MAPS HASH_OF_MAPS DEVMAP SOCKMAP CPUMAP XSKMAP"
    " SOCKHASH CGROUP_STORAGE REUSEPORT_SOCKARRAY PERCPU_CGROUP_STORAGE QUEUE STACK SK_STORAGE"
    " DEVMAP_HASH STRUCT_OPS RINGBUF INODE_STORAGE TASK_STORAGE BLOOM_FILTER USER_RINGBUF"
    " CGRP_STORAGE ARENA"
).split()
_ARENA, _HASH = 33, 1
_PER_CPU = (5, 6, 10, 21)
_OBJECTS = ("bpf_obj_new", "bpf_list_", "bpf_rbtree_", "bpf_refcount_acquire", "bpf_percpu_obj_new")
# Sections of programs that may not even touch a map with a lock.
_NO_LOCK = tuple(
    "tracepoint/ tp/ kprobe kretprobe uprobe uretprobe ksyscall kretsyscall usdt raw_tracepoint raw_tp"
    " perf_event socket".split()
)

PROTECTED, ONLY_READ, UNTOUCHED, UNKNOWN = "protected", "only read", "not touched", "unknown"
NOT_PROTECTED, NEVER, READ_WITHOUT = "NOT PROTECTED", "never locked", "read without the lock"
ONE_LOAD = "read without the lock, by one load"
ATOMICALLY, KERNELS = "atomic, without the lock", "the kernel's"
MIXED = "changed under another lock and without any"
_QUIET = (PROTECTED, ONLY_READ, UNTOUCHED, KERNELS)
MOST_NAMES, MOST_PLACES, WIDEST_LABEL = 6, 4, 32


@dataclass(frozen=True)
class Judged:
    """A field and what is to be said of it."""

    map: str
    field: str
    verdict: str
    because: str = ""  # of UNKNOWN the reason, of KERNELS the type, of PROTECTED a lock not its own
    accesses: Tuple[Access, ...] = ()
    advice: str = ""

    @property
    def said(self) -> str:
        """The verdict in words."""
        if self.verdict == UNKNOWN:
            return f"unknown, because {self.because}"
        if self.verdict == KERNELS:
            return f"the kernel's own ({self.because})"
        if self.verdict == PROTECTED and self.because:
            return f"protected (by {self.because})"
        return self.verdict

    def evidence(self, others: Sequence["Judged"] = ()) -> List[str]:
        """Return a line for each kind of access, of other fields as well, with its places."""
        if self.verdict in _QUIET:
            return []
        accesses = [access for each in (self, *others) for access in each.accesses]
        places: Dict[Tuple[str, str], Dict[str, None]] = {}
        for access in accesses:
            row = places.setdefault((access.kind, how_of(access)), {})
            row[f"{access.where} ({access.program})"] = None
        return [f"{kind} {how}: {_few([*row], MOST_PLACES)}" for (kind, how), row in places.items()]

    def alike(self) -> Tuple[Any, ...]:
        """Return what fields that are shown as one have in common."""
        if self.verdict in _QUIET:
            return (self.map, self.said)
        bad = ((a.kind, how_of(a), a.where, a.program) for a in self.accesses if not a.tied)
        return (self.said, self.advice, *dict.fromkeys(bad))


def how_of(access: Access) -> str:
    """Say under which locks an access happens."""
    own = [lock for lock in access.tied if lock.startswith(f"{OWN}.")]
    if own:
        return "under its lock"
    if access.tied:
        return f"under {', '.join(sorted(access.tied))}"
    if access.others:
        return f"under another lock ({', '.join(sorted(access.others))})"
    return "without the lock"


@dataclass(frozen=True)
class Findings:
    """What was found in an object."""

    fields: Tuple[Judged, ...]
    notes: Tuple[str, ...] = ()  # what is outside, in words
    maps: Tuple[str, ...] = ()  # with a lock
    unfinished: Tuple[str, ...] = ()  # programs too large to follow to the end

    def verdict(self, name: str, part: str) -> str:
        """Return what was found of one field. Raises KeyError if it is none that is judged."""
        for each in self.fields:
            if (each.map, each.field) == (name, part):
                return each.verdict
        raise KeyError(f"{name}.{part}")

    def lines(self) -> List[str]:
        """Return what is to be said, as lines of text."""
        if not self.fields and not self.notes:
            return []
        lines = ["does the lock protect it?"]
        alike: Dict[Tuple[Any, ...], List[Judged]] = {}
        for each in self.fields:
            if each.verdict != UNTOUCHED:
                alike.setdefault(each.alike(), []).append(each)
        labels = [_label(group) for group in alike.values()]
        width = min(max([len(label) for label in labels] or [0]), WIDEST_LABEL)
        for label, (first, *others) in zip(labels, alike.values()):
            lines.append(f"  {label:<{width}}  {first.said}")
            lines += [f"    {line}" for line in first.evidence(others)]
            lines += [f"    change: {first.advice}"] if first.advice else []
        left = [f"{each.map}.{each.field}" for each in self.fields if each.verdict == UNTOUCHED]
        if left:
            lines.append(f"  not touched: {_few(left, MOST_NAMES)}")
        return [*lines, *(f"  {note}" for note in self.notes), f"  {LIMITS}"]

    def to_json(self) -> Dict[str, Any]:
        """Return it as JSON."""
        return {
            "maps": list(self.maps),
            "fields": [
                {
                    "map": each.map,
                    "field": each.field,
                    "verdict": each.verdict,
                    "because": each.because or None,
                    "advice": each.advice or None,
                    "accesses": [
                        {
                            "kind": a.kind,
                            "how": how_of(a),
                            "program": a.program,
                            "where": a.where,
                            "doubt": a.doubt or None,
                        }
                        for a in each.accesses
                    ],
                }
                for each in self.fields
            ],
            "notes": list(self.notes),
            "unfinished": list(self.unfinished),
            "limits": LIMITS,
        }


def _label(group: Sequence[Judged]) -> str:
    """Name fields, the map but once where it is the same: "map.a, b"."""
    names, last = [], ""
    for each in group:
        names.append(each.field if each.map == last else f"{each.map}.{each.field}")
        last = each.map
    return _few(names, MOST_NAMES)


def _few(names: Sequence[str], most: int) -> str:
    rest = len(names) - most
    more = f" and {rest} more" if rest > 0 else ""
    return f"{', '.join(names[:most])}{more}"


def analyse(source: Object, programs: Sequence[str]) -> Findings:
    """Follow programs of an object; say what they do to the values that hold a lock."""
    maps = _maps(source)
    if not any(declared.locks for declared in maps.values()):
        return Findings((), tuple(_only_named(source, maps)))
    walker = Walker(source)
    for program in programs:
        if program in source.functions:
            walker.walk(program)
    return _Judge(source, maps, walker).findings()


def _maps(source: Object) -> Dict[Key, elf.Map]:
    found: Dict[Key, elf.Map] = {}
    for name, declared in source.maps.items():
        found[name, False] = declared
        if declared.inner is not None:
            found[name, True] = declared.inner
    return found


class _Judge:
    def __init__(self, source: Object, maps: Mapping[Key, elf.Map], walker: Walker) -> None:
        self._source, self._maps, self._walker = source, maps, walker
        self._by_field: Dict[Tuple[Key, str], List[Access]] = {}
        alike = _same_memory(source)
        for access in walker.accesses:
            for key, doubt in alike.get(access.key, {access.key: ""}).items():
                seen = replace(access, doubt=access.doubt or doubt)
                self._by_field.setdefault((key, access.field), []).append(seen)
        self._gaps = [*walker.gaps]
        self._gaps += [
            Gap("the program is too large to be followed", p, p) for p in walker.unfinished
        ]

    def findings(self) -> Findings:
        fields: List[Judged] = []
        for key, declared in self._maps.items():
            if len(declared.locks) == 1 and _may_hold(declared):
                fields += [self._judge(key, p) for p in declared.fields if not p.lock]
            elif not declared.locks and declared.type not in _PER_CPU:
                parts = (p for p in declared.fields if self._under_some_lock(key, p))
                fields += [self._judge(key, p) for p in parts]
        locked = [declared.name for declared in self._maps.values() if declared.locks]
        notes, unfinished = self._notes(fields), self._walker.unfinished
        return Findings(tuple(fields), tuple(notes), tuple(locked), tuple(unfinished))

    def _under_some_lock(self, key: Key, part: Field) -> bool:
        of = self._by_field.get((key, part.name), ())
        return any(a.tied or a.others for a in of)

    def _judge(self, key: Key, part: Field) -> Judged:
        declared = self._maps[key]
        if part.kernel:
            return Judged(declared.name, part.name, KERNELS, part.kernel)
        of = tuple(self._by_field.get((key, part.name), ()))
        common = frozenset.intersection(*(a.tied for a in of)) if of else frozenset()
        verdict = _verdict(of, common, bool(declared.locks))
        if verdict == ONE_LOAD and self._read_with_others(key, part.name, of):
            verdict = READ_WITHOUT
        because = self._unsure(of, common, declared)
        if verdict == UNKNOWN:
            why = f"the lock held is of another map ({_labels(of)}), and nothing ties the two together"
            return Judged(declared.name, part.name, UNKNOWN, because or why, of)
        if because and verdict in (PROTECTED, ONLY_READ, UNTOUCHED, ATOMICALLY, ONE_LOAD):
            return Judged(declared.name, part.name, UNKNOWN, because, of)
        if verdict == PROTECTED and not any(lock.startswith(OWN) for lock in common):
            because = ", ".join(sorted(common))
        advice = "" if verdict in _QUIET else self._advice(verdict, of, declared)
        sure = tuple(a for a in of if not a.doubt) if verdict not in _QUIET else of
        return Judged(declared.name, part.name, verdict, because, sure, advice)

    def _read_with_others(self, key: Key, name: str, of: Sequence[Access]) -> bool:
        """Tell whether a program that reads a field without the lock so reads another that changes."""
        programs = {a.program for a in of if not a.tied and not a.doubt}
        return any(
            any(not a.tied and not a.doubt and a.program in programs for a in others)
            for (other, field), others in self._by_field.items()
            if other == key and field != name and any(a.changes for a in others)
        )

    def _unsure(self, of: Iterable[Access], common: FrozenSet[str], declared: elf.Map) -> str:
        """Return why nothing good can be said of a field, "" if nothing speaks against it."""
        for gap in self._gaps:
            if not gap.types or declared.type in gap.types:
                return f"{gap.reason}: {gap.where} ({gap.program})"
        for access in of:
            if access.doubt and not common:
                return f"{access.doubt}: {access.where} ({access.program})"
        return ""

    # -- advice ------------------------------------------------------------------------------------

    def _advice(self, verdict: str, of: Sequence[Access], declared: elf.Map) -> str:
        without = [a for a in of if not a.tied and not a.doubt]
        changes = [a for a in without if a.changes]
        sections = [self._source.functions[a.program].section for a in without]
        if changes and all(section.startswith(_NO_LOCK) for section in sections):
            return (
                "A program of this type may not touch a map with a lock: keep the field in a map of"
                " its own, per CPU or changed atomically."
            )
        if any(a.kind == REPLACED for a in changes):
            return (
                "Create the element with BPF_NOEXIST, which never replaces what others have changed;"
                " to replace it, use BPF_F_LOCK."
            )
        if verdict == ATOMICALLY:
            return ""
        if not declared.locks:
            return "Put the lock into the same value as what it guards, and take it everywhere."
        if verdict == NEVER:
            taken = any(self._maps[key].name == declared.name for key in self._walker.taken)
            return (
                "Take the lock around the change, as is done for other fields."
                if taken
                else f"No program here takes the lock of {declared.name}: take it around the change,"
                " or leave the lock out of the value."
            )
        if any(a.kind == ATOMIC for a in changes):
            return "An atomic instruction does not wait for the lock: take the lock there, too."
        if changes:
            return "Take the lock there, too, and decide under it."
        if any("()" in a.kind for a in without):
            return "Copy it under the lock, and give the copy."
        if verdict == ONE_LOAD:
            return (
                "None, if an old value will do: an aligned load sees all of one store (say so by"
                " READ_ONCE()). If it must still hold when it is used, or fit another field, read it"
                " under the lock."
            )
        if verdict == READ_WITHOUT:
            return "Read it into a local variable under the lock, and go on with that."
        return ""

    # -- what is outside ---------------------------------------------------------------------------

    def _notes(self, fields: Sequence[Judged]) -> List[str]:
        return [
            *_only_named(self._source, self._maps),
            *self._no_lock_possible(),
            *self._not_judged(fields),
            *self._torn_updates(),
            *self._other_memory(),
        ]

    def _no_lock_possible(self) -> List[str]:
        notes = []
        for key, declared in self._maps.items():
            if declared.locks and not _may_hold(declared):
                kind = _TYPES[declared.type] if declared.type < len(_TYPES) else str(declared.type)
                notes.append(f"{declared.name}: a map of type {kind} holds no lock: not judged")
            elif key in self._walker.touched and not declared.has_btf and declared.type in HOLDERS:
                notes.append(f"{declared.name}: the type of its value is not known: not judged")
            elif len(declared.locks) > 1:
                locks = " and ".join(lock.name for lock in declared.locks)
                notes.append(
                    f"{declared.name}: {locks} in one value, which may hold one: not judged"
                )
        return notes

    def _not_judged(self, fields: Sequence[Judged]) -> List[str]:
        judged = {each.map for each in fields}
        touched = {key for key, _ in self._by_field}
        names = [
            declared.name
            for key, declared in self._maps.items()
            if not declared.locks
            and key in touched
            and declared.name not in judged
            and not declared.name.startswith(".rodata")
        ]
        if not names:
            return []
        return [
            f"no lock in their values, and none held when they are touched: {_few(names, MOST_NAMES)}"
        ]

    def _torn_updates(self) -> List[str]:
        kind = f"{REPLACED} with BPF_F_LOCK"
        hashes = {
            self._maps[a.key].name
            for a in self._walker.accesses
            if a.kind == kind and self._maps[a.key].type == _HASH
        }
        return [
            f"{', '.join(sorted(hashes))}: before commit 07738bc566c3 (in v7.1), a deletion during an"
            " update with BPF_F_LOCK can tear the value"
        ] * bool(hashes)

    def _other_memory(self) -> List[str]:
        notes = []
        arenas = [m.name for m in self._maps.values() if m.type == _ARENA]
        if arenas:
            notes.append(f"memory of an arena is not followed: {_few(arenas, MOST_NAMES)}")
        if any(name.startswith(_OBJECTS) for name in self._walker.called):
            notes.append(
                "allocated objects, in lists and trees or not, are not followed (a list or a tree"
                " itself is: the verifier has it changed under its lock only)"
            )
        return notes


def _only_named(source: Object, maps: Mapping[Key, elf.Map]) -> List[str]:
    """Say of which maps the value is a struct that the object does no more than name."""
    types = source.types
    return [
        f"{declared.name}: the object only names the struct of its value: not judged"
        for declared in maps.values()
        if types is not None and declared.value_type and types.is_only_named(declared.value_type)
    ]


def _may_hold(declared: elf.Map) -> bool:
    return declared.type in (0, *HOLDERS)


def _labels(of: Iterable[Access]) -> str:
    return ", ".join(sorted({lock for a in of for lock in a.others}))


def _verdict(of: Sequence[Access], common: FrozenSet[str], own: bool) -> str:
    """Judge by the accesses that are sure; `common` are the locks held at all of them and more."""
    sure = [a for a in of if not a.doubt]
    if common or (sure and frozenset.intersection(*(a.tied for a in sure))):
        return PROTECTED
    changes = [a for a in sure if a.changes]
    if not sure:
        return UNTOUCHED
    if not changes:
        return ONLY_READ
    locked = [a for a in sure if a.tied]
    if not own and not locked:
        return MIXED if any(not a.others for a in sure) else UNKNOWN
    if all(a.kind == ATOMIC for a in changes) and not locked:
        return ATOMICALLY
    if any(not a.tied for a in changes):
        return NOT_PROTECTED if locked else NEVER
    return _of_reads(sure)


def _of_reads(sure: Sequence[Access]) -> str:
    """Judge a field of which every change is under some lock.

    One load that fits a store is never torn, so it may be all that a reader needs.
    """
    without = [a for a in sure if not a.tied]
    if without:
        whole = all(a.whole and not a.others for a in without)
        return ONE_LOAD if whole and all(a.whole for a in sure if a.changes) else READ_WITHOUT
    return NOT_PROTECTED  # under one lock here, under another one there


def _same_memory(source: Object) -> Dict[Key, Dict[Key, str]]:
    """Return, of maps that are reached through maps of maps as well, which stand for which.

    With a doubt where user space alone decides whether a map is put into a map of maps.
    """
    alike: Dict[Key, Dict[Key, str]] = {}
    for name, outer in source.maps.items():
        if outer.inner is None:
            continue
        sure = [held for held in outer.holds if held in source.maps]
        fit = [m.name for m in source.maps.values() if _fits(m, outer.inner) and m.name not in sure]
        group = {(name, True): "", **{(held, False): "" for held in sure}}
        for key in group:
            alike.setdefault(key, {key: ""}).update(group)
        for held in fit:
            doubt = f"user space may have put {held} into {name}"
            alike.setdefault((name, True), {}).setdefault((held, False), doubt)
            alike.setdefault((held, False), {(held, False): ""}).setdefault((name, True), doubt)
    return alike


def _fits(declared: elf.Map, inner: elf.Map) -> bool:
    """Tell whether a map may be put into a map of maps with such inner ones."""
    mine = (declared.type, declared.key_size, declared.value_size, declared.value_type)
    return mine == (inner.type, inner.key_size, inner.value_size, inner.value_type)
