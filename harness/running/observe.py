# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios -> observations: batches them by file, and blames a lost guest on the right one."""

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
from harness.judging import judge
from harness.judging.verdict import Observation, Verdict
from harness.machines.loss import EmulatorFailed, GuestLost
from harness.machines.session import AgentError, KernelRefusal, Session
from harness.machines.target import Target
from harness.provision import build
from harness.results.record import Place
from harness.results.result import Build
from harness.running.ended import Failure, observed, with_loss
from harness.scenarios.programs import order
from harness.scenarios.scenario import Scenario
from harness.scenarios.versions import kernel_version

Json = Dict[str, Any]
Key = Tuple[str, str]  # a scenario's name, and a loader's
Cases = Dict[Key, Scenario]
Built = Union[build.Source, build.CompileError]


@dataclass(frozen=True)
class Seen:
    """What was seen of one case, and where."""

    observation: Observation
    place: Place


@dataclass(frozen=True)
class _Batch:
    """What the guest is asked for by one call: cases that share a source."""

    source: Built
    cases: Cases


@dataclass(frozen=True)
class _Blame:
    """What becomes of the cases of a batch when their session ended before its time."""

    guilty: Tuple[Key, ...]
    again: Tuple[Key, ...]  # to be asked in another session
    excused: Tuple[Key, ...] = ()  # of those, whoever will be guilty the next time


