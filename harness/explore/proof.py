# SPDX-License-Identifier: GPL-2.0-only
"""Explores a case on a kernel: all schedules of the real operations, then those of its twins."""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Sequence, Tuple, Union

from harness.explore import schedule, verdicts
from harness.explore.cases import FILE, Call, Case, Either, LockCode, Variant, Walk
from harness.explore.schedule import ACTORS, END, NEXT, Move, Outcome, Schedule
from harness.explore.steps import Failed, Instruction, Memory, Stepper
from harness.explore.verdicts import Explored
from harness.guest import calls
from harness.judging.verdict import Kind, Verdict
from harness.machines.gdb_stub import Region
from harness.machines.loss import GuestLost
from harness.provision.layout import Layout
from harness.running.driven import Guest
from harness.scenarios.versions import covers

_INSIDE = 3  # an access of the counter under its lock
_WAITING = 30  # more instructions of taking a lock that another CPU holds
_MOST_JOINED = 60  # points of an update that finds an element just added
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
    elif isinstance(case, LockCode):
        lock_code(guest, case)
    else:
        prove(guest, case, preemptions)


def lock_code(guest: Guest, case: LockCode) -> None:
    """Preempt actors at each instruction of a lock's code, judge, and conclude the test.

    Raises as `prove` does.
    """
    counter = case.counter
    if _too_few(guest, 2):
        return
    guest.load(FILE, counter.programs)
    entries = guest.call(calls.Addresses([case.lock, case.unlock]))
    if len(entries) < 2:
        guest.conclude(_nameless(case.lock))
        return
    variant = counter.reals[0]
    with _World(guest, counter, [variant]) as world:
        world.choose(variant)
        world.know(entries)
        lengths = {name: len(world.trace(name)) for name in entries}
        alone = world.all(schedule.at_instructions(lengths), _quiet)
        waiting = lengths[case.lock] + _WAITING
        handed = world.all(schedule.handed_over(_INSIDE, case.lock, waiting), _quiet)
    wrong = [each for each in (*alone, *handed) if each.broken]
    wrong += [each for each in alone if not each.unknown and verdicts.is_wrong(each)]
    told = [named(guest, wrong[0])] if wrong else []
    replay = f"spinlock explore {counter.name}" + (
        f" --kernel {guest.kernel}" if guest.kernel else ""
    )
    guest.conclude(
        verdicts.judge_code(lengths, alone, handed, told, replay),
        instructions=lengths,
        schedules=len(alone) + len(handed),
        timeline=verdicts.timeline([verdicts.Explored("", tuple(told), {})]),
    )


def _too_few(guest: Guest, needed: int) -> bool:
    """Tell whether a guest has too few CPUs, and conclude its test then."""
    if guest.cpus >= needed:
        return False
    need = f"{needed} CPUs are needed, and there are {guest.cpus}"
    guest.conclude(Verdict(Kind.INCONCLUSIVE, need))
    return True


def _nameless(function: str) -> Verdict:
    return Verdict(Kind.INCONCLUSIVE, f"the kernel's symbols have no function {function}")


def walk(guest: Guest, case: Walk) -> None:
    """Step through a function, judge, and conclude the test. Raises as `prove` does."""
    guest.load(FILE, case.programs)
    entries = guest.call(calls.Addresses([case.function]))
    if not entries and case.function in case.programs:
        reason = "the program is interpreted: it has no machine code of its own"
        guest.conclude(Verdict(Kind.SKIP, reason))
        return
    if not entries:
        guest.conclude(_nameless(case.function))
        return
    with _World(guest, case, [case.variant]) as world:
        world.choose(case.variant)
        world.know(entries)
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
    if _too_few(guest, needed):
        return
    guest.load(FILE, case.programs)
    reals = explore(guest, case, case.reals, most, tell)
    twins: List[Explored] = []
    if not any(real.broken for real in reals):
        twins = explore(guest, case, case.twins, most, tell)
    replay = f"spinlock explore {case.name}" + (f" --kernel {guest.kernel}" if guest.kernel else "")
    reals = [_with_symbols(guest, real) for real in reals]
    verdict = verdicts.judge(reals, twins, case.excludes, replay)
    numbers = [_numbers(each) for each in (*reals, *twins)]
    if case.bug is not None and covers(case.bug.kernels, guest.release):
        wrong = verdict.kind is Kind.FAIL
        guest.check(not wrong, "no schedule breaks the rule", verdict.reason, case.bug)
        verdict = replace(verdict, kind=Kind.PASS) if wrong else verdict
    drawn = verdicts.timeline(reals, case.excludes)
    guest.conclude(verdict, explored=numbers, timeline=drawn)


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


