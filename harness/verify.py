"""Scenarios -> observations: batches them by file, and blames a lost guest on the right one."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import (
    Any,
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

from harness import build, judge
from harness.errors import SetupError
from harness.judge import Observation, Verdict
from harness.scenario import Scenario, kernel_version
from harness.target import EMULATOR_FAILED, AgentError, GuestLost, KernelRefusal, Session, Target

Json = Dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """What was seen of one case, and where."""

    observation: Observation
    facts: Json  # the kernel's; {} when no guest came up
    seconds: Json  # boot, build, open, case

    @property
    def release(self) -> Version:
        """The kernel's version, 0 when no guest came up."""
        return kernel_version(self.facts.get("release", "0"), self.facts.get("version", ""))


def order(scenarios: Iterable[Scenario], by_name: Mapping[str, Scenario]) -> List[Scenario]:
    """Return scenarios and their twins as they are best observed: unit by unit, a twin before those
    that need it, else as they come. Whatever order they are asked for in, none waits long then.
    """
    units: Dict[Tuple[Path, str], Dict[str, Scenario]] = {}
    chosen = list(scenarios)
    for case in [*chosen, *(by_name[case.twin] for case in chosen if case.twin is not None)]:
        units.setdefault((case.file, case.unit), {})[case.name] = case
    ordered: Dict[str, Scenario] = {}
    visited: Set[Tuple[Path, str]] = set()

    def visit(unit: Tuple[Path, str]) -> None:
        if unit in visited or unit not in units:
            return
        visited.add(unit)
        twins = {case.name: by_name[case.twin] for case in units[unit].values() if case.twin}
        for twin in twins.values():
            visit((twin.file, twin.unit))
        for case in units[unit].values():
            if case.name in twins and twins[case.name].name in units[unit]:
                ordered.setdefault(twins[case.name].name, twins[case.name])
            ordered.setdefault(case.name, case)

    for unit in units:
        visit(unit)
    return list(ordered.values())


