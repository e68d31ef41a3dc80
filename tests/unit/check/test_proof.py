# SPDX-License-Identifier: GPL-2.0-only
"""Runs become verdicts: what one CPU leaves is the model."""

import pytest

from harness.check import proof
from harness.check.nature import MANY, Nature
from harness.check.proof import ACCUSED, MATTERS, NO_POWER, UNCHANGED, UNKNOWN, Experiment, Part

COUNT, LAST = Part("items", "count", 4, 4), Part("items", "last", 8, 8)
RUNS = 1000
ONE_SECTION = Nature(sections=1)


def value(count, last=0):
    return (bytes(4) + count.to_bytes(4, "little") + last.to_bytes(8, "little")).hex()


def seen(count, last=0, half=None, seconds=1.0, looks=()):
    before, halfway = value(2), value(2 + (count - 2) // 2 if half is None else half)
    states = ({"items": {"00": each}} for each in (before, halfway, value(count, last)))
    return proof.Seen(*states, seconds, {"items": {"00": list(looks)}})


def done(together, twin, nature=ONE_SECTION, serial=(1002, 1002, 1002)):
    orders = tuple(seen(count, last) for last, count in enumerate(serial))
    return Experiment(nature, orders, tuple(map(seen, together)), tuple(map(seen, twin)), RUNS)


def only(experiment, part=COUNT):
    (found,) = proof.judge(experiment, [part])
    return found


def test_the_lock_matters_where_only_the_twin_loses():
    found = only(done([1002], [990]))
    assert found.verdict == MATTERS and found.twin.lost == 12
    assert (found.twin.expected, found.twin.found) == ("1,002", "990")


def test_accused_where_the_program_itself_loses():
    found = only(done([1002, 1001], [990]))
    assert found.verdict == ACCUSED and found.loss.lost == 1


def test_no_power_where_nothing_is_lost():
    assert only(done([1002], [1002])).verdict == NO_POWER


def test_what_depends_on_the_order_is_not_compared():
    found = only(done([1002], [990]), LAST)
    assert found.verdict == UNKNOWN and "order" in found.because


def test_what_never_changes_is_not_judged():
    assert only(done([2], [2], serial=(2, 2))).verdict == UNCHANGED


@pytest.mark.parametrize(
    "nature, why",
    [
        (Nature(1, deletes=True), "deleted"),
        (Nature(1, tickets=True), "atomic"),
        (Nature(1, loose=frozenset([("items", "limit")])), "items.limit"),
        (Nature(1, clock=True), "time"),
    ],
)
def test_what_may_be_meant_so_is_not_accused(nature, why):
    orders = tuple(seen(1002) for _ in range(2))
    slow = seen(1001, seconds=2.0)
    found = only(Experiment(nature, orders, (slow,), (), RUNS))
    assert found.verdict == UNKNOWN and why in found.because and found.loss is not None


def test_a_field_that_is_itself_read_without_the_lock_is_accused():
    nature = Nature(1, loose=frozenset([("items", "count")]))
    assert only(done([1001], [], nature)).verdict == ACCUSED


def test_of_two_sections_only_counters_are_compared():
    nature = Nature(MANY)
    assert only(done([1001], [], nature)).verdict == ACCUSED
    most = tuple(seen(3, half=3) for _ in range(3))  # from the first run on
    found = only(Experiment(nature, most, (seen(5, half=5),), (), RUNS))
    assert found.verdict == UNKNOWN and "more than once" in found.because


def test_the_clock_is_no_excuse_if_the_others_took_longer():
    orders = (seen(1002), seen(1002, seconds=3.0))
    found = only(Experiment(Nature(1, clock=True), orders, (seen(1001),), (), RUNS))
    assert found.verdict == ACCUSED


def test_the_verdict_that_says_most_is_kept():
    alone, both = only(done([1002], [1002])), only(done([1000], [990]))
    assert proof.combined([alone, both]) == (both,) == proof.combined([both, alone])


def test_an_array_is_shown_where_it_differs():
    part = Part("items", "many", 0, 16)
    experiment = done([1001], [])
    assert only(experiment, part).verdict == UNKNOWN  # last differs in each order
    orders = tuple(seen(1002) for _ in range(2))
    found = only(Experiment(ONE_SECTION, orders, (seen(1001),), (), RUNS), part)
    assert found.loss.expected == "bytes 4 to 7: 1,002" and found.loss.found == "1,001"


PAIR = [COUNT, Part("items", "again", 0, 4)]


def pair(last, again=None):
    return (last if again is None else again).to_bytes(4, "little").hex() + value(last)[8:]


def stamped(*values, looks=()):
    states = ({"items": {"00": pair(each)}} for each in values)
    return proof.Seen({}, *states, 1.0, {"items": {"00": list(looks)}})


ORDERS = (stamped(5, 9), stamped(6, 12), stamped(7, 15))


def of_pair(together, twin, nature=ONE_SECTION):
    return proof.judge(Experiment(nature, ORDERS, (together,), (twin,), RUNS), PAIR)


def test_fields_that_are_equal_in_every_order():
    (relation,) = proof.relations(ORDERS, PAIR)
    assert relation.words == "count = again" and not relation.constant


def test_a_relation_that_only_the_twin_breaks():
    whole, torn = stamped(3, 4, looks=[pair(8)]), stamped(3, 4, looks=[pair(8), pair(8, 7)])
    found = of_pair(whole, torn)
    assert [each.verdict for each in found] == [MATTERS, MATTERS]
    assert found[0].twin.expected == "count = again" and found[0].twin.found == "8 and 7"
    assert [each.verdict for each in of_pair(torn, torn)] == [ACCUSED, ACCUSED]
    assert [each.verdict for each in of_pair(whole, whole)] == [NO_POWER, NO_POWER]


def test_between_two_sections_a_relation_may_be_broken():
    torn = stamped(3, 4, looks=[pair(8, 7)])
    assert [each.verdict for each in of_pair(torn, torn, Nature(2))] == [UNKNOWN, UNKNOWN]


def test_few_values_make_no_relation():
    assert not proof.relations((stamped(5, 5), stamped(5, 6)), PAIR)


def test_the_sum_of_two_fields():
    states = [{"items": {"00": pair(100 - n, n)}} for n in range(4)]
    orders = [proof.Seen({}, states[n], states[n + 1], 1.0) for n in range(3)]
    (relation,) = proof.relations(orders, PAIR)
    assert relation.words == "count + again = 100"