def explore(
    guest: Guest, case: Case, variants: Sequence[Variant], most: int, tell: Tell
) -> List[Explored]:
    """Carry out all schedules of variants. The case's programs must be loaded.

    A twin that one preemption has shown to be broken gets no second one.
    """
    found: List[Explored] = []
    for _, together in itertools.groupby(variants, lambda variant: variant.orders):
        group = list(together)
        with _World(guest, case, group) as world:
            for variant in group:
                found.append(_explored(world, case, variant, most, tell))
    return found


def _explored(world: "_World", case: Case, variant: Variant, most: int, tell: Tell) -> Explored:
    started = time.monotonic()
    world.choose(variant)
    if case.joins:
        outcomes = world.all(schedule.joined(_MOST_JOINED), tell)
        points = {"A": len(outcomes), "B": 0}
        return Explored(variant.name, tuple(outcomes), points, time.monotonic() - started)
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
    with _World(guest, case, [variant]) as world:
        world.choose(variant)
        functions = [move.function for move in wanted.moves if move.function]
        entries = guest.call(calls.Addresses(functions)) if functions else {}
        missing = [name for name in functions if name not in entries]
        if missing:
            raise Failed(f"the kernel's symbols have no function {missing[0]}")
        world.know(entries)
        return [world.once(wanted) for _ in range(times)]


@contextmanager
def staged(
    guest: Guest, operations: Mapping[str, Sequence[calls.Operation]], memory: Memory
) -> Iterator[Stepper]:
    """Start actors by their names, stop all CPUs, and yield the stepper, with all at their gates.

    Raises as driven.Guest's methods do, and Failed.
    """
    # The last CPUs: the guest's agent runs on the first.
    cpus = range(guest.cpus - len(operations), guest.cpus)
    actors = dict(zip(operations, cpus))
    try:
        for name, each in operations.items():
            guest.call(calls.Act(actors[name], each))
        with guest.stepped() as stub:
            with closing(Stepper(stub, actors, guest.cpus, memory)) as stepper:
                stepper.to_gates()
                yield stepper
    except GuestLost:
        raise
    except BaseException:
        guest.call(calls.Rest())
        raise
    guest.call(calls.Rest())


