# SPDX-License-Identifier: GPL-2.0-only
"""Schedules: their enumeration and pruning, as text and back. Pure.

An actor is a CPU that does one operation. A point is the moment after one of its accesses to the
memory under test. A schedule such as "A:3 B:end A:end" lets A run to its third point, then B to its
end while A is frozen, then A to its end.
"""

from __future__ import annotations

import enum
import itertools
import re
from dataclasses import dataclass
from typing import Iterable, Iterator, List, Mapping, Sequence, Tuple

from harness.errors import UsageError

ACTORS = "ABC"  # names in the order of the actors
MOST_POINTS = 100_000
END, NEXT = -1, -2  # in place of a number of points
_WORDS = {END: "end", NEXT: "next"}


@dataclass(frozen=True)
class Move:
    """Let one actor make `points` more accesses; END: run to its end; NEXT: to its next call.

    With a `function`: run to its begin, then so many instructions of it.
    """

    actor: str
    points: int
    function: str = ""

    def __str__(self) -> str:
        if self.function:
            return f"{self.actor}:{self.function}+{self.points}"
        return f"{self.actor}:{_WORDS.get(self.points, str(self.points))}"


@dataclass(frozen=True)
class Schedule:
    """Moves, one after the other. Actors that they leave unfinished are finished at the end."""

    moves: Tuple[Move, ...]

    def __str__(self) -> str:
        return " ".join(map(str, self.moves))


class What(str, enum.Enum):
    """What became of a move."""

    POINT = "at a point"  # all its accesses were made
    DONE = "done"  # its operation ended
    CALL = "before its next call"
    BLOCKED = "blocked"  # it came back to the same registers and stack, with nobody else running
    UNKNOWN = "unknown"  # a time limit passed, which shows nothing


@dataclass(frozen=True)
class Step:
    """What became of one move: the accesses that it made, and where it stands."""

    move: Move
    what: What
    points: int
    place: str = ""  # the symbol and offset of the last access
    held: bool = False  # the lock word was not 0 then
    line: str = ""  # of the source, if it is known

    def __str__(self) -> str:
        at = f" in {self.place}" if self.place and self.what is not What.DONE else ""
        source = f" ({self.line})" if self.line and self.what is not What.DONE else ""
        held = ", lock held" if self.held and self.what is What.POINT else ""
        return f"{self.move}  {self.what.value}{at}{source}{held}"


@dataclass(frozen=True)
class Outcome:
    """What became of a schedule: all its steps, also those that finish what was left over."""

    schedule: Schedule
    steps: Tuple[Step, ...]
    broken: str = ""  # what the memory shows to be wrong at the end; "" if nothing
    after: str = ""  # the memory at the end, in words

    @property
    def unknown(self) -> bool:
        """Tell whether a time limit passed, so that the outcome shows nothing."""
        return any(step.what is What.UNKNOWN for step in self.steps)

    @property
    def pivot(self) -> int:
        """The number of the last move to a point; -1 if there is none."""
        numbers = [at for at, move in enumerate(self.schedule.moves) if move.points > 0]
        return numbers[-1] if numbers else -1

    @property
    def answer(self) -> Step:
        """What became of the other actor, which was to run to its end after that move."""
        return self.steps[self.pivot + 1]

    @property
    def shortened(self) -> bool:
        """Tell whether an actor ended before its point: another one made its way shorter."""
        return any(
            step.what is What.DONE
            for move, step in zip(self.schedule.moves, self.steps)
            if move.points > 0
        )

    def step(self, number: int) -> Step:
        """Return what became of the move of that number."""
        return self.steps[number]


