# SPDX-License-Identifier: GPL-2.0-only
"""What is explored: operations of actors, the memory that they share, and their broken twins. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from errno import ENOENT, ENOSPC
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, Union

from harness.errors import UsageError
from harness.guest.uapi import BPF_F_LOCK
from harness.judging.serialization import (
    EARLY_UNLOCK,
    IMPATIENT,
    LOCKED,
    OTHER_LOCK,
    UNLOCKED,
    Way,
)
from harness.running.experiment import as_shared
from harness.scenarios.scenario import KnownBug

FILE = "explored.bpf.c"


@dataclass(frozen=True)
class Call:
    """One system call of an actor.

    `way` is "run" or a way of access to a map. All words of a written value are `fill`. The call may
    fail with an errno of `may`.
    """

    way: str
    name: str  # of the program or map
    fill: int = 0
    flags: int = 0
    may: Tuple[int, ...] = ()


Actors = Tuple[Tuple[Call, ...], ...]


@dataclass(frozen=True)
class Variant:
    """One way to do the operations: the real one, or a broken twin."""

    name: str
    actors: Actors
    orders: Mapping[str, Any] = field(default_factory=dict)  # members of the element of map orders


@dataclass(frozen=True)
class Walk:
    """A case: one actor goes through a function, instruction by instruction.

    The interrupts must be off there while the lock of the element is held.
    """

    name: str
    description: str
    map: str
    programs: Tuple[str, ...]
    variant: Variant
    function: str  # of the kernel, or the program
    first: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LockCode:
    """A case: two actors count under a lock, each preempted at each instruction of the lock's code."""

    name: str
    description: str
    lock: str  # the functions that take it and let it go
    unlock: str
    counter: Case


# Says what is wrong with the value at the end, given the number of all calls; "" if nothing.
Invariant = Callable[[Any, int], str]


@dataclass(frozen=True)
class Case:
    """A case: its element, what is done to it, and the broken twins of that.

    With `excludes` the other actors must be blocked wherever one holds the lock. Schedules preempt
    the actors of `preempted`.
    """

    name: str
    description: str
    map: str
    programs: Tuple[str, ...]
    reals: Tuple[Variant, ...]
    twins: Tuple[Variant, ...]
    invariant: Invariant
    excludes: bool = True
    preemptions: int = 1
    preempted: str = "ABC"
    joins: bool = False  # B adds the element between A's first two accesses to the hash
    bug: Optional[KnownBug] = None
    first: Mapping[str, Any] = field(default_factory=dict)  # members of the element at the begin

    @property
    def variants(self) -> Dict[str, Variant]:
        """The variants by name; that of a single real one is ""."""
        return {each.name: each for each in (*self.reals, *self.twins)}


def counted(value: Any, calls: int) -> str:
    """Say what is wrong with struct shared after so many increments."""
    shared = as_shared(value)
    if shared.count != calls:
        return f"{calls - shared.count} of {calls} updates lost"
    if not shared.agrees:
        return "fields of different updates"
    return f"the lock word is {shared.lock:#x}" if shared.lock else ""


def whole(value: Any, calls: int) -> str:
    """Say what is wrong with a value whose words are always written together."""
    words = set(value.words)
    if len(words) > 1:
        return f"words of different writes: {', '.join(f'{word:#x}' for word in value.words)}"
    return f"the lock word is {value.lock.val:#x}" if value.lock.val else ""


_COUNT = (Call("run", "count"),)


def _counter(way: Way, actors: Actors = (_COUNT, _COUNT)) -> Variant:
    name = "" if way == LOCKED else way.name
    return Variant(name, actors, {"mode": way.mode, "every": way.every, "elements": 1})


# Skips the lock in every second operation. An actor does two, so that each schedule is like the last.
_SKIPS_2 = Way("1 in 2 without the lock", 4, 2)

COUNTER = Case(
    name="counter",
    description="Two CPUs count under a lock; each is preempted after each access.",
    map="state",
    programs=("find_state", "count"),
    reals=(_counter(LOCKED),),
    twins=(
        _counter(UNLOCKED),
        _counter(OTHER_LOCK),
        _counter(EARLY_UNLOCK),
        _counter(_SKIPS_2, (_COUNT * 2, _COUNT * 2)),
        _counter(IMPATIENT),
    ),
    invariant=counted,
    preemptions=2,
)


def _reuse(flags: int) -> Actors:
    """An update of an element, and another CPU that deletes and adds it."""
    update = Call("update", "prepared", 0xA, BPF_F_LOCK)
    return (update,), (Call("delete", "prepared"), Call("update", "prepared", 0xB, flags))


