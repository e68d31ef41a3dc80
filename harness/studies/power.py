# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock power`: measures how often each broken twin is caught, and any false accusation.

A contest is run many times, with the lock and in every broken way, just as its scenario does. The
rate is k of N, with the interval of Clopper and Pearson (1934). For any true rate, at least 95 of
100 such intervals contain it. Everything but `measure` and `Log` is pure.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    TextIO,
    Tuple,
    Union,
)

from packaging.version import Version

from harness.errors import SetupError, UsageError
from harness.guest import calls
from harness.judging import judge, serialization
from harness.judging.serialization import LOCKED, Way
from harness.judging.verdict import Kind, Observation, Verdict
from harness.machines.loss import GuestLost
from harness.machines.session import AgentError, KernelRefusal, Session
from harness.machines.target import Target
from harness.provision import build
from harness.running import experiment
from harness.running.contended import ALL, Contest
from harness.running.maps import Loaded
from harness.scenarios import annotation, versions

CONFIDENCE = 0.95
# Its rate is that of PASS: the real program is not accused and every twin is caught.
SCENARIO = "the whole scenario"
TRIALS = "trials.jsonl"


# -- statistics ----------------------------------------------------------------------------------------


def interval(hits: int, runs: int, confidence: float = CONFIDENCE) -> Tuple[float, float]:
    """Return the bounds (0 to 1) of Clopper and Pearson on the rate, for `hits` in `runs`.

    At the lower bound, this number of hits or more has the probability (1 - confidence) / 2. At the
    upper bound, this number or fewer has it.
    """
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _solve(lambda rate: _at_least(hits, runs, rate) < tail)
    high = 1.0 if hits == runs else _solve(lambda rate: 1 - _at_least(hits + 1, runs, rate) > tail)
    return low, high


def runs_to_show(rate: float, confidence: float = CONFIDENCE) -> int:
    """Return the runs without a miss that it takes for an interval at or above a rate."""
    return math.ceil(math.log((1 - confidence) / 2) / math.log(rate)) if 0 < rate < 1 else 0


def _at_least(hits: int, runs: int, rate: float) -> float:
    """Return the probability of this number of hits or more. The rate is neither 0 nor 1."""
    first = math.lgamma(runs + 1)
    return math.fsum(
        math.exp(
            first
            - math.lgamma(k + 1)
            - math.lgamma(runs - k + 1)
            + k * math.log(rate)
            + (runs - k) * math.log1p(-rate)
        )
        for k in range(hits, runs + 1)
    )


