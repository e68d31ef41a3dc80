# SPDX-License-Identifier: GPL-2.0-only
"""Judges stored results again with today's rules and reports the differences. Pure."""

from __future__ import annotations

import collections
import enum
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Sequence, Tuple, Union

from packaging.version import Version

from harness.judging import judge
from harness.judging.verdict import Kind, Observation, Verdict
from harness.results import matrix
from harness.results.matrix import Key
from harness.results.result import Result
from harness.scenarios.scenario import Scenario

_SHOWN = 40  # differences that are listed, one per line; JSON has all


class Kept(enum.Enum):
    """Why a result is not judged again and keeps its verdict."""

    RUN_TIME = "run-time tests, whose checks are not stored"
    UNSEEN = "ended before anything was seen"
    NO_CASE = "the C files have no such case now"
    NO_TWIN = "the verdict depends on a legal twin that has no result here"


@dataclass(frozen=True)
class Difference:
    """A stored result and its verdict by today's rules."""

    stored: Result
    now: Verdict

    def __str__(self) -> str:
        name, kernel, loader = matrix.key(self.stored)
        was, now = (
            f"{kind.value} ({' '.join(reason.split())})"
            for kind, reason in (
                (self.stored.verdict, self.stored.reason),
                (self.now.kind, self.now.reason),
            )
        )
        return f"{name} [{loader}] on {kernel}: {was} -> {now}"

    def to_json(self) -> Dict[str, Any]:
        """Return the difference as JSON of a stable structure."""
        name, kernel, loader = matrix.key(self.stored)
        return {
            "name": name,
            "kernel": kernel,
            "loader": loader,
            "old": self.stored.verdict.value,
            "old_reason": self.stored.reason,
            "new": self.now.kind.value,
            "new_reason": self.now.reason,
        }


@dataclass(frozen=True)
class Rejudged:
    """The outcome of judging stored results again."""

    same: int  # number of results with the same verdict and reason
    verdicts: Tuple[Difference, ...] = ()  # those with another verdict
    reasons: Tuple[Difference, ...] = ()  # those with the same verdict for another reason
    kept: Mapping[Kept, int] = field(default_factory=dict)

    @property
    def differs(self) -> bool:
        """Whether any result has another verdict by today's rules."""
        return bool(self.verdicts)

    def lines(self) -> List[str]:
        """Return a report in lines for people to read."""
        judged = self.same + len(self.verdicts)
        said = [f"{judged} results judged again: {len(self.verdicts)} have another verdict now"]
        said += [f"  {each}" for each in self.verdicts[:_SHOWN]]
        if len(self.verdicts) > _SHOWN:
            said.append(f"  … and {len(self.verdicts) - _SHOWN} more; --json has all")
        if self.reasons:
            said.append(
                f"{len(self.reasons)} have the same verdict for a reason in other words, as"
                f" {self.reasons[0]}"
            )
        said += [f"{count} keep their verdict: {why.value}" for why, count in self.kept.items()]
        return said

    def to_json(self) -> Dict[str, Any]:
        """Return the differences as JSON of a stable structure."""
        return {
            "format": 1,
            "same": self.same,
            "verdicts": [each.to_json() for each in self.verdicts],
            "reasons": [each.to_json() for each in self.reasons],
            "kept": {why.name: count for why, count in self.kept.items()},
        }


def rejudge(
    results: Sequence[Result], scenarios: Sequence[Scenario], beside: Sequence[Result] = ()
) -> Rejudged:
    """Judge results again, each by today's scenario of the same name.

    The result of a legal twin is looked up in `results` and in `beside`.
    """
    by_name = {case.name: case for case in scenarios}
    by_key = {matrix.key(result): result for result in (*beside, *results)}
    same = 0
    verdicts: List[Difference] = []
    reasons: List[Difference] = []
    kept: Dict[Kept, int] = collections.Counter()
    for result in results:
        now = _verdict(result, by_name, by_key)
        if isinstance(now, Kept):
            kept[now] += 1
        elif now.kind is not result.verdict:
            verdicts.append(Difference(result, now))
        else:
            same += 1
            if now.reason != result.reason:
                reasons.append(Difference(result, now))
    order = {why: kept[why] for why in Kept if kept[why]}
    return Rejudged(same, tuple(verdicts), tuple(reasons), order)


def _verdict(
    result: Result, by_name: Mapping[str, Scenario], by_key: Mapping[Key, Result]
) -> Union[Verdict, Kept]:
    """Return the verdict on a result by today's rules, or the reason why there is none."""
    seen = result.observation
    if seen is None:
        return Kept.UNSEEN
    if seen.measurements is not None:
        return _of_run_time_test(result, seen)
    case = by_name.get(result.name)
    if case is None:
        return Kept.NO_CASE
    release = matrix.version(result) or Version("0")  # 0: no guest booted
    options = result.facts.get("options", {})
    if case.twin is None:
        return judge.judge(case, release, seen, None, options)
    _, kernel, loader = matrix.key(result)
    beside = by_key.get((case.twin, kernel, loader))
    twin = _verdict(beside, by_name, by_key) if beside is not None else Kept.NO_TWIN
    if isinstance(twin, Verdict):
        return judge.judge(case, release, seen, twin, options)
    # Most verdicts do not depend on the twin. Compare the verdicts for both of its outcomes.
    either = [
        judge.judge(case, release, seen, Verdict(kind, ""), options)
        for kind in (Kind.PASS, Kind.FAIL)
    ]
    return either[0] if either[0].kind is either[1].kind else Kept.NO_TWIN


def _of_run_time_test(result: Result, seen: Observation) -> Union[Verdict, Kept]:
    """Judge a run-time test by its kernel log or its lost guest. Its checks are not stored."""
    disturbed = judge.disturbed(seen)
    if disturbed is None and result.verdict is Kind.CRASH:
        return Verdict(Kind.ERROR, "its stored log shows no crash by today's rules: run it again")
    return disturbed or Kept.RUN_TIME
