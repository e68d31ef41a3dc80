"""Scenarios -> observations: batches them by file, and blames a lost guest on the right one."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Union

from packaging.version import Version

from harness import build, judge
from harness.judge import Observation, Verdict
from harness.scenario import Scenario, kernel_version
from harness.target import AgentError, GuestLost, KernelRefusal, Session, Target

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


class Verifier:
    """Observes scenarios on one target; each once, however often it is asked for."""

    def __init__(self, target: Target, scenarios: Sequence[Scenario]) -> None:
        self._target = target
        self._by_name = {s.name: s for s in scenarios}
        self._seen: Dict[Tuple[str, str], Seen] = {}
        self._facts: Json = {}
        self._names: Dict[str, bool] = {}  # whether the kernel's BTF has what scenarios need

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

    def _observe(self, scenario: Scenario, loader: str, together: Iterable[Scenario]) -> Seen:
        if (scenario.name, loader) not in self._seen:
            wanted = {s.name: s for s in (scenario, *together) if loader in s.loaders}
            for case in list(wanted.values()):
                if case.twin is not None:
                    wanted.setdefault(case.twin, self._by_name[case.twin])
            self._request(
                [s for s in wanted.values() if (s.name, loader) not in self._seen], loader
            )
        return self._seen[scenario.name, loader]

    def _request(self, scenarios: List[Scenario], loader: str) -> None:
        """Observe scenarios of one loader, in as many sessions as it takes."""
        units = [
            (key, list(cases))
            for key, cases in itertools.groupby(
                sorted(scenarios, key=lambda s: (str(s.file), s.unit, s.line)),
                key=lambda s: (s.file, s.unit),
            )
        ]
        with ThreadPoolExecutor() as pool:
            sources = list(
                pool.map(lambda unit: self._build(unit[0][0], unit[0][1], loader), units)
            )
        queue = [(source, cases) for source, (_, cases) in zip(sources, units)]
        while queue:
            queue = self._one_session(queue, loader)

    def _build(self, file: Path, unit: str, loader: str) -> Union[build.Source, build.CompileError]:
        try:
            return build.source(file, unit, loader, self._target.headers())
        except build.CompileError as error:
            return error

    def _one_session(self, queue: List[Any], loader: str) -> List[Any]:
        """Work on the queue until it is empty or the guest is lost; return what is left of it."""
        begun: List[str] = []
        boot: Json = {}
        try:
            # An emulated guest is slow until it has translated what all cases have in common.
            with self._target.session(warm=True) as session:
                boot = {"boot": session.boot["seconds"]}
                if not self._facts:
                    self._names = session.call("btf_names", names=self._needed())
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
                        self._verify(session, source, cases, loader, seconds, begun)
                        left = [c for c in cases if (c.name, loader) not in self._seen]
                        if left:  # the last one left a CPU stuck
                            return [(source, left), *queue[1:]]
                    queue = queue[1:]
                self._close(session, loader)
        except GuestLost as lost:
            return self._blame(queue, loader, lost, boot, begun)
        except (AgentError, KernelRefusal) as error:
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
    ) -> None:
        release = kernel_version(self._facts["release"], self._facts["version"])

        def on_event(event: Json) -> None:
            if "begin" in event:
                begun.append(event["begin"])
            elif "late" in event:
                self._add_late(session, event["late"], loader)
            else:
                observation = Observation.from_json(event["observation"])
                if judge.disturbed(observation) is not None:
                    session.disturbed = True
                self._note(event["end"], loader, observation, seconds)

        session.call(
            "verify",
            on_event=on_event,
            source=source.request(),
            cases=[_case(scenario, release) for scenario in cases],
        )

    def _close(self, session: Session, loader: str) -> None:
        """Give the last case of a session what the kernel still has to say of it."""
        try:
            self._add_late(session, session.call("late"), loader)
        except GuestLost as lost:
            self._amend_last(loader, **_loss(lost))
            session.disturbed = True
        except (AgentError, KernelRefusal):
            self._amend_last(loader, kernel_log=None)  # what it held, nobody knows: an ERROR
            session.disturbed = True

    def _add_late(self, session: Session, lines: List[str], loader: str) -> None:
        """Add to the last case what the kernel logged when that had ended, but no other had begun."""
        last = self._last(loader)
        if lines and last is not None and last.kernel_log is not None:
            amended = self._amend_last(loader, kernel_log=(*last.kernel_log, *lines))
            session.disturbed = session.disturbed or judge.disturbed(amended) is not None

    def _last(self, loader: str) -> Optional[Observation]:
        key = next((key for key in reversed(self._seen) if key[1] == loader), None)
        return self._seen[key].observation if key is not None else None

    def _amend_last(self, loader: str, **changes: Any) -> Observation:
        key = next(key for key in reversed(self._seen) if key[1] == loader)
        amended = replace(self._seen[key].observation, **changes)
        self._seen[key] = replace(self._seen[key], observation=amended)
        return amended

    def _blame(
        self, queue: List[Any], loader: str, lost: GuestLost, boot: Json, begun: List[str]
    ) -> List[Any]:
        """Blame a lost guest on the case that had begun, and return the others for a new session.

        Without one that had begun it is blamed on the next: that way a guest that is lost again and
        again costs one case each time, and the run comes to an end.
        """
        source, cases = queue[0]
        left = [case for case in cases if (case.name, loader) not in self._seen]
        culprit = next((case for case in left if case.name in begun), left[0])
        observation = Observation(**_loss(lost), kernel_log=())
        self._note(culprit.name, loader, observation, boot)
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
