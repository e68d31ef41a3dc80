# SPDX-License-Identifier: GPL-2.0-only
"""Every byte of values with a lock, for all layouts, written in every way and read in every way.

The maps are those of bpf_progs/driven/copy_layouts.bpf.c, copy_fields.bpf.c, copy_far.bpf.c,
copy_res_spin_lock.bpf.c and copy_storages.bpf.c. Each byte of a value differs from its neighbours, from
the old value and from the buffers' initial content. One layout is the twin. The kernel sees no lock in
it, so its lock bytes must be copied like all others. If they are not, this test has no power.
"""

from dataclasses import dataclass, field
from typing import Any, Optional, Tuple

import pytest
from packaging.version import Version

from harness.guest import calls
from harness.guest.calls import FIRST
from harness.guest.uapi import BPF_EXIST as EXIST, BPF_F_LOCK as LOCK, BPF_NOEXIST as NOEXIST
from harness.judging.verdict import Kind, Verdict

RULE = "All but the lock is copied"
LOADERS = ("libbpf",)  # system calls do not depend on who made the map

PORT = 23313  # of the socket
SECONDS = 60.0  # limit of a call: a lock that is not free would hang it for good
FLAGS = {0: "", NOEXIST: "BPF_NOEXIST", EXIST: "BPF_EXIST", LOCK: "BPF_F_LOCK"}


@dataclass(frozen=True)
class Layout:
    """A type of value: offsets of the lock and of other special fields."""

    lock: Optional[int]
    size: int
    zeros: Tuple[Tuple[int, int], ...] = ()  # (offset, size) of fields that are zero while unused
    lists: Tuple[Tuple[int, int], ...] = ()  # (offset, size) of list heads: not zero, never copied
    res_spin_lock: bool = False  # the lock is one, which the kernel never takes for a copy

    @classmethod
    def of(cls, value):
        """Return the layout of a type. A lock type by another name, as in the twin, is data."""

        def spans(*types):
            members = [member for member in value.members.values() if member.layout.name in types]
            return tuple((member.offset, member.layout.size) for member in members)

        res_spin_lock = spans("struct bpf_res_spin_lock")
        locks = spans("struct bpf_spin_lock") + res_spin_lock
        return cls(
            locks[0][0] if locks else None,
            value.size,
            zeros=spans("struct bpf_timer"),
            lists=spans("struct bpf_list_head"),
            res_spin_lock=bool(res_spin_lock),
        )

    @property
    def takes_flag(self):
        """Tell whether the kernel accepts BPF_F_LOCK for it."""
        return self.lock is not None and not self.res_spin_lock

    def expected(self, value):
        """Return the expected bytes after a value was written, except for list heads."""
        seen = bytearray(value)
        hidden = () if self.lock is None else ((self.lock, 4),)
        for begin, length in (*hidden, *self.zeros):
            seen[begin : begin + length] = bytes(length)
        return bytes(seen)

    def first_fault(self, value, seen):
        """Describe the first wrong byte of a value that was read; None if there is none."""
        expected = self.expected(value)
        if seen == expected and not self.lists:
            return None
        if len(seen) != len(expected):
            return f"{len(seen)} bytes instead of {len(expected)}"
        heads = {at for begin, length in self.lists for at in range(begin, begin + length)}
        for at, (wanted, got) in enumerate(zip(expected, seen)):
            if at in heads or wanted == got:
                continue
            begin, end = max(0, at - 4), at + 12
            return (
                f"byte {at}{self._owner(at)} is {got:#04x}, not {wanted:#04x}: expected"
                f" {expected[begin:end].hex()} at {begin}, seen {seen[begin:end].hex()}"
            )
        for begin, length in self.lists:
            if value[begin : begin + length] == seen[begin : begin + length]:
                return f"the list head at {begin} was written: {seen[begin:begin + length].hex()}"
        return None

    def _owner(self, at):
        if self.lock is not None and self.lock <= at < self.lock + 4:
            return " (the lock)"
        if any(begin <= at < begin + length for begin, length in self.zeros):
            return " (the kernel's)"
        return ""


def numbered(*names):
    """Return structure name -> its number in the C file."""
    return {name: number for number, name in enumerate(names, 1)}


PLAIN = numbered(
    "only",
    "first",
    "half",
    "long_after",
    "at_4",
    "at_4_odd",
    "at_8",
    "at_8_more",
    "at_12_odd",
    "middle",
    "middle_odd",
    "last",
    "large",
)
FAR = numbered("far")
TWIN = {"no_lock": len(PLAIN) + 1}
TIMER = numbered("lock_then_timer", "timer_then_lock", "side_by_side")
FIELDS = numbered("lock_then_list", "list_then_lock", "all_of_them")

