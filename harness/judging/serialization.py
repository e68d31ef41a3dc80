# SPDX-License-Identifier: GPL-2.0-only
"""Judges a contended counter and its broken twins. Pure.

The values are those of contended_counter.h. FAIL comes from the sums, fields and histories that the
run left. PASS needs evidence that the lock was needed: CPUs met in the critical section, and each
broken twin did visible damage.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from harness.judging import history
from harness.judging.history import Anomaly, Operation
from harness.judging.verdict import Kind, Verdict

_WORD = (1 << 64) - 1

# bpf_ktime_get_ns() may differ between CPUs while the kernel updates its time. A smaller difference
# between the times of two CPUs is no evidence.
CLOCK_ERROR_NS = 20_000

# A twin with this many times fewer handovers than the real run did not run under like conditions.
FAR_LESS = 10


@dataclass(frozen=True)
class Way:
    """A way to take the lock: correctly, or broken on purpose.

    `mode` and `every` are numbers of contended_counter.h.
    """

    name: str
    mode: int
    every: int = 0

    def __str__(self) -> str:
        return self.name


LOCKED = Way("locked", 0)
UNLOCKED = Way("no lock", 1)
OTHER_LOCK = Way("another element's lock", 2)
EARLY_UNLOCK = Way("unlock before the update", 3)
SKIPS_64 = Way("1 in 64 without the lock", 4, 64)
SKIPS_4096 = Way("1 in 4096 without the lock", 4, 4096)
IMPATIENT = Way("try and give up", 5)

TWINS = (UNLOCKED, OTHER_LOCK, EARLY_UNLOCK, SKIPS_64, SKIPS_4096, IMPATIENT)


@dataclass(frozen=True)
class Shared:
    """The value that a lock protects, read after the end of the run."""

    lock: int  # the lock word in a lookup by user space; always 0 if the kernel hides it
    last_cpu: int  # CPU + 1 of the last writer, 0 if there was none
    count: int  # the next ticket
    inverse: int
    handovers: int  # how often another CPU than the last one wrote
    doubled: int

    @property
    def agrees(self) -> bool:
        """Tell whether the fields are consistent. Before the first write all are zero."""
        if self.count == 0:
            return self.inverse == 0 and self.doubled == 0
        return self.inverse == self.count ^ _WORD and self.doubled == (2 * self.count) & _WORD


@dataclass(frozen=True)
class Visits:
    """The statistics of one CPU."""

    cpu: int
    runs: int
    busy: int  # arrivals that found the lock word held
    torn: int  # arrivals that found inconsistent fields
    bare: int  # operations without the lock
    first_ns: int  # of the guest's monotonic clock
    last_ns: int


@dataclass(frozen=True)
class Part:
    """The part of one driver in a run."""

    driver: str
    operations: int  # requested per CPU
    cpus: Tuple[int, ...]
    sent: Mapping[int, int]  # by CPU
    visits: Tuple[Visits, ...]

    @property
    def copies(self) -> bool:
        """Tell whether the driver is user space, which copies the value and runs no program."""
        return self.driver == "user_space"

    @property
    def total_sent(self) -> int:
        """The number of requested operations."""
        return sum(self.sent.values())

    @property
    def ran(self) -> int:
        """The number of runs of the program."""
        return sum(visits.runs for visits in self.visits)


@dataclass(frozen=True)
class Run:
    """One run: the request, and the contents of the maps afterwards."""

    way: Way
    turns: int  # length of the critical section
    parts: Tuple[Part, ...]
    shared: Tuple[Shared, ...]  # one per element
    histories: Tuple[Tuple[Operation, ...], ...]  # one per element, ordered by process
    torn_copies: int = 0  # inconsistent copies by user space with BPF_F_LOCK
    dropped: Mapping[str, int] = field(default_factory=dict)  # packets, by the place of the drop
    seconds: float = 0.0
    before: int = 0  # earlier runs that did not count: see met_far_less()
    in_vain: int = 0  # earlier runs of a twin that counted, and did no damage

    @property
    def visits(self) -> Tuple[Visits, ...]:
        """The statistics of all CPUs in all parts."""
        return tuple(visits for part in self.parts for visits in part.visits)

    @property
    def cpus(self) -> int:
        """The number of CPUs that took part."""
        return len({cpu for part in self.parts for cpu, sent in part.sent.items() if sent})

    @property
    def total_sent(self) -> int:
        """The number of requested operations."""
        return sum(part.total_sent for part in self.parts)

    @property
    def total_dropped(self) -> int:
        """The number of packets that the kernel reports as dropped before the hook.

        An interface counts again the packets that the backlog behind it dropped.
        """
        backlog = self.dropped.get("backlog", 0)
        return max(backlog, sum(self.dropped.values()) - backlog)

    @property
    def ran(self) -> int:
        """The number of runs of all programs."""
        return sum(part.ran for part in self.parts)

    @cached_property
    def _kinds(self) -> Dict[history.Kind, int]:
        """The number of operations of each kind in the histories."""
        kinds = [operation.kind for each in self.histories for operation in each]
        return {kind: kinds.count(kind) for kind in history.Kind}

    @property
    def copies(self) -> int:
        """The number of copies by user space, in or out."""
        return sum(self._kinds.values()) - self.recorded

    @property
    def recorded(self) -> int:
        """The number of operations by programs in the histories."""
        return self._kinds[history.Kind.ADD]

    @property
    def counted(self) -> int:
        """The sum of all counts. It is meaningless if user space sets them."""
        return sum(shared.count for shared in self.shared)

    @property
    def is_set(self) -> bool:
        """Tell whether user space sets the count, which then is not the number of runs."""
        return self._kinds[history.Kind.SET] > 0

    @property
    def lost(self) -> int:
        """The number of runs missing from the counts; negative if the counts exceed the runs."""
        return 0 if self.is_set else self.ran - self.counted

    @property
    def busy_share(self) -> float:
        """The share (0 to 1) of arrivals that found the lock held."""
        return sum(visits.busy for visits in self.visits) / self.ran if self.ran else 0.0

    @property
    def torn(self) -> int:
        """The number of arrivals and copies that found inconsistent fields."""
        return sum(visits.torn for visits in self.visits) + self.torn_copies

    @property
    def handovers(self) -> int:
        """The number of writes whose last writer was another CPU."""
        return sum(shared.handovers for shared in self.shared)

    @cached_property
    def overlap(self) -> float:
        """The share (0 to 1) of recorded operations that began during one of another CPU."""
        whole = sum(len(each) for each in self.histories)
        met = sum(history.overlap(each) * len(each) for each in self.histories)
        return met / whole if whole else 0.0

    def measurements(self) -> Dict[str, Any]:
        """Return the numbers that a result stores, by name."""
        return {
            "way": self.way.name,
            "drivers": [part.driver for part in self.parts],
            "operations_per_cpu": [part.operations for part in self.parts],
            "turns": self.turns,
            "cpus": self.cpus,
            "elements": len(self.shared),
            "sent": self.total_sent,
            "ran": self.ran,
            "dropped": self.total_dropped,
            "counted": self.counted,
            "copies": self.copies,
            "recorded": self.recorded,
            "lost": self.lost,
            "torn": self.torn,
            "bare": sum(visits.bare for visits in self.visits),
            "busy_share": round(self.busy_share, 4),
            "handovers": self.handovers,
            "overlap": round(self.overlap, 4),
            "seconds": self.seconds,
            "runs_before": self.before,
            "runs_in_vain": self.in_vain,
            "per_cpu": {
                part.driver: {str(v.cpu): v.runs for v in part.visits} for part in self.parts
            },
        }


def judge(real: Run, twins: Sequence[Run]) -> Verdict:
    """Judge the run of a locked program, given the runs of its broken twins.

    FAIL if the run shows an anomaly, PASS if every twin did damage, else INCONCLUSIVE.
    """
    found = anomalies(real)
    evidence = [_line(real)]
    if found:
        evidence += [line for anomaly in found for line in anomaly.lines()]
        return Verdict(Kind.FAIL, "; ".join(f"{a.name}: {a.sentence}" for a in found), (*evidence,))
    evidence += [_line(twin) for twin in twins]
    weak = blindness(real) or next(filter(None, (unseen(real, twin) for twin in twins)), None)
    if not twins:
        weak = "no broken twin was run"
    if weak is not None:
        return Verdict(Kind.INCONCLUSIVE, f"{_sums(real)}, but {weak}", tuple(evidence))
    caught = ", ".join(f"{twin.way} ({_damage(twin)})" for twin in twins)
    return Verdict(
        Kind.PASS,
        f"{_sums(real)} on {real.cpus} CPUs; {_percent(real.busy_share)} of arrivals found the lock"
        f" held; caught: {caught}",
        tuple(evidence),
    )


def anomalies(run: Run) -> List[Anomaly]:
    """Return all anomalies of a run: wrong numbers of runs, and damage to the value."""
    found = []
    missing = 0
    for part in run.parts:
        if part.copies:
            continue
        unrun = part.total_sent - part.ran
        missing += max(0, unrun)
        if unrun < 0:
            sentence = f"{part.total_sent} sent through {part.driver}, but {part.ran} ran"
            found.append(Anomaly("leaked runs", -unrun, sentence))
    if missing > run.total_dropped:
        sentence = (
            f"{run.total_sent} sent, {run.total_dropped} dropped on the way, but {run.ran} ran"
        )
        found.append(Anomaly("unrun", missing, sentence))
    return found + damage(run)


def damage(run: Run) -> List[Anomaly]:
    """Return the anomalies that a broken lock leaves in the values and histories."""
    found = []
    if run.lost > 0:
        sentence = f"{run.ran} ran, but {run.counted} were counted"
        found.append(Anomaly("lost updates", run.lost, sentence))
    elif run.lost < 0:
        sentence = f"{run.ran} ran, but {run.counted} were counted"
        found.append(Anomaly("extra updates", -run.lost, sentence))
    if run.torn:
        sentence = f"{run.torn} of {run.ran + run.copies} saw fields that disagree"
        found.append(Anomaly("torn value", run.torn, sentence))
    torn = [shared for shared in run.shared if not shared.agrees]
    if torn and not run.torn:
        found.append(Anomaly("torn value", len(torn), f"the fields disagree at the end: {torn[0]}"))
    held = [shared for shared in run.shared if shared.lock]
    if held:
        found.append(Anomaly("lock shown", len(held), f"a lookup shows the lock word: {held[0]}"))
    whole = run.recorded == run.ran
    for shared, operations in zip(run.shared, run.histories):
        found += history.check(operations, shared.count if whole else None, whole, CLOCK_ERROR_NS)
    return _merged(found)


def _merged(found: Iterable[Anomaly]) -> List[Anomaly]:
    """Keep one anomaly per name and add up their counts."""
    by_name: Dict[str, Anomaly] = {}
    for anomaly in found:
        if anomaly.name in by_name:
            first = by_name[anomaly.name]
            count = first.count + anomaly.count
            by_name[anomaly.name] = Anomaly(first.name, count, first.sentence, first.witness)
        else:
            by_name[anomaly.name] = anomaly
    return list(by_name.values())


def blindness(run: Run) -> Optional[str]:
    """Return the reason why a run could not expose a broken lock; None if it could."""
    if run.cpus < 2:
        return f"it ran on {run.cpus} CPU, where nothing is ever at the same time"
    if not run.recorded:
        return "no history was recorded"
    if run.is_set and run.recorded != run.ran:
        return (
            f"only {run.recorded} of {run.ran} operations were recorded, and the counts, which user"
            " space sets, do not tell of the others"
        )
    if not run.overlap:
        return f"its {run.cpus} CPUs ran it one after the other"
    if not run.busy_share:
        return "no arrival found the lock held"
    if not run.handovers and not run.is_set:
        return "no CPU ever took over from another"
    return None


def unseen(real: Run, twin: Run) -> Optional[str]:
    """Return the reason why a twin's run is no evidence for the real run; None if it is."""

    def conditions(run: Run) -> Dict[str, Any]:
        return {
            "turns": run.turns,
            "elements": len(run.shared),
            **{part.driver: (part.operations, part.cpus) for part in run.parts},
        }

    wanted, given = conditions(real), conditions(twin)
    if wanted != given:
        return f"its twin with {twin.way} was run otherwise ({given} instead of {wanted})"
    if not damage(twin):
        times = twin.in_vain + 1
        often = f", {times} times over" if times > 1 else ""
        return f"its twin with {twin.way} did no damage either in {twin.ran} runs{often}"
    return None


