# SPDX-License-Identifier: GPL-2.0-only
"""Judges the outcomes of schedules, and those of the broken twins. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Mapping, Sequence, Tuple

from harness.explore.schedule import ACTORS, Outcome, What, mark, marks
from harness.judging.verdict import Kind, Verdict


@dataclass(frozen=True)
class Explored:
    """All schedules of one way to do the operations, in the order in which they ran."""

    name: str  # "" for the way under test, else the twin's
    outcomes: Tuple[Outcome, ...]
    points: Mapping[str, int]  # of each actor alone
    seconds: float = 0.0

    @property
    def broken(self) -> Tuple[Outcome, ...]:
        """The schedules at whose end the memory was wrong."""
        return tuple(each for each in self.outcomes if each.broken)

    @property
    def entered(self) -> Tuple[Outcome, ...]:
        """The schedules in which one actor ended its operation where the other held the lock."""
        return tuple(each for each in self.outcomes if _entered(each))

    @property
    def kept_out(self) -> Tuple[Outcome, ...]:
        """The schedules in which one actor was blocked where the other held the lock."""
        return tuple(each for each in self.outcomes if _holds(each) and _blocked(each))

    @property
    def unknown(self) -> Tuple[Outcome, ...]:
        """The schedules that a time limit ended."""
        return tuple(each for each in self.outcomes if each.unknown)

    def lines(self) -> List[str]:
        """Return a line with the marks of each actor's points."""
        rows = []
        for actor in ACTORS[: len(self.points)]:
            found = marks(self.outcomes, actor)
            if found:
                rows.append(f"{self.name or 'as it is':<36} {actor} preempted  {found}")
        return rows


def _holds(outcome: Outcome) -> bool:
    """Tell whether a lock was held where the last preemption was."""
    if outcome.pivot < 0:
        return False
    step = outcome.step(outcome.pivot)
    return step.what is What.POINT and step.held


def _blocked(outcome: Outcome) -> bool:
    return outcome.answer.what is What.BLOCKED


def _entered(outcome: Outcome) -> bool:
    return _holds(outcome) and outcome.answer.what is What.DONE


def judge(
    reals: Sequence[Explored], twins: Sequence[Explored], excludes: bool, replay: str = ""
) -> Verdict:
    """Judge a case: what must hold in each of `reals`, and be broken in each of `twins`.

    `excludes`: the other actor must be blocked wherever the lock is held. A twin is caught if its
    memory was wrong, or, with `excludes`, if an actor was let in there. `replay` is the command that
    repeats a schedule, without the schedule.
    """
    evidence = [line for each in (*reals, *twins) for line in each.lines()]
    for real in reals:
        wrong = real.broken or (real.entered if excludes else ())
        if wrong:
            what = wrong[0].broken or "one actor entered while the other held the lock"
            where = f"in {len(wrong)} of {len(real.outcomes)} schedules: {wrong[0].schedule}"
            shown = (*evidence, *told(wrong[0], _with_name(replay, real)))
            return Verdict(Kind.FAIL, f"{what}, {where}{_of(real)}", shown)
    for real in reals:
        if real.unknown:
            first = real.unknown[0]
            reason = (
                f"{len(real.unknown)} of {len(real.outcomes)} schedules came to no end in time,"
                f" which shows nothing: {first.schedule}{_of(real)}"
            )
            shown = (*evidence, *told(first, _with_name(replay, real)))
            return Verdict(Kind.INCONCLUSIVE, reason, shown)
        if excludes and not real.kept_out:
            reason = f"no access was seen at which the lock is held{_of(real)}"
            return Verdict(Kind.INCONCLUSIVE, reason, tuple(evidence))
    missed = next((twin for twin in twins if not _caught(twin, excludes)), None)
    if missed is not None:
        reason = f"no schedule showed that the twin is broken: {missed.name}"
        return Verdict(Kind.INCONCLUSIVE, reason, tuple(evidence))
    return Verdict(Kind.PASS, proven(reals, twins), tuple(evidence))


def judge_serial(explored: Explored, replay: str) -> Verdict:
    """Judge the user's own programs: each schedule must end as some order of them does.

    Its memory is "broken" where it ended otherwise.
    """
    evidence = explored.lines()
    if explored.broken:
        first = explored.broken[0]
        where = f"in {len(explored.broken)} of {len(explored.outcomes)} schedules"
        shown = (*evidence, *told(first, replay))
        return Verdict(Kind.FAIL, f"{first.broken}, {where}: {first.schedule}", shown)
    if explored.unknown:
        first = explored.unknown[0]
        reason = f"a schedule came to no end in time, which shows nothing: {first.schedule}"
        return Verdict(Kind.INCONCLUSIVE, reason, (*evidence, *told(first, replay)))
    if not all(explored.points.values()):
        idle = ", ".join(name for name, count in explored.points.items() if not count)
        reason = f"{idle} touched none of the watched elements, so there is nothing to interleave"
        return Verdict(Kind.INCONCLUSIVE, reason, tuple(evidence))
    blocked = len(explored.kept_out)
    reason = (
        f"PROVEN for these paths: each of {len(explored.outcomes)} schedules ended as one program"
        f" after the other does; blocked at {blocked} points under a lock"
    )
    return Verdict(Kind.PASS, reason, tuple(evidence))


def _of(explored: Explored) -> str:
    return f" ({explored.name})" if explored.name else ""


def _with_name(replay: str, explored: Explored) -> str:
    return f"{replay} --variant '{explored.name}'" if replay and explored.name else replay


def _caught(twin: Explored, excludes: bool) -> bool:
    """Tell whether a twin was seen to be broken.

    With `excludes`, it may be so by letting the other in: where the lock is held, or at any point if
    it never is.
    """
    let_in = any(
        each.step(each.pivot).what is What.POINT and each.answer.what is What.DONE
        for each in twin.outcomes
        if each.pivot >= 0
    )
    return bool(twin.broken) or (excludes and not twin.kept_out and let_in)