# Ways to write: (way, flags, whether the element is new); and ways to read: (way, flags).
OLD = tuple((way, flags, False) for way in ("update", "update_batch") for flags in (0, LOCK))
OLD = (*OLD, ("update", EXIST, False), ("update", EXIST | LOCK, False))
BY_PROGRAM = (("program", 0, False), ("program", LOCK, False))
NEW = tuple((way, flags, True) for way in ("update", "update_batch") for flags in (0, LOCK))
NEW = (*NEW, ("update", NOEXIST, True), ("update", NOEXIST | LOCK, True))
NEW_BY_PROGRAM = (("program", 0, True), ("program", LOCK, True))
STAY = tuple((way, flags) for way in ("lookup", "lookup_batch") for flags in (0, LOCK))
TAKE = tuple(
    (way, flags) for way in ("lookup_and_delete", "lookup_and_delete_batch") for flags in (0, LOCK)
)
MEMORY = (("memory", 0),)
ORDERS = range(3)  # SHOW, STORE and STORE_LOCKED of value_layouts.h
# While the lock is held. Calls that wait for the lock are tested in test_copy_torn.py.
HELD = bytes([1, 0, 0, 0])
HELD_WRITES = (("update", 0, False), ("update_batch", 0, False), ("program", 0, False))
HELD_READS = (("lookup", 0), ("lookup_batch", 0), ("memory", 0))
HELD_TIMES = {"socket": 20, "rhash": 20}  # few ways, each of which may create a new element
HELD_TIMES_OF_TABLES = 3
# The most sweeps until one sees the lock held: the host may not run the holder's CPU.
HELD_TURNS = 10

TABLE_WRITES = (*OLD, *BY_PROGRAM, *NEW, *NEW_BY_PROGRAM)
TABLE_READS = (*STAY, *TAKE, *MEMORY)
STORAGE_WRITES = tuple(w for w in (*OLD, *NEW) if w[0] == "update")
STORAGE_READS = tuple(r for r in STAY if r[0] == "lookup")


@dataclass(frozen=True)
class Kinds:
    """One object of the C file: its layouts, each in maps of some kinds."""

    kinds: Tuple[str, ...]
    layouts: dict = field(default_factory=lambda: {**PLAIN, **TWIN})
    needs: Optional[Tuple[str, ...]] = None
    file: str = "copy_storages.bpf.c"
    program: str = ""
    holder: str = ""
    writes: Tuple = TABLE_WRITES
    reads: Tuple = TABLE_READS


TABLES = ("array", "hash", "lazy")
WHOLE_FILES = ("tables", "far", "res_spin_lock")
UNITS = {
    "tables": Kinds(TABLES, file="copy_layouts.bpf.c", program="work", holder="hold"),
    # Copies of such values are slow, and too few would find the lock held: so there is no holder.
    "far": Kinds(TABLES, FAR, file="copy_far.bpf.c", program="work_on_far"),
    "res_spin_lock": Kinds(
        TABLES,
        {**PLAIN, **TWIN},
        ("bpf_res_spin_lock", "6.15"),
        file="copy_res_spin_lock.bpf.c",
        program="work_on_res_spin_lock",
        holder="hold_res_spin_lock",
    ),
    "timer": Kinds(
        TABLES,
        TIMER,
        ("bpf_timer", "5.15"),
        file="copy_fields.bpf.c",
        program="work_on_timer",
        holder="hold_with_timer",
    ),
    "fields": Kinds(
        TABLES,
        FIELDS,
        ("bpf_list_head", "6.2"),
        file="copy_fields.bpf.c",
        program="work_on_fields",
        holder="hold_with_fields",
    ),
    "rhash": Kinds(
        ("rhash",),
        needs=("BPF_MAP_TYPE_RHASH", "7.2"),
        program="work_on_rhash",
        holder="hold_in_rhash",
    ),
    "socket": Kinds(
        ("socket",),
        program="work_on_socket",
        holder="hold_in_socket",
        writes=(*STORAGE_WRITES, ("program", 0, True)),
        reads=(*STORAGE_READS, *MEMORY),
    ),
    "process": Kinds(
        ("process",),
        needs=("BPF_MAP_TYPE_TASK_STORAGE", "5.11"),
        writes=STORAGE_WRITES,
        reads=STORAGE_READS,
    ),
    "file": Kinds(
        ("file",),
        writes=STORAGE_WRITES,
        reads=STORAGE_READS,
        needs=("bpf_lsm_file_open", "5.7", "CONFIG_BPF_LSM"),
    ),
    "cgroup": Kinds(
        ("cgroup",),
        needs=("BPF_MAP_TYPE_CGRP_STORAGE", "6.2"),
        writes=STORAGE_WRITES,
        reads=STORAGE_READS,
    ),
    "attached": Kinds(
        ("attached",),
        {"middle_odd": PLAIN["middle_odd"]},
        program="use_storage",
        writes=tuple(w for w in STORAGE_WRITES if not w[2]),
        reads=STORAGE_READS,
    ),
}


