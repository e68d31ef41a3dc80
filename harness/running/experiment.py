# SPDX-License-Identifier: GPL-2.0-only
"""Runs contended counters in a guest and collects sums and histories as a Run to judge."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Protocol, Sequence, Tuple

from harness.guest import calls
from harness.judging.history import Kind, Operation
from harness.judging.lock_path import QUEUED
from harness.judging.serialization import (
    LOCKED,
    Part,
    Run,
    Shared,
    Visits,
    Way,
    anomalies,
    damage,
    judge,
    met_far_less,
)
from harness.judging.verdict import Kind as VerdictKind, Verdict
from harness.provision import build
from harness.running import maps
from harness.running.maps import Loaded, Map
from harness.scenarios.scenario import SourceFile

# By driver: the program in bpf_progs/driven/counter.bpf.c, and the index of its histories.
PROGRAMS: Dict[str, Tuple[str, int]] = {
    "test_run": ("count_test_run", 0),
    "tc_ingress": ("count_tc_ingress", 1),
    "tc_egress": ("count_tc_egress", 2),
    "xdp_native": ("count_xdp", 3),
    "xdp_generic": ("count_xdp", 3),
    "cgroup_skb_ingress": ("count_cgroup_skb_ingress", 4),
    "cgroup_skb_egress": ("count_cgroup_skb_egress", 5),
    "user_space": ("", 7),
}

# Of contended_counter.h.
_ROOM = 1 << 19  # operations that all histories together can hold
_SOURCES = 8
_TWINS_ROOM = 2_000  # operations per CPU in a twin's history
# Members of its structures that are read for judging.
_COUNTED = ("count", "inverse", "doubled")  # user space writes them as well
_VISITS = ("runs", "busy", "torn", "bare", "first_ns", "last_ns")
_OPERATION = ("ticket", "arrive", "leave", "element")

QUEUED_SECONDS = 2.0  # time limit of a run where CPUs queue for the lock
_TWIN_RUNS = 4  # the most runs of a twin that does no damage
# Between two signs of life of a drive, which come only while it makes progress: a lock that is never
# released would hang for ever.
_LIMIT_SECONDS = 60.0


class Guest(maps.Caller, Protocol):
    """A session with loaded programs: maps.Loaded, or a test's guest."""

    def map(self, name: str, value: str = "") -> Map:
        """Return a map of the loaded programs."""


@dataclass(frozen=True)
class Drive:
    """One driver's part of a run: a program and the number of its runs on each of some CPUs."""

    driver: str
    cpus: Tuple[int, ...]
    operations: int  # per CPU
    program: str = ""  # "": the one in PROGRAMS
    source: int = -1  # the index of its histories; -1: the one in PROGRAMS
    fd: int = -1  # a file descriptor in the guest that the driver's senders use
    seconds: float = 0.0  # a test run ends early after this time; 0: never

    def named(self) -> Tuple[str, int]:
        """Return the program's name and the index of its histories."""
        program, source = PROGRAMS.get(self.driver, ("", 0))
        return self.program or program, source if self.source < 0 else self.source


@dataclass(frozen=True)
class Plan:
    """All of a run except the way to take the lock."""

    drives: Tuple[Drive, ...]
    turns: int  # length of the critical section, in turns of its loop
    elements: int = 1
    map: str = "state"
    keys: Tuple[bytes, ...] = ()  # of the elements; (): array indices
    value: str = ""  # the C type of the elements, if the map's definition names none
    before: str = ""  # a program that is run once before the drivers
    after: str = ""  # a program that is run once after them

    def programs(self) -> List[str]:
        """Return the names of the programs to load."""
        named = [self.before, *(drive.named()[0] for drive in self.drives), self.after]
        return list(dict.fromkeys(name for name in named if name))

    @property
    def room(self) -> int:
        """The number of operations that the history of one CPU and drive can hold.

        A CPU may need more room than the operations it sends, since it may receive packets that
        other CPUs sent.
        """
        cpus = 1 + max(cpu for drive in self.drives for cpu in drive.cpus)
        return _ROOM // (len(self.drives) * cpus)

    def element_keys(self) -> Sequence[Any]:
        """Return the keys of all elements."""
        return self.keys or range(self.elements)


