# SPDX-License-Identifier: GPL-2.0-only
"""(Case, Verdict, Observation, Place) -> Result: the one builder of results. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Tuple

from packaging.version import Version

from harness.judging.verdict import Observation, Verdict
from harness.results.result import Build, Expected, Result
from harness.scenarios.scenario import Expectation, KnownBug, Rule, commits
from harness.scenarios.versions import kernel_version


@dataclass(frozen=True)
class Case:
    """What is asked, as its result names it."""

    name: str
    loader: str
    rule: Rule
    repeat: str  # the command that repeats it
    where: str = ""  # file:line
    description: str = ""
    comment: str = ""  # why: the C comment above the program
    expectations: Tuple[Expectation, ...] = ()
    known_bugs: Tuple[KnownBug, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)  # the file, and what that was then


@dataclass(frozen=True)
class Place:
    """What a case ran on, and what was loaded there."""

    target: str = ""
    kernel: str = ""  # as the user named it; "" for a machine that runs what it runs
    facts: Mapping[str, Any] = field(default_factory=dict)  # {} when no guest came up
    seconds: Mapping[str, float] = field(default_factory=dict)
    compiler: str = ""
    builds: Tuple[Build, ...] = ()

    @property
    def release(self) -> Version:
        """The kernel's version, 0 when no guest came up."""
        return kernel_version(self.facts.get("release", "0"), self.facts.get("version", ""))


def record(
    case: Case, verdict: Verdict, observation: Optional[Observation], place: Place
) -> Result:
    """Return the result of a case. Without an observation it ended before anything was to be seen."""
    uname = str(place.facts.get("release", ""))
    return Result(
        name=case.name,
        loader=case.loader,
        kernel=uname,
        verdict=verdict.kind,
        reason=verdict.reason,
        column=place.kernel or uname,
        evidence=verdict.evidence,
        rule=case.rule.name,
        rule_text=case.rule.text,
        where=case.where,
        description=case.description,
        comment=case.comment,
        commits=tuple(dict.fromkeys((*commits(case.comment), *case.rule.commits))),
        expected=tuple(
            Expected(clause.kernels, str(clause), clause.covers(place.release))
            for clause in case.expectations
        ),
        known_bugs=tuple(dict.fromkeys((bug.commit, bug.kernels) for bug in case.known_bugs)),
        target=place.target,
        observation=observation,
        compiler=place.compiler,
        builds=place.builds,
        facts={**place.facts, **case.sources} if place.facts else {},
        seconds=place.seconds,
        repeat=case.repeat,
    )
