# SPDX-License-Identifier: GPL-2.0-only
"""A CPU that takes no timer interrupt while a call is under way; pipes stand for the guest."""

import itertools
import json
import os
from types import SimpleNamespace

import pytest

from harness.guest import calls
from harness.machines import pulse
from harness.machines.loss import GuestLost
from harness.machines.pulse import Patience, Tick, kept_registers, pending_tick
from harness.machines.session import Session, Stream

LAPIC = (  # of QEMU 7.2
    "dumping local APIC state for CPU 2\r\n\r\n"
    "LVTT\t 0x000000ec active-hi edge                 {}     Fixed  (vec 236)\r\n"
    "Timer\t DCR=0x3 (divide by 16) initial_count = 235987 current_count = 0\r\n"
    "ISR\t (none)\r\nIRR\t {}\r\n\r\nAPR 0x00 TPR 0x00 DFR 0x0f LDR 0x00 PPR 0x00\r\n"
)
REGISTERS = (
    "CPU#1\r\nRAX=0000000000000001 RBX=ffff888004bb3000 RCX=0000000000000000 RDX=0000000000000001\r\n"
    "RSI=0000000000000000 RDI=ffff888004bb3000 RBP=ffffc9000013fd68 RSP=ffffc9000013fd50\r\n"
    "R12=0000000000000003 R13=ffff888004bb3018 R14=0000000000000000 R15=ffffe8ffffc80000\r\n"
    "RIP=ffffffff811c8c6d RFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0\r\n"
)

TEST_RUN = calls.TestRun("look")


@pytest.mark.parametrize(
    "requested, pending",
    [("(none)", False), ("236", True), ("37 236 251", True), ("37 251", False)],
)
def test_the_tick_is_looked_for_among_what_is_requested(requested, pending):
    tick = Tick("initial_count = 235987") if pending else None
    assert pending_tick(LAPIC.format("one-shot", requested)) == tick


def test_a_periodic_timer_tells_nothing_by_how_it_is_set():
    assert pending_tick(LAPIC.format("periodic", "236")) == Tick("periodic")
    assert kept_registers(REGISTERS).startswith("R12=0000000000000003 R13=ffff888004bb3018")
    moved = REGISTERS.replace("RIP=ffffffff811c8c6d", "RIP=ffffffff811c8c6f").replace(
        "RAX=0", "RAX=1"
    )
    assert kept_registers(moved) == kept_registers(REGISTERS)
    assert kept_registers(REGISTERS.replace("RSP=ffffc9000013fd50", "RSP=ffffc9000013fd48")) != (
        kept_registers(REGISTERS)
    )


def test_what_has_no_local_apic_has_no_tick_pending():
    assert pending_tick("No such APIC") is None


def running(*overdue, armed=lambda look: "initial_count = 7"):
    """Yield looks at the CPUs that are overdue in turn, at which the host works all the time."""
    for look, cpus in enumerate(itertools.cycle(overdue)):
        yield dict.fromkeys(cpus, Tick(armed(look), float(look)))


@pytest.fixture
def session(monkeypatch):
    """Give a function that opens a session with what the guest says, and its CPUs' pulses."""
    monkeypatch.setattr(pulse, "PULSE_SECONDS", 0.01)
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
        session(running({2})).call(TEST_RUN, limit=30)
    assert lost.value.crashed and lost.value.console == "backtraces"


def test_busy_cpus_miss_a_tick_now_and_then(session):
    by_turns = running({0, 1}, {1, 2}, {2}, set())
    with pytest.raises(GuestLost, match="stopped answering"):
        session(by_turns).call(TEST_RUN, limit=0.4)


def test_a_cpu_whose_timer_is_set_anew_makes_progress(session):
    """It has interrupts off nearly always: each look finds a tick to take, but not the same."""
    queueing = running({0, 1, 2, 3}, armed="initial_count = {}".format)
    with pytest.raises(GuestLost, match="stopped answering$"):
        session(queueing).call(TEST_RUN, limit=0.4)


def test_the_two_looks_are_shown(session):
    with pytest.raises(
        GuestLost, match=r"CPU 2's timer stood at initial_count = 7, and still after"
    ):
        session(running({2})).call(TEST_RUN, limit=30)


def test_a_stuck_cpu_is_told_from_busy_ones(session):
    with pytest.raises(GuestLost, match="hard lockup: CPU 3 took"):
        session(running({0, 3}, {1, 3}, {2, 3})).call(TEST_RUN, limit=30)


def test_a_cpu_that_the_host_does_not_run_is_not_stuck(session):
    with pytest.raises(GuestLost, match="stopped answering"):
        session(itertools.repeat({2: Tick("initial_count = 7", 40.0)})).call(TEST_RUN, limit=0.4)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    hands = SimpleNamespace(now=100.0)
    monkeypatch.setattr(pulse, "time", SimpleNamespace(monotonic=lambda: hands.now))
    return hands


def test_what_a_busy_host_keeps_from_a_guest_is_added_to_its_time(clock):
    begun = clock.now
    patience = Patience(2.0, lambda: {0: 7.0, 1: 3.0 + 0.75 * (clock.now - begun)})
    clock.now += 4.0  # CPU 1 had a core for a quarter of it
    assert patience.left() == pytest.approx(1.0) and patience.more == pytest.approx(3.0)
    clock.now += 4.0
    assert patience.left() == pytest.approx(0.0)


@pytest.mark.parametrize("waited", [dict, lambda: {0: 7.0, 1: 3.0}])
def test_a_guest_that_hangs_on_an_idle_host_gets_no_more_time(clock, waited):
    patience = Patience(2.0, waited)
    clock.now += 1.5
    assert patience.left() == pytest.approx(0.5) and patience.more == 0.0


def test_patience_has_an_end(clock):
    ever = itertools.count(0, 100)
    patience = Patience(2.0, lambda: {0: float(next(ever))})
    assert patience.left() == pytest.approx(2.0 * (1 + pulse.MOST_PATIENCE))


def test_a_call_without_an_answer_says_how_long_the_host_was_busy(session):
    ever = itertools.count()
    asked = session([], waited=lambda: {0: next(ever) / 100})
    with pytest.raises(GuestLost, match="stopped answering"):
        asked.call(TEST_RUN, limit=0.2)
    assert 0.0 < asked.waited


def test_an_answer_is_taken_whatever_the_pulse(session):
    assert session(running({2}), {"return": 7}).call(TEST_RUN) == 7