# The memory of a deleted element is the next that this CPU adds, so both actors write to it.
REUSE = Case(
    name="reuse",
    description="A CPU updates an element that another CPU deletes and adds meanwhile.",
    map="prepared",
    programs=("find_prepared",),
    reals=(Variant("", _reuse(BPF_F_LOCK)),),
    twins=(Variant("added without the flag", _reuse(0)),),
    invariant=whole,
    preempted="A",  # the other one is alone in its hash bucket
    bug=KnownBug("07738bc566c3", "<7.0.10"),
    first={"words": [7] * 8},
)


def _added(flags: int) -> Actors:
    """An update that finds no element, while another CPU, which has deleted it, adds and reads it."""
    deletes = Call("delete", "prepared", may=(ENOENT,))
    adds = Call("update", "prepared", 0xB, BPF_F_LOCK)
    reads = Call("lookup", "prepared", flags=flags)
    return (Call("update", "prepared", 0xA, BPF_F_LOCK),), (deletes, adds, reads)


# The window is between two lookups of one call: see docs/detection.md, "Missed".
JUST_ADDED = Case(
    name="just_added",
    description="An update finds an element that another CPU has added since it looked first.",
    map="prepared",
    programs=("find_prepared",),
    reals=(Variant("", _added(BPF_F_LOCK)),),
    twins=(Variant("read without the flag", _added(0)),),
    invariant=whole,
    joins=True,
    first={"words": [7] * 8},
)

_BATCH = (ENOENT, ENOSPC)  # a batch of one element may end the map, or be too small for the next


def _kinds(name: str, fill: int) -> Dict[str, Call]:
    """Return the calls that take the lock of an element of a map."""
    return {
        "update": Call("update", name, fill, BPF_F_LOCK),
        "lookup": Call("lookup", name, flags=BPF_F_LOCK),
        "program": Call("run", f"inspect_{name}"),
        "update_batch": Call("update_batch", name, fill, BPF_F_LOCK),
        "lookup_batch": Call("lookup_batch", name, flags=BPF_F_LOCK, may=_BATCH),
    }


def _matrix(name: str, title: str) -> Case:
    """Return the case of each pair of calls that take the same lock."""
    firsts, seconds = _kinds(name, 0xA), _kinds(name, 0xB)
    return Case(
        name=f"pairs_{name}",
        description=f"Each pair of accesses to an element of {title}, one preempted at each point.",
        map=name,
        programs=(f"find_{name}", f"inspect_{name}"),
        reals=tuple(
            Variant(f"{one} | {other}", ((firsts[one],), (seconds[other],)))
            for one in firsts
            for other in seconds
        ),
        twins=tuple(
            Variant(f"{one} | lookup without the flag", ((firsts[one],), (Call("lookup", name),)))
            for one in firsts
        ),
        invariant=whole,
        preempted="A",
        first={"words": [7] * 8},
    )


INTERRUPTS = Walk(
    name="interrupts_of_program",
    description="A program's lock turns interrupts off before it is taken, and on when it is free.",
    map="state",
    programs=("find_state", "count"),
    variant=_counter(LOCKED, (_COUNT,)),
    function="count",
)

COPY_INTERRUPTS = Walk(
    name="interrupts_of_copy",
    description="So does a copy by user space with BPF_F_LOCK.",
    map="plain",
    programs=("find_plain",),
    variant=Variant("", ((Call("update", "plain", 0xA, BPF_F_LOCK),),)),
    function="copy_map_value_locked",
    first={"words": [7] * 8},
)

LOCK_CODE = LockCode(
    name="lock_code",
    description="A CPU is preempted at each instruction of taking a lock and of letting it go.",
    lock="bpf_spin_lock",
    unlock="bpf_spin_unlock",
    counter=COUNTER,
)

Either = Union[Case, Walk, LockCode]
ALL: Dict[str, Either] = {
    case.name: case
    for case in (
        COUNTER,
        REUSE,
        JUST_ADDED,
        _matrix("plain", "an array"),
        _matrix("prepared", "a hash"),
        INTERRUPTS,
        COPY_INTERRUPTS,
        LOCK_CODE,
    )
}


def find(name: str) -> Either:
    """Return the case of a name. Raises UsageError."""
    if name not in ALL:
        raise UsageError(f"There is no case {name!r} to explore: {', '.join(ALL)}.")
    return ALL[name]
