# SPDX-License-Identifier: GPL-2.0-only
"""What went into a list or a tree and came out of it: good orders, and each way to be wrong."""

import random

from hypothesis import given, settings, strategies as st

from harness.judging.list_model import Transfer, check, first_in_first_out, least_first


def run(seed, rank, steps=200):
    """Return (transfers, what is left) as a container with that rank would have it."""
    chance, inside, transfers = random.Random(seed), [], []
    for ticket in range(steps):
        process = f"CPU {chance.randrange(4)}"
        if chance.random() < 0.5:
            put = Transfer(ticket, ticket + 1, 0, process)
            transfers.append(put)
            inside.append(put)
        else:
            inside.sort(key=rank)
            taken = inside.pop(0).put if inside else 0
            transfers.append(Transfer(ticket, 0, taken, process))
    return transfers, [put.put for put in sorted(inside, key=rank)]


def names(*arguments):
    return {anomaly.name for anomaly in check(*arguments)}


@settings(max_examples=50, deadline=None)
@given(st.integers(), st.sampled_from([first_in_first_out, least_first]))
def test_good_orders_are_acquitted(seed, rank):
    transfers, left = run(seed, rank)
    random.Random(seed).shuffle(transfers)
    assert check(transfers, left, rank) == []


def test_a_list_is_no_tree():
    assert names(*run(1, first_in_first_out), least_first) == {"wrong order"}
    assert names(*run(1, least_first), first_in_first_out) == {"wrong order"}


def test_lost_and_twice_and_foreign():
    put = [Transfer(0, 7, 0, "CPU 0"), Transfer(1, 8, 0, "CPU 1")]
    assert names(put, [7, 8], first_in_first_out) == set()
    assert names(put, [7], first_in_first_out) == {"lost object"}
    assert names(put, [7, 8, 7], first_in_first_out) == {"object taken out twice"}
    assert names(put, [7, 8, 9], first_in_first_out) == {"foreign object"}
    assert names([*put, Transfer(2, 7, 0, "CPU 0")], [7, 8], first_in_first_out) >= {
        "object put in twice"
    }
    nothing = Transfer(2, 0, 0, "CPU 0")
    [anomaly] = check([*put, nothing], [7, 8], first_in_first_out)
    assert anomaly.name == "lost object"
    assert anomaly.sentence == (
        "ticket 2: CPU 0 took out nothing instead of 7, since ticket 0: CPU 0 put in 7"
    )
