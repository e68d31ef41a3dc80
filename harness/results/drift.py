# SPDX-License-Identifier: GPL-2.0-only
"""What changed between two sets of results, and whether the kernel got worse. Pure."""

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

# A time has changed when it is beyond all three, after the machine's own speed is taken out: that
# is the median ratio new/old over all cases of that kernel and loader.
_FACTOR = 3.0  # off the median ratio
_SPREADS = 6.0  # times the scatter of the ratios (median absolute deviation, as of a normal one)
_SECONDS = 0.5  # off what the old time and the median ratio foretell
_ENOUGH = 8  # cases that ran on both sides, or no time is judged

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
    """One thing that changed, in words: `old` and `new` are what was seen."""

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
    """All that changed, the worst first."""

    changes: Tuple[Change, ...]
    compared: int  # results that both sides have
    speeds: Mapping[str, float] = field(default_factory=dict)  # "6.12 libbpf" -> median new/old

    def of(self, what: What) -> List[Change]:
        """Return the changes of one kind."""
        return [change for change in self.changes if change.what is what]

    @property
    def regressed(self) -> bool:
        """Whether anything fails that did not."""
        return bool(self.of(What.REGRESSION))

    def to_json(self) -> Dict[str, Any]:
        """Return it as JSON of a stable structure."""
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

    Kernels are matched by name; one kernel on each side is matched whatever the names are. What is
    in `known` is no regression.
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
    """Return text without what no two compilers and boots have in common: numbers and addresses.

    What a program returned is a number that counts.
    """
    text, *returned = words.rsplit("returned ", 1)
    return re.sub(r"\b(0x)?[0-9a-f]*\d[0-9a-f]*\b", "N", text) + "".join(returned)


def _times(both: Sequence[Tuple[Result, Result]]) -> Tuple[List[Change], Dict[str, float]]:
    """Return the cases whose time changed, and how fast each kernel and loader ran compared."""
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
