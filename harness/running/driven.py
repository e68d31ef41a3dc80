# SPDX-License-Identifier: GPL-2.0-only
"""The session of a run-time test on a kernel, and the verdict that its checks add up to."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from packaging.version import Version

from harness.errors import UsageError
from harness.guest import calls
from harness.judging import configuration, jit, judge, lock_path, splat
from harness.judging.verdict import Kind, Observation, Verdict
from harness.machines.gdb_stub import Stub
from harness.machines.loss import GuestLost
from harness.machines.session import CALL_SECONDS, AgentError, KernelRefusal, NotStepped, Session
from harness.machines.target import Target
from harness.provision import build
from harness.results.record import Case, Place, record
from harness.results.result import Result
from harness.running import experiment, lacking, lock_path as observed_path
from harness.running.ended import observed
from harness.running.maps import Loaded, Map
from harness.running.observe import made
from harness.scenarios.programs import Programs
from harness.scenarios.scenario import KnownBug, Need
from harness.scenarios.versions import covers, kernel_version

# Starts a session, given extra words for the kernel's command line; returns it with its target.
Start = Callable[[str], Tuple[Target, Session]]


class Unmet(Exception):
    """The kernel lacks a feature that a test needs. Carries the verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


@dataclass(frozen=True)
class Contest:
    """What a test in which CPUs contend for a lock was asked for."""

    path: str = ""  # the path of the lock that must be taken, of judging.lock_path; "": any


