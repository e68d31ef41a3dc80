"""What CPUs were told that asked for a res_spin_lock."""

import struct
from types import SimpleNamespace

import pytest

from harness import resilient
from harness.judge import Kind
from harness.runtime import Unmet
from harness.target import AgentError

TOLD = struct.pack("<8Q", 10, 8, 1, 1, 0, 0, 250_000_000, 1)
TOLD += struct.pack("<8Q", 5, 5, *[0] * 6)


class Guest:
    """Answers calls; knows how it was booted."""

    def __init__(self, virtual=True):
        self.facts, self.calls = {"virtual": virtual}, []

    def call(self, function, **arguments):
        self.calls.append((function, arguments))
        return TOLD.hex() if function == "map_lookup" else {"seconds": 1.0}

    def needs(self, name, since):
        self.calls.append(("needs", name, since))

    def boot_with(self, words):
        self.calls.append(("boot_with", words))


def test_answers_of_all_cpus_are_one_sentence():
    told = resilient.total(Guest(), resilient.COUNT)
    assert told.refused == 2 and resilient.by_cpu(Guest(), resilient.COUNT)[1].refused == 0
    words = "15 asked: 13 taken, 1 EDEADLK, 1 ETIMEDOUT; the longest refusal took 250.0 ms, 1"
    words += " under 1 ms"
    assert str(told) == words


def test_programs_are_driven_together():
    guest = Guest()
    facts = resilient.drive(guest, {("a", resilient.HOLD): [0], ("b", 2): [1, 2]}, 9, seconds=0.5)
    (reset, _), (function, arguments) = guest.calls
    assert (reset, function, facts) == ("map_reset", "drive", {"seconds": 1.0})
    assert [order["cpus"] for order in arguments["orders"]] == [[0], [1, 2]]
    assert {order["seconds"] for order in arguments["orders"]} == {0.5}


@pytest.mark.parametrize("path", resilient.PATHS)
def test_cpus_queue_in_a_guest_of_its_own(path):
    guest = Guest(virtual=False)
    resilient.boot(guest, path)
    assert ("boot_with", resilient.QUEUES) in guest.calls or not path


def test_cpus_that_still_know_that_they_are_virtual_are_an_error():
    with pytest.raises(AgentError, match="still say that they are virtual"):
        resilient.boot(Guest(virtual=True), "queued")


def test_waiting_with_interrupts_off_needs_a_clock_that_goes_on():
    resilient.needs_clock(SimpleNamespace(facts={"clocksource": "tsc"}))
    with pytest.raises(Unmet) as raised:
        resilient.needs_clock(SimpleNamespace(facts={"clocksource": "refined-jiffies"}))
    assert raised.value.verdict.kind is Kind.SKIP


def test_a_lost_record_is_blamed_only_for_what_does_not_hold():
    guest = SimpleNamespace(check=lambda *arguments, bug: seen.append(bug))
    seen = []
    resilient.check_record(guest, True, "held", "")
    resilient.check_record(guest, False, "held", "")
    assert seen == [None, resilient.RECORD_IS_LOST]