class _World:
    """Actors that can do all of some variants, stopped at their gates. A context manager."""

    def __init__(self, guest: Guest, case: Union[Case, Walk], variants: Sequence[Variant]) -> None:
        """The variants have equal orders. `choose` one before all else."""
        self._guest, self._case, self._variant = guest, case, variants[0]
        self._names = ACTORS[: max(len(variant.actors) for variant in variants)]
        self._map = guest.map(case.map)
        self._joins = isinstance(case, Case) and case.joins
        # What each actor can do: a variant is a selection of that.
        self._can: Dict[str, List[Call]] = {
            name: list(
                dict.fromkeys(call for variant in variants for call in variant.actors[number])
            )
            for number, name in enumerate(self._names)
        }

    def __enter__(self) -> "_World":
        guest = self._guest
        if self._variant.orders:
            guest.map("orders")[0] = dict(self._variant.orders)
            guest.map("runs").reset()
        self._map[0] = dict(self._case.first)
        self._first = self._map.value.encode(dict(self._case.first))
        self._memory = self._find()
        operations = {
            name: [self._operation(call) for call in can] for name, can in self._can.items()
        }
        with ExitStack() as started:
            self._stepper = started.enter_context(staged(guest, operations, self._memory))
            self._started = started.pop_all()
        return self

    def _find_added(self) -> None:
        """Find the element that B adds, and let B go on to its end."""
        self._stepper.move(Move("B", NEXT))
        self._stepper.move(Move("B", NEXT))
        entry = int.from_bytes(self._stepper.read(Region(self._bucket.address, 8)), "little")
        if entry & 1:  # the end of a list
            raise Failed("the hash has no element after it was added")
        begin, end = self._map.value.span("lock")
        value = entry + self._value_offset
        lock = Region(value + begin, end - begin)
        element = Region(value, self._map.value.size)
        self._memory = Memory((self._bucket, element), (lock,), (lock, self._bucket))
        self._stepper.memory = self._memory
        self._stepper.move(Move("B", END))

    def choose(self, variant: Variant) -> None:
        """Let the actors do a variant from now on."""
        self._variant = variant
        self._stepper.to_gates()
        self._numbers = {
            name: [self._can[name].index(call) for call in each]
            for name, each in zip(self._names, variant.actors)
        }
        for name, numbers in self._numbers.items():
            self._stepper.order(name, numbers)

    def __exit__(self, *error: Any) -> None:
        self._started.__exit__(*error)

    def _find(self) -> Memory:
        """Return where the element is. Raises Failed."""
        self._guest.call(calls.TestRun(f"find_{self._case.map}"))
        place = self._guest.map("places")[0]
        begin, end = self._map.value.span("lock")
        lock = Region(place.element + begin, end - begin)
        if self._joins:
            self._value_offset = place.element - place.entry
        self._bucket = Region(place.bucket, _BUCKET_BYTES)
        waits = (lock, self._bucket) if place.bucket else (lock,)
        return Memory((Region(place.element, self._map.value.size),), (lock,), waits)

    def _operation(self, call: Call) -> calls.Operation:
        if call.way == "run":
            return calls.Operation("run", call.name, value=bytes(_PACKET_BYTES).hex())
        layout: Layout = self._guest.map(call.name).value
        value = layout.encode({"words": [call.fill] * 8})
        return calls.Operation(call.way, call.name, value=value.hex(), flags=call.flags)

    def know(self, entries: Mapping[str, int]) -> None:
        """Say where the functions of moves begin."""
        self._stepper.entries = dict(entries)

    def trace(self, function: str) -> Tuple[Instruction, ...]:
        """Return the way of the first actor through a function. Raises Failed."""
        self._stepper.to_gates()
        self._reset()
        return self._stepper.trace(self._names[0], self._stepper.entries[function])

    def profile(self) -> Dict[str, int]:
        """Return how many points each actor has, alone."""
        found = {}
        for name in self._names:
            self._stepper.to_gates()
            self._reset()
            step = self._stepper.move(Move(name, schedule.MOST_POINTS))
            found[name] = step.points
        return found

    def all(self, wanted: Iterable[Schedule], tell: Tell) -> List[Outcome]:
        """Carry out schedules. Where an actor ended before its point, later points are left out."""
        outcomes: List[Outcome] = []
        for each in wanted:
            outcome = self.once(each)
            if outcome.shortened:
                if self._joins:
                    break
                continue
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
        self._check_results()
        value = self._map.value.decode(self._stepper.read(self._memory.elements[-1]))
        count = sum(map(len, self._variant.actors))
        broken = self._wrong(value, count) or self._broken_answer()
        return replace(outcome, broken=broken, after=str(value))

    def _wrong(self, value: Any, calls: int) -> str:
        assert isinstance(self._case, Case)
        return self._case.invariant(value, calls)

    def _done(self) -> Iterator[Tuple[str, int, Call]]:
        """Yield each call of the turn: its actor, the number of its operation, and the call."""
        for name, each in zip(self._names, self._variant.actors):
            for number, call in zip(self._numbers[name], each):
                yield name, number, call

    def _check_results(self) -> None:
        """Raise Failed unless each system call succeeded, or failed with an allowed errno."""
        for name, number, call in self._done():
            result = self._stepper.result(name, number)
            if result < 0 and -result not in call.may:
                raise Failed(f"{call.way} {call.name} by actor {name} failed: errno {-result}")

    def _broken_answer(self) -> str:
        """Say what is wrong with what the actors' calls returned or read; "" if nothing."""
        for name, number, call in self._done():
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
        if self._joins:
            self._find_added()
        else:
            self._stepper.write(self._memory.elements[0].address, self._first)


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