class Observer:
    """Observes scenarios on one target; each once, however often it is asked for.

    One request serves many, but each is returned as soon as it is over: the guest goes on with the
    others meanwhile, and `finish` must be called before anybody else uses the target.
    """

    def __init__(self, target: Target, scenarios: Sequence[Scenario]) -> None:
        self._target = target
        self._by_name = {s.name: s for s in scenarios}
        self._seen: Dict[Key, Seen] = {}
        self._excused: Set[Key] = set()  # what the emulator failed at once
        self._facts: Json = {}
        self._names: Dict[str, bool] = {}  # whether the kernel's BTF has what scenarios need
        self._work: Optional[Generator[None, None, None]] = None  # a request on its way
        self._asked: Set[Key] = set()  # what it is for
        self._begun: Optional[Key] = None  # the last that began in its session
        self._open: Optional[Key] = None  # observed, but the kernel may yet complain

    def judge(
        self, scenario: Scenario, loader: str, together: Iterable[Scenario] = ()
    ) -> Tuple[Verdict, Seen]:
        """Judge one scenario. `together` are others that will be asked for and may share a request.

        Raises SetupError when no guest can be had.
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
        """Observe what is left of a request on its way."""
        try:
            while self._work is not None:
                self._go_on()
        except SetupError:
            pass  # nobody waits for what is left; whoever asks for it will be told

    def abandon(self) -> None:
        """Give up a request on its way, and its guest."""
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
        """Wait for the next event of the request on its way."""
        assert self._work is not None
        try:
            next(self._work)
        except StopIteration:
            self._work = self._open = None
        except BaseException:
            self._work = self._open = None
            raise

    def _request(self, scenarios: List[Scenario], loader: str) -> Generator[None, None, None]:
        """Observe scenarios of one loader, in as many sessions as it takes; yield after each event."""
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
        """Work on the queue until it is empty or the guest is spent; return what is left of it."""
        boot: Json = {}
        self._begun = self._open = None
        try:
            # An emulated guest is slow until it has translated what all cases have in common.
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
        """Ask the guest, once for all sessions, what kernel it has and what that lacks."""
        if not self._facts:
            self._names = session.call(calls.Has(self._needed()))
            options = session.call(calls.Options(self._options()))
            self._facts = {**session.call(calls.Facts()), "options": options}

    def _needed(self) -> List[str]:
        return sorted({need.name for case in self._by_name.values() for need in case.needs})

    def _options(self) -> List[str]:
        named = {need.option for case in self._by_name.values() for need in case.needs}
        return sorted(named.union(judge.OPTION_NAMES) - {""})

    def _one_batch(self, session: Session, batch: _Batch, boot: Json) -> Iterator[None]:
        """Observe the cases of a batch; the guest is asked for those that need it."""
        for key, case in batch.cases.items():
            answer = self._without_guest(case, key[1], batch.source)
            if answer is not None:
                self._note(key, answer, boot, batch.source)
        asked = self._left(batch)
        if asked and isinstance(batch.source, build.Source):
            yield from self._verify(session, batch.source, asked, boot)

    def _without_guest(self, case: Scenario, loader: str, source: Built) -> Optional[Observation]:
        """Return what is to be said of a case that need not be tried, else None."""
        if loader == "bcc" and not self._facts["headers"]:
            return Observation(stage=judge.NO_HEADERS, kernel_log=())
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

        After a splat the kernel is no witness any more: lockdep has turned itself off, a WARN_ONCE
        or KASAN says nothing twice, and the console would convict the next case of this one's.
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
        """Note what the kernel said after the last case; return whether this is the guest's end."""
        somebodys = self._open is not None
        self._add_late(session, lines)
        self._open = None
        return session.disturbed and somebodys  # else each new guest might end here

    def _ended(self, session: Session, key: Key) -> bool:
        """Return whether the case that has just been observed is the guest's end."""
        if judge.disturbed(self._seen[key].observation) is not None:
            session.disturbed = True
        self._open = None if session.disturbed else key
        return session.disturbed

    def _close(self, session: Session) -> None:
        """Give the last case of a session what the kernel still has to say of it."""
        try:
            self._add_late(session, session.call(calls.Late()))
        except GuestLost as lost:
            loss = lost  # the name of an exception ends with its clause
            self._amend(lambda seen: with_loss(seen, loss))
            session.disturbed = True
        except (AgentError, KernelRefusal):
            # What it held, nobody knows: an ERROR
            self._amend(lambda seen: replace(seen, kernel_log=None))
            session.disturbed = True

    def _add_late(self, session: Session, lines: Sequence[str]) -> None:
        """Add to the last case what the kernel logged when that had ended, but no other had begun."""
        last = self._seen[self._open].observation if self._open is not None else None
        before = last.kernel_log if last is not None else ()
        if lines and before is not None:
            log = (*before, *lines)
            amended = self._amend(lambda seen: replace(seen, kernel_log=log))
            # Where no case is open, whoever left this behind was judged: nobody may go on here.
            amended = amended or Observation(stage=None, kernel_log=tuple(lines))
            session.disturbed = session.disturbed or judge.disturbed(amended) is not None

    def _amend(self, changed: Callable[[Observation], Observation]) -> Optional[Observation]:
        """Change what was observed of the case that is open, if one is."""
        if self._open is None:
            return None
        seen = self._seen[self._open]
        self._seen[self._open] = replace(seen, observation=changed(seen.observation))
        return self._seen[self._open].observation

    def _after(self, failure: Failure, queue: List[_Batch], boot: Json) -> List[_Batch]:
        """Note what ended a session, of those who are to blame; return what is left of the queue."""
        batch = queue[0]
        left = self._left(batch)
        last = self._open or list(batch.cases)[-1]
        blame = _blame(failure, list(left), self._begun, last, self._excused)
        for key in blame.guilty:
            self._note(key, observed(failure), boot, batch.source)
        self._excused.update(blame.excused)
        return _with_first({key: left[key] for key in blame.again}, queue)

    def _left(self, batch: _Batch) -> Cases:
        """Return the cases of a batch of which nothing is known yet."""
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
    """Return the compiler that made what was loaded, "" if nothing was, and the digests of that.

    What bcc loads is made by bcc, with the guest's userland; the text that it is given is what has a
    digest.
    """
    built = [source for source in sources if isinstance(source, build.Source)]
    builds = tuple(Build(source.file, source.unit, source.digest) for source in built)
    if not builds:
        return "", ()
    return (f"bcc {facts.get('bcc')}" if loader == "bcc" else build.compiler()), builds


def _with_first(cases: Cases, queue: List[_Batch]) -> List[_Batch]:
    """Return a queue with other cases of its first batch, without that batch when there are none."""
    return ([replace(queue[0], cases=cases)] if cases else []) + queue[1:]


def _blame(
    failure: Failure,
    left: Sequence[Key],
    begun: Optional[Key],
    last: Key,
    excused: Container[Key],
) -> _Blame:
    """Tell who is to blame for the end of a session, of those `left` of the batch it was at.

    A guest that is lost, or its process, costs the case that had begun. Without one that had begun
    it is the next: that way a guest that is lost again and again costs one case each time, and the
    run comes to an end. With none left it is the last that was observed. What the emulator fails
    at is `excused` the first time. What the agent cannot do, it can do for none of the batch.
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
    """Tell whether the agent's process is gone, which a kernel can make it do."""
    return isinstance(failure, AgentError) and failure.kernel_log is not None


def _case(scenario: Scenario, release: Version) -> calls.Trial:
    """Return what the guest must know of a scenario: what to do, never what to expect of it."""
    clause = scenario.expectation(release)
    return calls.Trial(
        name=scenario.name,
        section=scenario.section,
        user=scenario.user,
        user_stage=scenario.user_stage,
        run=clause is not None and clause.retval is not None,
        attach=clause is not None and clause.stage == "attach",
    )
