# SPDX-License-Identifier: GPL-2.0-only
"""The same random programs on several kernels: which answers change, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable, Dict, List, Sequence, Tuple

from packaging.version import Version

from harness.fuzz import generate, ir, known, oracle, rules, shrink
from harness.fuzz.asking import answers
from harness.fuzz.campaign import Kernel
from harness.fuzz.findings import Asked
from harness.machines.target import Target

BATCH = 250


@dataclass(frozen=True)
class Answers:
    """What one kernel said to all programs."""

    release: str
    version: Version
    clauses: rules.Kernel
    asked: Tuple[Asked, ...]


@dataclass(frozen=True)
class Change:
    """Programs whose answer changed from one kernel to the next for one cause."""

    accepted: bool  # newly accepted, else newly refused
    cause: str
    explained: bool  # by a clause, or by a fault on record
    times: int
    smallest: ir.Program


def programs(seed: int, number: int, kernel: rules.Kernel) -> List[ir.Program]:
    """Return the programs that all kernels are asked about; the first kernel decides which."""
    made = generate.Generator(seed, kernel)
    return [made.program() for _ in range(number)]


def ask(target: Target, make: Callable[[rules.Kernel], Sequence[ir.Program]]) -> Answers:
    """Ask a kernel about all programs. Raises SetupError, GuestLost, AgentError."""
    kernel = Kernel(target)
    try:
        asked: List[Asked] = []
        some = make(kernel.clauses)
        for first in range(0, len(some), BATCH):
            judged = kernel.asker.judged(some[first : first + BATCH])
            loaded = kernel.load([program for program, _ in judged])
            asked += answers(judged, loaded)
        return Answers(kernel.release, kernel.version, kernel.clauses, tuple(asked))
    finally:
        kernel.drop()


def compare(before: Answers, after: Answers) -> List[Change]:
    """Return the changes between two kernels, the unexplained ones first. Pure."""
    found: Dict[Tuple[bool, str], Change] = {}
    for old, new in zip(before.asked, after.asked):
        if old.gave_up or new.gave_up or old.accepted == new.accepted:
            continue
        cause, explained = _cause(old, new, before, after)
        one = Change(new.accepted, cause, explained, 1, old.program)
        other = found.get((new.accepted, cause))
        if other is not None:
            small = min(other.smallest, one.smallest, key=shrink.weight)
            one = replace(other, times=other.times + 1, smallest=small)
        found[new.accepted, cause] = one
    return sorted(found.values(), key=lambda change: (change.explained, -change.times))


def _cause(old: Asked, new: Asked, before: Answers, after: Answers) -> Tuple[str, bool]:
    """Return why the answer changed, and whether that is known."""
    for asked, kernel in ((old, before), (new, after)):
        fault = known.find(asked.program, asked.verdict, kernel.version)
        if asked.differs and fault is not None:
            return f"{kernel.release} is on record: {fault.name}", True
    differing = [
        name
        for name in rules.CLAUSES
        if getattr(before.clauses, name) != getattr(after.clauses, name)
    ]
    for name in differing:
        clauses = replace(before.clauses, **{name: getattr(after.clauses, name)})
        if oracle.judge(old.program, clauses).answer == _must(new) != old.verdict.answer:
            return f"{name} ({rules.CLAUSES[name].kernels})", True
    words = f"{old.verdict.answer} {old.verdict.reason}".strip()
    return f"the oracle says: {words}", False


def _must(asked: Asked) -> str:
    return oracle.ACCEPT if asked.accepted else oracle.REFUSE
