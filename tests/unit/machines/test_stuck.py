# SPDX-License-Identifier: GPL-2.0-only
"""A CPU that makes no progress while a call is under way, and a slow one; pipes stand for the guest."""

import itertools
import json
import os
from types import SimpleNamespace

import pytest

from harness.guest import calls
from harness.machines import pulse
from harness.machines.loss import GuestLost, Silent
from harness.machines.pulse import Look, Patience, owes, registers, timer
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
    found = timer(LAPIC.format("one-shot", requested))
    assert (found.pending, found.armed) == (pending, "initial_count = 235987")


def test_a_periodic_timer_tells_nothing_by_how_it_is_set():
    assert timer(LAPIC.format("periodic", "236")).periodic
    assert registers(REGISTERS).kept.startswith("R12=0000000000000003 R13=ffff888004bb3018")
    moved = REGISTERS.replace("RIP=ffffffff811c8c6d", "RIP=ffffffff811c8c6f").replace(
        "RAX=0", "RAX=1"
    )
    assert registers(moved).kept == registers(REGISTERS).kept
    assert registers(REGISTERS.replace("RSP=ffffc9000013fd50", "RSP=ffffc9000013fd48")).kept != (
        registers(REGISTERS).kept
    )


def test_what_has_no_local_apic_owes_nothing():
    assert not owes(timer("No such APIC"), lambda: registers(REGISTERS))


RUNS_OFF, RUNS_ON = REGISTERS, REGISTERS.replace("RFL=00000002", "RFL=00000202")
IDLE = RUNS_OFF.replace("HLT=0", "HLT=1")
UNTAKEN, HANDLED = LAPIC.format("one-shot", "236"), LAPIC.format("one-shot", "(none)")


@pytest.mark.parametrize(
    "lapic, dump, overdue",
    [
        (UNTAKEN, RUNS_OFF, True),
        (UNTAKEN, RUNS_ON, True),  # the host has not run it since
        (HANDLED, RUNS_OFF, True),  # inside the handler, which has acknowledged the interrupt
        (HANDLED, RUNS_ON, False),
        (HANDLED, IDLE, False),
        (HANDLED.replace("current_count = 0", "current_count = 5"), RUNS_OFF, False),
        (HANDLED.replace("initial_count = 235987", "initial_count = 0"), RUNS_OFF, False),
        (HANDLED.replace("(vec 236)", "(vec 48)"), RUNS_OFF, False),
        (HANDLED.replace("one-shot", "one-shot masked"), RUNS_OFF, False),
        (LAPIC.format("periodic", "(none)"), RUNS_OFF, False),
    ],
)
def test_a_cpu_owes_its_timer_the_interrupt_or_a_new_setting(lapic, dump, overdue):
    assert owes(timer(lapic), lambda: registers(dump)) == overdue


def running(*overdue, armed=lambda look: "initial_count = 7"):
    """Yield looks at the CPUs that are overdue in turn, at which the host works all the time."""
    for look, cpus in enumerate(itertools.cycle(overdue)):
        yield dict.fromkeys(
            cpus, Look(armed(look), float(look), overdue=True, at="ffffffff811c8c6d")
        )


@pytest.fixture
def session(monkeypatch):
    """Give a function that opens a session with what the guest says, and its CPUs' pulses."""
    monkeypatch.setattr(pulse, "PULSE_SECONDS", 0.01)
    ends = []

    def opened(pulses, *answers, waited=dict, lost=Silent):
        from_guest, to_host = os.pipe()
        from_host, to_guest = os.pipe()
        ends.extend((from_guest, to_host, to_guest, from_host))
        for answer in ({"session": "open"}, *answers):
            os.write(to_host, json.dumps(answer).encode() + b"\n")
        pulse = iter(pulses)
        return Session(
            Stream(from_guest, to_guest),
            lambda timed_out: lost("stopped answering", "backtraces"),
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
    with pytest.raises(GuestLost, match="too slow, not hung"):
        session(queueing).call(TEST_RUN, limit=0.4)


def test_the_two_looks_are_shown(session):
    with pytest.raises(
        GuestLost,
        match=r"CPU 2 was at ffffffff811c8c6d, initial_count = 7, and after the host had run it for"
        r" 11.0 s at ffffffff811c8c6d, the same",
    ):
        session(running({2})).call(TEST_RUN, limit=30)


def test_a_stuck_cpu_is_told_from_busy_ones(session):
    with pytest.raises(GuestLost, match="hard lockup: CPU 3 took"):
        session(running({0, 3}, {1, 3}, {2, 3})).call(TEST_RUN, limit=30)


def test_a_cpu_that_the_host_does_not_run_is_not_stuck(session):
    with pytest.raises(GuestLost, match="stopped answering"):
        session(itertools.repeat({2: Look("initial_count = 7", 40.0, True)})).call(
            TEST_RUN, limit=0.4
        )


def working(idle=False, seconds=1.0):
    """Yield looks at two CPUs that take their interrupts; CPU 1 is run for so long between two."""
    for look in itertools.count():
        busy = Look(f"initial_count = {look}", seconds * look, idle=idle)
        yield {0: Look(f"initial_count = {look}", 0.0, idle=True), 1: busy}


def test_a_guest_at_work_is_slow_and_not_hung(session):
    with pytest.raises(GuestLost, match="too slow, not hung") as lost:
        session(working()).call(TEST_RUN, limit=0.3)
    assert not lost.value.crashed and lost.value.console == "backtraces"
    assert "CPU 1's timer went from initial_count = " in str(lost.value)
    assert "CPU 0" not in str(lost.value)


@pytest.mark.parametrize("looks", [working(idle=True), working(seconds=0.0)])
def test_a_guest_whose_cpus_are_idle_is_hung(session, looks):
    with pytest.raises(GuestLost, match="^stopped answering$") as lost:
        session(looks).call(TEST_RUN, limit=0.3)
    assert lost.value.crashed


def test_a_guest_that_sleeps_for_long_is_not_waited_for(session, monkeypatch):
    monkeypatch.setattr(pulse, "ASLEEP_PULSES", 3)
    with pytest.raises(GuestLost, match="^stopped answering$") as lost:
        session(working(idle=True)).call(TEST_RUN, limit=3600)
    assert lost.value.crashed
    now_and_then = ({0: Look("7", idle=look % 3 > 0)} for look in itertools.count())
    with pytest.raises(GuestLost):
        session(now_and_then).call(TEST_RUN, limit=0.3)
    pulses = pulse.Pulse()
    assert not any(pulses.stuck({}) or pulses.asleep() for _ in range(9)), "nothing was seen"


def test_a_complaint_of_the_kernel_counts_though_it_was_at_work(session):
    with pytest.raises(GuestLost, match="^stopped answering$") as lost:
        session(working(), lost=lambda *of: GuestLost(of[0], True, of[1])).call(TEST_RUN, limit=0.3)
    assert lost.value.crashed


def test_signs_of_life_give_more_time_and_hide_no_stuck_cpu(session):
    """One CPU is stuck while the others go on."""
    signs = [{"alive": number} for number in range(30)]
    ended = session(running(set()), *signs, {"return": 7})
    assert ended.call(TEST_RUN, limit=0.2) == 7
    pulses, seen = pulse.Pulse(), {}
    for look in itertools.islice(running({1}), pulse.STUCK_PULSES):
        seen = pulses.stuck(look)
    assert list(seen) == [1]


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
