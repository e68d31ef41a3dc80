# SPDX-License-Identifier: GPL-2.0-only
"""Explores the user's own programs: pairs of them on two CPUs, each access to a map a point.

No rule is known of them but one: whatever the schedule, memory and return values must be as if one
program had run after the other.
"""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ContextManager, Dict, FrozenSet, Iterable, List, Optional, Sequence, Tuple

from harness import paths
from harness.check import examine
from harness.errors import UsageError
from harness.explore import schedule, verdicts
from harness.explore.proof import staged
from harness.explore.schedule import ACTORS, END, Move, Outcome, Schedule, Step
from harness.explore.steps import Failed, Memory, Stepper
from harness.explore.verdicts import Explored
from harness.guest import calls
from harness.machines.gdb_stub import Region
from harness.provision import elf
from harness.provision.build import Source
from harness.running.driven import Guest
from harness.running.maps import Loaded

_HASH, _ARRAY = 1, 2  # of enum bpf_map_type
_MOST_ELEMENTS = 8  # of an array that are watched
_MOST_PAIRS = 10
_TRIES = 3
_WORD = 8  # the size to which the kernel rounds an array's values
_RETVAL = calls.ACTOR_ATTR + 4
_PACKET = bytes(64)
# Sections whose programs BPF_PROG_TEST_RUN runs on a packet, and without one.
_ON_PACKET = ("tc", "classifier", "action", "xdp", "socket", "cgroup_skb", "sk_skb", "lwt")
_WITHOUT = ("syscall",)

# Finds the elements: compiled together with the user's file, so that it sees the maps.
_FINDER = """
#include "{file}"
#include <bpf/bpf_helpers.h>
struct spinlock_place {{ unsigned long long address, elements; }};
struct {{
    __uint(type, 2);
    __uint(max_entries, {count});
    __type(key, unsigned int);
    __type(value, struct spinlock_place);
}} spinlock_places SEC(".maps");
SEC("tc") int spinlock_find(void *context)
{{
    struct spinlock_place *place;
    unsigned int number;
    void *value;
{finds}    return 0;
}}
"""
_FIND_ARRAY = """    number = {number};
    place = bpf_map_lookup_elem(&spinlock_places, &number);
    for (unsigned int key = 0; place && key < {most}; key++) {{
        value = bpf_map_lookup_elem(&{name}, &key);
        if (value && !key)
            place->address = (unsigned long long)value;
        if (value)
            place->elements = key + 1;
    }}
"""
_FIND_HASH = """    number = {number};
    place = bpf_map_lookup_elem(&spinlock_places, &number);
    {{
        unsigned char key[{size}] = {{}};
        value = bpf_map_lookup_elem(&{name}, key);
        if (place && value) {{
            place->address = (unsigned long long)value;
            place->elements = 1;
        }}
    }}
"""


@dataclass(frozen=True)
class Own:
    """The user's file: as it is, and with the program that finds the elements."""

    source: examine.Source
    maps: Tuple[elf.Map, ...]  # that are watched
    found: bytes  # the object with the finder

    @property
    def left_out(self) -> Tuple[str, ...]:
        """The maps that are not watched."""
        names = {each.name for each in self.maps}
        return tuple(name for name in self.source.object.maps if name not in names)


@dataclass(frozen=True)
class State:
    """The memory of all elements and the return values, at the end of a schedule."""

    memory: Tuple[bytes, ...]
    returned: Tuple[bytes, ...]


def open_file(path: Path, include: Path) -> Own:
    """Compile a C file of the user's. Raises UsageError."""
    source = examine.open_source(path, include)
    maps = tuple(
        each
        for each in source.object.maps.values()
        if each.type in (_HASH, _ARRAY) and "." not in each.name and each.value_size
    )
    if not maps:
        raise UsageError(f"{path}: no array or hash is declared there, so nothing is shared.")
    finds = "".join(
        (_FIND_ARRAY if each.type == _ARRAY else _FIND_HASH).format(
            number=number, name=each.name, most=_MOST_ELEMENTS, size=each.key_size
        )
        for number, each in enumerate(maps)
    )
    text = _FINDER.format(file=path.resolve(), count=len(maps), finds=finds)
    with paths.Scratch() as directory:
        wrapper = directory / f"with_{path.name}"
        wrapper.write_text(text, encoding="utf-8")
        found = examine.open_source(wrapper, include, [path.resolve().parent])
    return Own(source, maps, found.data)