def pattern(size, begin):
    """Return bytes other than 0 and 0xee, which fills the buffers of reads."""
    cycle = [byte for byte in range(1, 256) if byte != 0xEE]
    return bytes(cycle[(begin + at) % len(cycle)] for at in range(size))


def known(guest, kind, unit):
    """Return the ways to write and to read that this kernel has for a kind of map."""
    writes, reads = list(unit.writes), list(unit.reads)
    if kind == "array":
        writes = [w for w in writes if not w[2]]
        reads = [r for r in reads if "delete" not in r[0]] + [("neighbour", 0)]
    # commit 3e87f192b405 ("bpf: Add lookup_and_delete_elem support to hashtab") (in v5.14)
    if guest.release < Version("5.14"):
        reads = [r for r in reads if r[0] != "lookup_and_delete"]
    return writes, reads


def words(way, flags, is_new=None):
    """Return a way in words."""
    flagged = [name for flag, name in FLAGS.items() if flag & flags]
    whom = {True: " of a new element", False: " of an old element", None: ""}[is_new]
    return f"{way}{' with ' if flagged else ''}{' and '.join(flagged)}{whom}"


@dataclass(frozen=True)
class Shown:
    """Results of copies, of layouts with a lock and of the twin."""

    fine: int = 0  # number of correct copies
    faulty: Tuple[str, ...] = ()  # wrong copies, in words
    blind: Tuple[str, ...] = ()  # wrong copies of the twin
    held: int = 0  # number of reads that saw the lock held

    def __add__(self, other):
        return Shown(
            self.fine + other.fine,
            self.faulty + other.faulty,
            self.blind + other.blind,
            self.held + other.held,
        )


@dataclass(frozen=True)
class Sweep:
    """A value of one layout, to be written and read in every way."""

    where: str
    layout: Layout
    value: bytes
    writes: list
    reads: list
    while_held: bool = False

    def shown(self, guest, element, times=1, busy=calls.Busy()):
        """Run the sweep; return its results, with one fault per distinct wrong value.

        With the lock held, a lock word in memory that is neither free nor held is a fault.
        """
        sweep = calls.Sweep(
            element,
            before=pattern(len(self.value), 101).hex(),
            value=self.value.hex(),
            writes=self.writes,
            reads=self.reads,
            times=times,
            busy=busy,
        )
        seen = guest.call(sweep, limit=SECONDS)
        faults, fine, held = [], 0, 0
        for text, pairs in seen.items():
            by_fault = {}
            for at, by in pairs:
                held += self._is_held(text, at, by)
                by_fault.setdefault(self._fault(text, at, by), []).append((at, by))
            fine += len(by_fault.pop(None, []))
            faults += [self._in_words(fault, ways) for fault, ways in by_fault.items()]
        if self.layout.lock is None:
            return Shown(blind=tuple(faults))
        return Shown(fine, tuple(faults), held=held)

    def _in_words(self, fault, ways):
        at, by = ways[0]
        others = f" (and {len(ways) - 1} more ways)" if len(ways) > 1 else ""
        how = f"{words(*self.writes[at])}, then {words(*self.reads[by])}{others}"
        return f"{self.where}: {how}: {fault}"

    def _fault(self, text, at, by):
        if self._must_be_refused(at, by):
            return None if text == "EINVAL" else f"{text[:40]} instead of EINVAL"
        if not _is_value(text):
            return f"the kernel answered {text}"
        seen = bytes.fromhex(text)
        if self.reads[by][0] == "neighbour":
            beside = bytearray(seen)
            for begin, length in self.layout.lists:
                beside[begin : begin + length] = bytes(length)
            return None if not any(beside) else f"the element beside it was written: {text[:64]}"
        if self._is_held(text, at, by):
            seen = seen[: self.layout.lock] + bytes(4) + seen[self.layout.lock + 4 :]
        return self.layout.first_fault(self.value, seen)

    def _must_be_refused(self, at, by):
        """Tell whether BPF_F_LOCK is used without a lock, or with one that the kernel never takes."""
        return not self.layout.takes_flag and (self.writes[at][1] | self.reads[by][1]) & LOCK

    def _is_held(self, text, at, by):
        """Tell whether the element's memory showed a held lock."""
        if not (self.while_held and self.reads[by][0] == "memory" and _is_value(text)):
            return False
        return bytes.fromhex(text)[self.layout.lock : self.layout.lock + 4] == HELD