def proven(reals: Sequence[Explored], twins: Sequence[Explored]) -> str:
    """Return what a PASS has shown, in words."""
    held = sum(_holds(each) for real in reals for each in real.outcomes)
    count = sum(len(each.outcomes) for each in (*reals, *twins))
    inner = f"blocked at all {held} points under the lock" if held else "the memory stayed right"
    pairs = f" of {len(reals)} pairs" if len(reals) > 1 else ""
    caught = f"; {len(twins)} of {len(twins)} twins caught" if twins else ""
    return f"PROVEN for these paths: {inner}{pairs}{caught}; {count} schedules"


def told(outcome: Outcome, replay: str) -> List[str]:
    """Return the lines that tell one schedule, step by step."""
    lines = [f"schedule {outcome.schedule}"]
    lines += [f"  {step}" for step in outcome.steps]
    lines += [f"  after: {outcome.after}"] if outcome.after else []
    lines += [f"  wrong: {outcome.broken}"] if outcome.broken else []
    lines += [f'replay: {replay} --replay "{outcome.schedule}"'] if replay else []
    return lines


@dataclass(frozen=True)
class Event:
    """A change on the way through a function: after how many instructions, and what changed."""

    instructions: int
    what: str


OFF, TAKEN, RELEASED, ON = "interrupts off", "lock taken", "lock released", "interrupts on"


def events(states: Sequence[Tuple[bool, bool]]) -> List[Event]:
    """Return what changed, given the state before each instruction: interrupts on, lock held."""
    found = []
    for number, (before, now) in enumerate(zip(states, states[1:]), start=1):
        if before[0] and not now[0]:
            found.append(Event(number, OFF))
        if before[1] != now[1]:
            found.append(Event(number, TAKEN if now[1] else RELEASED))
        if now[0] and not before[0]:
            found.append(Event(number, ON))
    return found


def judge_order(states: Sequence[Tuple[bool, bool]], places: Mapping[int, str]) -> Verdict:
    """Judge a way through a function: interrupts must be off while the lock is held.

    `places` names the instructions at which something changed, by their number.
    """
    changes = events(states)
    evidence = [
        f"{each.instructions:>5}  {places[each.instructions]:<44} {each.what}" for each in changes
    ]
    held = [interrupts for interrupts, locked in states if locked]
    if not held or not states[0][0]:
        reason = "the lock was not taken" if not held else "interrupts were off at the begin"
        return Verdict(Kind.INCONCLUSIVE, reason, tuple(evidence))
    if any(held):
        reason = f"interrupts are on at {sum(held)} of {len(held)} instructions under the lock"
        return Verdict(Kind.FAIL, reason, tuple(evidence))
    if not states[-1][0] or states[-1][1]:
        what = "the lock is held" if states[-1][1] else "interrupts are off"
        return Verdict(Kind.FAIL, f"{what} at the end of the function", tuple(evidence))
    reason = (
        f"PROVEN for this path: interrupts are off at all {len(held)} instructions under the lock,"
        f" of {len(states)}, and on before and after"
    )
    return Verdict(Kind.PASS, reason, tuple(evidence))


def timeline(explored: Sequence[Explored], excludes: bool = False) -> List[List[str]]:
    """Return the steps of the first schedule that went wrong, for a drawing; [] if none did.

    Each is its actor, what it was to do, what became of it, and where it stood.
    """
    for each in explored:
        for outcome in (*each.broken, *(each.entered if excludes else ())):
            return [
                [
                    step.move.actor,
                    str(step.move).partition(":")[2],
                    step.what.name,
                    step.line or step.place,
                ]
                for step in outcome.steps
            ]
    return []


def is_wrong(outcome: Outcome) -> bool:
    """Tell whether the other actor was let in while the lock was held, or kept out while it was not."""
    return _holds(outcome) == (outcome.answer.what is What.DONE)


def judge_code(
    lengths: Mapping[str, int],
    alone: Sequence[Outcome],
    handed: Sequence[Outcome],
    wrong: Sequence[Outcome],
    replay: str,
) -> Verdict:
    """Judge the schedules of a lock's own code.

    In `alone`, one actor stood at an instruction of a function of `lengths`; in `handed`, it waited
    there while the other let go of the lock. `wrong` has the first that went wrong, if any.
    """
    evidence = [
        f"{name}: {count} instructions  "
        + "".join(mark(each) for each in alone if each.schedule.moves[0].function == name)
        for name, count in lengths.items()
    ]
    evidence.append(f"handed over at {len(handed)} instructions of a CPU that waits")
    if wrong:
        what = wrong[0].broken or "a held lock let another in, or a free one kept it out"
        reason = f"{what}: {wrong[0].schedule}"
        return Verdict(Kind.FAIL, reason, (*evidence, *told(wrong[0], replay)))
    late = [each for each in (*alone, *handed) if each.unknown]
    if late:
        reason = f"{len(late)} schedules came to no end in time: {late[0].schedule}"
        return Verdict(Kind.INCONCLUSIVE, reason, tuple(evidence))
    held = sum(map(_holds, alone))
    if not held or held == len(alone) or not handed:
        reason = "the lock was not seen both held and free"
        return Verdict(Kind.INCONCLUSIVE, reason, tuple(evidence))
    reason = (
        f"PROVEN for these paths: the other CPU was blocked at the {held} instructions at which the"
        f" lock is held and let in at the {len(alone) - held} others; it got the lock at each of"
        f" {len(handed)} instructions of its waiting"
    )
    return Verdict(Kind.PASS, reason, tuple(evidence))
