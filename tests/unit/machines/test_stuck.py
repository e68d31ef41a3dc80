"""A CPU that takes no timer interrupt while a call is under way; pipes stand for the guest."""

import itertools
import json
import os
import time

import pytest

from harness.machines import session as sessions
from harness.machines.loss import GuestLost
from harness.machines.qemu_guest import tick_is_pending
from harness.machines.session import Session, Stream

LAPIC = (  # of QEMU 7.2
    "dumping local APIC state for CPU 2\r\n\r\n"
    "LVTT\t 0x000400ec active-hi edge                 tsc-deadline Fixed  (vec 236)\r\n"
    "ISR\t (none)\r\nIRR\t {}\r\n\r\nAPR 0x00 TPR 0x00 DFR 0x0f LDR 0x00 PPR 0x00\r\n"
)


@pytest.mark.parametrize(
    "requested, pending",
    [("(none)", False), ("236", True), ("37 236 251", True), ("37 251", False)],
)
def test_the_tick_is_looked_for_among_what_is_requested(requested, pending):
    assert tick_is_pending(LAPIC.format(requested)) is pending


def test_what_has_no_local_apic_has_no_tick_pending():
    assert not tick_is_pending("No such APIC")


def running(*overdue):
    """Yield looks at the CPUs that are overdue in turn, at which the host works all the time."""
    for second, cpus in enumerate(itertools.cycle(overdue)):
        yield dict.fromkeys(cpus, float(second))


@pytest.fixture
def session(monkeypatch):
    """Give a function that opens a session with what the guest says, and its CPUs' pulses."""
    monkeypatch.setattr(sessions, "PULSE_SECONDS", 0.01)
    ends = []

    def opened(pulses, *answers, waited=dict):
        from_guest, to_host = os.pipe()
        from_host, to_guest = os.pipe()
        ends.extend((from_guest, to_host, to_guest, from_host))
        for answer in ({"session": "open"}, *answers):
            os.write(to_host, json.dumps(answer).encode() + b"\n")
        pulse = iter(pulses)
        return Session(
            Stream(from_guest, to_guest),
            lambda timed_out: GuestLost("stopped answering", timed_out, "backtraces"),
            {},
            lambda: next(pulse, {}),
            waited,
        )

    yield opened
    for end in ends:
        os.close(end)


def test_a_cpu_without_a_tick_for_long_is_the_reason(session):
    with pytest.raises(GuestLost, match="hard lockup: CPU 2 took no timer interrupt") as lost:
        session(running({2})).call("test_run", limit=30)
    assert lost.value.crashed and lost.value.console == "backtraces"


def test_busy_cpus_miss_a_tick_now_and_then(session):
    by_turns = running({0, 1}, {1, 2}, {2}, set())
    with pytest.raises(GuestLost, match="stopped answering"):
        session(by_turns).call("test_run", limit=0.4)


def test_a_stuck_cpu_is_told_from_busy_ones(session):
    with pytest.raises(GuestLost, match="hard lockup: CPU 3 took"):
        session(running({0, 3}, {1, 3}, {2, 3})).call("test_run", limit=30)


def test_a_cpu_that_the_host_does_not_run_is_not_stuck(session):
    with pytest.raises(GuestLost, match="stopped answering"):
        session(itertools.repeat({2: 40.0})).call("test_run", limit=0.4)


def seconds_until_lost(session, waited):
    begun, asked = time.monotonic(), session([], waited=waited)
    with pytest.raises(GuestLost, match="stopped answering"):
        asked.call("test_run", limit=0.2)
    passed = time.monotonic() - begun
    assert passed - asked.waited < 0.6
    return passed


def test_what_a_busy_host_keeps_from_a_guest_is_added_to_its_time(session):
    begun = time.monotonic()

    def waited():  # CPU 1 has a core for a quarter of the time
        return {0: 7.0, 1: 3.0 + 0.75 * (time.monotonic() - begun)}

    assert 0.7 < seconds_until_lost(session, waited) < 1.5


def test_a_guest_that_hangs_on_an_idle_host_gets_no_more_time(session):
    assert 0.15 < seconds_until_lost(session, lambda: {0: 7.0, 1: 3.0}) < 0.6
    assert 0.15 < seconds_until_lost(session, dict) < 0.6


def test_patience_has_an_end(session):
    ever = itertools.count()
    assert seconds_until_lost(session, lambda: {0: float(next(ever))}) < 4


def test_an_answer_is_taken_whatever_the_pulse(session):
    assert session(running({2}), {"return": 7}).call("test_run") == 7
