# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock check --run`: run programs and their twins on a kernel, to see what their locks do.

Each program that loads is tried with some packets. Those that change a value are run on one CPU after
the other, in several orders; then on all at once; then the twin is (twin.py). Programs that change the
same maps are run together as well. proof.py compares.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from typing import Dict, List, Mapping, Sequence, Set, Tuple

from harness.check import nature, proof, twin
from harness.check.examine import OnKernel, Source, complaint, last_line
from harness.check.linked import Linked
from harness.check.lockset import KERNELS, Findings
from harness.check.proof import Experiment, Least, Part, Proof, Seen
from harness.guest import calls, uapi
from harness.guest.calls import Call, Step
from harness.machines.loss import GuestLost
from harness.machines.session import AgentError, Session
from harness.machines.target import Target

SECONDS = (0.4, 1.2)  # of all runs on one CPU, about; the longer ones if the twin loses nothing
MOST_RUNS = 1_000_000  # of all CPUs
TRIAL_RUNS = 2000  # of a chunk, to see how long they take
CHUNK_RUNS = 500  # about; between two chunks a lane may go on with another step
TIMES = 4  # all at once
FEW_RUNS, ROUNDS = 200, 40  # of a lane: many short runs, for what is soon full or soon the same
FEWEST = (2, 20, FEW_RUNS)  # of a lane, until something is lost
MOST_PACKETS = 1  # of one program
# Of an order with pauses, in seconds: at least, and by how much it is slower than all rounds.
PAUSE, PAUSE_TIMES, LEAST_ROUND = 1.0, 2, 0.05
CALL_SECONDS = 110.0

# Hashes and arrays, data among them, and what programs do not write.
_RESTORED = (uapi.BPF_MAP_TYPE_HASH, uapi.BPF_MAP_TYPE_ARRAY, uapi.BPF_MAP_TYPE_PROG_ARRAY)
ORDERS = ("in_turn", "on_one", "from_last", "shuffled")


@dataclass(frozen=True)
class Inputs:
    """What the user wants to be run, and with what."""

    packets: Mapping[str, str]  # by name, in hexadecimal
    programs: Tuple[str, ...] = ()  # (): all


@dataclass(frozen=True)
class Ran:
    """What was run together, and how."""

    programs: Tuple[str, ...]
    packets: Tuple[str, ...] = ()  # names
    runs: int = 0  # on all CPUs
    seconds: float = 0.0


@dataclass(frozen=True)
class Proven:
    """What runs on one kernel have shown."""

    cpus: int
    proofs: Tuple[Proof, ...] = ()
    ran: Tuple[Ran, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)  # program -> why it was not run
    notes: Tuple[str, ...] = ()
    complaint: str = ""  # of the kernel, when the programs as they are were run

    @property
    def good(self) -> bool:
        """Tell whether nothing is accused, and the kernel did not complain."""
        return not self.complaint and all(each.verdict != proof.ACCUSED for each in self.proofs)


class _NotRun(Exception):
    """A run that was not possible; the message says why."""


def prove(
    guests: Target, row: OnKernel, source: Source, findings: Findings, inputs: Inputs
) -> Proven:
    """Run the programs that load on a kernel. Raises SetupError.

    A guest that was lost without the kernel's doing is asked once more.
    """
    for excused in (False, True):
        prover = _Prover(guests.cpus, source, findings, inputs)
        try:
            with guests.session() as session:
                prover.run(session, [name for name, seen in row.programs.items() if seen.good])
        except GuestLost as lost:
            if not lost.crashed and not excused:
                continue
            prover.notes.append(f"the guest was lost: {lost}")
            prover.complaint = str(lost) if lost.crashed and not prover.at_twin else ""
        except AgentError as error:
            prover.notes.append(f"not run to the end: {last_line(error)}")
        break
    return prover.found()


