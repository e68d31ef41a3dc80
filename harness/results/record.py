# SPDX-License-Identifier: GPL-2.0-only
"""Builds a Result from a Case, Verdict, Observation and Place. No other module does. Pure."""

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
    """The case that a result is about."""

    name: str
    loader: str
    rule: Rule
    repeat: str  # the command that repeats it
    where: str = ""  # file:line
    description: str = ""
    comment: str = ""  # the C comment above the program, which gives the reason
    expectations: Tuple[Expectation, ...] = ()
    known_bugs: Tuple[KnownBug, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)  # see resume.sources()


@dataclass(frozen=True)
class Place:
    """The target and kernel that a case ran on, and the objects loaded there."""

    target: str = ""
    kernel: str = ""  # as the user named it; "" for a target with one fixed kernel
    facts: Mapping[str, Any] = field(default_factory=dict)  # {} if no guest booted
    seconds: Mapping[str, float] = field(default_factory=dict)
    compiler: str = ""
    builds: Tuple[Build, ...] = ()
    lock_path: str = ""  # the path of the lock that contending CPUs took; "": not observed

    @property
    def release(self) -> Version:
        """The kernel's version; 0 if no guest booted."""
        return kernel_version(self.facts.get("release", "0"), self.facts.get("version", ""))


def record(
    case: Case, verdict: Verdict, observation: Optional[Observation], place: Place
) -> Result:
    """Return the result of a case. `observation` is None if the case ended before one was made."""
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
        lock_path=place.lock_path,
        facts={**place.facts, **case.sources} if place.facts else {},
        seconds=place.seconds,
        repeat=case.repeat,
    )
