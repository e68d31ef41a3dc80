# SPDX-License-Identifier: GPL-2.0-only
"""Makes a program smaller that a kernel answers wrongly, in rounds of many candidates. Pure.

The oracle's answer and reason stay as they are, so that a small program shows the same fault.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, Iterator, List, Sequence, Tuple

from harness.fuzz import ir, oracle, rules

MOST_ROUNDS = 15
MOST_CANDIDATES = 250  # of a round, which is one call of the guest
_CHUNKS = (16, 8, 4, 2, 1)

Ask = Callable[[Sequence[ir.Program]], Sequence[bool]]  # which of them the kernel answers wrongly


def shrink(program: ir.Program, kernel: rules.Kernel, ask: Ask) -> ir.Program:
    """Return the smallest program found of the same verdict that is still answered wrongly."""
    wanted = oracle.judge(program, kernel)
    for _ in range(MOST_ROUNDS):
        smaller = [
            each for each in candidates(program) if _same(oracle.judge(each, kernel), wanted)
        ][:MOST_CANDIDATES]
        if not smaller:
            return program
        left = [each for each, wrong in zip(smaller, ask(smaller)) if wrong]
        if not left:
            return program
        program = min(left, key=weight)
    return program


def weight(program: ir.Program) -> Tuple[int, int, int]:
    """Return what is to become less: statements, functions, characters."""
    return ir.size(program), len(program.functions), len(ir.show(program))


def _same(one: oracle.Verdict, other: oracle.Verdict) -> bool:
    return (one.answer, one.reason) == (other.answer, other.reason)


def candidates(program: ir.Program) -> List[ir.Program]:
    """Return simpler programs, the much simpler ones first, each once."""
    found = dict.fromkeys(map(ir.trimmed, _simpler(program)))
    limit = weight(program)
    return [each for each in found if weight(each) < limit]


def _simpler(program: ir.Program) -> Iterator[ir.Program]:
    if program.often:
        yield replace(program, often=False)
    if program.type != "sched_cls":
        yield replace(program, type="sched_cls")
    for number, function in enumerate(program.functions):
        count = sum(1 for _ in ir.statements(function.body))
        for length in _CHUNKS:
            for first in range(0, count, max(1, length // 2)):
                if length <= count:
                    yield _edited(program, number, range(first, first + length), _gone)
        for at in range(count):
            for place in (0, 1):
                yield _edited(program, number, range(at, at + 1), _unwrapped(place))
            yield _edited(program, number, range(at, at + 1), _plainer)
            yield _edited(program, number, range(at, at + 1), _inlined(program))


def _edited(
    program: ir.Program, number: int, which: range, change: Callable[[ir.Statement], ir.Body]
) -> ir.Program:
    """Return the program with some statements of a function changed, counted innermost first."""
    at = [-1]

    def visit(statement: ir.Statement) -> ir.Body:
        at[0] += 1
        return change(statement) if at[0] in which else (statement,)

    functions = list(program.functions)
    body = ir.rewritten(functions[number].body, visit)
    functions[number] = replace(functions[number], body=body)
    return replace(program, functions=tuple(functions))


def _gone(statement: ir.Statement) -> ir.Body:
    return ()


def _unwrapped(place: int) -> Callable[[ir.Statement], ir.Body]:
    def change(statement: ir.Statement) -> ir.Body:
        names = ir.body_names(type(statement))
        return getattr(statement, names[place]) if place < len(names) else (statement,)

    return change


def _plainer(statement: ir.Statement) -> ir.Body:
    """Return the statement in its plainest form."""
    if isinstance(statement, ir.Repeat):
        return (replace(statement, times=2),)
    if isinstance(statement, (ir.Lookup, ir.Inner)) and statement.map != "outer":
        return (replace(statement, map="hash", key=1),)
    if isinstance(statement, ir.If):
        return (replace(statement, bit=0),)
    return (statement,)


def _inlined(program: ir.Program) -> Callable[[ir.Statement], ir.Body]:
    """Return a change that puts a static function in the place of its call."""

    def change(statement: ir.Statement) -> ir.Body:
        if not isinstance(statement, ir.Call):
            return (statement,)
        function = program.functions[statement.function]
        leaves = any(isinstance(each, ir.Exit) for each in ir.statements(function.body))
        return (statement,) if function.kind != ir.STATIC or leaves else function.body

    return change
