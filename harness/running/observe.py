# SPDX-License-Identifier: GPL-2.0-only
"""Observes scenarios in batches by file. A lost guest is blamed on the right scenario."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import (
    Any,
    Callable,
    Container,
    Dict,
    Generator,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
    Union,
)

from packaging.version import Version

from harness.errors import SetupError
from harness.guest import calls
from harness.judging import jit, judge
from harness.judging.verdict import Observation, Verdict
from harness.machines.loss import EmulatorFailed, GuestLost
from harness.machines.session import AgentError, KernelRefusal, Session
from harness.machines.target import Target
from harness.provision import build
from harness.results.record import Place
from harness.results.result import Build
from harness.running import lacking
from harness.running.ended import Failure, observed, with_loss
from harness.scenarios.programs import order
from harness.scenarios.scenario import Scenario
from harness.scenarios.versions import kernel_version

Json = Dict[str, Any]
Key = Tuple[str, str]  # scenario name, loader
Cases = Dict[Key, Scenario]
Built = Union[build.Source, build.CompileError]


@dataclass(frozen=True)
class Seen:
    """The observation of one case, and the place of it."""

    observation: Observation
    place: Place


@dataclass(frozen=True)
class _Batch:
    """The cases of one call to the guest. They share a source."""

    source: Built
    cases: Cases


@dataclass(frozen=True)
class _Blame:
    """The decision on the cases of a batch whose session ended too early."""

    guilty: Tuple[Key, ...]
    again: Tuple[Key, ...]  # to be run again in another session
    excused: Tuple[Key, ...] = ()  # those in `again` that are guilty if it happens again


class Observer:
    """Observes scenarios on one target, each of them once.

    One request runs many scenarios. Each is returned as soon as it ends, while the guest continues
    with the others. Call `finish` before any other use of the target.
    """

    def __init__(self, target: Target, scenarios: Sequence[Scenario]) -> None:
        self._target = target
        self._by_name = {s.name: s for s in scenarios}
        self._seen: Dict[Key, Seen] = {}
        self._excused: Set[Key] = set()  # cases that the emulator has failed once
        self._facts: Json = {}
        self._names: Dict[str, bool] = {}  # name in a scenario's needs -> is in the BTF
        self._work: Optional[Generator[None, None, None]] = None  # the request in progress
        self._asked: Set[Key] = set()  # its cases
        self._begun: Optional[Key] = None  # the last case that began in its session
        self._open: Optional[Key] = None  # the last case that ended: late splats belong to it

    def judge(
        self, scenario: Scenario, loader: str, together: Iterable[Scenario] = ()
    ) -> Tuple[Verdict, Seen]:
        """Judge one scenario. `together` are scenarios judged later that may share the request.

        Raises SetupError if no guest can be started.
        """
        seen = self._observe(scenario, loader, together)
        twin: Optional[Verdict] = None
        if scenario.twin is not None:
            twin_seen = self._observe(self._by_name[scenario.twin], loader, ())
            twin = judge.judge(
                self._by_name[scenario.twin],
                twin_seen.place.release,
                twin_seen.observation,
                options=twin_seen.place.facts.get("options", {}),
            )
        place = seen.place
        options = place.facts.get("options", {})
        verdict = judge.judge(scenario, place.release, seen.observation, twin, options)
        facts = {**place.facts, **self._target.describe()}
        return verdict, replace(seen, place=replace(place, facts=facts))

    def finish(self) -> None:
        """Observe the remaining cases of the request in progress."""
        try:
            while self._work is not None:
                self._go_on()
        except SetupError:
            pass  # no caller waits for the remaining cases; asking for one raises it again

    def abandon(self) -> None:
        """Give up the request in progress and its guest."""
        if self._work is not None:
            self._work.close()
            self._work = self._open = None

    def _observe(self, scenario: Scenario, loader: str, together: Iterable[Scenario]) -> Seen:
        key = scenario.name, loader
        if key not in self._seen and (self._work is None or key not in self._asked):
            self.finish()
            chosen = [s for s in (scenario, *together) if loader in s.loaders]
            wanted = [s for s in order(chosen, self._by_name) if (s.name, loader) not in self._seen]
            self._asked = {(s.name, loader) for s in wanted}
            self._work = self._request(wanted, loader)
        while self._work is not None and (key not in self._seen or key == self._open):
            self._go_on()
        return self._seen[key]

    def _go_on(self) -> None:
        """Wait for the next event of the request in progress."""
        assert self._work is not None
        try:
            next(self._work)
        except StopIteration:
            self._work = self._open = None
        except BaseException:
            self._work = self._open = None
            raise

    def _request(self, scenarios: List[Scenario], loader: str) -> Generator[None, None, None]:
        """Observe scenarios of one loader in one or more sessions. Yields after each event."""
        units = [
            (file, unit, {(case.name, loader): case for case in cases})
            for (file, unit), cases in itertools.groupby(scenarios, key=lambda s: (s.file, s.unit))
        ]
        with ThreadPoolExecutor() as pool:
            sources = list(pool.map(lambda unit: self._build(unit[0], unit[1], loader), units))
        queue = [_Batch(source, cases) for source, (_, _, cases) in zip(sources, units)]
        while queue:
            queue = yield from self._one_session(queue)

    def _build(self, file: Path, unit: str, loader: str) -> Built:
        try:
            return build.source(file, unit, loader, self._target.headers())
        except build.CompileError as error:
            return error

    def _one_session(self, queue: List[_Batch]) -> Generator[None, None, List[_Batch]]:
        """Observe batches until the queue is empty or the guest unusable; return the rest."""
        boot: Json = {}
        self._begun = self._open = None
        try:
            # An emulated guest is slow until it has translated the code that all cases run.
            with self._target.session(warm=True) as session:
                boot = {"boot": session.boot["seconds"]}
                self._look_at_kernel(session)
                while queue:
                    yield from self._one_batch(session, queue[0], boot)
                    left = self._left(queue[0])
                    queue = _with_first(left, queue)
                    if left or session.disturbed:
                        return queue
                self._close(session)
        except (GuestLost, AgentError, KernelRefusal) as failure:
            return self._after(failure, queue, boot)
        return queue

    def _look_at_kernel(self, session: Session) -> None:
        """Ask the guest for its kernel's facts, options and needed names, once for all sessions."""
        if not self._facts:
            self._names = session.call(calls.Has(self._needed()))
            configured = session.call(calls.Options(self._options()))
            options = lacking.probed(session, configured, self._target.headers())
            facts = session.call(calls.Facts())
            options[jit.ENABLED] = str(facts.get("jit"))
            self._facts = {**facts, "options": options}

    def _needed(self) -> List[str]:
        return sorted({need.name for case in self._by_name.values() for need in case.needs})

    def _options(self) -> List[str]:
        needs = [need for case in self._by_name.values() for need in case.needs]
        named = {option for need in needs for option in need.options}
        return sorted(named.union(judge.OPTION_NAMES))

    def _one_batch(self, session: Session, batch: _Batch, boot: Json) -> Iterator[None]:
        """Observe the cases of a batch, those that need the guest in the guest."""
        for key, case in batch.cases.items():
            answer = self._without_guest(case, key[1], batch.source)
            if answer is not None:
                self._note(key, answer, boot, batch.source)
        asked = self._left(batch)
        if asked and isinstance(batch.source, build.Source):
            yield from self._verify(session, batch.source, asked, boot)

    def _without_guest(self, case: Scenario, loader: str, source: Built) -> Optional[Observation]:
        """Return the observation of a case that cannot be tried; None if it must be tried."""
        if loader == "bcc" and not self._facts["headers"]:
            return Observation(stage=judge.NO_HEADERS, kernel_log=())
        if self._target.describe().get("jit_off") and self._facts.get("jit") != "0":
            return Observation(stage=jit.STAYS_ON, kernel_log=())
        missing = tuple(need.name for need in case.needs if not self._names[need.name])
        if missing:
            return Observation(missing=missing, kernel_log=())
        if isinstance(source, build.CompileError):
            return Observation(stage="compile", detail=str(source), kernel_log=())
        return None

    def _verify(
        self, session: Session, source: build.Source, cases: Cases, boot: Json
    ) -> Iterator[None]:
        """Observe cases until one disturbs the guest.

        After a splat the kernel is no longer reliable: lockdep has turned itself off, and WARN_ONCE
        and KASAN report only once. Also, the console would blame the splat on the next case.
        """
        release = kernel_version(self._facts["release"], self._facts["version"])
        seconds = {**boot, "build": source.seconds}
        events = session.events(
            calls.Verify(
                source.request(), [_case(scenario, release) for scenario in cases.values()]
            )
        )
        with closing(events):
            for event in events:
                if "begin" in event:
                    spent = False
                    self._begun = event["begin"], source.loader
                elif "late" in event:
                    spent = self._complained(session, event["late"])
                else:
                    facts = dict(event["observation"])
                    spent_on = {**seconds, **facts.pop("seconds", {})}
                    key = event["end"], source.loader
                    self._note(key, Observation.from_json(facts), spent_on, source)
                    spent = self._ended(session, key)
                yield
                if spent:
                    return

    def _complained(self, session: Session, lines: Sequence[str]) -> bool:
        """Add late kernel messages to the last case. Tell whether the guest must be given up."""
        somebodys = self._open is not None
        self._add_late(session, lines)
        self._open = None
        # Messages of no case do not end the guest here, else each new guest might end so.
        return session.disturbed and somebodys

    def _ended(self, session: Session, key: Key) -> bool:
        """Tell whether the guest must be given up after the case that was just observed."""
        if judge.disturbed(self._seen[key].observation) is not None:
            session.disturbed = True
        self._open = None if session.disturbed else key
        return session.disturbed

    def _close(self, session: Session) -> None:
        """Add the kernel messages that came after the end of a session's last case to that case."""
        try:
            self._add_late(session, session.call(calls.Late()))
        except GuestLost as lost:
            loss = lost  # Python deletes `lost` after the clause, but the lambda needs it
            self._amend(lambda seen: with_loss(seen, loss))
            session.disturbed = True
        except (AgentError, KernelRefusal):
            # The log is unknown now, which is an ERROR.
            self._amend(lambda seen: replace(seen, kernel_log=None))
            session.disturbed = True

    def _add_late(self, session: Session, lines: Sequence[str]) -> None:
        """Add kernel messages logged between two cases to the first of the two."""
        last = self._seen[self._open].observation if self._open is not None else None
        before = last.kernel_log if last is not None else ()
        if lines and before is not None:
            log = (*before, *lines)
            amended = self._amend(lambda seen: replace(seen, kernel_log=log))
            # With no open case, the case at fault is already judged. The guest is still disturbed.
            amended = amended or Observation(stage=None, kernel_log=tuple(lines))
            session.disturbed = session.disturbed or judge.disturbed(amended) is not None

    def _amend(self, changed: Callable[[Observation], Observation]) -> Optional[Observation]:
        """Change the observation of the open case, if there is one, and return it."""
        if self._open is None:
            return None
        seen = self._seen[self._open]
        self._seen[self._open] = replace(seen, observation=changed(seen.observation))
        return self._seen[self._open].observation

    def _after(self, failure: Failure, queue: List[_Batch], boot: Json) -> List[_Batch]:
        """Record a session's failure for the cases at fault; return the rest of the queue."""
        batch = queue[0]
        left = self._left(batch)
        last = self._open or list(batch.cases)[-1]
        blame = _blame(failure, list(left), self._begun, last, self._excused)
        for key in blame.guilty:
            self._note(key, observed(failure), boot, batch.source)
        self._excused.update(blame.excused)
        return _with_first({key: left[key] for key in blame.again}, queue)

    def _left(self, batch: _Batch) -> Cases:
        """Return the cases of a batch that are not observed yet."""
        return {key: case for key, case in batch.cases.items() if key not in self._seen}

    def _note(self, key: Key, observation: Observation, seconds: Json, source: Built) -> None:
        compiler, builds = made(key[1], self._facts, (source,))
        place = Place(
            self._target.name, self._target.kernel, self._facts, seconds, compiler, builds
        )
        self._seen[key] = Seen(observation, place)


