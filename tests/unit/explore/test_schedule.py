# SPDX-License-Identifier: GPL-2.0-only
"""Schedules: which are enumerated, which are left out, and how they are written and read."""

import pytest

from harness.errors import UsageError
from harness.explore import schedule
from harness.explore.schedule import END, Move, Outcome, Schedule, Step, What, parse


def outcome(text, *whats, broken="", held=False):
    moves = parse(text, 3)
    steps = tuple(
        Step(move, what, max(move.points, 0), "0x10", held)
        for move, what in zip(moves.moves, whats)
    )
    return Outcome(moves, steps, broken)


def test_a_schedule_is_written_as_it_is_read():
    text = "A:3 B:end A:end"
    assert str(parse(text, 2)) == text
    assert parse(text, 2) == Schedule((Move("A", 3), Move("B", END), Move("A", END)))


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "empty"),
        ("A3", "no move"),
        ("A:0", "no move"),
        ("A:-1", "no move"),
        ("A:999999999", "no move"),
        ("a:end", "no move"),
        ("C:end", "no actor C here, only A, B"),
    ],
)
def test_what_is_no_schedule_is_refused(text, words):
    with pytest.raises(UsageError, match=words):
        parse(text, 2)


def test_one_preemption_is_at_each_point_of_each_actor():
    found = [str(each) for each in schedule.one_preemption({"A": 2, "B": 1})]
    assert found == [
        "A:end B:end",
        "B:end A:end",
        "A:1 B:end A:end",
        "A:2 B:end A:end",
        "B:1 A:end B:end",
    ]


def test_three_actors_run_in_each_order():
    found = [str(each) for each in schedule.one_preemption({"A": 1, "B": 0, "C": 0})]
    assert len(found) == 6 + 2
    assert found[6:] == ["A:1 B:end C:end A:end", "A:1 C:end B:end A:end"]


def test_only_the_named_actors_are_preempted():
    found = [str(each) for each in schedule.one_preemption({"A": 1, "B": 2}, "B")]
    assert found[2:] == ["B:1 A:end B:end", "B:2 A:end B:end"]


def test_a_second_preemption_only_where_the_second_actor_was_let_in():
    points = {"A": 3, "B": 3}
    first = [
        outcome("A:end B:end", What.DONE, What.DONE),
        outcome("A:1 B:end A:end", What.POINT, What.DONE, What.DONE),
        outcome("A:2 B:end A:end", What.POINT, What.BLOCKED, What.DONE, What.DONE),
        outcome("A:3 B:end A:end", What.POINT, What.DONE, What.DONE),  # nothing of A is left
        outcome("B:1 A:end B:end", What.POINT, What.UNKNOWN),
    ]
    found = [str(each) for each in schedule.two_preemptions(first, points)]
    assert found == ["A:1 B:1 A:end B:end", "A:1 B:2 A:end B:end"]


def test_a_third_actor_runs_within_both():
    first = [outcome("A:1 B:end C:end A:end", What.POINT, What.DONE, What.DONE, What.DONE)]
    found = [str(each) for each in schedule.two_preemptions(first, {"A": 2, "B": 2, "C": 2})]
    assert found == ["A:1 B:1 C:end A:end B:end"]


def test_marks_are_one_per_point():
    outcomes = [
        outcome("A:end B:end", What.DONE, What.DONE),
        outcome("A:1 B:end A:end", What.POINT, What.DONE, What.DONE),
        outcome("A:2 B:end A:end", What.POINT, What.BLOCKED, What.DONE),
        outcome("A:3 B:end A:end", What.POINT, What.DONE, What.DONE, broken="lost"),
        outcome("A:4 B:end A:end", What.POINT, What.UNKNOWN),
        outcome("A:1 B:1 A:end B:end", What.POINT, What.POINT, What.DONE, What.DONE),
        outcome("B:1 A:end B:end", What.POINT, What.BLOCKED, What.DONE),
    ]
    assert schedule.marks(outcomes, "A") == ".#!?"
    assert schedule.marks(outcomes, "B") == "#"


def test_an_element_is_added_between_two_accesses_of_an_update():
    found = [str(each) for each in schedule.joined(2)]
    assert found[1] == "B:next A:1 B:next A:2 B:end A:end"
    assert parse(found[1], 2).moves[0].points == schedule.NEXT


def test_the_answer_is_that_of_the_other_after_the_last_preemption():
    joined = outcome(
        "B:next A:1 B:next A:2 B:end A:end",
        *(What.CALL, What.POINT, What.CALL, What.POINT, What.BLOCKED, What.DONE),
    )
    assert joined.pivot == 3 and joined.answer.what is What.BLOCKED
    assert schedule.marks([joined], "A") == "#"
    short = outcome("A:9 B:end A:end", What.DONE, What.DONE, What.DONE)
    assert short.shortened and not joined.shortened


def test_a_move_into_a_function_is_written_and_read():
    text = "A:bpf_spin_lock+12 B:end A:end"
    assert str(parse(text, 2)) == text
    assert parse(text, 2).moves[0] == Move("A", 12, "bpf_spin_lock")
    found = [str(each) for each in schedule.at_instructions({"bpf_spin_lock": 3})]
    assert found == ["A:bpf_spin_lock+1 B:end A:end", "A:bpf_spin_lock+2 B:end A:end"]
    assert [str(each) for each in schedule.handed_over(3, "bpf_spin_lock", 2)] == [
        "A:3 B:bpf_spin_lock+1 A:end B:end"
    ]