class Guest:
    """A session on the kernel under test, for tests of programs at run time."""

    def __init__(
        self, case: Case, start: Start, programs: Programs, contest: Optional[Contest] = None
    ) -> None:
        """Begin a case; `contest` is None if CPUs need not contend for a lock in it.

        Raises AgentError, GuestLost, SetupError.
        """
        self._case, self._start, self._programs = case, start, programs
        self._verdict: Optional[Verdict] = None
        self._evidence: List[str] = []
        self._failed: List[str] = []
        self._bugs: List[KnownBug] = []
        self._broken: List[str] = []  # failed checks that a bug on record explains
        self._mended: List[KnownBug] = []  # bugs on record whose checks held
        self._measurements: Dict[str, Any] = {}
        self._built: Dict[Tuple[str, str], build.Source] = {}
        self._started = time.monotonic()
        self.loader = case.loader
        self._contest = contest
        self._begin("")

    def _begin(self, also: str) -> None:
        self._target, self._session = self._start(also)
        self._path: Optional[str] = None  # of the lock; None: not observed
        self.kernel = self._target.kernel  # as the user named it; "" for a target with a fixed one
        self._loaded: Optional[Loaded] = None
        # A guest may have been used before.
        self._waited, self._queued = self._session.waited, self._session.queued
        self.facts: Dict[str, Any] = self._session.call(calls.Facts())
        self.release: Version = kernel_version(self.facts["release"], self.facts["version"])
        self.cpus: int = self.facts["cpus"]
        late = splat.find(self._session.call(calls.Begin(self._case.name)))
        if late is not None:
            self._session.disturbed = True
            raise AgentError(f"in this guest a test before this one left behind: {late.line}")

    def boot_with(self, words: str) -> None:
        """Continue in a new guest with more words on its kernel's command line, nothing loaded.

        Raises Unmet for a target other than qemu, since the run cannot reboot that.
        Raises AgentError, GuestLost, SetupError.
        """
        if self._target.name != "qemu":
            raise Unmet(judge.not_booted_with(words, self._target.name))
        self._begin(words)

    def load(
        self, file: str, programs: Sequence[str], unit: str = "", locks_since: str = ""
    ) -> None:
        """Build a unit of bpf_progs/FILE and load these programs. They stay until the test ends.

        `locks_since` is the first version that lets this program type lock. An older kernel that
        refuses the lock skips the test.
        Raises CompileError, KernelRefusal, UsageError; Unmet if bcc lacks kernel headers.
        """
        if self._contest is not None and self._path is None:
            self._take_path(self._contest.path)
        if self._target.describe().get("jit_off") and self.facts.get("jit") != "0":
            options = self._session.call(calls.Options([jit.ALWAYS_ON]))
            raise Unmet(jit.stays_on({**options, jit.ENABLED: str(self.facts.get("jit"))}))
        source_file = self._programs.file(file)
        if self.loader == "bcc" and not self.facts["headers"]:
            raise Unmet(judge.no_headers())
        include = self._target.headers()
        try:
            self._loaded = experiment.load(
                self._session, source_file, programs, self.loader, include, unit
            )
            self._built[file, unit] = self._loaded.source
        except KernelRefusal as refusal:
            interpreted = jit.refused(refusal.log, self.facts.get("jit"))
            if interpreted is not None and self._target.describe().get("jit_off"):
                raise Unmet(interpreted) from None
            old = locks_since and self.release < Version(locks_since)
            if old and "unknown func bpf_spin_lock" in refusal.log:
                raise Unmet(judge.no_lock(locks_since, self.release)) from None
            left_out = self._left_out(refusal)
            if left_out is None:
                raise
            raise Unmet(left_out) from None

    def _left_out(self, refusal: KernelRefusal) -> Optional[Verdict]:
        """Return SKIP if the kernel refused what it was built without, else None."""
        if configuration.left_out(refusal.log, configuration.ALL_OFF) is None:
            return None  # a refusal of another kind: nothing to ask
        configured = self._session.call(calls.Options(configuration.OPTIONS))
        options = lacking.probed(self._session, configured, self._target.headers())
        return configuration.left_out(refusal.log, options)

    @property
    def lock_path(self) -> str:
        """The path by which contending CPUs take the lock: see judging.lock_path; "" before load()."""
        return self._path or ""

    def _take_path(self, asked: str) -> None:
        """Observe the path of the lock. Raises Unmet if it is another, and no guest can be booted."""
        file = self._programs.file(observed_path.FILE)
        self._path = observed_path.observe(self._target, self._session, file, self.cpus)
        if asked == lock_path.QUEUED and self._path == lock_path.TEST_AND_SET:
            if self._target.name != "qemu":
                words = lock_path.words(asked)
                raise Unmet(judge.not_booted_with(words, self._target.name))

    def call(self, request: calls.Call[calls.Answer], limit: float = CALL_SECONDS) -> calls.Answer:
        """Make a call of harness/guest/calls.py. At most `limit` seconds may pass per event.

        Raises KernelRefusal with the errno; AgentError, GuestLost.
        """
        return self._session.call(request, limit=limit)

    @contextmanager
    def stepped(self) -> Iterator[Stub]:
        """Stop all CPUs meanwhile; yield the stub that runs them one by one. No call may be made.

        Raises Unmet where the target cannot; GuestLost, SetupError.
        """
        try:
            with self._session.stepped() as stub:
                yield stub
        except NotStepped as error:
            raise Unmet(judge.not_stepped(self._target.name, str(error))) from None

    def map(self, name: str, value: str = "") -> Map:
        """Return a map of the loaded programs: guest.map("visits")[0].torn; see maps.Loaded.map().

        Raises UsageError when nothing is loaded.
        """
        if self._loaded is None:
            raise UsageError(f"There is no map {name} yet: load() its programs first.")
        return self._loaded.map(name, value)

    def needs(self, name: str, since: str, *options: str) -> None:
        """Skip the test unless the kernel's BTF has a name.

        Kernels have it since version `since`, if built with all `options`. Raises Unmet.
        """
        if not self._session.call(calls.Has([name]))[name]:
            known = self._session.call(calls.Options(options)) if options else {}
            raise Unmet(judge.unmet([Need(name, since, options)], self.release, [name], known))

    def needs_two_cpus(self, why: str) -> None:
        """Skip the test unless two CPUs can run at once: `why` says what for. Raises Unmet."""
        if self.cpus < 2:
            options = self._session.call(calls.Options(["CONFIG_SMP"]))
            words = self.facts["command_line"] or ""
            raise Unmet(
                configuration.too_few_cpus(self.cpus, self._target.cpus, options, words, why)
            )

    def check(
        self, holds: bool, expected: str, seen: object = "", bug: Optional[KnownBug] = None
    ) -> None:
        """Record a check: a condition that must hold. The test passes if all checks hold.

        On the kernels of `bug` the check must fail: the verdict is then KNOWN. If it holds there,
        the verdict is FAIL, unless the test concludes another verdict than PASS.
        """
        known = bug is not None and covers(bug.kernels, self.release)
        self._evidence.append(f"{'MATCHED   ' if holds else 'EXPECTED  '} {expected}")
        if not holds:
            self._evidence.append(f"UNEXPECTED {seen}")
        if bug is not None:
            self._bugs.append(bug)
        if bug is not None and known:
            if holds:
                self._mended.append(bug)
            else:
                self._broken.append(f"{seen or expected} ({bug.commit})")
        elif not holds:
            self._failed.append(expected)

    def conclude(self, verdict: Verdict, **measurements: Any) -> None:
        """Set the verdict of the test and its measurements."""
        self._verdict, self._measurements = verdict, measurements

    def finish(self, error: Optional[BaseException]) -> Result:
        """End the case and return its result. `error` is the exception of the test, if any."""
        seconds = {"boot": self._session.boot["seconds"]}
        observation = Observation(stage=None, kernel_log=())
        if not isinstance(error, GuestLost):
            try:
                observation = Observation.from_json(
                    {"stage": None, **self._session.call(calls.End())}
                )
            except GuestLost as lost:
                error = lost
            except (AgentError, KernelRefusal) as failure:
                error = error or failure
                if isinstance(failure, AgentError) and failure.kernel_log is not None:
                    observation = Observation(stage=None, kernel_log=tuple(failure.kernel_log))
        if isinstance(error, GuestLost):
            observation = observed(error)
        verdict = judge.disturbed(observation) or self._conclusion(error)
        if self._contest is not None:
            verdict = lock_path.on_path(verdict, self._contest.path, self._path or "")
        quiet = (Kind.PASS, Kind.KNOWN, Kind.SKIP, Kind.INCONCLUSIVE)
        self._session.disturbed = verdict.kind not in quiet
        seconds["case"] = round(time.monotonic() - self._started, 4)
        seconds["waited"] = round(self._session.waited - self._waited, 4)
        seconds["queued"] = round(self._session.queued - self._queued, 4)
        compiler, builds = made(self.loader, self.facts, self._built.values())
        facts = {**self.facts, **self._target.describe()}
        place = Place(
            self._target.name,
            self._target.kernel,
            facts,
            seconds,
            compiler,
            builds,
            self._path or "",
        )
        return record(
            replace(self._case, known_bugs=tuple(self._bugs)),
            verdict,
            replace(observation, measurements=self._measurements),
            place,
        )

    def _conclusion(self, error: Optional[BaseException]) -> Verdict:
        evidence = tuple(self._evidence)
        if isinstance(error, Unmet):
            return error.verdict
        if isinstance(error, KernelRefusal):
            words = error.log.strip().splitlines()[-20:]
            return Verdict(Kind.FAIL, f"the kernel refused: {error}", (*evidence, *words))
        if isinstance(error, AssertionError):
            return Verdict(Kind.FAIL, str(error).split("\n", 1)[0] or "assertion failed", evidence)
        if error is not None:
            return Verdict(Kind.ERROR, f"{type(error).__name__}: {error}", evidence)
        if self._failed:
            return Verdict(Kind.FAIL, f"expected: {', '.join(self._failed)}", evidence)
        passed = self._verdict is None or self._verdict.kind is Kind.PASS
        shown = (*evidence, *(self._verdict.evidence if self._verdict is not None else ()))
        if self._mended and passed:
            return Verdict(
                Kind.FAIL,
                f"kernel {self.release} is on record as breaking this rule ({self._mended[0].commit}),"
                " and does not: correct the range of the KnownBug",
                shown,
            )
        if self._broken and passed:
            return Verdict(Kind.KNOWN, f"bug on record: {'; '.join(self._broken)}", shown)
        if self._verdict is not None:
            return Verdict(self._verdict.kind, self._verdict.reason, shown)
        if not evidence:
            return Verdict(Kind.ERROR, "the test checked nothing")
        return Verdict(Kind.PASS, f"{len(evidence)} checks held", evidence)
