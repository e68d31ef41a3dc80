# SPDX-License-Identifier: GPL-2.0-only
"""What CPUs were told that asked for a res_spin_lock."""

from types import SimpleNamespace

import pytest

from harness.judging.verdict import Kind
from harness.provision.layout import Value
from harness.running import res_spin_lock
from harness.running.driven import Unmet

NAMES = ("runs", "taken", "deadlocks", "timeouts", "others", "untried", "longest_ns", "at_once")
TOLD = [
    Value("struct answers", dict(zip(NAMES, numbers)))
    for numbers in ((10, 8, 1, 1, 0, 0, 250_000_000, 1), (5, 5, *[0] * 6))
]


class Told:
    """The map of answers."""

    def __init__(self, calls):
        self._calls = calls

    def __getitem__(self, key):
        return TOLD

    def reset(self):
        self._calls.append("reset")


class Guest:
    """Answers calls."""

    def __init__(self):
        self.calls = []

    def call(self, request, limit=0):
        self.calls.append(request)
        return {"seconds": 1.0}

    def map(self, name):
        assert name == "told"
        return Told(self.calls)

    def needs(self, name, since):
        self.calls.append(("needs", name, since))


def test_answers_of_all_cpus_are_one_sentence():
    told = res_spin_lock.total(Guest(), res_spin_lock.COUNT)
    assert told.refused == 2 and res_spin_lock.by_cpu(Guest(), res_spin_lock.COUNT)[1].refused == 0
    words = "15 asked: 13 taken, 1 EDEADLK, 1 ETIMEDOUT; the longest refusal took 250.0 ms, 1"
    words += " under 1 ms"
    assert str(told) == words


def test_programs_are_driven_together():
    guest = Guest()
    facts = res_spin_lock.drive(
        guest, {("a", res_spin_lock.HOLD): [0], ("b", 2): [1, 2]}, 9, seconds=0.5
    )
    reset, drive = guest.calls
    assert (reset, drive.name, facts) == ("reset", "drive", {"seconds": 1.0})
    assert [order.cpus for order in drive.orders] == [[0], [1, 2]]
    assert {order.seconds for order in drive.orders} == {0.5}


def test_a_kernel_without_the_lock_is_skipped():
    guest = Guest()
    res_spin_lock.needs_lock(guest)
    assert guest.calls == [("needs", "bpf_res_spin_lock", "6.15")]


def test_waiting_with_interrupts_off_needs_a_clock_that_goes_on():
    res_spin_lock.needs_clock(SimpleNamespace(facts={"clocksource": "tsc"}))
    with pytest.raises(Unmet) as raised:
        res_spin_lock.needs_clock(SimpleNamespace(facts={"clocksource": "refined-jiffies"}))
    assert raised.value.verdict.kind is Kind.SKIP


def test_a_lost_record_is_blamed_only_for_what_does_not_hold():
    guest = SimpleNamespace(check=lambda *arguments, bug: seen.append(bug))
    seen = []
    res_spin_lock.check_record(guest, True, "held", "")
    res_spin_lock.check_record(guest, False, "held", "")
    assert seen == [None, res_spin_lock.RECORD_IS_LOST]
