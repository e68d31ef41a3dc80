# SPDX-License-Identifier: GPL-2.0-only
"""Interrupts whose programs want a lock that is held: the reason why the lock turns interrupts off.

On CPU 0 a cgroup program takes the lock of bpf_progs/driven/nesting.bpf.c in a loop. Meanwhile other CPUs
send packets to CPU 0, or timers expire there, and their programs want the lock too. If the lock left
interrupts on, such a program would run while the lock is held, and CPU 0 would wait for itself for ever.
The kernel's watchdogs then make the case a CRASH.

One test only locks and unlocks, so that interrupts come at every instruction of both. Another lets an
interrupt wait for a lock that another CPU holds. A third lets a timer interrupt user space that copies
with BPF_F_LOCK.
"""

from dataclasses import dataclass
from typing import Tuple

import pytest
from packaging.version import Version

from harness.guest import calls
from harness.guest.uapi import BPF_F_LOCK as LOCK
from harness.judging.verdict import Kind, Verdict

RULE = "Interrupts wait while the lock is held"

OUTER, INNER, CALLS = 0, 1, 2  # of bpf_progs/driven/nesting.bpf.c
LOCKS = 256  # of a run of lock_over_and_over
TURNS = 1000
LEAST_HITS = 5  # interrupts inside the twin's unlocked section
# The kernel's watchdogs find a CPU that waits for itself within some 25 seconds. They do not if that CPU
# has interrupts off and keeps the time of all CPUs: then this limit ends the call.
LIMIT = 40.0

LOCKING_RUNS = {False: 25_000, True: 100_000}  # with the lock and without, each about a second
INTERRUPTS = 20_000
LEAST_INTERRUPTS = 500  # while CPU 0 does nothing but lock and unlock

FILLED = 0x01010101  # times a byte: a word of struct large that is filled with it
LEAST_TORN = 5  # copies without the flag that were interrupted halfway
COPY_SECONDS = 1.5  # of one way to copy

ROUNDS = 10  # the most rounds until enough interrupts came in between

LEAST_TIMERS = 200  # wanted timer interrupts on all CPUs
CROSS_SECONDS = 3.0  # the time limit for them


@dataclass(frozen=True)
class Wanting:
    """A program that interrupts the holder, and its driver."""

    program: str
    driver: str
    frames: int = 0  # per sending CPU
    datagrams: int = 15_000  # the outer program holds the lock once per datagram
    locks_since: str = ""  # first version that lets this program type lock


WANTING = {
    "tc": Wanting("want_at_tc", "tc_ingress_to_cpu_0", 15_000),
    "xdp": Wanting("want_at_xdp", "xdp_generic_to_cpu_0", 15_000),
    "timer": Wanting("want_at_timer", "local_timer", datagrams=40_000, locks_since="5.15"),
}


@dataclass(frozen=True)
class Nested:
    """Counts of one run."""

    bare: bool  # without the lock
    sent: Tuple[int, int]  # requested runs of OUTER and INNER
    ran: Tuple[int, int]
    active: int  # runs of the inner program while the outer one ran
    region: int  # runs of the inner program inside the outer one's critical section
    counted: int
    dropped: int
    seconds: float

    @property
    def lost(self):
        return sum(self.ran) - self.counted


def carry_out(guest, bare, turns, orders, locks=1):
    """Run the outer and the inner program at the same time; the outer one locks `locks` times per run.

    An order is (driver, program, source, CPUs, operations).
    """
    for name in ("runs", "stages"):
        guest.map(name).reset()
    guest.map("state")[0] = {}
    guest.map("orders")[0] = {"turns": turns, "bare": bare}
    drive = calls.Drive([calls.Order(*order) for order in orders], "runs")
    facts = guest.call(drive, limit=LIMIT)
    outer, inner = guest.map("runs").total(OUTER), guest.map("runs").total(INNER)
    return Nested(
        bare=bare,
        sent=tuple(sum(fact["sent"].values()) for fact in facts["orders"]),
        ran=(locks * outer.runs, inner.runs),
        active=inner.active,
        region=inner.region,
        counted=guest.map("state")[0].count,
        dropped=sum(facts["dropped"].values()),
        seconds=facts["seconds"],
    )


def nest(guest, wanting, bare):
    """Let a cgroup program hold the lock while packets or timers interrupt it."""
    senders = list(range(1, min(guest.cpus, 3))) if wanting.frames else []
    orders = [
        ("cgroup_skb_egress", "hold_at_egress", OUTER, [0], wanting.datagrams),
        (wanting.driver, wanting.program, INNER, senders, wanting.frames),
    ]
    return carry_out(guest, bare, TURNS, orders)


