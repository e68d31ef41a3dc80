"""What a locked counter and its unlocked twin added up to -> Verdict. Pure.

The values are those of bpf_progs/counter.bpf.c. A lock is convicted by the sums alone; it is
acquitted only with evidence that it was needed: CPUs met in the critical section, and the same
work without the lock went wrong.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

from harness.judge import Kind, Verdict

# struct shared: lock, last_cpu, count, inverse, handovers, doubled
_SHARED = struct.Struct("<II QQQQ")
# struct visits, of each possible CPU: runs, busy, torn, first_ns, last_ns
_VISITS = struct.Struct("<QQQQQ")

_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Shared:
    """What the lock protects, as it was when everything had ended."""

    lock: int  # the lock word as user space is shown it
    last_cpu: int  # CPU + 1 of the last writer, 0 if there was none
    count: int
    inverse: int
    handovers: int  # how often another CPU than the last one wrote
    doubled: int

    @classmethod
    def decode(cls, data: bytes) -> "Shared":
        """Read the value of map `state`. Raises struct.error for another size."""
        return cls(*_SHARED.unpack(data))

    @property
    def agrees(self) -> bool:
        """Tell whether the fields belong together; before the first write all are zero."""
        if self.count == 0:
            return self.inverse == 0 and self.doubled == 0
        return self.inverse == self.count ^ _WORD and self.doubled == (2 * self.count) & _WORD


@dataclass(frozen=True)
class Visits:
    """What one CPU saw."""

    cpu: int
    runs: int
    busy: int  # arrivals that found the lock word held
    torn: int  # arrivals that found the fields at odds
    first_ns: int  # of the guest's monotonic clock
    last_ns: int

    @classmethod
    def decode(cls, data: bytes) -> "Tuple[Visits, ...]":
        """Read a value of the per-CPU map `runs`; CPUs that never ran are left out."""
        each = (cls(cpu, *fields) for cpu, fields in enumerate(_VISITS.iter_unpack(data)))
        return tuple(visits for visits in each if visits.runs)


@dataclass(frozen=True)
class Run:
    """One drive of one program: what was asked for and what the maps held afterwards."""

    driver: str
    program: str
    operations: int  # per CPU
    turns: int  # length of the critical section
    cpus: Tuple[int, ...]
    sent: Mapping[int, int]  # by CPU
    dropped: Mapping[str, int]  # by where; packets that never reached the hook
    seconds: float
    shared: Shared
    visits: Tuple[Visits, ...]

    @classmethod
    def from_guest(
        cls,
        driver: str,
        program: str,
        operations: int,
        turns: int,
        cpus: Tuple[int, ...],
        facts: Dict[str, Any],
        state: str,
        runs: str,
    ) -> "Run":
        """Make one of what a drive returned and of both maps' bytes in hexadecimal."""
        return cls(
            driver=driver,
            program=program,
            operations=operations,
            turns=turns,
            cpus=cpus,
            sent={int(cpu): count for cpu, count in facts["sent"].items()},
            dropped=facts["dropped"],
            seconds=facts["seconds"],
            shared=Shared.decode(bytes.fromhex(state)),
            visits=Visits.decode(bytes.fromhex(runs)),
        )

    @property
    def total_sent(self) -> int:
        """How many runs were asked for."""
        return sum(self.sent.values())

    @property
    def total_dropped(self) -> int:
        """How many packets the kernel says it dropped before the hook.

        An interface counts what the backlog behind it dropped once more.
        """
        backlog = self.dropped.get("backlog", 0)
        return max(backlog, sum(self.dropped.values()) - backlog)

    @property
    def ran(self) -> int:
        """How often the program ran."""
        return sum(visits.runs for visits in self.visits)

    @property
    def lost(self) -> int:
        """How many runs left no trace in the count; negative if it holds more than ran."""
        return self.ran - self.shared.count

    @property
    def busy_share(self) -> float:
        """The share of arrivals that found the lock held."""
        return sum(visits.busy for visits in self.visits) / self.ran if self.ran else 0.0

    @property
    def torn(self) -> int:
        """How many arrivals found the fields at odds."""
        return sum(visits.torn for visits in self.visits)

    @property
    def overlap_share(self) -> float:
        """The share of the time from first to last run in which at least two CPUs were at it."""
        turning_points = sorted(
            [(v.first_ns, 1) for v in self.visits] + [(v.last_ns, -1) for v in self.visits]
        )
        active, shared, since = 0, 0, 0
        for moment, change in turning_points:
            if active >= 2:
                shared += moment - since
            active, since = active + change, moment
        whole = turning_points[-1][0] - turning_points[0][0] if turning_points else 0
        return shared / whole if whole else 0.0

    def measurements(self) -> Dict[str, Any]:
        """Return the numbers that a result carries."""
        return {
            "operations_per_cpu": self.operations,
            "turns": self.turns,
            "cpus": len(self.visits),
            "sent": self.total_sent,
            "ran": self.ran,
            "dropped": self.total_dropped,
            "counted": self.shared.count,
            "lost": self.lost,
            "torn": self.torn,
            "busy_share": round(self.busy_share, 4),
            "handovers": self.shared.handovers,
            "overlap_share": round(self.overlap_share, 4),
            "seconds": self.seconds,
        }


