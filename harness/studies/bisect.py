# SPDX-License-Identifier: GPL-2.0-only
"""Finds the kernel version where the outcome of a case changed, by bisection.

Everything but `Bisection` is pure. By default the observed outcomes are compared, not the verdicts:
expectations have kernel ranges, and so may change with the kernel.
"""

from __future__ import annotations

import math
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

from harness import paths
from harness.errors import UsageError
from harness.judging.verdict import Kind, Observation, Verdict
from harness.judging.wording import in_words
from harness.progress import Progress
from harness.provision import catalogue, kernel_store
from harness.results import matrix
from harness.results.record import Case, Place, record
from harness.results.result import Result
from harness.scenarios.scenario import Rule

GOOD, BAD, UNTESTABLE = 0, 1, 125  # exit codes for `git bisect run`
ASPECTS = ("observed", "errno", "stage", "verdict")
# Verdicts without evidence on the kernel: such a version is neither good nor bad.
_SAYS_NOTHING = (Kind.ERROR, Kind.SKIP, Kind.INCONCLUSIVE)
_BROKEN = (Kind.FAIL, Kind.CRASH, Kind.KNOWN)


# -- the search ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bounds:
    """The state of a search in versions 0, 1, …: `good` is like the good end, `bad` is not."""

    good: int
    bad: int
    untestable: FrozenSet[int] = frozenset()

    def candidates(self) -> List[int]:
        """Return the versions between the bounds that can still be tested."""
        return [i for i in range(self.good + 1, self.bad) if i not in self.untestable]

    def choose(self) -> Optional[int]:
        """Return the version to test next, None if there is none left.

        It is the middle one of the candidates. So after an untestable version, its neighbour is
        next.
        """
        left = self.candidates()
        middle = (self.good + self.bad) / 2
        return min(left, key=lambda i: abs(i - middle), default=None)

    def learn(self, index: int, is_good: Optional[bool]) -> "Bounds":
        """Return the bounds after a test. `is_good` is None if the version was untestable."""
        if is_good is None:
            return replace(self, untestable=self.untestable | {index})
        return replace(self, good=index) if is_good else replace(self, bad=index)

    def steps_left(self) -> int:
        """Return the most tests that are still needed if all versions can be tested."""
        return math.ceil(math.log2(len(self.candidates()) + 1))

    def between(self) -> List[int]:
        """Return the untestable versions between the bounds: each may have made the change, too."""
        return [i for i in sorted(self.untestable) if self.good < i < self.bad]


def search(bounds: Bounds, test: Callable[[int, Bounds], Optional[bool]]) -> Bounds:
    """Narrow the bounds until no version between them can be tested."""
    while (index := bounds.choose()) is not None:
        bounds = bounds.learn(index, test(index, bounds))
    return bounds


# -- what is compared ----------------------------------------------------------------------------------


def outcome(result: Result, aspect: str = "observed", text: str = "") -> Optional[str]:
    """Return one aspect of a result in words; None if the result has no evidence of it.

    With a `text`, the aspect is whether the messages of the kernel or test contain it.
    """
    if result.verdict in _SAYS_NOTHING:
        return None
    if text:
        return f"says '{text}'" if text in _words(result) else f"does not say '{text}'"
    if result.verdict is Kind.CRASH:
        return f"crashes: {_without_numbers(result.reason)}"
    if aspect == "verdict":
        return "broken (FAIL, CRASH or KNOWN)" if result.verdict in _BROKEN else "PASS"
    seen = result.observation
    if seen is None:
        return None
    if seen.measurements is not None:  # a run-time test: it holds or not
        return "does not hold" if result.verdict in _BROKEN else "holds"
    all_of_it = aspect == "observed"
    return in_words(seen, errno=aspect != "stage", text=all_of_it, retval=all_of_it)


def _words(result: Result) -> str:
    seen = result.observation or Observation()
    parts = [result.reason, *result.evidence, seen.log, seen.detail, *(seen.kernel_log or ())]
    return "\n".join(parts)


def _without_numbers(reason: str) -> str:
    """Return a crash's reason with times, addresses and numbers masked, since they vary."""
    return re.sub(r"\[ *\d+\.\d+\] *", "", re.sub(r"0x[0-9a-f]+|\d+", "N", reason, flags=re.I))


def status(result: Result, text: str = "") -> int:
    """Return the exit code for `git bisect run`: GOOD, BAD or UNTESTABLE."""
    if result.verdict in _SAYS_NOTHING:
        return UNTESTABLE
    if text:
        return GOOD if text in _words(result) else BAD
    return BAD if result.verdict in _BROKEN else GOOD