def pairs(own: Own, named: Sequence[str]) -> List[Tuple[str, str]]:
    """Return the pairs of programs to explore. Raises UsageError."""
    for name in named:
        if name not in own.source.programs:
            known = ", ".join(own.source.programs)
            raise UsageError(f"{own.source.name} has no program {name}: it has {known}.")
        if not _runs(own, name):
            section = own.source.object.functions[name].section
            raise UsageError(
                f"{name} is of section {section}, which BPF_PROG_TEST_RUN does not run: only"
                f" {', '.join((*_ON_PACKET, *_WITHOUT))} can be explored."
            )
    chosen = list(named) or [name for name in own.source.programs if _runs(own, name)]
    if len(named) == 2:
        return [(named[0], named[1])]
    found = list(itertools.combinations_with_replacement(chosen, 2))
    if not found:
        raise UsageError(f"{own.source.name} has no program that BPF_PROG_TEST_RUN runs.")
    if len(found) > _MOST_PAIRS:
        raise UsageError(
            f"{own.source.name} has {len(found)} pairs of programs: name those to explore by"
            " --program."
        )
    return found


def _kind(own: Own, name: str) -> str:
    return own.source.object.functions[name].section.partition("/")[0].partition(".")[0]


def _runs(own: Own, name: str) -> bool:
    return name in own.source.object.functions and _kind(own, name) in (*_ON_PACKET, *_WITHOUT)


