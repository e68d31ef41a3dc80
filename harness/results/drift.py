# SPDX-License-Identifier: GPL-2.0-only
"""Compares two sets of results and finds regressions of the kernel. Pure."""

from __future__ import annotations

import enum
import math
import re
import statistics
from dataclasses import dataclass, field
from typing import AbstractSet, Any, Dict, List, Mapping, Optional, Sequence, Tuple

from harness.judging.verdict import Kind
from harness.judging.wording import in_words
from harness.results import matrix
from harness.results.matrix import Key
from harness.results.result import Result

# A time has changed if it exceeds all three limits. The median ratio new/old, over all cases of a
# kernel and loader, is the speed of the machine: each ratio is compared with it.
_FACTOR = 3.0  # away from the median ratio
_SPREADS = 6.0  # times the scatter of the ratios (median absolute deviation, scaled to sigma)
_SECONDS = 0.5  # away from the time that the old time and the median ratio predict
_ENOUGH = 8  # cases that ran on both sides; with fewer, times are not compared

_BAD = (Kind.CRASH, Kind.FAIL, Kind.ERROR, Kind.INCONCLUSIVE)


class What(enum.Enum):
    """A kind of change, the worst first."""

    REGRESSION = "new failures"
    FIXED = "fixed"
    VERDICT = "other changes of verdict"
    SEEN = "same verdict, but the kernel did something else"
    TIME = "changed time"
    APPEARED = "appeared"
    VANISHED = "vanished"


@dataclass(frozen=True)
class Change:
    """One change. `old` and `new` describe the two results in words."""

    what: What
    name: str
    kernel: str
    loader: str
    old: str
    new: str

    def __str__(self) -> str:
        said = " -> ".join(words for words in (self.old, self.new) if words)
        return f"{self.name} [{self.loader}] on {self.kernel}: {said}"


@dataclass(frozen=True)
class Drift:
    """All changes, the worst first."""

    changes: Tuple[Change, ...]
    compared: int  # number of results on both sides
    speeds: Mapping[str, float] = field(default_factory=dict)  # "6.12 libbpf" -> median new/old

    def of(self, what: What) -> List[Change]:
        """Return the changes of one kind."""
        return [change for change in self.changes if change.what is what]

    @property
    def regressed(self) -> bool:
        """Whether a case fails now that did not fail before."""
        return bool(self.of(What.REGRESSION))

    def to_json(self) -> Dict[str, Any]:
        """Return the drift as JSON of a stable structure."""
        return {
            "compared": self.compared,
            "regressed": self.regressed,
            "speeds": dict(self.speeds),
            "changes": [{**change.__dict__, "what": change.what.name} for change in self.changes],
        }


def compare(
    old: Sequence[Result], new: Sequence[Result], known: AbstractSet[Key] = frozenset()
) -> Drift:
    """Compare results case by case.

    Kernels are matched by name. If each side has a single kernel, these two are matched regardless
    of their names. Cases in `known` are never regressions.
    """
    renamed = _renamed(old, new)
    before = {_key(result, renamed): result for result in old}
    after = {matrix.key(result): result for result in new}
    changes: List[Change] = []
    for key, result in after.items():
        change = _change(before.get(key), result, key in known)
        if change is not None:
            changes.append(change)
    for key, result in before.items():
        if key not in after:
            changes.append(_made(What.VANISHED, key, _said(result), ""))
    both = [(before[key], after[key]) for key in after if key in before]
    slower, speeds = _times(both)
    kinds = list(What)
    changes = sorted([*changes, *slower], key=lambda change: kinds.index(change.what))
    return Drift(tuple(changes), len(both), speeds)


def _renamed(old: Sequence[Result], new: Sequence[Result]) -> Dict[str, str]:
    was, now = {matrix.column(r) for r in old}, {matrix.column(r) for r in new}
    return {was.pop(): now.pop()} if len(was) == len(now) == 1 else {}


def _key(result: Result, renamed: Mapping[str, str]) -> Key:
    name, kernel, loader = matrix.key(result)
    return name, renamed.get(kernel, kernel), loader


def _made(what: What, key: Key, old: str, new: str) -> Change:
    return Change(what, *key, old, new)


def _said(result: Result) -> str:
    return f"{result.verdict.value} ({' '.join(result.reason.split())})"


def _change(old: Optional[Result], new: Result, known: bool) -> Optional[Change]:
    key, fails = matrix.key(new), new.verdict in _BAD and not known
    if old is None:
        return _made(What.REGRESSION if fails else What.APPEARED, key, "", _said(new))
    if old.verdict is not new.verdict:
        kinds = list(Kind)
        if fails and (
            old.verdict not in _BAD or kinds.index(new.verdict) < kinds.index(old.verdict)
        ):
            what = What.REGRESSION
        elif old.verdict in (*_BAD, Kind.KNOWN) and new.verdict is Kind.PASS:
            what = What.FIXED
        else:
            what = What.VERDICT
        return _made(what, key, _said(old), _said(new))
    was, now = (in_words(r.observation) if r.observation else "" for r in (old, new))
    return _made(What.SEEN, key, was, now) if _masked(was) != _masked(now) else None


def _masked(words: str) -> str:
    """Return text with its numbers and addresses masked, since compilers and boots change them.

    The value that a program returned is kept.
    """
    text, *returned = words.rsplit("returned ", 1)
    return re.sub(r"\b(0x)?[0-9a-f]*\d[0-9a-f]*\b", "N", text) + "".join(returned)


def _times(both: Sequence[Tuple[Result, Result]]) -> Tuple[List[Change], Dict[str, float]]:
    """Return the cases whose time changed, and the median ratio new/old per kernel and loader."""
    groups: Dict[Tuple[str, str], List[Tuple[Result, float, float]]] = {}
    for old, new in both:
        was, now = float(old.seconds.get("case", 0)), float(new.seconds.get("case", 0))
        if old.verdict is new.verdict and was > 0 and now > 0:
            group = groups.setdefault((matrix.column(new), new.loader), [])
            group.append((new, was, now))
    changes: List[Change] = []
    speeds: Dict[str, float] = {}
    for (kernel, loader), timed in groups.items():
        if len(timed) < _ENOUGH:
            continue
        logs = [math.log(now / was) for _, was, now in timed]
        median = statistics.median(logs)
        scatter = 1.4826 * statistics.median(abs(value - median) for value in logs)
        speeds[f"{kernel} {loader}"] = round(math.exp(median), 3)
        limit = max(math.log(_FACTOR), _SPREADS * scatter)
        for (result, was, now), value in zip(timed, logs):
            foretold = was * math.exp(median)
            if abs(value - median) > limit and abs(now - foretold) > _SECONDS:
                key = matrix.key(result)
                changes.append(
                    _made(What.TIME, key, f"{foretold:.2f} s at this speed", f"{now:.2f} s")
                )
    return changes, speeds