def _solve(is_below: Callable[[float], bool]) -> float:
    """Return the point between 0 and 1 below which a condition holds, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


# -- what is counted -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """The kernel, CPUs and loader that a contest ran on."""

    kernel: str  # as the user named it
    cpus: int
    loader: str
    release: str
    accelerator: str

    def __str__(self) -> str:
        emulated = f", {self.accelerator}" if self.accelerator else ""
        return f"{self.release}, {self.cpus} CPUs, {self.loader}{emulated}"


@dataclass(frozen=True)
class Trial:
    """One run of a contest in one way."""

    setting: Setting
    contest: str
    round: int
    way: str
    seen: bool  # an anomaly was seen
    reason: str  # the anomaly, or the reason for blindness; "" if neither
    blind: bool  # the run could not expose a broken lock
    seconds: float  # of the run and of judging it
    measurements: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """The reason why a contest did not run to its end."""

    setting: Setting
    contest: str
    kind: Kind
    reason: str


Record = Union[Trial, Problem]


def to_line(record: Record) -> str:
    """Return a record as a line of JSON."""
    name = "trial" if isinstance(record, Trial) else "problem"
    return json.dumps({name: asdict(record)}, default=lambda kind: kind.value)


def from_line(line: str) -> Record:
    """Read a line of to_line(). Raises ValueError, KeyError, TypeError if it is another."""
    data = json.loads(line)
    if "trial" in data:
        fields = {**data["trial"], "setting": Setting(**data["trial"]["setting"])}
        return Trial(**fields)
    fields = {**data["problem"], "setting": Setting(**data["problem"]["setting"])}
    return Problem(**{**fields, "kind": Kind(fields["kind"])})


@dataclass(frozen=True)
class Rate:
    """The rate at which anomalies were seen in one way, or at which a scenario passed."""

    setting: Setting
    contest: str
    what: str  # a way, or SCENARIO
    hits: int
    runs: int
    seconds: float  # median of a run; for a scenario, median of all its runs together

    @property
    def bounds(self) -> Tuple[float, float]:
        """The confidence interval of the rate."""
        return interval(self.hits, self.runs)

    @property
    def is_twin(self) -> bool:
        """Tell whether the rate is that of a twin, which every run should catch."""
        return self.what not in (LOCKED.name, SCENARIO)

    def judgement(self, at_least: float) -> str:
        """Return the judgement: is the rate at least `at_least`?"""
        low, high = self.bounds
        if self.what == LOCKED.name:
            return "ACCUSED" if self.hits else "never accused"
        if high < at_least:
            return "below"
        return "shown" if low >= at_least else "open"


@dataclass(frozen=True)
class Report:
    """All records of some measurements."""

    records: Tuple[Record, ...]
    at_least: float = 0.99

    @property
    def trials(self) -> List[Trial]:
        """The trials among the records."""
        return [record for record in self.records if isinstance(record, Trial)]

    @property
    def problems(self) -> List[Problem]:
        """The problems among the records."""
        return [record for record in self.records if isinstance(record, Problem)]

    def settings(self) -> List[Setting]:
        """Return the settings in the order of the records."""
        return list(dict.fromkeys(record.setting for record in self.records))

    def rates(self) -> List[Rate]:
        """Return the rates of all ways and of the whole scenario, by contest."""
        groups: Dict[Tuple[Setting, str], List[Trial]] = {}
        for trial in self.trials:
            groups.setdefault((trial.setting, trial.contest), []).append(trial)
        found = []
        for (setting, contest), trials in groups.items():
            ways = list(dict.fromkeys(trial.way for trial in trials))
            for way in ways:
                of_way = [trial for trial in trials if trial.way == way]
                seconds = statistics.median(trial.seconds for trial in of_way)
                hits = sum(trial.seen for trial in of_way)
                found.append(Rate(setting, contest, way, hits, len(of_way), seconds))
            rounds = _rounds(trials, len(ways))
            if rounds and _is_whole(contest, ways):
                spent = statistics.median(sum(t.seconds for t in each) for each in rounds)
                passed = sum(all(_is_as_it_must_be(t) for t in each) for each in rounds)
                found.append(Rate(setting, contest, SCENARIO, passed, len(rounds), spent))
        return found

    def exit_code(self) -> int:
        """Return the exit code of the command.

        1: the real program was accused or a kernel crashed. 4: a contest could not run.
        3: a twin is caught too rarely or no CPUs met.
        """
        rates = self.rates()
        kinds = {problem.kind for problem in self.problems}
        if kinds & {Kind.CRASH, Kind.FAIL} or any(
            rate.hits for rate in rates if rate.what == LOCKED.name
        ):
            return 1
        if Kind.ERROR in kinds or not rates:
            return 4 if Kind.ERROR in kinds or not self.problems else 0
        twins = [rate for rate in rates if rate.is_twin]
        if any(rate.judgement(self.at_least) == "below" for rate in twins):
            return 3
        real = [trial for trial in self.trials if trial.way == LOCKED.name]
        return 3 if real and all(trial.blind for trial in real) else 0

    # -- for people

    def terminal(self) -> str:
        """Return a table for each setting, with notes."""
        parts = []
        for setting in self.settings():
            rates = [rate for rate in self.rates() if rate.setting == setting]
            rows = [("", "run", "seen", "95 % interval", f"≥ {self.at_least:g}", "s/run")]
            last = ""
            for rate in rates:
                shown = rate.contest if rate.contest != last else ""
                last = rate.contest
                rows.append((shown, *_cells(rate, self.at_least), f"{rate.seconds:.1f}"))
            lines = [str(setting)]
            if rates:
                widths = [max(len(row[i]) for row in rows) for i in range(6)]
                lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
            parts.append("\n".join([*lines, *self._notes(setting)]))
        return "\n\n".join([*parts, self.meaning()]) + "\n"

    def markdown(self) -> str:
        """Return one table with a pair of columns for each setting."""
        settings = self.settings()
        cells = {(rate.setting, rate.contest, rate.what): rate for rate in self.rates()}
        keys = list(dict.fromkeys((contest, what) for _, contest, what in cells))
        order = {contest: n for n, contest in enumerate(dict.fromkeys(c for c, _ in keys))}
        keys.sort(key=lambda key: order[key[0]])
        heads = [word for setting in settings for word in (str(setting), "s/run")]
        lines = [f"| | seen | {' | '.join(heads)} |", f"|---|---|{'---|---:|' * len(settings)}"]
        last = ""
        for contest, what in keys:
            shown = f"{what}: PASS" if what == SCENARIO else what
            row = [f"`{contest}`" if contest != last else "", shown]
            last = contest
            for setting in settings:
                rate = cells.get((setting, contest, what))
                if rate is None:
                    row += ["–", ""]
                    continue
                _, seen, bounds, judged = _cells(rate, self.at_least)
                loud = f" **{judged}**" if judged in ("below", "ACCUSED") else ""
                row += [f"{seen} ({bounds}){loud}", f"{rate.seconds:.1f}"]
            lines.append(f"| {' | '.join(row)} |")
        notes = [note for setting in settings for note in self._notes(setting)]
        lines += ["", *(f"* {note}" for note in notes)] if notes else []
        return "\n".join([*lines, "", self.meaning()]) + "\n"

    def _notes(self, setting: Setting) -> List[str]:
        """Return notes on problems and unusual trials of a setting."""
        notes = []
        for problem in self.problems:
            if problem.setting == setting:
                notes.append(f"{problem.contest}: {problem.kind.value}: {problem.reason}")
        for trial in self.trials:
            if trial.setting == setting and trial.way == LOCKED.name and trial.reason:
                notes.append(f"{trial.contest}, run {trial.round}, {trial.way}: {trial.reason}")
        return notes

    def meaning(self) -> str:
        """Return an explanation of the judgements."""
        rate = f"{self.at_least:g}"
        needed = runs_to_show(self.at_least)
        return (
            f"≥ {rate}: shown, if the whole interval is; below, if none of it is; else open. It takes"
            f" {needed} runs without a miss to show it."
        )

    def to_json(self) -> Dict[str, Any]:
        """Return all rates and problems as JSON."""
        return {
            "format": 1,
            "confidence": CONFIDENCE,
            "at_least": self.at_least,
            "rates": [
                {
                    **asdict(rate.setting),
                    "contest": rate.contest,
                    "what": rate.what,
                    "hits": rate.hits,
                    "runs": rate.runs,
                    "low": round(rate.bounds[0], 4),
                    "high": round(rate.bounds[1], 4),
                    "judgement": rate.judgement(self.at_least),
                    "seconds": round(rate.seconds, 3),
                }
                for rate in self.rates()
            ],
            "problems": [
                {
                    **asdict(problem.setting),
                    "contest": problem.contest,
                    "kind": problem.kind.value,
                    "reason": problem.reason,
                }
                for problem in self.problems
            ],
        }


def _cells(rate: Rate, at_least: float) -> Tuple[str, str, str, str]:
    low, high = rate.bounds
    judged = rate.judgement(at_least) if rate.what != SCENARIO else ""
    what = f"{SCENARIO}: PASS" if rate.what == SCENARIO else rate.what
    return what, f"{rate.hits} of {rate.runs}", f"{low:.3f}–{high:.3f}", judged


def _is_whole(contest: str, ways: Sequence[str]) -> bool:
    """Tell whether these are all ways in which the scenario runs a contest."""
    known = ALL.get(contest)
    return known is not None and list(ways) == [way.name for way in (LOCKED, *known.twins)]


def _rounds(trials: Sequence[Trial], ways: int) -> List[List[Trial]]:
    """Return the trials by round. An incomplete last round is left out."""
    rounds: Dict[int, List[Trial]] = {}
    for trial in trials:
        rounds.setdefault(trial.round, []).append(trial)
    return [each for each in rounds.values() if len(each) == ways]


def _is_as_it_must_be(trial: Trial) -> bool:
    """Tell whether a trial lets its scenario pass."""
    return not trial.seen and not trial.blind if trial.way == LOCKED.name else trial.seen


# -- measuring -----------------------------------------------------------------------------------------


class Log:
    """The file of records. Each record is written at once."""

    def __init__(self, directory: Path) -> None:
        """Open the file. Raises SetupError if it cannot be written."""
        self.path = directory / TRIALS
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file: TextIO = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise SetupError(f"Cannot write {self.path} ({error.strerror}).") from None

    def add(self, record: Record) -> None:
        """Write one record. Raises SetupError."""
        try:
            self._file.write(to_line(record) + "\n")
            self._file.flush()
        except OSError as error:
            raise SetupError(f"Cannot write {self.path} ({error.strerror}).") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(places: Iterable[Path]) -> Tuple[Record, ...]:
    """Read the records of measurements in these files or directories. Raises UsageError."""
    records: List[Record] = []
    for number, place in enumerate(places):
        path = place / TRIALS if place.is_dir() else place
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise UsageError(f"Cannot read {path} ({reason}).") from None
        for position, line in enumerate(lines, 1):
            try:
                record = from_line(line)
            except (ValueError, KeyError, TypeError):
                if position == len(lines):
                    break  # the measurement was killed while it wrote this line
                raise UsageError(f"{path}:{position} is no record of `spinlock power`.") from None
            if isinstance(record, Trial):  # keep rounds of different measurements apart
                fields = {**record.__dict__, "round": record.round + number * 1_000_000}
                record = Trial(**fields)
            records.append(record)
    return tuple(records)


def measure(
    guests: Target,
    loader: str,
    name: str,
    contest: Contest,
    ways: Sequence[Way],
    times: int,
    on_record: Callable[[Record], None],
) -> None:
    """Run one contest `times` times in each way, and pass each record to `on_record` at once.

    Raises SetupError.
    """
    with guests.session(warm=True) as session:
        facts = session.call(calls.Facts())
        setting = Setting(
            guests.kernel or facts["release"],
            facts["cpus"],
            loader,
            facts["release"],
            str(guests.describe().get("accelerator", "")),
        )
        verdict: Optional[Verdict] = None
        try:
            session.call(calls.Begin(f"power_{name}"))
            loaded = _loaded(session, guests, loader, facts, contest)
            if isinstance(loaded, Verdict):
                verdict = loaded
            else:
                plan = contest.plan(facts["cpus"])
                for number in range(1, times + 1):
                    for way in (LOCKED, *ways):
                        on_record(_trial(loaded, setting, (name, number), plan, way))
            observation = Observation.from_json({"stage": None, **session.call(calls.End())})
            verdict = judge.disturbed(observation) or verdict
        except GuestLost as lost:
            verdict = Verdict(Kind.CRASH if lost.crashed else Kind.ERROR, str(lost))
        except KernelRefusal as refusal:
            verdict = Verdict(Kind.FAIL, f"the kernel refused: {refusal}")
        except AgentError as error:
            verdict = Verdict(Kind.ERROR, str(error).strip().splitlines()[-1])
        if verdict is not None:
            session.disturbed = verdict.kind is not Kind.SKIP
            on_record(Problem(setting, name, verdict.kind, verdict.reason))


def _loaded(
    session: Session, guests: Target, loader: str, facts: Mapping[str, Any], contest: Contest
) -> Union[Loaded, Verdict]:
    """Load a contest's programs. Return SKIP if the kernel lacks a feature that they need."""
    release = versions.kernel_version(facts["release"], facts["version"])
    if loader == "bcc" and not facts["headers"]:
        return judge.no_headers()
    if contest.needs is not None:
        need = contest.needs
        if not session.call(calls.Has([need.name]))[need.name]:
            options = session.call(calls.Options(need.options)) if need.options else {}
            return judge.unmet([need], release, [need.name], options)
    path = build.DRIVEN / contest.file
    file = annotation.read(path.read_text(encoding="utf-8"), path)
    programs = contest.plan(facts["cpus"]).programs()
    try:
        return experiment.load(session, file, programs, loader, guests.headers())
    except KernelRefusal as refusal:
        since = contest.locks_since
        if not since or release >= Version(since):
            raise
        if "unknown func bpf_spin_lock" not in refusal.log:
            raise
        return judge.no_lock(since, release)


def _trial(
    loaded: Loaded,
    setting: Setting,
    case: Tuple[str, int],
    plan: experiment.Plan,
    way: Way,
) -> Trial:
    started = time.monotonic()
    run = experiment.run(loaded, plan, way)
    # The same checks as in the scenario.
    check = serialization.anomalies if way == LOCKED else serialization.damage
    found = check(run)
    blind = serialization.blindness(run) if way == LOCKED else None
    reason = "; ".join(f"{anomaly.name}: {anomaly.sentence}" for anomaly in found)
    return Trial(
        setting,
        *case,
        way.name,
        bool(found),
        reason or blind or "",
        blind is not None,
        round(time.monotonic() - started, 3),
        run.measurements(),
    )
