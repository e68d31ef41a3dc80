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
from harness.check.proof import Experiment, Part, Proof, Seen
from harness.guest import calls
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
MOST_PACKETS = 1  # of one program
PAUSE, PAUSE_TIMES = 1.0, 2  # seconds at least, by which the slow order is slower, and times
CALL_SECONDS = 110.0

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
        self._left_out.update({name: "it does not load" for name in wanted if name not in good})
        names = [name for name in wanted if name in good and maps & self._maps_of(name)]
        if not names:
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
        kind = nature.of_programs(self._source.object, group, self._findings)
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
        again = self._maps_of_all(group) <= {part.map for part in self._parts}
        done = self._compared(session, kind, own, TIMES if again else 1)
        found = proof.judge(done, self._parts)
        self._proofs += found
        packets = tuple(dict.fromkeys(self._packets[step.packet] for step in steps))
        self._ran.append(Ran(group, packets, done.runs, done.together[0].seconds))
        weak = [each for each in found if each.verdict in (proof.NO_POWER, proof.UNKNOWN)]
        if weak and again:
            few = _sized(own, FEW_RUNS)
            self._proofs += proof.judge(self._compared(session, kind, few, ROUNDS), self._parts)

    def _maps_of_all(self, programs: Sequence[str]) -> Set[str]:
        """Return the maps of programs that can be written."""
        names = {name for program in programs for name in self._maps_of(program)}
        return {name for name in names if not name.startswith(".rodata")}

    def _compared(
        self, session: Session, kind: nature.Nature, own: calls.Lanes, rounds: int
    ) -> Experiment:
        """Run the same in several orders, all at once, and all at once without locks."""
        serial = [Seen.of_turns(self._turns(session, own, order)) for order in ORDERS]
        pause = max(PAUSE, PAUSE_TIMES * max(seen.seconds for seen in serial))
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
        return calls.Lanes(self._source.encoded, steps, self._cpus, chunks, repeat, maps)

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
    return replace(lanes, chunks=chunks, repeat=max(1, runs // chunks))


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