class Pair:
    """Two programs of the user's, loaded in a guest."""

    def __init__(self, guest: Guest, own: Own, programs: Tuple[str, str]) -> None:
        """Load them. Raises as driven.Guest.call() does."""
        self._guest, self._own, self._programs = guest, own, programs
        functions = own.source.object.functions
        source = Source(own.source.name, "", "libbpf", own.found, 0.0)
        wanted = [calls.Program(name, functions[name].section) for name in dict.fromkeys(programs)]
        guest.call(calls.Load(source.request(), [*wanted, calls.Program("spinlock_find", "tc")]))
        self._loaded = Loaded(guest, source, lambda: own.found)
        for each in own.maps:
            if each.type == _HASH:
                key, value = bytes(each.key_size).hex(), bytes(each.value_size).hex()
                guest.call(calls.MapUpdate(each.name, key, value))
        guest.call(calls.TestRun("spinlock_find"))
        self._memory = self._find()
        self._lines = {name: guest.call(calls.Lines(name)) for name in dict.fromkeys(programs)}

    def _find(self) -> Memory:
        places = self._loaded.map("spinlock_places")
        elements, locks = [], []
        for number, each in enumerate(self._own.maps):
            place = places[number]
            if not place.elements:
                raise Failed(f"the map {each.name} has no element 0")
            step = -(-each.value_size // _WORD) * _WORD
            elements.append(Region(place.address, step * place.elements))
            locks += [
                Region(place.address + index * step + lock.offset, lock.size)
                for index in range(place.elements)
                for lock in each.locks
            ]
        return Memory(tuple(elements), tuple(locks), tuple(locks) or tuple(elements))

    def explore(self, preemptions: int, replay: str) -> None:
        """Carry out all schedules, and conclude the guest's case with the verdict."""
        with self._staged() as stepper:
            self._stepper = stepper
            self._first = tuple(stepper.read(region) for region in self._memory.elements)
            orders = [Schedule((Move(a, END), Move(b, END))) for a, b in ("AB", "BA")]
            ends = [[self._once(order) for _ in range(2)] for order in orders]
            self._serial = [runs[0][1] for runs in ends]
            self._varies = [_differ(runs[0][1], runs[1][1]) for runs in ends]
            points = self._profile()
            outcomes = self._all(schedule.one_preemption(points))
            if preemptions > 1 and not any(each.broken for each in outcomes):
                outcomes += self._all(schedule.two_preemptions(outcomes, points))
        explored = Explored(" | ".join(self._programs), tuple(outcomes), points)
        told = next(iter((*explored.broken, *explored.unknown)), None)
        if told is not None:
            with_lines = tuple(
                self._with_lines(each) if each is told else each for each in outcomes
            )
            explored = replace(explored, outcomes=with_lines)
        verdict = verdicts.judge_serial(explored, replay)
        drawn = verdicts.timeline([explored])
        self._guest.conclude(verdict, schedules=len(outcomes), timeline=drawn)

    def repeat(self, wanted: Schedule, times: int) -> List[Outcome]:
        """Carry out one schedule several times, without a judgement of its end."""
        with self._staged() as stepper:
            self._stepper = stepper
            self._first = tuple(stepper.read(region) for region in self._memory.elements)
            found = []
            for _ in range(times):
                outcome, state = self._once(wanted)
                found.append(replace(outcome, after=self._told(state)))
        return [self._with_lines(outcome) for outcome in found]

    def _staged(self) -> ContextManager[Stepper]:
        operations = {
            actor: [
                calls.Operation(
                    "run",
                    program,
                    value=_PACKET.hex() if _kind(self._own, program) in _ON_PACKET else "",
                )
            ]
            for actor, program in zip(ACTORS, self._programs)
        }
        return staged(self._guest, operations, self._memory)

    def _profile(self) -> Dict[str, int]:
        found = {}
        for actor in ACTORS[:2]:
            self._stepper.to_gates()
            self._reset()
            found[actor] = self._stepper.move(Move(actor, schedule.MOST_POINTS)).points
        return found

    def _reset(self) -> None:
        for region, data in zip(self._memory.elements, self._first):
            self._stepper.write(region.address, data)

    def _all(self, wanted: Iterable[Schedule]) -> List[Outcome]:
        found: List[Outcome] = []
        for each in wanted:
            outcome, state = self._once(each)
            if not outcome.shortened:
                broken = "" if outcome.unknown else self._judged(state)
                found.append(replace(outcome, broken=broken, after=self._told(state)))
        return found

    def _once(self, wanted: Schedule) -> Tuple[Outcome, State]:
        for _ in range(_TRIES):
            self._stepper.to_gates()
            self._reset()
            outcome = Outcome(wanted, self._stepper.carry_out(wanted))
            if not outcome.unknown:
                break
        if outcome.unknown:
            return outcome, State((), ())
        memory = tuple(self._stepper.read(region) for region in self._memory.elements)
        returned = tuple(self._stepper.private(actor, 0, _RETVAL, 4) for actor in ACTORS[:2])
        return outcome, State(memory, returned)

    def _judged(self, state: State) -> str:
        """Say how the end differs from that of each order; "" if it is the end of one."""
        for serial, varies in zip(self._serial, self._varies):
            if not _differ(state, serial) - varies:
                return ""
        fields = self._fields(state)
        orders = [self._fields(serial) for serial in self._serial]
        for name, value in fields.items():
            others = [order[name] for order in orders]
            if value not in others:
                wanted = " or ".join(dict.fromkeys(others))
                return f"{name} is {value}, and one program after the other makes it {wanted}"
        return "fields of one order stand beside fields of the other"

    def _fields(self, state: State) -> Dict[str, str]:
        """Return the values of all fields and the return values, by name."""
        found = {}
        for each, region, data in zip(self._own.maps, self._memory.elements, state.memory):
            step = -(-each.value_size // _WORD) * _WORD
            for index in range(region.length // step):
                for part in each.fields:
                    begin = index * step + part.offset
                    piece = data[begin : begin + part.size]
                    found[f"{each.name}[{index}].{part.name}"] = _number(piece)
        for actor, data in zip(ACTORS, state.returned):
            found[f"what {actor} returned"] = _number(data)
        return found

    def _told(self, state: State) -> str:
        if not state.memory:
            return ""
        fields = [f"{name} {value}" for name, value in self._fields(state).items() if value != "0"]
        return ", ".join(fields[:12]) or "all zero"

    def _with_lines(self, outcome: Outcome) -> Outcome:
        """Return an outcome with the names of functions, and the lines of the user's file."""
        places = [int(step.place, 16) for step in outcome.steps if step.place]
        names = dict(zip(places, self._guest.call(calls.Symbols(places))))

        def named(step: Step) -> Step:
            if not step.place:
                return step
            address = int(step.place, 16)
            return replace(step, place=names[address], line=self._line(address) or "")

        return replace(outcome, steps=tuple(map(named, outcome.steps)))

    def _line(self, address: int) -> Optional[str]:
        """Return the source line of the instruction before an address, if it is a program's."""
        for rows in self._lines.values():
            starts = [row[0] for row in rows]
            at = bisect.bisect_left(starts, address) - 1
            if 0 <= at < len(rows) - 1:
                return f"line {rows[at][2]}"
        return None


def _number(data: bytes) -> str:
    return str(int.from_bytes(data, "little")) if len(data) <= 8 else data.hex()


def _differ(one: State, other: State) -> FrozenSet[Tuple[int, int]]:
    """Return the places of the bytes that differ."""
    pieces = zip((*one.memory, *one.returned), (*other.memory, *other.returned))
    return frozenset(
        (number, at)
        for number, (left, right) in enumerate(pieces)
        for at, (a, b) in enumerate(zip(left, right))
        if a != b
    )
