# SPDX-License-Identifier: GPL-2.0-only
"""bpf_res_spin_lock() and interrupts of its owner, and the state of interrupts and preemption.

The programs are those of bpf_progs/driven/res_spin_lock_interrupts.bpf.c.
"""

import pytest
from packaging.version import Version

from harness.guest import calls
from harness.judging.lock_path import QUEUED
from harness.judging.serialization import LOCKED
from harness.judging.verdict import Kind, Verdict
from harness.running.res_spin_lock import (
    EDEADLK,
    HOLD,
    INNER,
    INTERRUPT,
    OUTER,
    check_record,
    drive,
    needs_lock,
    needs_record,
    total,
)

RULE = (
    "A res_spin_lock forbids preemption, its irqsave flavour interrupts too, and both end with it"
)
LOADERS = ("libbpf",)  # they are kernel functions

FILE = "res_spin_lock_interrupts.bpf.c"
TURNS = 2000  # length of the critical section, and of the time after it
OPERATIONS, SECONDS = 1_000_000, 0.6  # per CPU; the time limit
LEAST_INSIDE = 10  # least interrupts while the lock is held or waited for, where they are possible
RARELY = 100  # one in so many interrupts may time out, because the host may stop a virtual CPU
# The fix is not known for certain: 6.19.14 does not hang, and a series of v6.19 that begins with
# commit beb7021a6003 ("rqspinlock: Enclose lock/unlock within lock entry acquisitions") is about it.
QUEUES_WITH_INTERRUPTS = Version("6.19")
# Before v6.19 a CPU that re-acquires its own lock waits a millisecond before the kernel checks for that.
AT_ONCE = Version("6.19")
RUNS = 200  # of the program that reads the preempt count


def prepare(guest, asked_for):
    """Set the length of the critical section, and the lock that interrupts want."""
    guest.map("orders")[0] = {"turns": TURNS, "mode": LOCKED.mode, "elements": 1}
    guest.map("asked_for")[0] = asked_for
    guest.map("stages").reset()


def interrupt(guest, program, asked_for=0):
    """Let all CPUs take the first lock in turn, while their timer interrupts want a lock.

    Return the answers to the holders and those to the interrupts.
    """
    prepare(guest, asked_for)
    cpus = list(range(guest.cpus))
    drive(guest, {(program, HOLD): cpus}, OPERATIONS, SECONDS)
    return total(guest, HOLD), total(guest, INTERRUPT)


@pytest.mark.contends(both=True)
def test_interrupts_ask_for_lock(guest):
    """An interrupt that wants its own CPU's lock gets EDEADLK; with irqsave no interrupt comes."""
    needs_record(guest)
    needs_lock(guest)
    programs = ["hold_plain", "hold_irqsave", "hold_irqsave_around"]
    guest.load(FILE, ["ask_from_interrupt", *programs])
    if guest.lock_path == QUEUED and guest.release < QUEUES_WITH_INTERRUPTS:
        reason = f"before v{QUEUES_WITH_INTERRUPTS}, CPUs hang when tasks and interrupts queue"
        guest.conclude(Verdict(Kind.SKIP, f"{reason} (seen on 6.16.12, 6.17.13, 6.18.15)"))
        return
    guest.call(calls.Attach("ask_from_interrupt"))
    told = {
        "held": interrupt(guest, "hold_plain"),
        "another held": interrupt(guest, "hold_plain", asked_for=63),
        "held with irqsave": interrupt(guest, "hold_irqsave"),
        "held with irqsave around another": interrupt(guest, "hold_irqsave_around"),
    }
    for what, (holders, interrupts) in told.items():
        waited = holders.timeouts + holders.untried + interrupts.timeouts + interrupts.untried
        guest.check(
            waited <= interrupts.runs // RARELY,
            f"{what}: hardly anybody waits in vain",
            f"{holders} | {interrupts}",
        )
        guest.check(
            holders.deadlocks == holders.others == interrupts.others == 0,
            f"{what}: holders are in no deadlock",
            holders,
        )
        if what != "held":
            guest.check(
                interrupts.deadlocks == 0,
                f"{what}: no interrupt comes where it would be in a deadlock",
                interrupts,
            )
    inside, at_once = told["held"][1].deadlocks, told["held"][1].at_once
    if guest.release >= AT_ONCE:
        guest.check(
            2 * at_once >= inside, "held: who asks in an interrupt is told at once", told["held"][1]
        )
    asked = min(interrupts.runs for _, interrupts in told.values())
    taken = min(holders.taken for holders, _ in told.values())
    weak = min(inside, asked, taken) < LEAST_INSIDE
    kind = Kind.INCONCLUSIVE if weak else Kind.PASS
    words = f"{inside} of {told['held'][1].runs} interrupts asked for what their CPU held"
    last = told["held with irqsave"][1]
    words += f"; with irqsave, none of {last.runs}"
    numbers = {what: " | ".join(map(str, answers)) for what, answers in told.items()}
    guest.conclude(Verdict(kind, words), **numbers)