class Verifier:
    """Observes scenarios on one target; each once, however often it is asked for.

    One request serves many, but each is returned as soon as it is over: the guest goes on with the
    others meanwhile, and `finish` must be called before anybody else uses the target.
    """

    def __init__(self, target: Target, scenarios: Sequence[Scenario]) -> None:
        self._target = target
        self._by_name = {s.name: s for s in scenarios}
        self._seen: Dict[Tuple[str, str], Seen] = {}
        self._again: Set[Tuple[str, str]] = set()  # what the emulator failed at
        self._facts: Json = {}
        self._names: Dict[str, bool] = {}  # whether the kernel's BTF has what scenarios need
        self._work: Optional[Generator[None, None, None]] = None  # a request on its way
        self._asked: Set[Tuple[str, str]] = set()  # what it is for
        self._open: Optional[Tuple[str, str]] = None  # observed, but the kernel may yet complain

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
                twin_seen.release,
                twin_seen.observation,
                options=twin_seen.facts.get("options", {}),
            )
        options = seen.facts.get("options", {})
        return judge.judge(scenario, seen.release, seen.observation, twin, options), seen

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
            (key, list(cases))
            for key, cases in itertools.groupby(scenarios, key=lambda s: (s.file, s.unit))
        ]
        with ThreadPoolExecutor() as pool:
            sources = list(
                pool.map(lambda unit: self._build(unit[0][0], unit[0][1], loader), units)
            )
        queue = [(source, cases) for source, (_, cases) in zip(sources, units)]
        while queue:
            queue = yield from self._one_session(queue, loader)

    def _build(self, file: Path, unit: str, loader: str) -> Union[build.Source, build.CompileError]:
        try:
            return build.source(file, unit, loader, self._target.headers())
        except build.CompileError as error:
            return error

    def _one_session(self, queue: List[Any], loader: str) -> Generator[None, None, List[Any]]:
        """Work on the queue until it is empty or the guest is lost; return what is left of it."""
        begun: List[str] = []
        boot: Json = {}
        self._open = None
        try:
            # An emulated guest is slow until it has translated what all cases have in common.
            with self._target.session(warm=True) as session:
                boot = {"boot": session.boot["seconds"]}
                if not self._facts:
                    self._names = session.call("has", names=self._needed())
                    options = session.call("options", names=self._options())
                    self._facts = {**session.call("facts"), "options": options}
                while queue:
                    source, cases = queue[0]
                    cases = [case for case in cases if not self._lacks(case, loader, boot)]
                    if isinstance(source, build.CompileError):
                        failed = Observation(stage="compile", detail=str(source), kernel_log=())
                        for case in cases:
                            self._note(case.name, loader, failed, boot)
                    elif cases:
                        seconds = {**boot, "build": source.seconds}
                        yield from self._verify(session, source, cases, loader, seconds, begun)
                        left = [c for c in cases if (c.name, loader) not in self._seen]
                        if left or session.disturbed:
                            return ([(source, left)] if left else []) + queue[1:]
                    queue = queue[1:]
                self._close(session)
        except GuestLost as lost:
            observation = Observation(**_loss(lost), kernel_log=())
            return self._blame(queue, loader, observation, boot, begun)
        except (AgentError, KernelRefusal) as error:
            if isinstance(error, AgentError) and error.kernel_log is not None:
                observation = Observation(
                    stage="agent", detail=str(error), kernel_log=tuple(error.kernel_log)
                )
                return self._blame(queue, loader, observation, boot, begun)
            for case in queue[0][1]:
                if (case.name, loader) not in self._seen:
                    failed = Observation(stage="agent", detail=str(error), kernel_log=())
                    self._note(case.name, loader, failed, boot)
            return queue[1:]
        return queue

    def _needed(self) -> List[str]:
        return sorted({need.name for case in self._by_name.values() for need in case.needs})

    def _options(self) -> List[str]:
        named = {need.option for case in self._by_name.values() for need in case.needs}
        return sorted(named.union(judge.OPTION_NAMES) - {""})

    def _lacks(self, case: Scenario, loader: str, seconds: Json) -> bool:
        """Note a case that the kernel lacks something for, and say so."""
        if loader == "bcc" and not self._facts["headers"]:
            self._note(
                case.name, loader, Observation(stage=judge.NO_HEADERS, kernel_log=()), seconds
            )
            return True
        missing = tuple(need.name for need in case.needs if not self._names[need.name])
        if missing:
            self._note(case.name, loader, Observation(missing=missing, kernel_log=()), seconds)
        return bool(missing)

    def _verify(
        self,
        session: Session,
        source: build.Source,
        cases: Sequence[Scenario],
        loader: str,
        seconds: Json,
        begun: List[str],
    ) -> Iterator[None]:
        """Observe cases until one disturbs the guest.

        After a splat the kernel is no witness any more: lockdep has turned itself off, a WARN_ONCE
        or KASAN says nothing twice, and the console would convict the next case of this one's.
        """
        release = kernel_version(self._facts["release"], self._facts["version"])
        events = session.events(
            "verify",
            source=source.request(),
            cases=[_case(scenario, release) for scenario in cases],
        )
        over = False
        with closing(events):
            while not over and (event := next(events, None)) is not None:
                if "begin" in event:
                    begun.append(event["begin"])
                elif "late" in event:
                    known = self._open is not None  # else each new guest might end here
                    self._add_late(session, event["late"])
                    over = session.disturbed and known
                    self._open = None
                else:
                    observation = Observation.from_json(event["observation"])
                    session.disturbed = (
                        session.disturbed or judge.disturbed(observation) is not None
                    )
                    self._note(event["end"], loader, observation, seconds)
                    over = session.disturbed
                    self._open = None if over else (event["end"], loader)
                yield

    def _close(self, session: Session) -> None:
        """Give the last case of a session what the kernel still has to say of it."""
        try:
            self._add_late(session, session.call("late"))
        except GuestLost as lost:
            self._amend(**_loss(lost))
            session.disturbed = True
        except (AgentError, KernelRefusal):
            self._amend(kernel_log=None)  # what it held, nobody knows: an ERROR
            session.disturbed = True

    def _add_late(self, session: Session, lines: Sequence[str]) -> None:
        """Add to the last case what the kernel logged when that had ended, but no other had begun."""
        last = self._seen[self._open].observation if self._open is not None else None
        before = last.kernel_log if last is not None else ()
        if lines and before is not None:
            amended = self._amend(kernel_log=(*before, *lines))
            # Where no case is open, whoever left this behind was judged: nobody may go on here.
            amended = amended or Observation(stage=None, kernel_log=tuple(lines))
            session.disturbed = session.disturbed or judge.disturbed(amended) is not None

    def _amend(self, **changes: Any) -> Optional[Observation]:
        """Change what was observed of the case that is open, if one is."""
        if self._open is None:
            return None
        seen = self._seen[self._open]
        self._seen[self._open] = replace(seen, observation=replace(seen.observation, **changes))
        return self._seen[self._open].observation

    def _blame(
        self, queue: List[Any], loader: str, observed: Observation, boot: Json, begun: List[str]
    ) -> List[Any]:
        """Blame a lost guest, or process in it, on the case that had begun; return what is left.

        Without one that had begun it is blamed on the next: that way a guest that is lost again and
        again costs one case each time, and the run comes to an end. A failure of the emulator is
        not blamed the first time.
        """
        source, cases = queue[0]
        left = [case for case in cases if (case.name, loader) not in self._seen]
        ended = self._by_name[self._open[0]] if self._open is not None else cases[-1]
        culprit = next((case for case in left if case.name in begun), left[0] if left else ended)
        if observed.lost == EMULATOR_FAILED and left and (culprit.name, loader) not in self._again:
            self._again.add((culprit.name, loader))
            return [(source, left), *queue[1:]]
        self._note(culprit.name, loader, observed, boot)
        rest = [case for case in left if case is not culprit]
        return ([(source, rest)] if rest else []) + queue[1:]

    def _note(self, name: str, loader: str, observation: Observation, seconds: Json) -> None:
        self._seen[name, loader] = Seen(
            observation, self._facts, {**seconds, **observation.seconds}
        )


def _loss(lost: GuestLost) -> Json:
    """Return a lost guest as fields of an observation."""
    return {"lost": str(lost), "lost_is_crash": lost.crashed, "console": lost.console}


def _case(scenario: Scenario, release: Version) -> Json:
    """Return what the guest must know of a scenario: what to do, never what to expect of it."""
    clause = scenario.expectation(release)
    return {
        "name": scenario.name,
        "section": scenario.section,
        "user": scenario.user,
        "user_stage": scenario.user_stage,
        "run": clause is not None and clause.retval is not None,
        "attach": clause is not None and clause.stage == "attach",
    }