def prove(
    guest: Guest, plan: Plan, twins: Sequence[Way], path: str = ""
) -> Tuple[Verdict, Dict[str, Any]]:
    """Run a plan with the lock and once per broken twin; return the verdict and measurements.

    `path` is the path of the lock in this guest. Raises as run() does.
    """
    proofs = [_prove(guest, each, ways) for each, ways in proofs_for(path, plan, twins)]
    first, numbers = proofs[0]
    if len(proofs) == 1:
        return first, numbers
    kinds = list(VerdictKind)
    verdicts = [verdict for verdict, _ in proofs]
    worst = min(verdicts, key=lambda verdict: kinds.index(verdict.kind))
    evidence = tuple(line for verdict in verdicts for line in verdict.evidence)
    whole = Verdict(worst.kind, "; then ".join(each.reason for each in verdicts), evidence)
    return whole, {**numbers, "by_two": proofs[1][1]}


def proofs_for(path: str, plan: Plan, twins: Sequence[Way]) -> List[Tuple[Plan, Sequence[Way]]]:
    """Return the plans to prove on a path of the lock, each with its broken twins.

    Queued CPUs are served in order, even while the host does not run the next one. So where virtual
    CPUs outnumber the host's, an operation takes up to a millisecond: runs are limited by time, and
    a twin that leaves out one lock in many would do it too rarely. Two CPUs do more operations.
    """
    if path != QUEUED:
        return [(plan, twins)]
    timed = replace(plan, drives=tuple(replace(d, seconds=QUEUED_SECONDS) for d in plan.drives))
    subtle = [way for way in twins if way.every]
    if not subtle or all(len(drive.cpus) <= 2 for drive in plan.drives):
        return [(timed, twins)]
    two = replace(timed, drives=tuple(replace(d, cpus=d.cpus[:2]) for d in timed.drives))
    return [(timed, [way for way in twins if not way.every]), (two, subtle)]


def _prove(guest: Guest, plan: Plan, twins: Sequence[Way]) -> Tuple[Verdict, Dict[str, Any]]:
    real = run(guest, plan, LOCKED)
    broken = [run_twin(real, partial(run, guest, plan, way)) for way in twins]
    real = run_as_often(real, broken, partial(run, guest, plan, LOCKED))
    numbers = {"locked": real.measurements(), "twins": [twin.measurements() for twin in broken]}
    return judge(real, broken), numbers


def run_twin(real: Run, once: Callable[[], Run]) -> Run:
    """Run a twin of `real` until it does damage, at most four times."""
    before = in_vain = 0
    for _ in range(_TWIN_RUNS):
        twin = replace(once(), before=before, in_vain=in_vain)
        if damage(twin):
            break
        if met_far_less(twin, real):
            before += 1
        else:
            in_vain += 1
    return twin


def run_as_often(real: Run, twins: Sequence[Run], once: Callable[[], Run]) -> Run:
    """Run the locked program as often as the twin that took most runs to do damage.

    So the lock is asked as much as the twin that shows what would be seen of a broken one. Return
    the first run with an anomaly, else `real`.
    """
    for _ in range(max((twin.in_vain for twin in twins), default=0)):
        if anomalies(real):
            break
        again = once()
        real = again if anomalies(again) else real
    return real


def load(
    session: maps.Caller,
    file: SourceFile,
    programs: Sequence[str],
    loader: str,
    include: Path,
    unit: str = "",
) -> Loaded:
    """Build a unit of a C file and load some of its programs.

    Raises CompileError, KernelRefusal.
    """
    sections = {program.name: program.section for program in file.programs}
    source = build.source(file.path, unit, loader, include)
    wanted = [calls.Program(name, sections[name]) for name in programs]
    session.call(calls.Load(source.request(), wanted))
    return Loaded(session, source, lambda: build.source(file.path, unit, "libbpf", include).content)


