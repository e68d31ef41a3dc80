# SPDX-License-Identifier: GPL-2.0-only
"""Asks a kernel about many random programs, and compares its answers with the oracle's."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from typing import Callable, Counter, List, Sequence, Set, Tuple

from harness.errors import SetupError
from harness.fuzz import generate, ir, lower, oracle, pack, rules, world
from harness.guest import calls
from harness.guest.uapi import errno_name
from harness.judging import splat
from harness.machines.session import KernelRefusal, Session
from harness.machines.target import Target
from harness.scenarios.versions import covers, kernel_version

FIRST_BATCH, MOST_IN_BATCH = 100, 1000
BATCH_SECONDS = 2.0  # of a call: long enough to pay, short enough to show progress
_E2BIG, _ENOMEM, _EPERM = 7, 12, 1
_LOG_LEVEL = 1
_TOLD_LOG = 6  # lines of a verifier's log


@dataclass(frozen=True)
class Asked:
    """A program, what a kernel must do with it, and its errno (0: it was loaded)."""

    program: ir.Program
    verdict: oracle.Verdict
    errno: int

    @property
    def differs(self) -> bool:
        """Tell whether the kernel did not do what it must."""
        if self.errno in (_E2BIG, _ENOMEM):  # it gave up: no answer
            return False
        return (self.verdict.answer == oracle.ACCEPT) != (self.errno == 0)


@dataclass(frozen=True)
class Finding:
    """A program for which kernel and oracle differ, with the verifier's log."""

    asked: Asked
    log: str

    @property
    def words(self) -> str:
        """What differs, as a line."""
        if self.asked.errno == 0:
            reason = self.asked.verdict.reason
            return f"accepted, but must be refused: {rules.rule(reason)} ({reason})"
        return f"refused with {errno_name(self.asked.errno)}, but breaks no rule: {self.last_line}"

    @property
    def last_line(self) -> str:
        """The line of the log that says why, as far as that can be told."""
        lines = [line for line in self.log.splitlines() if line.strip()]
        told = [line for line in lines if not line.startswith(("processed", "verification time"))]
        return told[-1] if told else "without a word"


@dataclass
class Outcome:
    """What came of a campaign on one kernel."""

    release: str = ""
    programs: int = 0
    answers: Counter[str] = field(default_factory=Counter)  # the oracle's
    given_up: int = 0  # programs that were too complex for the verifier
    rules: Set[str] = field(default_factory=set)  # that programs touched
    findings: List[Finding] = field(default_factory=list)
    splats: List[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def reached(self) -> List[str]:
        """The rules of the rule book that programs touched, by title."""
        return sorted({rules.BOOK[each] for each in self.rules if each in rules.BOOK})


class Kernel:
    """A session on a kernel, with the world of the programs made."""

    def __init__(self, session: Session) -> None:
        """Make the world. Raises SetupError, GuestLost, AgentError."""
        self._session = session
        facts = session.call(calls.Facts())
        self.release: str = facts["release"]
        version = kernel_version(facts["release"], facts.get("version") or "")
        self.clauses = rules.of(version)
        self._types = world.types()
        names = [name for name, kind in world.MAPS.items() if covers(kind.kernels, version)]
        request = calls.FuzzWorld(
            btf=base64.b64encode(self._types.data).decode(),
            btf_fd=world.BTF_FD,
            maps=world.map_calls(self._types, names),
        )
        try:
            refused = session.call(request)
        except KernelRefusal as refusal:
            raise SetupError(
                f"Kernel {self.release} refuses the BTF of the programs' maps ({refusal}): programs"
                " cannot be asked about without."
            ) from None
        for name, number in zip(names, refused):
            if number:
                raise SetupError(
                    f"Kernel {self.release} refuses to create the map {name!r} with"
                    f" {errno_name(number)}, which programs need: run it on a kernel of the catalogue."
                )

    def load(self, codes: Sequence[lower.Code], log_level: int = 0) -> calls.FuzzLoaded:
        """Load programs, and return what the kernel said. Raises GuestLost, AgentError."""
        packed = pack.pack(codes, self._types)
        return self._session.call(calls.FuzzLoad(packed, world.BTF_FD, log_level))


@dataclass(frozen=True)
class Plan:
    """How long to go on: number of programs or seconds, whichever ends first (0: no such limit)."""

    seed: int
    programs: int = 0
    seconds: float = 0.0


def run(target: Target, plan: Plan, tell: Callable[[Outcome], None]) -> Outcome:
    """Ask a kernel about random programs; `tell` sees the outcome so far after each batch.

    Raises SetupError, GuestLost, AgentError.
    """
    outcome = Outcome()
    with target.session() as session:
        kernel = Kernel(session)
        outcome.release = kernel.release
        made = generate.Generator(plan.seed, kernel.clauses)
        started, size = time.monotonic(), FIRST_BATCH
        while not _over(plan, outcome):
            left = plan.programs - outcome.programs if plan.programs else size
            batch = [made.program() for _ in range(min(size, left))]
            spent = _ask(kernel, batch, outcome)
            outcome.seconds = time.monotonic() - started
            size = max(FIRST_BATCH, min(MOST_IN_BATCH, int(size * BATCH_SECONDS / spent)))
            tell(outcome)
    return outcome


def _over(plan: Plan, outcome: Outcome) -> bool:
    by_number = bool(plan.programs) and outcome.programs >= plan.programs
    by_time = bool(plan.seconds) and outcome.seconds >= plan.seconds
    return by_number or by_time


def _ask(kernel: Kernel, batch: Sequence[ir.Program], outcome: Outcome) -> float:
    """Ask about a batch, and note what comes of it; return the seconds of the guest's call."""
    judged: List[Tuple[ir.Program, oracle.Verdict]] = []
    for program in batch:
        verdict = oracle.judge(program, kernel.clauses)
        outcome.programs += 1
        outcome.answers[verdict.answer] += 1
        if verdict.answer != oracle.UNKNOWN:
            outcome.rules.update(verdict.rules)
            judged.append((program, verdict))
    started = time.monotonic()
    loaded = kernel.load([lower.lower(program) for program, _ in judged])
    spent = time.monotonic() - started
    _note_splat(loaded, outcome)
    asked = [Asked(*pair, number) for pair, number in zip(judged, pack.errnos(loaded["errnos"]))]
    refused = [each for each in asked if each.errno in (_EPERM, _ENOMEM)]
    if refused:
        raise SetupError(
            f"The kernel answers {errno_name(refused[0].errno)} to programs, which is no word of its"
            " verifier: run it as root, in a guest with memory."
        )
    outcome.given_up += sum(each.errno == _E2BIG for each in asked)
    differing = [each for each in asked if each.differs]
    if differing:
        again = kernel.load([lower.lower(each.program) for each in differing], _LOG_LEVEL)
        outcome.findings += [Finding(*pair) for pair in zip(differing, again["logs"])]
    return spent


def _note_splat(loaded: calls.FuzzLoaded, outcome: Outcome) -> None:
    lines = [*loaded["late"], *(loaded["kernel_log"] or ())]
    found = splat.find(lines)
    if found is not None:
        outcome.splats.append(found.line)
