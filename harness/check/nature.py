# SPDX-License-Identifier: GPL-2.0-only
"""What programs do that decides which comparisons of their runs say something. Pure.

A run in which all of a program's shared memory is touched in one locked section is serial: whatever
the CPUs do, one order of the runs leaves the same. Anything else may leave what no order leaves, and
still be meant so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, FrozenSet, Iterator, List, Mapping, Sequence, Set, Tuple

from harness.check.lockset import Findings
from harness.check.twin import RES_LOCKS
from harness.guest import uapi
from harness.provision.elf import Function, Insn, Object

MANY = 99  # sections of one run: no number is known
_EXIT, _WIDE, _FETCH = 0x95, 0x18, 1
_DELETE = 3  # bpf_map_delete_elem()
# Helpers that return a time: ktime_get_ns, jiffies64, and the variants of ktime.
_CLOCKS = (5, 118, 125, 160, 208)
_MOST_LOCKS = 64  # places of one function that take a lock


@dataclass(frozen=True)
class Nature:
    """What some programs do, taken together."""

    sections: int  # locked sections of one run, at most
    clock: bool = False  # they ask for the time
    tickets: bool = False  # an atomic instruction hands them a value that others change
    deletes: bool = False
    loose: FrozenSet[Tuple[str, str]] = frozenset()  # (map, field) read without a lock, and changed


def of_programs(source: Object, programs: Sequence[str], findings: Findings) -> Nature:
    """Read the instructions of programs and of all that they call."""
    functions = [f for name in programs for f in _reached(source.functions, name)]
    helpers = {insn.imm for f in functions for insn in f.insns if _is_helper(insn)}
    counter = _Sections(source.functions)
    return Nature(
        max([counter.of(name, ()) for name in programs] or [0]),
        bool(helpers.intersection(_CLOCKS)),
        any(_is_ticket(insn) for f in functions for insn in f.insns),
        _DELETE in helpers,
        frozenset(_loose(programs, findings)),
    )


def _loose(programs: Sequence[str], findings: Findings) -> Iterator[Tuple[str, str]]:
    for each in findings.fields:
        of = [access for access in each.accesses if access.program in programs]
        free = [a for a in of if not a.changes and not a.tied and not a.others]
        if free and any(a.changes for a in of):
            yield each.map, each.field


def _reached(functions: Mapping[str, Function], name: str) -> List[Function]:
    found: Dict[str, Function] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in found or current not in functions:
            continue
        found[current] = functions[current]
        targets = functions[current].targets.values()
        waiting += [target.name for target in targets if target.kind == "function"]
    return [*found.values()]


def _is_helper(insn: Insn) -> bool:
    return insn.code == uapi.BPF_JMP_CALL and insn.src == 0


def _is_ticket(insn: Insn) -> bool:
    """Tell whether it is an atomic instruction that returns the old value."""
    return insn.code in (0xC3, 0xDB) and bool(insn.imm & _FETCH)


class _Sections:
    """Counts the locks that one run of a function takes at most, one after the other."""

    def __init__(self, functions: Mapping[str, Function]) -> None:
        self._functions = functions
        self._known: Dict[str, int] = {}

    def of(self, name: str, callers: Tuple[str, ...]) -> int:
        """Return the most of a function; `callers` are those that wait for it."""
        if name not in self._functions or name in callers:
            return 0
        if name not in self._known:
            self._known[name] = self._count(self._functions[name], (*callers, name))
        return self._known[name]

    def _count(self, function: Function, callers: Tuple[str, ...]) -> int:
        weights: Dict[int, int] = {}
        for at, insn in enumerate(function.insns):
            weight = self._weight(function, at, insn, callers)
            if weight:
                weights[at] = weight
        if sum(weights.values()) <= 1:
            again = any(at in _after(function, at) for at in weights)
            return MANY if again else sum(weights.values())
        if len(weights) > _MOST_LOCKS:
            return MANY
        after = {at: _after(function, at) & set(weights) for at in weights}
        if any(at in after[at] for at in weights):
            return MANY
        longest: Dict[int, int] = {}
        for at in sorted(
            weights, key=lambda at: len(after[at])
        ):  # none of what follows comes later
            longest[at] = weights[at] + max([longest[then] for then in after[at]] or [0])
        return min(MANY, max(longest.values()))

    def _weight(self, function: Function, at: int, insn: Insn, callers: Tuple[str, ...]) -> int:
        target = function.targets.get(at)
        if target is not None and target.kind == "function":
            most = self.of(target.name, callers)
            # An address is that of a callback, which may run any number of times.
            return most if insn.code == uapi.BPF_JMP_CALL or not most else MANY
        if target is not None and target.kind == "extern":
            return int(target.name in RES_LOCKS)
        return int(_is_helper(insn) and insn.imm == uapi.BPF_FUNC_SPIN_LOCK)


def _after(function: Function, start: int) -> Set[int]:
    """Return the instructions that may run after one."""
    seen: Set[int] = set()
    waiting = _next(function, start)
    while waiting:
        at = waiting.pop()
        if at not in seen and 0 <= at < len(function.insns):
            seen.add(at)
            waiting += _next(function, at)
    return seen


def _next(function: Function, at: int) -> List[int]:
    insn = function.insns[at]
    if insn.code == _WIDE:
        return [at + 2]
    if insn.code & 7 not in (5, 6) or insn.code == uapi.BPF_JMP_CALL:
        return [at + 1]
    if insn.code == _EXIT:
        return []
    if insn.code & 0xF0 == 0:  # a jump without a condition
        return [at + 1 + (insn.imm if insn.code & 7 == 6 else insn.off)]
    return [at + 1, at + 1 + insn.off]
