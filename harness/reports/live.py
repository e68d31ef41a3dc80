# SPDX-License-Identifier: GPL-2.0-only
"""What a run shows as it goes: cases that ended in, lines out. Pure."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field
from typing import Dict, Iterable, List, Optional, Tuple

from rich.text import Text

from harness.judging.verdict import Kind
from harness.reports import terminal
from harness.results.result import Result

_WORD = 7  # columns of a verdict in front of a line; INCONCLUSIVE, which is rare, takes more
_COUNTS = 18
_SECONDS = 9
_ROOM = _WORD + _COUNTS + _SECONDS
_SHORTEST = 20  # columns that a rule keeps, however narrow the terminal is


@dataclass(frozen=True)
class Planned:
    """A case to come."""

    rule: str  # of a test that needs no guest, its folder
    kernel: str  # as its column is headed, "" of what needs none
    key: str  # the same in every run: by it the last run's times are known


@dataclass(frozen=True)
class Ended:
    """A case that ended."""

    name: str
    kind: Kind
    seconds: float
    loader: str = ""
    reason: str = ""

    @classmethod
    def of(cls, result: Result, seconds: float) -> "Ended":
        """Return what a result says of its case."""
        return cls(result.name, result.verdict, seconds, result.loader, result.reason)


@dataclass
class _Row:
    """A rule on a kernel."""

    left: int = 0
    counts: Dict[Kind, int] = field(default_factory=collections.Counter)
    seconds: float = 0.0


class Rules:
    """Counts the cases of each rule on each kernel, and has a line when the last of them ended."""

    def __init__(self) -> None:
        self._planned: Dict[str, Planned] = {}
        self._rows: Dict[Tuple[str, str], _Row] = {}
        self.total = self.ended = self.bad = 0

    def expect(self, planned: Dict[str, Planned]) -> None:
        """Learn of the cases to come, by what pytest calls them."""
        self._planned = dict(planned)
        for case in planned.values():
            self._rows.setdefault((case.rule, case.kernel), _Row()).left += 1
        self.total = len(planned)

    def end(self, nodeid: str, case: Ended, width: int) -> Optional[Text]:
        """Note that a case ended; return the line of its rule if it was the last of it."""
        planned = self._planned.pop(nodeid, None)
        if planned is None:
            return None
        row = self._rows[planned.rule, planned.kernel]
        row.left -= 1
        row.counts[case.kind] += 1
        row.seconds += case.seconds
        self.ended += 1
        self.bad += case.kind in _BAD
        return self._line(planned, row, width) if row.left == 0 else None

    def _line(self, planned: Planned, row: _Row, width: int) -> Text:
        several = len({kernel for _, kernel in self._rows if kernel}) > 1
        title = f"{planned.kernel}: {planned.rule}" if several and planned.kernel else planned.rule
        longest = max(len(rule) + (len(kernel) + 2) * several for rule, kernel in self._rows)
        size = max(_SHORTEST, min(longest + 2, width - _ROOM))
        line = _verdict(_said(row.counts))
        size -= len(line) - _WORD
        line.append(terminal.cut(title, size - 2).ljust(size), style="bold")
        line.append(terminal.counted(row.counts).ljust(_COUNTS))
        line.append(f"{row.seconds:.1f} s".rjust(_SECONDS), style="bright_black")
        return line

    def position(self) -> str:
        """Return how far the run is, for beside its bar."""
        bad = f", {self.bad} bad" if self.bad else ""
        return f"{self.ended} of {self.total} cases{bad}"


_BAD = (Kind.FAIL, Kind.ERROR, Kind.CRASH)


def _said(counts: Dict[Kind, int]) -> Kind:
    """Return the worst verdict; SKIP only where nothing else was seen."""
    return min(counts, key=lambda kind: (kind is Kind.SKIP, list(Kind).index(kind)))


def _verdict(kind: Kind) -> Text:
    word = Text().append(kind.value, style=terminal.COLOURS[kind])
    return word.append(" " * max(1, _WORD - len(kind.value)))


def case_line(case: Ended, width: int) -> Text:
    """Return the line of one case, which is shown when cases are asked for."""
    named = f"{case.name} [{case.loader}]" if case.loader else case.name
    line = Text("  ").append_text(_verdict(case.kind))
    words = f"{named}  {' '.join(case.reason.split())}".rstrip()
    room = max(_SHORTEST, width - len(line) - _SECONDS)
    line.append(terminal.cut(words, room).ljust(room))
    line.append(f"{case.seconds:.1f} s".rjust(_SECONDS), style="bright_black")
    return line


def failure(text: str) -> List[Text]:
    """Return the lines that tell of a failure at once: its evidence, and what repeats it."""
    first, *rest = text.splitlines() or [""]
    word, space, after = first.partition(" ")
    known = [kind for kind in Kind if kind.value == word]
    head = Text().append(word, style=terminal.COLOURS[known[0]] if known else "bold red")
    head.append(space + after, style="bold")
    return [head, *(Text(line) for line in rest), Text("")]


class Clock:
    """How long the cases to come may take, by what they took the last time."""

    _ENOUGH = 5.0  # seconds of cases that ended, from which on their pace is a measure

    def __init__(self, known: Dict[str, float], workers: int, now: float) -> None:
        """`known` are seconds by Planned.key; what is to come is shared by so many workers."""
        self.times = dict(known)
        self._workers, self._began, self._last = max(workers, 1), now, now
        self._left: Dict[str, float] = {}
        self._done = 0.0  # seconds that were estimated for what has ended

    def expect(self, keys: Iterable[str]) -> None:
        """Learn of the cases to come. One that is not known is taken for an average one."""
        wanted = list(keys)
        seen = [self.times[key] for key in wanted if key in self.times]
        if seen:
            average = sum(seen) / len(seen)
            self._left = {key: self.times.get(key, average) for key in wanted}

    def end(self, key: str, seconds: float, now: float) -> None:
        """Note what a case took."""
        self._last = now
        self._done += self._left.pop(key, 0.0)
        self.times[key] = round(seconds, 3)

    def left(self, now: float) -> Optional[float]:
        """Return the seconds that are left; None where nothing is known, or it takes longer."""
        if not self._left:
            return None
        fast = self._done >= self._ENOUGH
        pace = (self._last - self._began) / self._done if fast else 1.0 / self._workers
        left = pace * sum(self._left.values()) - (now - self._last)
        return left if left > 0 else None


def time_left(seconds: Optional[float]) -> str:
    """Return the time left in words."""
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"about {minutes}:{rest:02} left"
