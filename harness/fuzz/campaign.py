# SPDX-License-Identifier: GPL-2.0-only
"""Asks a kernel about many random programs, and compares its answers with the oracle's."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Callable, Counter, Dict, List, Optional, Sequence, Set, Tuple

from harness.fuzz import generate, ir, known, oracle, pack, rules, shrink
from harness.fuzz.asking import LOG_LEVEL, Asker, answers
from harness.fuzz.findings import Asked, Finding
from harness.guest import calls
from harness.judging import splat
from harness.machines.loss import GuestLost
from harness.machines.session import Session
from harness.machines.target import Target

FIRST_BATCH, MOST_IN_BATCH = 100, 1000
BATCH_SECONDS = 2.0  # of a call: long enough to pay, short enough to show progress
MOST_SHRUNK = 40  # findings of a campaign; later ones are told as they were found
_OFTEN_SHRUNK = 3  # of those that look like a known one, before one is only counted


@dataclass
class Outcome:
    """What came of a campaign on one kernel."""

    release: str = ""
    programs: int = 0
    answers: Counter[str] = field(default_factory=Counter)  # the oracle's
    given_up: int = 0  # programs that were too complex for the verifier
    rules: Set[str] = field(default_factory=set)  # that programs touched
    findings: Dict[Tuple[str, ...], Finding] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def reached(self) -> List[str]:
        """The rules of the rule book that programs touched, by title."""
        return sorted({rules.BOOK[each] for each in self.rules if each in rules.BOOK})

    @property
    def new(self) -> List[Finding]:
        """The findings that are not on record."""
        return [each for each in self.findings.values() if each.record is None]

    def add(self, finding: Finding) -> None:
        """Note a finding; of a kind the smallest is kept."""
        before = self.findings.get(finding.signature)
        if before is None:
            self.findings[finding.signature] = finding
            return
        smaller = min(before, finding, key=lambda each: shrink.weight(each.asked.program))
        count = before.times + finding.times
        self.findings[finding.signature] = replace(smaller, times=count, after=before.after)


@dataclass(frozen=True)
class Plan:
    """How long to go on: number of programs or seconds, whichever ends first (0: no such limit).

    The programs of `first` are asked about before random ones.
    """

    seed: int
    programs: int = 0
    seconds: float = 0.0
    first: Tuple[ir.Program, ...] = ()


class Kernel:
    """A kernel that answers to batches of programs, in guests that are made anew when one is lost."""

    def __init__(self, target: Target) -> None:
        """Open the first session. Raises SetupError, GuestLost, AgentError."""
        self._target = target
        self._stack = ExitStack()
        self._session: Optional[Session] = None
        self._asker: Optional[Asker] = None
        self.release, self.version = self.asker.release, self.asker.version
        self.clauses = self.asker.clauses

    @property
    def asker(self) -> Asker:
        """What asks the kernel in the present guest. Raises SetupError, GuestLost, AgentError."""
        if self._asker is None:
            self._session = self._stack.enter_context(self._target.session())
            self._asker = Asker(self._session, self._session.call(calls.Facts()))
        return self._asker

    def drop(self) -> None:
        """Give up the guest: the next call has another."""
        if self._session is not None:
            self._session.disturbed = True
        self._session = self._asker = None
        stack, self._stack = self._stack, ExitStack()
        try:
            stack.close()
        except GuestLost:
            pass  # it was lost already

    def load(self, programs: Sequence[ir.Program], log_level: int = 0) -> calls.FuzzLoaded:
        """Load programs, and return what the kernel said. Raises GuestLost, AgentError, SetupError."""
        return self.asker.load(programs, log_level)


def run(target: Target, plan: Plan, tell: Callable[[Outcome], None]) -> Outcome:
    """Ask a kernel about random programs; `tell` sees the outcome so far after each batch.

    Raises SetupError, AgentError, and GuestLost of a guest that was lost without its kernel's doing.
    """
    kernel = Kernel(target)
    try:
        return _Campaign(kernel, plan, tell).run()
    finally:
        kernel.drop()


def replay(target: Target, program: ir.Program) -> Tuple[str, Asked, str]:
    """Ask a kernel about one program; return its release, the answers and the verifier's log.

    Raises as run() does.
    """
    kernel = Kernel(target)
    try:
        loaded = kernel.load([program], LOG_LEVEL)
        asked = answers(kernel.asker.judged([program]), loaded)[0]
        return kernel.release, asked, loaded["logs"][0]
    finally:
        kernel.drop()


class _Campaign:
    def __init__(self, kernel: Kernel, plan: Plan, tell: Callable[[Outcome], None]) -> None:
        self._kernel, self._plan, self._tell = kernel, plan, tell
        self._outcome = Outcome(kernel.release)
        self._shrunk: Counter[str] = Counter()

    def run(self) -> Outcome:
        """Go on until the plan is over."""
        plan, outcome = self._plan, self._outcome
        made = generate.Generator(plan.seed, self._kernel.clauses)
        started, size = time.monotonic(), FIRST_BATCH
        if plan.first:
            self._ask(plan.first)
        while not self._is_over():
            left = plan.programs - outcome.programs if plan.programs else size
            spent = self._ask([made.program() for _ in range(min(size, left))])
            outcome.seconds = time.monotonic() - started
            size = max(FIRST_BATCH, min(MOST_IN_BATCH, int(size * BATCH_SECONDS / spent)))
            self._tell(outcome)
        return outcome

    def _is_over(self) -> bool:
        plan, outcome = self._plan, self._outcome
        by_number = bool(plan.programs) and outcome.programs >= plan.programs
        return by_number or (bool(plan.seconds) and outcome.seconds >= plan.seconds)

    def _ask(self, batch: Sequence[ir.Program]) -> float:
        """Ask about a batch, and note what comes of it; return the seconds of the guest's call."""
        outcome = self._outcome
        before = outcome.programs
        judged = []
        for program, verdict in self._kernel.asker.judged(batch):
            outcome.answers[verdict.answer] += 1
            if verdict.answer != oracle.UNKNOWN:
                outcome.rules.update(verdict.rules)
                judged.append((program, verdict))
        started = time.monotonic()
        asked = self._load(judged)
        spent = time.monotonic() - started
        outcome.programs += len(batch)
        outcome.given_up += sum(each.gave_up for each in asked)
        for place, each in enumerate(asked):
            if each.differs:
                self._note(each, before + place + 1)
        return spent

    def _load(self, judged: Sequence[Tuple[ir.Program, oracle.Verdict]]) -> List[Asked]:
        """Return the kernel's answers. One that it did not survive is a finding, and has none."""
        if not judged:
            return []
        try:
            loaded = self._kernel.load([program for program, _ in judged])
            complaint = _complaint(loaded)
        except GuestLost as lost:
            if not lost.crashed:
                raise
            complaint = str(lost)
        if not complaint:
            return answers(judged, loaded)
        self._kernel.drop()
        if len(judged) == 1:
            program, verdict = judged[0]
            lost_one = Asked(program, verdict, 0)
            self._outcome.add(Finding(lost_one, "", None, self._outcome.programs, crash=complaint))
            return []
        half = len(judged) // 2  # the guilty one is in one of the halves
        return self._load(judged[:half]) + self._load(judged[half:])

    def _note(self, asked: Asked, after: int) -> None:
        """Shrink a finding, and note it."""
        kernel = self._kernel
        like = known.find(asked.program, asked.verdict, kernel.version)
        shown = like.name if like else "new"
        if self._shrunk[shown] < (_OFTEN_SHRUNK if like else MOST_SHRUNK):
            self._shrunk[shown] += 1
            asked = self._smaller(asked)
            like = known.find(asked.program, asked.verdict, kernel.version)
        log = "" if asked.errno == 0 else kernel.load([asked.program], LOG_LEVEL)["logs"][0]
        self._outcome.add(Finding(asked, log, like, after))

    def _smaller(self, asked: Asked) -> Asked:
        kernel = self._kernel

        def ask(programs: Sequence[ir.Program]) -> List[bool]:
            numbers = pack.errnos(kernel.load(programs)["errnos"])
            return [replace(asked, errno=number).differs for number in numbers]

        small = shrink.shrink(asked.program, kernel.clauses, ask)
        number = pack.errnos(kernel.load([small])["errnos"])[0]
        return Asked(small, oracle.judge(small, kernel.clauses), number)


def _complaint(loaded: calls.FuzzLoaded) -> str:
    """Return the line by which the kernel complained; "" if it did not."""
    found = splat.find([*loaded["late"], *(loaded["kernel_log"] or ())])
    return found.line if found else ""
