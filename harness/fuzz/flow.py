# SPDX-License-Identifier: GPL-2.0-only
"""A program as a list of steps with jumps, for the oracle to walk. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Tuple

from harness.fuzz import ir

GOTO, TURN = "goto", "turn"  # besides the words of statements


@dataclass
class Step:
    """One step: a statement or a jump, and where its other way leads."""

    word: str
    statement: ir.Statement
    other: int = -1  # where it goes if a condition does not hold, or of a jump
    slot: int = -1  # of a loop: the number of its counter


@dataclass(frozen=True)
class Flow:
    """All steps of a program; where functions begin; the number of loop counters."""

    steps: Tuple[Step, ...]
    entries: Dict[int, int]
    counters: int


def flatten(program: ir.Program) -> Flow:
    """Return the steps of the functions that main calls, and of global ones."""
    steps: List[Step] = []
    entries: Dict[int, int] = {}
    counters = 0

    def put(body: ir.Body) -> bool:
        """Append a body's steps; return whether its end is reached."""
        nonlocal counters
        for statement in body:
            step = Step(statement.word, statement)
            if isinstance(statement, ir.Repeat):
                step.slot, counters = counters, counters + 1
                steps.append(step)
                begin = len(steps)
                if not put(statement.body):
                    return False
                steps.append(Step(TURN, statement, begin, step.slot))
                continue
            steps.append(step)
            if isinstance(statement, ir.Exit):
                return False
            if isinstance(statement, (ir.If, ir.IfSet)):
                here = put(statement.then)
                leave = Step(GOTO, statement)
                if here:
                    steps.append(leave)
                step.other = len(steps)
                there = put(statement.orelse)
                leave.other = len(steps)
                if not (here or there):
                    return False
        return True

    for number in ir.called(program):
        entries[number] = len(steps)
        if put(program.functions[number].body):
            steps.append(Step(ir.Exit.word, ir.Exit()))
    return Flow(tuple(steps), entries, counters)
