# SPDX-License-Identifier: GPL-2.0-only
"""Checks operation histories for linearizability; names each anomaly and shows a witness. Pure.

The object is a counter with three operations. `add` takes a ticket (the old count) and adds one.
`read` returns the count. `set` sets the count to a value above all earlier ones.

A history is linearizable (Herlihy and Wing, 1990) if its operations have a valid serial order.
That order must be a run of the counter. It must also keep the order in time: an operation that
ended before another began comes first. Here the values give the only possible order, so no search
is needed. The operations are sorted, O(N log N), and each contradiction is an anomaly.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter, le
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple


class Kind(enum.IntEnum):
    """What an operation does. Operations with equal values must happen in the order given here."""

    SET = 0
    READ = 1
    ADD = 3


class Operation(NamedTuple):
    """One operation as its process recorded it. All times are in ns of one clock."""

    value: int  # the ticket taken, the count read, or the count that was set
    arrive: int  # time before the lock was requested
    leave: int  # time after the lock was released
    process: str  # the CPU or thread; it does one operation after another
    kind: Kind = Kind.ADD

    @property
    def place(self) -> int:
        """Return a number that rises along the serial order."""
        return 4 * self.value + self.kind


@dataclass(frozen=True)
class Anomaly:
    """A contradiction that is impossible under a lock that serializes."""

    name: str  # duplicate ticket, skipped ticket, lost update, stale value, phantom value
    count: int  # how often
    sentence: str
    witness: Tuple[Operation, ...] = ()  # the fewest operations that show it, closest in time

    def lines(self) -> List[str]:
        """Return the sentence and a small timeline of the witness, as lines."""
        return [f"{self.name}: {self.sentence}", *timeline(self.witness)]


def check(
    history: Sequence[Operation],
    final: Optional[int] = None,
    complete: bool = True,
    clock_error: int = 0,
) -> List[Anomaly]:
    """Return the anomalies of a history; [] if its operations have a serial order.

    `history` holds the operations of each process in program order. The count is 0 at first and
    `final` at the end; None says that the end is unknown. Unless `complete`, operations and their
    tickets may be missing from the history, but the recorded ones must still fit. Times of
    different processes are compared only if they differ by more than `clock_error` ns.
    """
    if complete and _is_serial(history, final, clock_error):
        return []
    in_order = sorted(history, key=lambda operation: 4 * operation.value + operation.kind)
    found = _duplicates(in_order)
    if complete:
        found += _skipped(in_order) + _phantoms(in_order) + _lost(in_order, final)
    return found + _own_order(history) + _stale(in_order, clock_error)


def _is_serial(history: Sequence[Operation], final: Optional[int], clock_error: int) -> bool:
    """Tell quickly whether a history has only `add` operations and no anomaly.

    Nearly all histories are like that. For the others, slower checks find and name the anomalies.
    """
    tickets: Dict[str, List[int]] = defaultdict(list)
    for value, _, _, process, _ in history:
        tickets[process].append(value)
    if [operation.kind for operation in history].count(Kind.ADD) != len(history):
        return False
    if any(own != sorted(own) for own in tickets.values()):
        return False
    in_order = sorted(history, key=itemgetter(0))
    if [operation.value for operation in in_order] != list(range(len(history))):
        return False
    latest = accumulate((operation.arrive for operation in in_order), max)
    ends = (operation.leave + clock_error for operation in in_order)
    return final in (None, len(history)) and all(map(le, latest, ends))


def _duplicates(in_order: Sequence[Operation]) -> List[Anomaly]:
    """Find tickets that were taken twice: one of the two updates is lost."""
    count = 0
    closest: Optional[Tuple[Operation, Operation]] = None
    before: Optional[Operation] = None
    for operation in in_order:
        if operation.kind is not Kind.ADD:
            continue
        if before is not None and operation.value == before.value:
            count += 1
            if closest is None or _span(before, operation) < _span(*closest):
                closest = before, operation
        before = operation
    if closest is None:
        return []
    sentence = (
        f"ticket {closest[0].value} was taken by {closest[0].process} and {closest[1].process}"
        + _more(count)
    )
    return [Anomaly("duplicate ticket", count, sentence, closest)]


def _skipped(in_order: Sequence[Operation]) -> List[Anomaly]:
    """Find tickets that nobody took although a later one was taken: the counter rose by itself."""
    count = 0
    first: Optional[Tuple[int, Operation]] = None
    expected = 0
    for operation in in_order:
        if operation.kind is Kind.SET:
            expected = operation.value
        elif operation.kind is Kind.ADD:
            if operation.value > expected:
                count += operation.value - expected
                first = first or (expected, operation)
            expected = max(expected, operation.value + 1)
    if first is None:
        return []
    ticket, after = first
    sentence = f"nobody took ticket {ticket}, but {after.process} took {after.value}" + _more(count)
    return [Anomaly("skipped ticket", count, sentence, (after,))]


def _phantoms(in_order: Sequence[Operation]) -> List[Anomaly]:
    """Find reads of a value that the counter never had."""
    had = {0}
    for operation in in_order:
        if operation.kind is Kind.SET:
            had.add(operation.value)
        elif operation.kind is Kind.ADD:
            had.add(operation.value + 1)
    phantoms = [o for o in in_order if o.kind is Kind.READ and o.value not in had]
    if not phantoms:
        return []
    first = phantoms[0]
    sentence = f"{first.process} read {first.value}, which the count never was"
    return [
        Anomaly("phantom value", len(phantoms), sentence + _more(len(phantoms)), (phantoms[0],))
    ]


def _lost(in_order: Sequence[Operation], final: Optional[int]) -> List[Anomaly]:
    """Compare the final count with the count that the last operation left."""
    changes = [o for o in in_order if o.kind is not Kind.READ]
    last = changes[-1] if changes else None
    left = 0 if last is None else last.value + (last.kind is Kind.ADD)
    if final is None or final == left:
        return []
    name = "lost update" if final < left else "leaked count"
    sentence = f"the count ended as {final}, but the last operation left it at {left}"
    return [Anomaly(name, abs(left - final), sentence, tuple(changes[-1:]))]


def _own_order(history: Iterable[Operation]) -> List[Anomaly]:
    """Find a process whose later operation has an earlier place. This needs no clock."""
    count = 0
    witness: Optional[Tuple[Operation, Operation]] = None
    last: Dict[str, Operation] = {}
    for operation in history:
        before = last.get(operation.process)
        if before is not None and operation.place < before.place:
            count += 1
            witness = witness or (before, operation)
        last[operation.process] = operation
    return [] if witness is None else [_stale_anomaly(count, witness)]


def _stale(in_order: Sequence[Operation], clock_error: int) -> List[Anomaly]:
    """Find operations on a value that was already outdated before they began."""
    count = 0
    witness: Optional[Tuple[Operation, Operation]] = None
    latest: Optional[Operation] = None  # the last to arrive among those with an earlier place
    waiting: List[Operation] = []  # those with the same place as the present one
    for operation in in_order:
        if waiting and waiting[-1].place != operation.place:
            for done in waiting:
                if latest is None or done.arrive > latest.arrive:
                    latest = done
            waiting = []
        waiting.append(operation)
        if latest is not None and operation.leave + clock_error < latest.arrive:
            if operation.process != latest.process:  # else _own_order() reports it
                count += 1
                if witness is None or _span(operation, latest) < _span(*witness):
                    witness = operation, latest
    return [] if witness is None else [_stale_anomaly(count, witness)]


def _stale_anomaly(count: int, witness: Tuple[Operation, Operation]) -> Anomaly:
    first, second = witness
    sentence = (
        f"{second.process} {_did(second)}, though {first.process} {_did(first)} and was gone before"
        f" it came{_more(count)}"
    )
    return Anomaly("stale value", count, sentence, witness)


def overlap(history: Iterable[Operation]) -> float:
    """Return the share (0 to 1) of operations that began during one of another process."""
    total, overlapping = 0, 0
    last, last_end, other_end = "", 0, 0  # the process seen last, its end, the end of all others
    for _, arrive, leave, process, _ in sorted(history, key=itemgetter(1)):
        total += 1
        overlapping += (other_end if process == last else last_end) > arrive
        if process == last:
            last_end = max(last_end, leave)
        elif leave > last_end:
            last, last_end, other_end = process, leave, last_end
        else:
            other_end = max(other_end, leave)
    return overlapping / total if total else 0.0


# -- for people ------------------------------------------------------------------------------------

_WIDTH = 56


def timeline(operations: Sequence[Operation]) -> List[str]:
    """Draw one row per operation over a common time axis. The last row has the scale."""
    if not operations:
        return []
    start = min(o.arrive for o in operations)
    length = max(1, max(o.leave for o in operations) - start)
    name = max(len(o.process) for o in operations)

    def column(moment: int) -> int:
        return (moment - start) * (_WIDTH - 1) // length

    rows = []
    for operation in sorted(operations, key=lambda o: o.arrive):
        left, right = column(operation.arrive), column(operation.leave)
        bar = "|" + "-" * max(0, right - left - 1) + ("|" if right > left else "")
        line = f"{' ' * left}{bar}"
        rows.append(f"  {operation.process:<{name}}  {line:<{_WIDTH}}  {_did(operation)}")
    return [*rows, f"  {'':<{name}}  {'0':<{_WIDTH - 12}}{f'{length:,} ns':>12}"]


def _did(operation: Operation) -> str:
    words = {Kind.ADD: "took ticket", Kind.READ: "read", Kind.SET: "set"}[operation.kind]
    return f"{words} {operation.value}"


def _span(one: Operation, other: Operation) -> int:
    return max(one.leave, other.leave) - min(one.arrive, other.arrive)


def _more(count: int) -> str:
    return f", and {count - 1} more" if count > 1 else ""