def judge(real: Run, twin: Run) -> Verdict:
    """Judge a locked program by what its run added up to, and by what its twin's did."""
    evidence = (_line(real), _line(twin))
    broken = anomalies(real)
    if broken:
        return Verdict(Kind.FAIL, "; ".join(broken), evidence)
    weak = blindness(real) or twin_blindness(real, twin)
    if weak is not None:
        return Verdict(Kind.INCONCLUSIVE, f"{_sums(real)}, but {weak}", evidence)
    return Verdict(
        Kind.PASS,
        f"{_sums(real)} on {len(real.visits)} CPUs;"
        f" {_percent(real.busy_share)} of arrivals found the lock held;"
        f" the unlocked twin lost {_percent(twin.lost / twin.ran)}",
        evidence,
    )


def anomalies(run: Run) -> List[str]:
    """Name what a lock that serializes does not let happen; [] if nothing did."""
    found = []
    missing = run.total_sent - run.ran
    if missing < 0:
        found.append(f"leaked runs: {run.total_sent} sent, but {run.ran} ran")
    elif missing > run.total_dropped:
        found.append(
            f"unrun: {run.total_sent} sent, {run.total_dropped} dropped on the way,"
            f" but {run.ran} ran"
        )
    if run.lost > 0:
        found.append(f"lost updates: {run.ran} ran, but {run.shared.count} were counted")
    elif run.lost < 0:
        found.append(f"extra updates: {run.ran} ran, but {run.shared.count} were counted")
    if run.torn:
        found.append(f"torn state: {run.torn} of {run.ran} runs found fields that disagree")
    elif not run.shared.agrees:
        found.append(f"torn state: the fields disagree at the end ({run.shared})")
    return found


def blindness(run: Run) -> Optional[str]:
    """Say why a run could not have shown a broken lock; None if it could."""
    if len(run.visits) < 2:
        return f"it ran on {len(run.visits)} CPU, where nothing is ever at the same time"
    if not run.overlap_share:
        return f"its {len(run.visits)} CPUs ran it one after the other"
    if not run.busy_share:
        return "no arrival found the lock held"
    if not run.shared.handovers:
        return "no CPU ever took over from another"
    return None


def twin_blindness(real: Run, twin: Run) -> Optional[str]:
    """Say why the twin's run shows nothing about the real one's; None if it does."""
    different = [
        f"{name} {getattr(twin, name)} instead of {getattr(real, name)}"
        for name in ("driver", "operations", "turns", "cpus")
        if getattr(twin, name) != getattr(real, name)
    ]
    if different:
        return f"the unlocked twin was run otherwise: {', '.join(different)}"
    if twin.lost <= 0:
        return f"the unlocked twin lost nothing either in {twin.ran} runs"
    return None


def _sums(run: Run) -> str:
    if run.ran == run.total_sent:
        return f"{run.ran} sent = run = counted"
    return f"{run.total_sent} sent, {run.total_sent - run.ran} dropped, {run.ran} run = counted"


def _line(run: Run) -> str:
    return (
        f"{run.program}: {run.total_sent} sent, {run.ran} ran, {run.shared.count} counted,"
        f" {run.total_dropped} dropped; busy {_percent(run.busy_share)},"
        f" {run.shared.handovers} handovers, {run.torn} torn,"
        f" CPUs overlapped {_percent(run.overlap_share)} of the time; {run.seconds:.1f} s"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