# -- the driver ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """The user's question: a case, and the aspect of its outcome to compare."""

    scenario: str
    loader: str
    aspect: str
    text: str
    options: Tuple[str, ...]  # more words for `spinlock run`
    directory: Path  # the results of each run go below it


@dataclass(frozen=True)
class Step:
    """One tested version with the outcome of the case."""

    version: str
    result: Result
    outcome: Optional[str]
    seconds: float


@dataclass(frozen=True)
class Answer:
    """The versions between which the outcome changed, and the steps of the search."""

    question: Question
    before: Step  # the last version with the good end's outcome
    after: Step  # the first with another one
    untestable: Tuple[Step, ...]  # between these two
    steps: Tuple[Step, ...]  # in the order of the tests
    versions: int

    def lines(self) -> List[str]:
        """Return the answer in lines for people to read."""
        said = [
            f"{self.question.scenario} ({self.question.loader}) changed between"
            f" {self.before.version} and {self.after.version}:",
            f"  last   {self.before.version:<20}{self.before.outcome}",
            f"  first  {self.after.version:<20}{self.after.outcome}",
        ]
        if self.after.outcome != self.steps[1].outcome:
            said.append(
                f"  It is not yet what {self.steps[1].version} does ({self.steps[1].outcome}):"
                " there is another change, later; bisect again from here."
            )
        for step in self.untestable:
            said.append(f"  It may also have been {step.version}, which could not be tested:")
            said.append(f"         {step.result.verdict.value}: {step.result.reason}")
        said += ["repeat", *(f"  {step.result.repeat}" for step in (self.before, self.after))]
        spent = sum(step.seconds for step in self.steps)
        said.append(
            f"{len(self.steps)} of {self.versions} versions tested in {spent / 60:.1f} min;"
            f" results: {self.question.directory}"
        )
        return said

    def to_json(self) -> Dict[str, Any]:
        """Return the answer as JSON."""

        def of(step: Step) -> Dict[str, Any]:
            return {
                "version": step.version,
                "release": step.result.kernel,
                "outcome": step.outcome,
                "verdict": step.result.verdict.value,
                "reason": step.result.reason,
                "seconds": round(step.seconds, 1),
                "repeat": step.result.repeat,
            }

        return {
            "scenario": self.question.scenario,
            "loader": self.question.loader,
            "compared": (
                f"text: {self.question.text}" if self.question.text else self.question.aspect
            ),
            "last_with_old_outcome": of(self.before),
            "first_with_new_outcome": of(self.after),
            "untestable_between": [of(step) for step in self.untestable],
            "steps": [of(step) for step in self.steps],
            "versions": self.versions,
            "results": str(self.question.directory),
        }


def debian_versions(
    good: str, bad: str, listing: Callable[[str], Sequence[str]]
) -> Tuple[str, ...]:
    """Return Debian's versions from `good` to `bad`, in this order, both included.

    A minor such as "6.12" stands for its newest version. Only one package per upstream version is
    used (not both deb12 and deb13). `listing` is debian_kernel.available. Raises UsageError.
    """
    minors = list(catalogue.MINORS)
    places = [minors.index(_minor(name)) for name in (good, bad)]
    found: Dict[Tuple[int, ...], str] = {}
    for minor in minors[min(places) : max(places) + 1]:
        for version in listing(minor):
            if version != minor:  # not a package without a version
                found[_upstream(version)] = version
    order = [found[key] for key in sorted(found)]
    ends = [order.index(_match(name, order)) for name in (good, bad)]
    if ends[0] == ends[1]:
        raise UsageError(f"--good and --bad are the same version, {order[ends[0]]}.")
    chosen = order[min(ends) : max(ends) + 1]
    return tuple(chosen if ends[0] < ends[1] else reversed(chosen))


def _minor(name: str) -> str:
    row = catalogue.find(name)
    if not isinstance(row, catalogue.Debian) or row.flavour != catalogue.FLAVOURS[catalogue.CLOUD]:
        raise UsageError(
            f"{name!r} is no version of Debian's cloud kernels, which is what is bisected:"
            " `spinlock kernels list 6.12 --available` shows some. For kernels of your own, use"
            " `git bisect run` and --run."
        )
    return row.series


def _upstream(version: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in re.split(r"[+~-]", version)[0].split("."))


