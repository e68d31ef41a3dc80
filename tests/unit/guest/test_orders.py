# SPDX-License-Identifier: GPL-2.0-only
"""Orders of the same work: each has every chunk once, and they end differently."""

from collections import Counter

import pytest

from harness.guest import orders

LANES, STEPS = 4, 3
CHUNKS = 4 * STEPS


@pytest.mark.parametrize("name", [*orders.SERIAL, "in_turn 0", "in_turn 2"])
def test_every_chunk_runs_once_and_a_lane_in_order(name):
    order = orders.serial(name, LANES, CHUNKS, STEPS)
    each = Counter((lane, number) for _, lane, number in order)
    assert set(each.values()) == {1} and len(each) == LANES * CHUNKS
    if " " not in name:
        for lane in range(LANES):
            numbers = [number for _, of, number in order if of == lane]
            assert numbers == sorted(numbers)


def test_lanes_have_the_same_steps_and_both_halves_too():
    for chunks in (range(CHUNKS), range(CHUNKS // 2)):
        of = [
            Counter(orders.step_of(lane, number, STEPS) for number in chunks)
            for lane in range(LANES)
        ]
        assert all(each == of[0] for each in of) and len(set(of[0].values())) == 1


def test_each_step_can_be_last():
    for last in range(STEPS):
        _, lane, number = orders.serial(f"in_turn {last}", LANES, CHUNKS, STEPS)[-1]
        assert orders.step_of(lane, number, STEPS) == last


def test_one_cpu_or_all():
    assert {cpu for cpu, _, _ in orders.serial("on_one", LANES, CHUNKS, 1)} == {0}
    assert {cpu for cpu, _, _ in orders.serial("in_turn", LANES, CHUNKS, 1)} == set(range(LANES))


def test_pauses_are_long_and_short_and_as_long_as_was_asked():
    found = orders.pauses(100, 3.0)
    assert sum(found.values()) == pytest.approx(3.0) and max(found.values()) > 5 * min(
        found.values()
    )
    assert orders.pauses(2, 3.0) and not orders.pauses(100, 0.0)