def run(guest: Guest, plan: Plan, way: Way) -> Run:
    """Run a plan once, on elements reset to zero. Its programs must be loaded.

    Raises KernelRefusal, GuestLost, AgentError.
    """
    state = guest.map(plan.map, plan.value)
    for key in plan.element_keys():
        state[key] = {}
    guest.map("runs").reset()
    cpus = 1 + max(cpu for drive in plan.drives for cpu in drive.cpus)
    room = plan.room
    # The sums of a twin show its damage, unless user space sets them. So most of its history is not
    # recorded, since fetching it takes seconds.
    if way != LOCKED and not any(drive.driver == "user_space" for drive in plan.drives):
        room = min(room, _TWINS_ROOM)
    begins = [0] * _SOURCES
    for number, drive in enumerate(plan.drives):
        begins[drive.named()[1]] = number * cpus * room
    guest.map("orders")[0] = {
        "turns": plan.turns,
        "mode": way.mode,
        "every": way.every,
        "room": room,
        "elements": plan.elements,
        "begin": begins,
    }
    if plan.before:
        guest.call(calls.TestRun(plan.before))
    facts = guest.call(calls.Drive(_orders(plan, state), "runs"), limit=_LIMIT_SECONDS)
    if plan.after:
        guest.call(calls.TestRun(plan.after))
    visits = [_visits(guest, drive.named()[1]) for drive in plan.drives]
    histories: Dict[int, List[Operation]] = defaultdict(list)
    _programs_histories(guest, plan, visits, (begins, room), histories)
    torn = _user_spaces_history(plan, facts, state, histories)
    shared = [as_shared(state.lookup(key, fill=255)) for key in plan.element_keys()]
    return Run(
        way=way,
        turns=plan.turns,
        parts=tuple(
            Part(
                driver=drive.driver,
                operations=drive.operations,
                cpus=drive.cpus,
                sent={int(cpu): times for cpu, times in facts["orders"][number]["sent"].items()},
                visits=seen,
            )
            for number, (drive, seen) in enumerate(zip(plan.drives, visits))
        ),
        shared=tuple(shared),
        histories=tuple(tuple(histories[element]) for element in range(len(shared))),
        torn_copies=torn,
        dropped=facts["dropped"],
        seconds=facts["seconds"],
    )


def _orders(plan: Plan, state: Map) -> List[calls.Order]:
    """Return a plan as orders to the guest's agent."""
    members = {name: state.value.span(name)[0] for name in _COUNTED}
    return [
        calls.Order(
            driver=drive.driver,
            program=drive.named()[0],
            source=drive.named()[1],
            cpus=drive.cpus,
            operations=drive.operations,
            seconds=drive.seconds,
            fd=drive.fd,
            map=plan.map if drive.driver == "user_space" else "",
            members=members if drive.driver == "user_space" else {},
        )
        for drive in plan.drives
    ]


def as_shared(value: Any) -> Shared:
    """Convert a structure with the members of struct shared."""
    return Shared(
        value.lock.val,
        value.last_cpu,
        value.count,
        value.inverse,
        value.handovers,
        value.doubled,
    )


def _visits(guest: Guest, source: int) -> Tuple[Visits, ...]:
    """Return the statistics of each CPU that ran the program."""
    rows = guest.map("runs").rows(source, *_VISITS)
    return tuple(Visits(cpu, *row) for cpu, row in enumerate(rows) if row[0])


def _programs_histories(
    guest: Guest,
    plan: Plan,
    visits: Sequence[Tuple[Visits, ...]],
    layout: Tuple[Sequence[int], int],
    histories: Dict[int, List[Operation]],
) -> None:
    """Add the operations that programs recorded to the histories, by element."""
    begins, room = layout
    owners: List[str] = []
    pieces: List[Tuple[int, int]] = []
    for drive, seen in zip(plan.drives, visits):
        for cpu in seen:
            name = f"CPU {cpu.cpu}"
            owners.append(name if len(plan.drives) == 1 else f"{drive.driver} on {name}")
            begin = begins[drive.named()[1]] + cpu.cpu * room
            pieces.append((begin, min(cpu.runs, room)))
    memory = guest.map("operations").memory(pieces, _LIMIT_SECONDS, *_OPERATION)
    for owner, rows in zip(owners, memory):
        for ticket, arrive, leave, element in rows:
            histories[element].append(Operation(ticket, arrive, leave, owner))


def _user_spaces_history(
    plan: Plan, facts: calls.Drove, state: Map, histories: Dict[int, List[Operation]]
) -> int:
    """Add user space's copies, all of the first element; return the number of torn ones."""
    torn = 0
    for drive, fact in zip(plan.drives, facts["orders"]):
        for cpu, log in fact["log"].items():
            for written, arrive, leave, value in log:
                shared = as_shared(state.value.decode(bytes.fromhex(value)))
                kind = Kind.SET if written else Kind.READ
                owner = f"{drive.driver} on CPU {cpu}"
                histories[0].append(Operation(shared.count, arrive, leave, owner, kind))
                torn += not shared.agrees
    return torn