def _match(name: str, order: Sequence[str]) -> str:
    if name in catalogue.MINORS:
        fitting = [v for v in order if v.startswith(f"{name}.")]
    else:
        fitting = [v for v in order if _upstream(v) == _upstream(name)]
    if not fitting:
        raise UsageError(
            f"Debian has no {name} now: `spinlock kernels list {_minor(name)} --available` shows"
            " what there is."
        )
    return fitting[-1]


@dataclass
class Bisection:
    """One bisection. Each version is tested by its own `spinlock run`."""

    question: Question
    progress: Progress
    steps: List[Step] = field(default_factory=list)

    def run(self, versions: Sequence[str]) -> Answer:
        """Search. Raises UsageError if the two ends do not differ or cannot be tested."""
        self.progress(
            f"{len(versions)} versions from {versions[0]} to {versions[-1]}; both ends first"
        )
        good, bad = self._test(versions[0]), self._test(versions[-1])
        for name, step in (("--good", good), ("--bad", bad)):
            if step.outcome is None:
                raise UsageError(
                    f"{name} {step.version} says nothing ({step.result.verdict.value}:"
                    f" {step.result.reason}): choose another version for that end."
                )
        if good.outcome == bad.outcome:
            raise UsageError(
                f"Nothing changed: {good.version} and {bad.version} show the same ({good.outcome})."
                " Choose other ends, or compare something else (--compare, --text)."
            )
        seen: Dict[int, Step] = {0: good, len(versions) - 1: bad}

        def test(index: int, bounds: Bounds) -> Optional[bool]:
            left = bounds.steps_left()
            mean = sum(step.seconds for step in self.steps) / len(self.steps)
            self.progress(
                f"left between: {len(bounds.candidates())}; tests to come: {left}, in about"
                f" {left * mean / 60:.0f} min"
            )
            seen[index] = self._test(versions[index])
            found = seen[index].outcome
            return None if found is None else found == good.outcome

        bounds = search(Bounds(0, len(versions) - 1), test)
        return Answer(
            self.question,
            seen[bounds.good],
            seen[bounds.bad],
            tuple(seen[index] for index in bounds.between()),
            tuple(self.steps),
            len(versions),
        )

    def _test(self, version: str) -> Step:
        started = time.monotonic()
        result = run_case(self.question, fetched_name(version, kernel_store.fetched()), version)
        found = outcome(result, self.question.aspect, self.question.text)
        shown = found or f"cannot be tested: {result.reason}"
        # "6.12" may name another version tomorrow.
        exact = re.sub(r"--kernel \S+", f"--kernel {version}", result.repeat)
        result = replace(result, repeat=exact)
        step = Step(version, result, found, time.monotonic() - started)
        self.steps.append(step)
        self.progress(
            f"{len(self.steps):>3}  {version:<20}{result.verdict.value:<14}{shown}  ({step.seconds:.0f} s)"
        )
        return step


def fetched_name(version: str, there: Mapping[str, kernel_store.Kernel]) -> str:
    """Return the name under which a version is already fetched, else the version."""
    flavour = catalogue.FLAVOURS[catalogue.CLOUD]
    known = (name for name, found in there.items() if found.release == f"{version}-{flavour}")
    return next(known, version)


def run_case(question: Question, kernel_name: str, label: str) -> Result:
    """Run the case on one kernel by `spinlock run`. Raises UsageError or SetupError with its words.

    If a kernel cannot be fetched or does not boot, the result is an ERROR.
    """
    directory = question.directory / label
    words = ["run", question.scenario, "--target", "qemu", "--loader", question.loader]
    words += ["--kernel", kernel_name, *question.options, "--results", str(directory)]
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words],
        cwd=paths.root(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    try:
        found = matrix.read([directory]).results
    except UsageError:
        reason = _last_words(done.stdout)
        if done.returncode != SETUP:
            raise UsageError(reason) from None
        repeat = f"spinlock {shlex.join(words[:-2])}"
        case = Case(question.scenario, question.loader, Rule("", "", (), ""), repeat)
        return record(case, Verdict(Kind.ERROR, reason), None, Place())
    return found[-1]


SETUP = 4  # exit code of a run without a usable kernel


def _last_words(output: str) -> str:
    """Return the last error sentence of a run without results."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(("ERROR:", "spinlock:"))]
    last = (said or lines or ["nothing was said"])[-1]
    return re.sub(r"^(ERROR|spinlock|Exit): ", "", last)