def parse(text: str, actors: int) -> Schedule:
    """Return the schedule of a text such as "A:3 B:end A:end". Raises UsageError."""
    names = ACTORS[:actors]
    moves: List[Move] = []
    for word in text.split():
        match = re.fullmatch(r"([A-Z]):(end|next|(?:([a-z_]\w*)\+)?([0-9]+))", word)
        if match is None or (match[4] and not 0 < int(match[4]) <= MOST_POINTS):
            raise UsageError(
                f"{word!r} is no move of a schedule: A:3 (three accesses of A) or A:end was"
                " expected."
            )
        if match[1] not in names:
            raise UsageError(f"{word}: there is no actor {match[1]} here, only {', '.join(names)}.")
        named = {word: points for points, word in _WORDS.items()}
        points = named[match[2]] if match[2] in named else int(match[4])
        moves.append(Move(match[1], points, match[3] or ""))
    if not moves:
        raise UsageError('The schedule is empty; "A:3 B:end A:end" was expected.')
    return Schedule(tuple(moves))


def _ends(actors: Iterable[str]) -> Tuple[Move, ...]:
    return tuple(Move(actor, END) for actor in actors)


def one_preemption(points: Mapping[str, int], preempted: str = ACTORS) -> Iterator[Schedule]:
    """Yield all schedules that preempt one actor once, given the points that each has alone.

    It is one of `preempted`. The others run to their ends meanwhile, in each order. First come the
    schedules without any preemption.
    """
    for order in itertools.permutations(points):
        yield Schedule(_ends(order))
    for first, count in points.items():
        if first not in preempted:
            continue
        others = [actor for actor in points if actor != first]
        for number in range(1, count + 1):
            for order in itertools.permutations(others):
                yield Schedule((Move(first, number), *_ends(order), Move(first, END)))


def two_preemptions(outcomes: Sequence[Outcome], points: Mapping[str, int]) -> Iterator[Schedule]:
    """Yield the schedules that preempt the second actor, too, given the outcomes of the first pass.

    Where the second was blocked it can reach no other point. After the last point of either there is
    nothing left to interleave: such schedules would repeat the first pass.
    """
    for outcome in outcomes:
        first, second, *rest = outcome.schedule.moves
        if not 0 < first.points < points[first.actor]:
            continue
        if outcome.step(0).what is not What.POINT or outcome.step(1).what is not What.DONE:
            continue
        middle = tuple(rest[:-1])
        last = _ends((first.actor, second.actor))
        for number in range(1, points[second.actor]):
            yield Schedule((first, Move(second.actor, number), *middle, *last))


def marks(outcomes: Sequence[Outcome], actor: str) -> str:
    """Return a mark for each point of an actor at which the others ran to their ends.

    "#" they were blocked, "." they were let in, "!" the memory was wrong at the end, "?" unknown.
    """
    found = []
    for outcome in outcomes:
        moves, pivot = outcome.schedule.moves, outcome.pivot
        joined_in = NEXT in [move.points for move in moves]
        once = joined_in or all(move.points == END for move in moves[:pivot])
        if pivot >= 0 and moves[pivot].actor == actor and once:
            found.append(mark(outcome))
    return "".join(found)


def mark(outcome: Outcome) -> str:
    """Return the mark of one schedule with a preemption; see `marks`."""
    if outcome.unknown:
        return "?"
    if outcome.broken:
        return "!"
    return "#" if outcome.answer.what is What.BLOCKED else "."


def at_instructions(functions: Mapping[str, int]) -> Iterator[Schedule]:
    """Yield the schedules that preempt A before each instruction of functions, given their lengths."""
    for function, count in functions.items():
        for number in range(1, count):
            yield Schedule((Move("A", number, function), *_ends("BA")))


def handed_over(inside: int, function: str, count: int) -> Iterator[Schedule]:
    """Yield the schedules in which A unlocks while B is at an instruction of taking the lock.

    A is at its access number `inside`, under the lock.
    """
    for number in range(1, count):
        yield Schedule((Move("A", inside), Move("B", number, function), *_ends("AB")))


def joined(most: int) -> Iterator[Schedule]:
    """Yield the schedules in which B makes its second call between A's first two accesses.

    B has made its first call before. Then A is preempted at each of its points, the first `most` of
    them, while B makes its last call.
    """
    for number in range(1, most + 1):
        begin = (Move("B", NEXT), Move("A", 1), Move("B", NEXT), Move("A", number))
        yield Schedule((*begin, *_ends("BA")))
