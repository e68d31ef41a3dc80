# SPDX-License-Identifier: GPL-2.0-only
"""Histories: what one after the other can give passes, and what cannot is called by its name."""

import random
import unittest.mock

from hypothesis import HealthCheck, given, settings, strategies as st

from harness.judging import history as module
from harness.judging.history import Kind, Operation, check, overlap, timeline

# A busy machine is slow, which says nothing of what is tested here.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

ADD, READ, SET = Kind.ADD, Kind.READ, Kind.SET


def serial(seed, length, processes, kinds=(ADD,)):
    """Return a history that a lock gave: operations at points in time, each process's apart."""
    chance = random.Random(seed)
    count, now = 0, 0
    free = [0] * processes  # since when each has nothing to do
    done = []
    for _ in range(length):
        now += chance.randint(1, 50)
        who = chance.randrange(processes)
        kind = chance.choice(kinds)
        now = max(now, free[who])
        arrive = chance.randint(free[who], now)
        leave = now + chance.randint(0, 100)
        if kind is SET:
            count = ((count >> 32) + 1) << 32
        done.append(Operation(count, arrive, leave, f"CPU {who}", kind))
        if kind is ADD:
            count += 1
        free[who] = leave
    return done, count


histories = st.builds(
    serial,
    seed=st.integers(0, 1 << 32),
    length=st.integers(2, 200),
    processes=st.integers(1, 6),
    kinds=st.sampled_from([(ADD,), (ADD, ADD, READ), (ADD, ADD, ADD, READ, SET)]),
)


def names(found):
    return {anomaly.name for anomaly in found}


@given(histories)
def test_what_a_lock_gave_passes(made):
    history, final = made
    assert check(history, final) == []


@given(histories)
def test_it_may_be_told_process_by_process(made):
    history, final = made
    assert check(sorted(history, key=lambda o: o.process), final) == []


@given(histories, st.data())
def test_a_part_of_it_passes_as_a_part(made, data):
    history, _ = made
    part = [o for o in history if data.draw(st.booleans())]
    assert check(part, complete=False) == []


@given(histories, st.data())
def test_two_with_one_ticket_are_found(made, data):
    history, final = made
    adds = [i for i, o in enumerate(history) if o.kind is ADD]
    if len(adds) < 2:
        return
    one, other = data.draw(st.permutations(adds))[:2]
    history[one] = history[one]._replace(value=history[other].value)
    assert "duplicate ticket" in names(check(history, final))


@given(histories, st.integers(0, 200))
def test_a_ticket_that_nobody_took_is_found(made, at):
    history, final = made
    last = max(o.place for o in history)
    adds = [i for i, o in enumerate(history) if o.kind is ADD and o.place < last]
    if adds:
        gone = history.pop(adds[at % len(adds)])
        found = names(check(history, final))
        followed = [o for o in history if o.place > gone.place and o.kind is not READ]
        if followed and followed[0].kind is ADD:
            assert "skipped ticket" in found


@given(histories, st.integers(0, 200), st.integers(0, 200))
def test_what_happened_later_but_has_the_earlier_ticket_is_found(made, one, other):
    history, final = made
    adds = [i for i, o in enumerate(history) if o.kind is ADD]
    if len(adds) < 2:
        return
    a, b = sorted((adds[one % len(adds)], adds[other % len(adds)]))
    if history[a].leave >= history[b].arrive:
        return
    first, second = history[a].value, history[b].value
    history[a] = history[a]._replace(value=second)
    history[b] = history[b]._replace(value=first)
    assert "stale value" in names(check(history, final))


@given(histories, st.integers(1, 5))
def test_a_count_that_ends_too_low_or_too_high_is_found(made, by):
    history, final = made
    assert "leaked count" in names(check(history, final + by))
    assert "lost update" in names(check(history, final - by))


def test_a_read_of_what_never_was():
    history = [Operation(0, 0, 1, "CPU 0"), Operation(5, 2, 3, "user", READ)]
    assert names(check(history, 1)) == {"phantom value"}


def test_a_read_of_what_was_over():
    history = [
        Operation(0, 0, 10, "CPU 0"),
        Operation(1, 20, 30, "CPU 0"),
        Operation(1, 40, 50, "user", READ),
    ]
    (found,) = check(history, 2)
    assert found.name == "stale value"
    assert found.sentence == "user read 1, though CPU 0 took ticket 1 and was gone before it came"


def test_clocks_that_differ_a_little_accuse_nobody():
    history = [Operation(1, 100, 110, "CPU 0"), Operation(0, 115, 125, "CPU 1")]
    assert names(check(history, 2)) == {"stale value"}
    assert check(history, 2, clock_error=10) == []


def test_one_process_needs_no_clock():
    history = [Operation(1, 100, 100, "CPU 0"), Operation(0, 100, 100, "CPU 0")]
    assert names(check(history, 2, clock_error=1000)) == {"stale value"}


def test_the_witness_is_the_closest_pair_drawn_over_time():
    history = [
        Operation(0, 0, 900, "CPU 0"),
        Operation(0, 100, 1000, "CPU 1"),
        Operation(1, 2000, 2100, "CPU 0"),
        Operation(1, 2050, 2200, "CPU 1"),
    ]
    (found,) = check(history, 2)
    assert found.count == 2
    assert found.sentence == "ticket 1 was taken by CPU 0 and CPU 1, and 1 more"
    drawn = found.lines()
    assert drawn[1].startswith("  CPU 0  |---")
    assert drawn[1].endswith("took ticket 1")
    assert drawn[2].index("|") > drawn[1].index("|")
    assert drawn[3].endswith("200 ns")


times = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 2))
tickets = st.one_of(
    st.integers(0, 6).flatmap(lambda n: st.permutations(range(n))),
    st.lists(st.integers(0, 6), max_size=6),
)
anything = tickets.flatmap(
    lambda values: st.lists(times, min_size=len(values), max_size=len(values)).map(
        lambda drawn: [
            Operation(value, arrive, arrive + length, f"CPU {who}")
            for value, (arrive, length, who) in zip(values, drawn)
        ]
    )
)


@given(anything, st.one_of(st.none(), st.integers(0, 7)), st.integers(0, 5))
def test_what_is_acquitted_quickly_is_acquitted_with_care(history, final, clock_error):
    quickly = module._is_serial(history, final, clock_error)
    with unittest.mock.patch.object(module, "_is_serial", return_value=False):
        with_care = check(history, final, clock_error=clock_error)
    assert not (quickly and with_care)


@given(histories.filter(lambda made: all(o.kind is ADD for o in made[0])))
def test_what_a_lock_gave_is_acquitted_quickly(made):
    assert module._is_serial(made[0], made[1], 0)


@given(anything)
def test_overlap_is_what_its_definition_says(history):
    history.sort(key=lambda o: o.arrive)
    met = [
        any(a.process != b.process and a.leave > b.arrive for a in history[:n])
        for n, b in enumerate(history)
    ]
    assert overlap(history) == (sum(met) / len(met) if met else 0)


def test_overlap_is_of_different_processes():
    history = [
        Operation(0, 0, 10, "CPU 0"),
        Operation(1, 5, 20, "CPU 1"),
        Operation(2, 30, 40, "CPU 1"),
        Operation(3, 50, 60, "CPU 0"),
    ]
    assert overlap(history) == 0.25
    assert overlap([]) == 0


def test_an_empty_history_has_no_anomaly_and_no_timeline():
    assert check([], 0) == []
    assert timeline([]) == []