def _is_value(text):
    """Tell whether a result is a value, not an errno."""
    return set(text) <= set("0123456789abcdef")


@dataclass(frozen=True)
class OneKind:
    """The maps of one kind, one per layout, and the parameters to use them."""

    guest: Any
    group: Kinds
    kind: str
    holder: str  # the program that holds the lock meanwhile; "": none
    key: str

    def shown(self, name, held_before):
        """Return the results of one layout, with its lock free and held."""
        layout = Layout.of(self.guest.map(f"{name}_{self.kind}").value)
        where = f"{self.kind}, {name} ({layout.size} bytes, lock at {layout.lock})"
        writes, reads = known(self.guest, self.kind, self.group)
        sweep = Sweep(where, layout, pattern(layout.size, 1), writes, reads)
        shown = sweep.shown(self.guest, self._element(name))
        if layout.lock is None or not self.holder or shown.faulty:
            return shown
        held = Sweep(
            f"{where}, while held",
            layout,
            pattern(layout.size, 51),
            [w for w in HELD_WRITES if w in writes],
            [r for r in HELD_READS if r in reads],
            while_held=True,
        )
        return shown + self._while_held(name, held, 1 if held_before else HELD_TURNS)

    def _while_held(self, name, sweep, turns):
        """Sweep while the lock is held; repeat until it was seen held, at most `turns` times."""
        self.guest.map("holds")[0] = {"map": self._number(name)}
        shown = Shown()
        for _ in range(turns):
            shown += sweep.shown(
                self.guest,
                self._element(name),
                times=HELD_TIMES.get(self.kind, HELD_TIMES_OF_TABLES),
                busy=calls.Busy(self.holder, [1]),
            )
            if shown.held or shown.faulty:
                break
        return shown

    def _element(self, name):
        order = self.guest.map("orders").value
        number = self._number(name)
        orders = [order.encode({"map": number, "what": what}).hex() for what in ORDERS]
        return calls.Numbered(f"{name}_{self.kind}", orders, self.group.program, self.key)

    def _number(self, name):
        """Return the number by which programs know a map."""
        return 100 * (self.group.kinds.index(self.kind) + 1) + self.group.layouts[name]


def owner(guest, kind, program):
    """Create the owner of a local storage element; return its key."""
    attached = program if kind == "attached" else ""
    return guest.call(calls.Owner(kind, program=attached, port=PORT if kind == "socket" else 0))


@pytest.mark.parametrize("unit", UNITS)
def test_all_but_the_lock_is_copied(guest, unit):
    """Every way of copying transfers all bytes of a value except those of the lock."""
    group = UNITS[unit]
    if group.needs:
        guest.needs(*group.needs)
    holder = group.holder if guest.cpus > 1 else ""
    programs = [name for name in (group.program, holder) if name]
    guest.load(group.file, programs, "" if unit in WHOLE_FILES else unit)
    total = Shown()
    for kind in group.kinds:
        key = FIRST if kind in (*TABLES, "rhash") else owner(guest, kind, group.program)
        maps = OneKind(guest, group, kind, holder, key)
        shown = Shown()
        for name in group.layouts:
            shown += maps.shown(name, held_before=total.held + shown.held)
        writes, reads = known(guest, kind, group)
        ways = f"{len(writes)} ways to write and {len(reads)} to read"
        expected = f"all but the lock is copied by {ways} a {kind}'s values"
        first = f"; {shown.faulty[0]}" if shown.faulty else ""
        guest.check(not shown.faulty, f"{expected}{first}", "\n".join(shown.faulty))
        total += shown
    guest.conclude(conclusion(total, len(group.layouts), bool(holder)), held=total.held)


def conclusion(total, layouts, holds):
    """Return the verdict; guest.check() has noted the faults already."""
    if total.blind:
        reason = f"what is no lock was not copied as it should be either: {total.blind[0]}"
        return Verdict(Kind.INCONCLUSIVE, reason)
    if holds and not total.held:
        return Verdict(Kind.INCONCLUSIVE, "no lock was seen held during the copies")
    return Verdict(Kind.PASS, f"{total.fine} copies, each as it should be, of {layouts} layouts")