def nest_until(is_telling, guest, wanting, bare):
    """Repeat nest() until the runs are telling: few interrupts nest if softirqs run in threads."""
    runs = []
    while len(runs) < ROUNDS and not is_telling(runs):
        runs.append(nest(guest, wanting, bare))
    return runs


def total(runs, what):
    """Return the sum of an attribute."""
    return sum(getattr(run, what) for run in runs)


@pytest.mark.contends
@pytest.mark.parametrize("where", WANTING)
def test_nesting(guest, where):
    wanting = WANTING[where]
    if wanting.frames:
        guest.needs_two_cpus("one CPU cannot send to itself in between")
    programs = ["hold_at_egress", wanting.program, "lock_word_of_nesting"]
    guest.load("nesting.bpf.c", programs, locks_since=wanting.locks_since)
    locked = nest_until(lambda runs: total(runs, "active"), guest, wanting, bare=False)
    bare = nest_until(
        lambda runs: min(total(runs, "region"), total(runs, "lost")) >= LEAST_HITS,
        guest,
        wanting,
        bare=True,
    )
    word = guest.call(calls.TestRun("lock_word_of_nesting"))["retval"]

    for run in locked:
        guest.check(run.region == 0, "nothing comes in while the lock is held", run)
        guest.check(run.lost == 0, "all that ran under the lock is counted", run)
    for run in (*locked, *bare):
        missing = run.sent[OUTER] - run.ran[OUTER]
        if wanting.frames:
            missing += run.sent[INNER] - run.ran[INNER]
        guest.check(0 <= missing <= run.dropped, "what is sent runs, or is dropped on the way", run)
    guest.check(word == 0, "the lock word is zero afterwards", word)

    came, inside, lost = (total(bare, what) for what in ("active", "region", "lost"))
    seen = (
        f"{total(locked, 'active')} came while the holder ran, none inside; without the lock"
        f" {inside} of {came} came inside and {lost} were lost"
    )
    weak = inside < LEAST_HITS or lost < LEAST_HITS or not total(locked, "active")
    kind = Kind.INCONCLUSIVE if weak else Kind.PASS
    measured = {"locked": list(map(vars, locked)), "bare": list(map(vars, bare))}
    guest.conclude(Verdict(kind, seen), **measured)


def interrupt(guest, bare):
    """Let CPU 0 lock and unlock in a loop while CPU 1 interrupts it."""
    orders = [
        ("test_run", "lock_over_and_over", OUTER, [0], LOCKING_RUNS[bare]),
        ("interrupt_cpu_0", "be_called", CALLS, [1], INTERRUPTS),
    ]
    return carry_out(guest, bare, 0, orders, LOCKS)


def test_interrupts_are_off_before_the_lock_is_taken(guest):
    """Interrupts that want the lock come between all instructions, but never while it is held."""
    guest.needs_two_cpus("one CPU cannot interrupt itself")
    programs = ["lock_over_and_over", "want_at_call", "be_called", "lock_word_of_nesting"]
    guest.load("nesting.bpf.c", programs, locks_since="5.15")
    guest.call(calls.Attach("want_at_call"))
    locked, bare = interrupt(guest, False), interrupt(guest, True)
    word = guest.call(calls.TestRun("lock_word_of_nesting"))["retval"]
    for run in (locked, bare):
        ran = run.ran[OUTER] == LOCKS * run.sent[OUTER]
        guest.check(ran, "what is asked for runs", run)
    guest.check(locked.region == 0, "no interrupt comes in while the lock is held", locked)
    guest.check(locked.lost == 0, "all that ran under the lock is counted", locked)
    guest.check(word == 0, "the lock word is zero afterwards", word)
    seen = (
        f"{locked.active} interrupts while CPU 0 took the lock {locked.ran[OUTER]} times, none"
        f" inside; without the lock {bare.region} of {bare.active} came inside"
    )
    weak = bare.region < LEAST_HITS or locked.active < LEAST_INTERRUPTS
    kind = Kind.INCONCLUSIVE if weak else Kind.PASS
    guest.conclude(Verdict(kind, seen), locked=vars(locked), bare=vars(bare))


