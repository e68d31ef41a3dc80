# SPDX-License-Identifier: GPL-2.0-only
"""A program as a list of steps with jumps, for the oracle to walk. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Tuple

from harness.fuzz import ir

GOTO, TURN = "goto", "turn"  # besides the words of statements


@dataclass
class Step:
    """One step: a statement or a jump, and where its other way leads."""

    word: str
    statement: ir.Statement
    other: int = -1  # where it goes if a condition does not hold, or of a jump
    slot: int = -1  # of a loop: the number of its counter
    joins: bool = False  # more than one way leads here
    live: int = 0  # a bit for each variable whose content may still matter here


@dataclass(frozen=True)
class Flow:
    """All steps of a program; where functions begin; the number of loop counters."""

    steps: Tuple[Step, ...]
    entries: Dict[int, int]
    counters: int


def flatten(program: ir.Program) -> Flow:
    """Return the steps of the functions that main calls, and of global ones."""
    writer = _Writer()
    entries: Dict[int, int] = {}
    for number in ir.called(program):
        entries[number] = len(writer.steps)
        if writer.put(program.functions[number].body):
            writer.steps.append(Step(ir.Exit.word, ir.Exit()))
    after = _successors(program, writer.steps, entries)
    _mark_joins(writer.steps, entries, after)
    _mark_live(writer.steps, after)
    return Flow(tuple(writer.steps), entries, writer.counters)


class _Writer:
    """Appends steps."""

    def __init__(self) -> None:
        self.steps: List[Step] = []
        self.counters = 0

    def put(self, body: ir.Body) -> bool:
        """Append a body's steps; return whether its end is reached."""
        return all(self._statement(statement) for statement in body)

    def _statement(self, statement: ir.Statement) -> bool:
        step = Step(statement.word, statement)
        self.steps.append(step)
        if isinstance(statement, ir.Repeat):
            step.slot, self.counters = self.counters, self.counters + 1
            begin = len(self.steps)
            if not self.put(statement.body):
                return False
            self.steps.append(Step(TURN, statement, begin, step.slot))
        elif isinstance(statement, (ir.If, ir.IfSet)):
            here = self.put(statement.then)
            leave = Step(GOTO, statement)
            if here:
                self.steps.append(leave)
            step.other = len(self.steps)
            there = self.put(statement.orelse)
            leave.other = len(self.steps)
            return here or there
        return not isinstance(statement, ir.Exit)


_After = List[List[int]]  # of each step: those that may come next


def _successors(program: ir.Program, steps: List[Step], entries: Mapping[int, int]) -> _After:
    """Return what may come after each step, over all calls: where a function returns to, too."""
    starts = sorted((at, number) for number, at in entries.items())
    returns: Dict[int, List[int]] = {number: [] for number in entries}
    for at, step in enumerate(steps):
        if isinstance(step.statement, (ir.ForEach, ir.BpfLoop)):
            returns[step.statement.function].append(at)
        elif isinstance(step.statement, ir.Call):
            returns[step.statement.function].append(at + 1)
    after: _After = []
    for at, step in enumerate(steps):
        statement, word = step.statement, step.word
        if word == ir.Exit.word:
            own = [number for start, number in starts if start <= at][-1]
            is_root = program.functions[own].kind in (ir.MAIN, ir.GLOBAL)
            after.append([] if is_root else returns[own])
        elif word == GOTO:
            after.append([step.other])
        elif isinstance(statement, ir.Call):
            static = program.functions[statement.function].kind == ir.STATIC
            after.append([entries[statement.function] if static else at + 1])
        elif isinstance(statement, (ir.ForEach, ir.BpfLoop)):
            after.append([entries[statement.function], at + 1])
        elif step.other >= 0:
            after.append([at + 1, step.other])
        else:
            after.append([at + 1])
    return after


def _mark_joins(steps: List[Step], entries: Mapping[int, int], after: _After) -> None:
    before = [0] * len(steps)
    for targets in after:
        for target in targets:
            before[target] += 1
    for entry in entries.values():
        before[entry] += 1
    for step, count in zip(steps, before):
        step.joins = count > 1


_ASSIGN = (ir.Lookup, ir.Inner, ir.Direct, ir.Value, ir.Copy, ir.Clear)
_USE = (ir.Move, ir.Shift, ir.Lock, ir.Unlock, ir.Load, ir.Store, ir.Atomic, ir.Pass)


def _mark_live(steps: List[Step], after: _After) -> None:
    """Find what each step needs of the variables, from the end until nothing changes."""
    changed = True
    while changed:
        changed = False
        for at in range(len(steps) - 1, -1, -1):
            step, live = steps[at], 0
            for target in after[at]:
                live |= steps[target].live
            statement = step.statement
            if isinstance(statement, _ASSIGN):
                live &= ~(1 << statement.var)
            if isinstance(statement, ir.Copy):
                live |= 1 << statement.of
            elif isinstance(statement, _USE) or step.word == ir.IfSet.word:
                live |= 1 << getattr(statement, "var")
            if live != step.live:
                step.live, changed = live, True