def inside(guest, program):
    """Return (interrupts, those that came inside) while CPU 0 spends time without a lock."""
    prepare(guest, asked_for=0)
    drive(guest, {(program, OUTER): [0]}, OPERATIONS, SECONDS)
    stage = guest.map("stages")[0][0]  # of CPU 0
    return stage.interrupts, stage.inside


def test_interrupts_are_on_after_refusal(guest):
    """Interrupts stay on when a CPU is refused its own lock by the irqsave flavour."""
    needs_record(guest)
    needs_lock(guest)
    guest.load(FILE, ["ask_from_interrupt", "spend_after_unlock", "spend_after_refusal"])
    guest.call(calls.Attach("ask_from_interrupt"))
    ordinary, refused = inside(guest, "spend_after_unlock"), inside(guest, "spend_after_refusal")
    answers = total(guest, INNER)
    guest.check(answers.taken == 0, "who holds the lock is refused it", answers)
    seen = f"{refused[1]} of {refused[0]} interrupts inside; without refusal {ordinary[1]} of"
    seen += f" {ordinary[0]}"
    weak = ordinary[1] < LEAST_INSIDE or not answers.refused
    guest.check(weak or refused[1] > 0, "interrupts are on after a refusal", seen)
    guest.conclude(Verdict(Kind.INCONCLUSIVE if weak else Kind.PASS, seen))


@pytest.mark.parametrize("way", ("plain", "irqsave"))
def test_res_spin_lock_preempt_count(guest, way):
    """The lock forbids preemption; unlock and refusal restore the preempt count."""
    needs_lock(guest)
    guest.needs("__preempt_count", "6.15", "CONFIG_SMP")
    program = f"read_preempt_count_{way}"
    guest.load(FILE, [program])
    told = guest.call(calls.TestRun(program, cpu=0))["retval"]
    check_record(guest, told == EDEADLK, "the lock taken twice is a deadlock", told)
    if told != EDEADLK:
        return
    guest.call(calls.TestRun(program, repeat=RUNS - 1, cpu=0))
    count = guest.map("preemption")[0]
    seen = f"{count.runs} runs, {count.refused} refused, {count.higher} higher inside,"
    seen += f" {count.unbalanced} unbalanced"
    guest.check(
        count.runs == count.refused == RUNS,
        f"in {RUNS} runs it is taken once, and then refused",
        seen,
    )
    guest.check(count.unbalanced == 0, "unlock and refusal put back the count", seen)
    if guest.call(calls.Options(["CONFIG_PREEMPT_COUNT"])).get("CONFIG_PREEMPT_COUNT") == "y":
        guest.check(count.higher == count.runs, "the lock forbids preemption", seen)
    guest.conclude(Verdict(Kind.PASS, seen), higher=count.higher, unbalanced=count.unbalanced)