def met_far_less(twin: Run, real: Run) -> bool:
    """Tell whether the CPUs of a twin met far less often than those of the real run.

    A busy host may run the guest's vCPUs one after the other for a second. A twin without damage is
    then no evidence of a weak check, so it may run again, and the real program need not.
    """
    return twin.handovers * FAR_LESS < real.handovers


def _damage(run: Run) -> str:
    """Return the worst damage of a twin, in words."""
    found = damage(run)
    worst = max(found, key=lambda anomaly: anomaly.count)
    if run.lost > 0:
        return f"lost {_percent(run.lost / run.ran)}"
    return f"{worst.count} times {worst.name}"


def _sums(run: Run) -> str:
    copies = f", {run.copies} copies by user space" if run.copies else ""
    ran = sum(part.total_sent for part in run.parts if not part.copies)
    what = "in one order" if run.is_set else "counted"
    if run.ran == ran:
        return f"{ran} sent = run = {what}{copies}"
    return f"{ran} sent, {ran - run.ran} dropped, {run.ran} run = {what}{copies}"


def _line(run: Run) -> str:
    counted = "" if run.is_set else f" {run.counted} counted,"
    return (
        f"{run.way}: {run.total_sent} sent, {run.ran} ran,{counted}"
        f" {run.total_dropped} dropped; busy {_percent(run.busy_share)},"
        f" {run.handovers} handovers, {run.torn} torn,"
        f" {_percent(run.overlap)} of {run.recorded} recorded operations overlapped;"
        f" {run.seconds:.1f} s{_BEFORE.format(run.before) if run.before else ''}"
        f"{_IN_VAIN.format(run.in_vain) if run.in_vain else ''}"
    )


_BEFORE = "; before it, {} without damage on CPUs that hardly met"
_IN_VAIN = "; before it, {} without damage, so the locked program ran as often"


def _percent(share: float) -> str:
    return f"{100 * share:.{2 if share < 0.995 else 3}g} %"