def made(
    loader: str, facts: Mapping[str, Any], sources: Iterable[Built]
) -> Tuple[str, Tuple[Build, ...]]:
    """Return the compiler of the loaded objects, and the digest of each; "" and () if none.

    bcc compiles with the guest's userland. The digest is then that of the text that it compiles.
    """
    built = [source for source in sources if isinstance(source, build.Source)]
    builds = tuple(Build(source.file, source.unit, source.digest) for source in built)
    if not builds:
        return "", ()
    return (f"bcc {facts.get('bcc')}" if loader == "bcc" else build.compiler()), builds


def _with_first(cases: Cases, queue: List[_Batch]) -> List[_Batch]:
    """Replace the cases of the first batch of a queue. Without cases, drop the batch."""
    return ([replace(queue[0], cases=cases)] if cases else []) + queue[1:]


def _blame(
    failure: Failure,
    left: Sequence[Key],
    begun: Optional[Key],
    last: Key,
    excused: Container[Key],
) -> _Blame:
    """Decide which cases are at fault for the early end of a session.

    `left` are the cases of the batch without an observation. If the guest or its agent's process
    was lost, the case that had `begun` is at fault. If none had, the next case is: each lost guest
    then costs one case, so the run ends. If none is left, the `last` observed case is at fault.
    A case that the emulator failed is run again once, and is `excused` then. Any other error of
    the agent concerns all cases of the batch.
    """
    if not isinstance(failure, GuestLost) and not _process_ended(failure):
        return _Blame(guilty=tuple(left), again=())
    if not left:
        return _Blame(guilty=(last,), again=())
    culprit = begun if begun is not None and begun in left else left[0]
    if isinstance(failure, EmulatorFailed) and culprit not in excused:
        return _Blame(guilty=(), again=tuple(left), excused=(culprit,))
    return _Blame(guilty=(culprit,), again=tuple(key for key in left if key != culprit))


def _process_ended(failure: Failure) -> bool:
    """Tell whether the agent's process ended, which may be the kernel's fault."""
    return isinstance(failure, AgentError) and failure.kernel_log is not None


def _case(scenario: Scenario, release: Version) -> calls.Trial:
    """Return the instructions for the guest on a scenario, without its expectations."""
    clause = scenario.expectation(release)
    return calls.Trial(
        name=scenario.name,
        section=scenario.section,
        user=scenario.user,
        user_stage=scenario.user_stage,
        run=clause is not None and clause.retval is not None,
        attach=clause is not None and clause.stage == "attach",
    )
