# SPDX-License-Identifier: GPL-2.0-only
"""Verdicts on explored schedules: a proof needs every point, a held lock and a caught twin."""

from harness.explore import verdicts
from harness.explore.schedule import Outcome, Step, What, parse
from harness.explore.verdicts import Explored
from harness.judging.verdict import Kind


def preempted(number, second, held=True, broken=""):
    wanted = parse(f"A:{number} B:end A:end", 2)
    whats = (What.POINT, second, What.DONE)
    steps = tuple(
        Step(move, what, 1, "copy+0x1", held and what is What.POINT)
        for move, what in zip(wanted.moves, whats)
    )
    return Outcome(wanted, steps, broken)


def explored(*outcomes, name=""):
    return Explored(name, outcomes, {"A": len(outcomes), "B": len(outcomes)})


LOCKED = explored(
    preempted(1, What.DONE, held=False), preempted(2, What.BLOCKED), preempted(3, What.BLOCKED)
)
TWIN = explored(preempted(1, What.DONE, held=False, broken="1 of 2 updates lost"), name="no lock")


def test_blocked_wherever_the_lock_is_held_and_a_caught_twin_is_a_proof():
    verdict = verdicts.judge([LOCKED], [TWIN], excludes=True)
    assert verdict.kind is Kind.PASS
    assert "blocked at all 2 points under the lock; 1 of 1 twins caught" in verdict.reason
    assert verdict.evidence[0].split()[-1] == ".##"


def test_wrong_memory_fails_with_the_schedule_and_the_command_that_repeats_it():
    wrong = explored(preempted(2, What.DONE, broken="words of different writes"))
    verdict = verdicts.judge([wrong], [TWIN], True, "spinlock explore reuse")
    assert verdict.kind is Kind.FAIL and "A:2 B:end A:end" in verdict.reason
    assert 'replay: spinlock explore reuse --replay "A:2 B:end A:end"' in verdict.evidence


def test_to_get_in_where_the_lock_is_held_fails_though_the_memory_is_right():
    let_in = explored(preempted(1, What.BLOCKED), preempted(2, What.DONE))
    assert verdicts.judge([let_in], [TWIN], excludes=True).kind is Kind.FAIL
    assert verdicts.judge([let_in], [TWIN], excludes=False).kind is Kind.PASS


def test_a_time_limit_shows_nothing():
    late = explored(preempted(1, What.BLOCKED), preempted(2, What.UNKNOWN))
    verdict = verdicts.judge([late], [TWIN], excludes=True)
    assert verdict.kind is Kind.INCONCLUSIVE and "A:2 B:end A:end" in verdict.reason


def test_a_lock_that_was_never_held_proves_nothing():
    never = explored(preempted(1, What.DONE, held=False))
    assert verdicts.judge([never], [TWIN], excludes=True).kind is Kind.INCONCLUSIVE


def test_a_twin_that_was_not_caught_leaves_it_open():
    healthy = explored(preempted(1, What.BLOCKED), name="no lock")
    verdict = verdicts.judge([LOCKED], [healthy], excludes=True)
    assert verdict.kind is Kind.INCONCLUSIVE and "no lock" in verdict.reason


def test_a_twin_that_lets_the_other_in_is_caught_though_its_memory_is_right():
    open_door = explored(preempted(1, What.DONE, held=False), name="without the flag")
    assert verdicts.judge([LOCKED], [open_door], excludes=True).kind is Kind.PASS
    assert verdicts.judge([LOCKED], [open_door], excludes=False).kind is Kind.INCONCLUSIVE


OFF, TAKEN, ON = (False, False), (False, True), (True, False)


def order(*states):
    names = {number: f"f+{number:#x}" for number in range(len(states))}
    return verdicts.judge_order(states, names)


def test_interrupts_go_off_before_the_lock_is_taken_and_on_after_it():
    verdict = order(ON, OFF, TAKEN, TAKEN, OFF, ON)
    assert verdict.kind is Kind.PASS and "all 2 instructions" in verdict.reason
    assert [line.split(None, 2)[2] for line in verdict.evidence] == [
        "interrupts off",
        "lock taken",
        "lock released",
        "interrupts on",
    ]


def test_one_instruction_with_both_is_a_failure():
    assert order(ON, (True, True), TAKEN, OFF, ON).kind is Kind.FAIL
    assert order(ON, OFF, TAKEN, (True, True), ON).kind is Kind.FAIL


def test_what_is_left_behind_is_a_failure():
    assert "interrupts are off at the end" in order(ON, OFF, TAKEN, OFF).reason
    assert order(ON, OFF, TAKEN, TAKEN).kind is Kind.FAIL


def test_a_way_without_the_lock_proves_nothing():
    assert order(ON, OFF, ON).kind is Kind.INCONCLUSIVE
    assert order(OFF, TAKEN, OFF).kind is Kind.INCONCLUSIVE


def test_the_first_schedule_that_went_wrong_is_drawn():
    wrong = explored(preempted(1, What.DONE, held=False), preempted(2, What.DONE, broken="lost"))
    assert verdicts.timeline([LOCKED]) == []
    assert verdicts.timeline([LOCKED, wrong]) == [
        ["A", "2", "POINT", "copy+0x1"],
        ["B", "end", "DONE", "copy+0x1"],
        ["A", "end", "DONE", "copy+0x1"],
    ]


LENGTHS = {"lock": 3, "unlock": 2}


def at(function, number, second, held, broken=""):
    wanted = parse(f"A:{function}+{number} B:end A:end", 2)
    whats = (What.POINT, second, What.DONE)
    steps = tuple(
        Step(move, what, 0, "", held and what is What.POINT)
        for move, what in zip(wanted.moves, whats)
    )
    return Outcome(wanted, steps, broken)


FREE, HELD = at("lock", 1, What.DONE, False), at("lock", 2, What.BLOCKED, True)
LET_GO = at("unlock", 1, What.DONE, False)


def code(*alone, handed=(HELD,)):
    wrong = [each for each in alone if each.broken or verdicts.is_wrong(each)]
    return verdicts.judge_code(LENGTHS, alone, handed, wrong, "spinlock explore counter")


def test_the_locks_code_lets_in_exactly_where_the_lock_is_free():
    verdict = code(FREE, HELD, LET_GO)
    assert verdict.kind is Kind.PASS and "at the 1 instructions" in verdict.reason
    assert verdict.evidence[:2] == ("lock: 3 instructions  .#", "unlock: 2 instructions  .")


def test_a_held_lock_that_lets_in_and_a_free_one_that_does_not_are_failures():
    assert code(FREE, at("lock", 2, What.DONE, True)).kind is Kind.FAIL
    assert code(at("lock", 1, What.BLOCKED, False), HELD).kind is Kind.FAIL
    assert code(FREE, at("lock", 2, What.BLOCKED, True, "1 of 2 updates lost")).kind is Kind.FAIL


def test_a_lock_that_was_only_free_proves_nothing():
    assert code(FREE).kind is Kind.INCONCLUSIVE
    assert code(FREE, HELD, handed=()).kind is Kind.INCONCLUSIVE