def copy_under_timer(guest, way, bare):
    """Copy the large value on CPU 0, whose timer program inspects it; return (copies, looks, torn)."""
    guest.map("orders")[0] = {"turns": TURNS, "bare": bare}
    guest.map("looks").reset()
    larges = guest.map("larges").value
    begin, end = larges.span("between")
    values = [
        larges.encode(
            {
                "first": FILLED * byte,
                "between": bytes([byte]) * (end - begin),
                "last": FILLED * byte,
            }
        ).hex()
        for byte in (1, 2)
    ]
    copy = calls.Copy(
        "larges",
        calls.Access(way, values, flags=0 if bare else LOCK),
        calls.Shape(hidden=larges.span("lock"), even=(begin, begin + 8)),
        calls.Until(times=1, seconds=COPY_SECONDS, least=COPY_SECONDS),
        here=0,
    )
    seen = guest.call(copy, limit=LIMIT)
    looks = guest.map("looks")[0]
    return seen["done"], looks.runs, looks.torn


def test_interrupts_wait_for_copy(guest):
    """A timer program waits for the lock until user space has finished its copy with BPF_F_LOCK."""
    if guest.release < Version("5.15"):
        guest.conclude(Verdict(Kind.SKIP, "no timer's program takes a lock before v5.15"))
        return
    guest.load("nesting.bpf.c", ["look_at_timer"])
    guest.call(calls.Attach("look_at_timer"))
    bare = [0, 0, 0]
    for _ in range(ROUNDS):
        bare = [sum(pair) for pair in zip(bare, copy_under_timer(guest, "update", bare=True))]
        if bare[2] >= LEAST_TORN:
            break
    measured = {"bare": bare}
    blind = bare[2] < LEAST_TORN
    for way in ("update", "lookup"):
        copies, looks, torn = measured[way] = copy_under_timer(guest, way, bare=False)
        guest.check(
            torn == 0,
            f"a timer finds every {way} with BPF_F_LOCK done or not begun",
            f"{torn} of {looks} found it half done",
        )
        blind = blind or not looks
    seen = (
        f"{measured['update'][1]} and {measured['lookup'][1]} timers came during updates and lookups"
        f" and none in between; without the flag {bare[2]} of {bare[1]} did"
    )
    kind = Kind.INCONCLUSIVE if blind else Kind.PASS
    guest.conclude(Verdict(kind, seen), **measured)


def cross(guest, bare):
    """Let timers and test runs of several CPUs take the lock; return (runs, met) of each."""
    guest.map("orders")[0] = {"turns": TURNS, "bare": bare}
    crossed = guest.map("timers_crossed"), guest.map("runs_crossed")
    for each in crossed:
        each.reset()
    programs = ["cross_in_test_run"] * min(guest.cpus, 3)
    until = {"timers_crossed": LEAST_TIMERS}
    guest.call(calls.Race(programs=programs, until=until, seconds=CROSS_SECONDS), limit=LIMIT)
    totals = [each.total() for each in crossed]
    return [(seen.runs, seen.met) for seen in totals]


def added(some, more):
    """Add two results of cross()."""
    return [tuple(sum(pair) for pair in zip(*pairs)) for pairs in zip(some, more)]


@pytest.mark.contends(both=True)
def test_interrupts_wait_for_other_cpus(guest):
    """A timer program and a program on another CPU are never in the critical section together."""
    guest.needs_two_cpus("one CPU cannot hold what another waits for")
    programs = ["cross_at_timer", "cross_in_test_run"]
    guest.load("nesting.bpf.c", programs, locks_since="5.15")
    guest.call(calls.Attach("cross_at_timer"))
    bare, rounds = [(0, 0), (0, 0)], 0
    while bare[0][1] < LEAST_HITS and rounds < ROUNDS:
        bare, rounds = added(bare, cross(guest, True)), rounds + 1
    locked = [(0, 0), (0, 0)]
    for _ in range(rounds):  # as many rounds as the twin needed to fail
        locked = added(locked, cross(guest, False))
    for what, (runs, met) in zip(("timer", "test run"), locked):
        seen = f"{met} of {runs} met another CPU"
        guest.check(met == 0, f"a {what} with the lock is inside alone", seen)
    timers, runs = locked
    seen = (
        f"{timers[0]} timers and {runs[0]} test runs were inside one by one; without the lock"
        f" {bare[0][1]} of {bare[0][0]} timers were not"
    )
    weak = bare[0][1] < LEAST_HITS or timers[0] < LEAST_TIMERS // 2
    kind = Kind.INCONCLUSIVE if weak else Kind.PASS
    guest.conclude(Verdict(kind, seen), bare=bare, locked=locked)