class _Prover:
    def __init__(self, cpus: int, source: Source, findings: Findings, inputs: Inputs) -> None:
        self._cpus, self._source, self._findings = list(range(cpus)), source, findings
        self._inputs = inputs
        self._parts = _parts(source, findings)
        self._twin = base64.b64encode(twin.without_locks(source.data)).decode()
        self._packets = {data: name for name, data in inputs.packets.items()}
        self._proofs: List[Proof] = []
        self._ran: List[Ran] = []
        self._left_out: Dict[str, str] = {}
        self._loaded: Tuple[str, ...] = ()  # (): those that are run
        self.notes: List[str] = []
        self.complaint = ""
        self.at_twin = False

    def found(self) -> Proven:
        """Return what was found."""
        named = {(part.map, part.field): number for number, part in enumerate(self._parts)}
        proofs = sorted(proof.combined(self._proofs), key=lambda p: named[p.map, p.field])
        return Proven(
            len(self._cpus),
            tuple(proofs),
            tuple(self._ran),
            self._left_out,
            tuple(dict.fromkeys(self.notes)),
            self.complaint,
        )

    def run(self, session: Session, good: Sequence[str]) -> None:
        """Run programs of the object, each by itself and those of the same maps together."""
        maps = {part.map for part in self._parts}
        wanted = self._inputs.programs or good
        if self._calls_tails:
            self._loaded = tuple(good)
        self._left_out.update({name: "it does not load" for name in wanted if name not in good})
        named = bool(self._inputs.programs)  # what is named may call the others
        names = [n for n in wanted if n in good and (named or maps & self._maps_of(n))]
        if not names:
            self.notes.append("nothing was run: no program that loads touches a value with a lock")
            return
        try:
            steps = self._stirring(session, names)
        except _NotRun as why:
            self.notes.append(f"not run: {why}")
            return
        groups: List[Tuple[str, ...]] = [(name,) for name in steps]
        together = [tuple(name for name in steps if one in self._maps_of(name)) for one in maps]
        groups += [group for group in dict.fromkeys(together) if len(group) > 1]
        for group in groups:
            try:
                self._experiment(session, group, [step for name in group for step in steps[name]])
            except _NotRun as why:
                self.notes.append(f"{', '.join(group)}: {why}")

    @property
    def _calls_tails(self) -> bool:
        """Tell whether one program may go on in another one."""
        kinds = {declared.type for declared in self._source.object.maps.values()}
        return uapi.BPF_MAP_TYPE_PROG_ARRAY in kinds

    def _nature(self, group: Sequence[str]) -> nature.Nature:
        """Return what a run of programs may do, in those that they go on in as well."""
        programs = self._loaded or group
        kind = nature.of_programs(self._source.object, programs, self._findings)
        return replace(kind, sections=nature.MANY) if self._loaded else kind

    def _maps_of(self, program: str) -> Set[str]:
        return Linked(self._source.object.functions, program).maps()

    def _stirring(self, session: Session, names: Sequence[str]) -> Dict[str, List[Step]]:
        """Return the steps by which programs change a value; note which have none. Raises _NotRun."""
        steps = [Step(name, packet) for packet in self._packets for name in names]
        facts = self._turns(session, self._lanes(steps, 0, 0))
        found: Dict[str, List[Step]] = {}
        for number in facts["stirred"]:
            of = found.setdefault(steps[number].program, [])
            of += [steps[number]] if len(of) < MOST_PACKETS else []
        for name in names:
            if name in facts["refused"]:
                self._left_out[name] = facts["refused"][name]
            elif name not in found:
                why = "none of these packets makes it change a value; --packet gives it others"
                self._left_out[name] = why
        return {name: found[name] for name in names if name not in self._left_out}

    def _experiment(self, session: Session, group: Tuple[str, ...], steps: Sequence[Step]) -> None:
        kind = self._nature(group)
        own = self._lanes(steps, 2 * len(steps), TRIAL_RUNS)
        trial = self._turns(session, own)
        if trial["before"] == trial["after"]:
            return  # by itself it changes nothing
        lanes = len(self._cpus)
        per_second = own.chunks * own.repeat * lanes / max(trial["seconds"], 0.001)
        for seconds in SECONDS:
            own = _sized(own, min(MOST_RUNS, int(seconds * per_second)) // lanes)
            turn = Seen.of_turns(self._turns(session, own))
            twin_seen = self._twin_together(session, own)
            if not twin_seen or proof.lost(turn, twin_seen[0], self._parts, _runs(own)):
                break  # it has power, or can have none
        again = self._can_be_restored(group)
        done = self._compared(session, kind, own, TIMES if again else 1)
        found = list(proof.judge(done, self._parts))
        packets = tuple(dict.fromkeys(self._packets[step.packet] for step in steps))
        runs = done.runs * len(done.together)
        self._ran.append(Ran(group, packets, runs, done.together[0].seconds))
        weak = [each for each in found if each.verdict in (proof.NO_POWER, proof.UNKNOWN)]
        if weak and again:
            few = _sized(own, FEW_RUNS)
            found += proof.judge(self._compared(session, kind, few, ROUNDS), self._parts)
        if again:
            found = self._with_least(session, kind, own, found)
        self._proofs += found

    def _with_least(
        self, session: Session, kind: nature.Nature, own: calls.Lanes, found: Sequence[Proof]
    ) -> List[Proof]:
        """Find how little work on two CPUs goes wrong, for each field that is accused."""
        accused = {(p.map, p.field) for p in found if p.verdict == proof.ACCUSED}
        least: Dict[Tuple[str, str], Least] = {}
        for runs in FEWEST:
            if accused <= set(least):
                break
            few = replace(_sized(own, runs), cpus=own.cpus[:2])
            serial = self._serial(session, few)
            seen = Seen.of_rounds(self._together(session, few, ROUNDS, ()))
            for each in proof.judge(
                Experiment(kind, tuple(serial), seen, (), _runs(few)), self._parts
            ):
                if each.verdict == proof.ACCUSED and each.loss is not None:
                    small = Least(len(few.cpus), _runs(few), each.loss)
                    least.setdefault((each.map, each.field), small)
        return [
            replace(p, least=least.get((p.map, p.field))) if p.verdict == proof.ACCUSED else p
            for p in found
        ]

    def _can_be_restored(self, programs: Sequence[str]) -> bool:
        """Tell whether the guest can give all maps of programs the values of the start again."""
        names = {name for program in self._loaded or programs for name in self._maps_of(program)}
        maps = self._source.object.maps
        return all(name in maps and maps[name].type in _RESTORED for name in names)

    def _compared(
        self, session: Session, kind: nature.Nature, own: calls.Lanes, rounds: int
    ) -> Experiment:
        """Run the same in several orders, all at once, and all at once without locks."""
        serial = self._serial(session, own)
        if kind.clock:  # one order takes longer than the rounds will
            fast = max(LEAST_ROUND, *(seen.seconds for seen in serial))
            pause = PAUSE + PAUSE_TIMES * rounds * fast
            serial.append(Seen.of_turns(self._turns(session, own, "in_turn", pause)))
        looks: Tuple[str, ...] = ()
        if kind.sections == 1:
            related = proof.relations(serial, self._parts)
            looks = tuple(dict.fromkeys(each.first.map for each in related))
        together: List[Seen] = []
        for _ in range(TIMES if rounds == 1 else 1):
            together += Seen.of_rounds(self._together(session, own, rounds, looks))
        twin_seen = self._twin_together(session, own, rounds, looks)
        return Experiment(kind, tuple(serial), tuple(together), twin_seen, _runs(own))

    def _serial(self, session: Session, own: calls.Lanes) -> List[Seen]:
        """Run the same in several orders, among them those in which one of several steps is last."""
        orders = [*ORDERS]
        if len(own.steps) > 1:
            orders += [f"in_turn {number}" for number in range(len(own.steps))]
        return [Seen.of_turns(self._turns(session, own, order)) for order in orders]

    def _twin_together(
        self, session: Session, own: calls.Lanes, rounds: int = 1, looks: Sequence[str] = ()
    ) -> Tuple[Seen, ...]:
        """Run the twin; nothing where it cannot be run."""
        self.at_twin = True
        try:
            lanes = replace(own, object=self._twin)
            return Seen.of_rounds(self._together(session, lanes, rounds, looks))
        except _NotRun as why:
            self.notes.append(f"no twin to compare with: without its locks {why}")
            return ()
        finally:
            self.at_twin = False

    def _turns(
        self, session: Session, lanes: calls.Lanes, order: str = "in_turn", pause: float = 0.0
    ) -> calls.Json:
        """Have the guest run something, one chunk after the other. Raises _NotRun."""
        return self._ask(session, calls.TakeTurns(lanes, order, pause))

    def _together(
        self, session: Session, lanes: calls.Lanes, rounds: int, looks: Sequence[str]
    ) -> calls.Json:
        """Have the guest run something on all CPUs at once. Raises _NotRun."""
        return self._ask(session, calls.RunTogether(lanes, rounds, looks))

    def _lanes(self, steps: Sequence[Step], chunks: int, repeat: int) -> calls.Lanes:
        maps = list(dict.fromkeys(part.map for part in self._parts))
        programs = self._loaded or tuple(dict.fromkeys(step.program for step in steps))
        return calls.Lanes(self._source.encoded, programs, steps, self._cpus, chunks, repeat, maps)

    def _ask(self, session: Session, wanted: Call[calls.Json]) -> calls.Json:
        facts = session.call(wanted, limit=CALL_SECONDS)
        said = complaint(facts.pop("kernel_log", None))
        if said and not self.at_twin:
            self.complaint = self.complaint or said
        if "problem" in facts:
            raise _NotRun(facts["problem"])
        return facts


def _runs(lanes: calls.Lanes) -> int:
    """Return the runs of all lanes."""
    return lanes.chunks * lanes.repeat * len(lanes.cpus)


def _sized(lanes: calls.Lanes, runs: int) -> calls.Lanes:
    """Return lanes of so many runs each, about: half of the chunks have each step as often."""
    least = 2 * len(lanes.steps)
    chunks = least * max(1, runs // (least * CHUNK_RUNS))
    # An odd number, so that what is changed forth and back by turns does not look unchanged.
    return replace(lanes, chunks=chunks, repeat=runs // chunks | 1)


def _parts(source: Source, findings: Findings) -> Tuple[Part, ...]:
    """Return the fields that a lock may guard, as lockset.py found them."""
    parts = []
    for each in findings.fields:
        declared = source.object.maps.get(each.map)
        if declared is None or each.verdict == KERNELS:
            continue
        parts += [
            Part(each.map, part.name, part.offset, part.size)
            for part in declared.fields
            if part.name == each.field
        ]
    return tuple(parts)
