# SPDX-License-Identifier: GPL-2.0-only
"""Explores a case on a kernel: all schedules of the real operations, then those of its twins."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Callable, Dict, Iterable, List, Tuple, Union

from harness.explore import schedule, verdicts
from harness.explore.cases import FILE, Call, Case, Either, Variant, Walk
from harness.explore.schedule import ACTORS, Move, Outcome, Schedule, What
from harness.explore.steps import Failed, Instruction, Memory, Stepper
from harness.explore.verdicts import Explored
from harness.guest import calls
from harness.judging.verdict import Kind, Verdict
from harness.machines.gdb_stub import Region
from harness.provision.layout import Layout
from harness.running.driven import Guest
from harness.scenarios.versions import covers

_TRIES = 3  # of a schedule that a time limit ended
_BUCKET_BYTES = 16  # the head of its list, and its lock
_PACKET_BYTES = 64
_RETVAL = calls.ACTOR_ATTR + 4  # of union bpf_attr after a test run

Tell = Callable[[Outcome], None]


def _quiet(outcome: Outcome) -> None:
    """Tell nobody."""


def conclude(guest: Guest, case: Either, preemptions: int = 0) -> None:
    """Do what the case says, and conclude the test with its verdict. Raises as `prove` does."""
    if isinstance(case, Walk):
        walk(guest, case)
    else:
        prove(guest, case, preemptions)


def walk(guest: Guest, case: Walk) -> None:
    """Step through a function, judge, and conclude the test. Raises as `prove` does."""
    guest.load(FILE, case.programs)
    with _World(guest, case, case.variant) as world:
        found = world.trace(case.function)
    states = [(each.interrupts, each.held) for each in found]
    changed = [each.instructions for each in verdicts.events(states)]
    names = guest.call(calls.Symbols([found[number].address for number in changed]))
    places = dict(zip(changed, names))
    verdict = verdicts.judge_order(states, places)
    guest.conclude(verdict, instructions=len(states))


def prove(guest: Guest, case: Case, preemptions: int = 0, tell: Tell = _quiet) -> None:
    """Explore a case and its twins; judge, and conclude the test with the verdict.

    `preemptions` are the most of a schedule, 0: as many as the case has. `tell` gets each outcome.
    Raises as driven.Guest's methods do, and Failed.
    """
    most = preemptions or case.preemptions
    needed = max(len(variant.actors) for variant in case.reals)
    if guest.cpus < needed:
        need = f"{needed} CPUs are needed, and there are {guest.cpus}"
        guest.conclude(Verdict(Kind.INCONCLUSIVE, need))
        return
    guest.load(FILE, case.programs)
    reals = [explore(guest, case, each, most, tell) for each in case.reals]
    twins: List[Explored] = []
    if not any(real.broken for real in reals):
        twins = [explore(guest, case, twin, most, tell) for twin in case.twins]
    replay = f"spinlock explore {case.name}" + (f" --kernel {guest.kernel}" if guest.kernel else "")
    reals = [_with_symbols(guest, real) for real in reals]
    verdict = verdicts.judge(reals, twins, case.excludes, replay)
    numbers = [_numbers(each) for each in (*reals, *twins)]
    if case.bug is not None and covers(case.bug.kernels, guest.release):
        wrong = verdict.kind is Kind.FAIL
        guest.check(not wrong, "no schedule breaks the rule", verdict.reason, case.bug)
        verdict = replace(verdict, kind=Kind.PASS) if wrong else verdict
    guest.conclude(verdict, explored=numbers)


def _numbers(explored: Explored) -> Dict[str, Any]:
    return {
        "name": explored.name,
        "schedules": len(explored.outcomes),
        "broken": len(explored.broken),
        "blocked": len(explored.kept_out),
        "unknown": len(explored.unknown),
        "points": dict(explored.points),
        "seconds": round(explored.seconds, 3),
    }


def explore(guest: Guest, case: Case, variant: Variant, most: int, tell: Tell) -> Explored:
    """Carry out all schedules of a variant. The case's programs must be loaded.

    A twin that one preemption has shown to be broken gets no second one.
    """
    started = time.monotonic()
    with _World(guest, case, variant) as world:
        points = world.profile()
        outcomes = world.all(schedule.one_preemption(points, case.preempted), tell)
        caught = variant in case.twins and any(each.broken for each in outcomes)
        if most > 1 and not caught:
            outcomes += world.all(schedule.two_preemptions(outcomes, points), tell)
    return Explored(variant.name, tuple(outcomes), points, time.monotonic() - started)


def replayed(
    guest: Guest, case: Case, variant: Variant, wanted: Schedule, times: int
) -> List[Outcome]:
    """Carry out one schedule several times. Raises as `prove` does."""
    guest.load(FILE, case.programs)
    with _World(guest, case, variant) as world:
        return [world.once(wanted) for _ in range(times)]


class _World:
    """The actors of a variant, started and stopped at their gates. A context manager."""

    def __init__(self, guest: Guest, case: Union[Case, Walk], variant: Variant) -> None:
        self._guest, self._case, self._variant = guest, case, variant
        self._names = ACTORS[: len(variant.actors)]
        self._map = guest.map(case.map)
        self._calls = sum(len(each) for each in variant.actors)
        self._allowed = {
            name: [call.may for call in each] for name, each in zip(self._names, variant.actors)
        }

    def __enter__(self) -> "_World":
        guest = self._guest
        if self._variant.orders:
            guest.map("orders")[0] = dict(self._variant.orders)
            guest.map("runs").reset()
        self._map[0] = dict(self._case.first)
        self._first = self._map.value.encode(dict(self._case.first))
        memory = self._find()
        if isinstance(self._case, Walk):
            self._entries = guest.call(calls.Addresses([self._case.function]))
            if self._case.function not in self._entries:
                raise Failed(f"the kernel's symbols lack {self._case.function}")
        # The last CPUs: on the first, the guest's agent is used to run.
        cpus = range(guest.cpus - len(self._names), guest.cpus)
        actors = dict(zip(self._names, cpus))
        try:
            for name, each in zip(self._names, self._variant.actors):
                guest.call(calls.Act(actors[name], [self._operation(call) for call in each]))
            self._stepped = guest.stepped()
            stub = self._stepped.__enter__()
        except BaseException:
            guest.call(calls.Rest())
            raise
        self._stepper = Stepper(stub, actors, guest.cpus, memory)
        self._memory = memory
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            self._stepper.close()
        self._stepped.__exit__(kind, error, trace)
        if error is None:
            self._guest.call(calls.Rest())

    def _find(self) -> Memory:
        """Return where the element is. Raises Failed."""
        self._guest.call(calls.TestRun(f"find_{self._case.map}"))
        place = self._guest.map("places")[0]
        begin, end = self._map.value.span("lock")
        lock = Region(place.element + begin, end - begin)
        waits = (lock, Region(place.bucket, _BUCKET_BYTES)) if place.bucket else (lock,)
        return Memory(Region(place.element, self._map.value.size), lock, waits)

    def _operation(self, call: Call) -> calls.Operation:
        if call.way == "run":
            return calls.Operation("run", call.name, value=bytes(_PACKET_BYTES).hex())
        layout: Layout = self._guest.map(call.name).value
        value = layout.encode({"words": [call.fill] * 8})
        return calls.Operation(call.way, call.name, value=value.hex(), flags=call.flags)

    def trace(self, function: str) -> Tuple[Instruction, ...]:
        """Return the way of the first actor through a function. Raises Failed."""
        self._stepper.to_gates()
        return self._stepper.trace(self._names[0], self._entries[function])

    def profile(self) -> Dict[str, int]:
        """Return how many points each actor has, alone."""
        found = {}
        for name in self._names:
            self._reset()
            self._stepper.to_gates()
            step = self._stepper.move(Move(name, schedule.MOST_POINTS))
            found[name] = step.points
        return found

    def all(self, wanted: Iterable[Schedule], tell: Tell) -> List[Outcome]:
        """Carry out schedules. Where an actor ended before its point, later points are left out."""
        outcomes: List[Outcome] = []
        for each in wanted:
            outcome = self.once(each)
            if any(
                step.what is What.DONE
                for move, step in zip(each.moves, outcome.steps)
                if move.points is not None
            ):
                continue  # with the others before it, the actor takes a shorter way
            outcomes.append(outcome)
            tell(outcome)
        return outcomes

    def once(self, wanted: Schedule) -> Outcome:
        """Carry out one schedule, again if a time limit ended it. Raises Failed."""
        for _ in range(_TRIES):
            self._stepper.to_gates()
            self._reset()
            steps = self._stepper.carry_out(wanted)
            outcome = Outcome(wanted, steps)
            if not outcome.unknown:
                break
        if outcome.unknown:
            return outcome
        self._stepper.check_results(self._allowed)
        value = self._map.value.decode(self._stepper.read(self._memory.element))
        broken = self._wrong(value, self._calls) or self._broken_answer()
        return replace(outcome, broken=broken, after=str(value))

    def _wrong(self, value: Any, calls: int) -> str:
        assert isinstance(self._case, Case)
        return self._case.invariant(value, calls)

    def _broken_answer(self) -> str:
        """Say what is wrong with what the actors' calls returned or read; "" if nothing."""
        for name, each in zip(self._names, self._variant.actors):
            for number, call in enumerate(each):
                if call.way == "run":
                    data = self._stepper.private(name, number, _RETVAL, 4)
                    if any(data):
                        return f"{call.name} of {name} returned {int.from_bytes(data, 'little')}"
                elif call.way.startswith("lookup") and self._stepper.result(name, number) >= 0:
                    layout = self._map.value
                    data = self._stepper.private(name, number, calls.ACTOR_VALUES, layout.size)
                    broken = self._wrong(layout.decode(data), 0)
                    if broken:
                        return f"{call.way} of {name} read {broken}"
        return ""

    def _reset(self) -> None:
        self._stepper.write(self._memory.element.address, self._first)


def _with_symbols(guest: Guest, explored: Explored) -> Explored:
    """Return the same with names in place of addresses, in the outcome that will be told."""
    told = next(iter((*explored.broken, *explored.entered, *explored.unknown)), None)
    if told is None:
        return explored
    return replace(
        explored,
        outcomes=tuple(named(guest, each) if each is told else each for each in explored.outcomes),
    )


def named(guest: Guest, outcome: Outcome) -> Outcome:
    """Return an outcome with names in place of addresses."""
    places = [int(step.place, 16) for step in outcome.steps if step.place]
    names = dict(zip(places, guest.call(calls.Symbols(places))))
    steps = [
        replace(step, place=names[int(step.place, 16)]) if step.place else step
        for step in outcome.steps
    ]
    return replace(outcome, steps=tuple(steps))
