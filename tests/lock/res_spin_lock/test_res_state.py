# SPDX-License-Identifier: GPL-2.0-only
"""bpf_res_spin_lock(), taken or refused, leaves interrupts and preemption as they were.

The programs are those of bpf_progs/driven/res_spin_lock_state.bpf.c. CPU 0 asks for a lock, and then burns
time while another CPU interrupts it. In a task interrupts were on before, so some must come while it
burns; in a timer interrupt they were off, so none may.
"""

import pytest

from harness.guest import calls
from harness.judging.verdict import Kind, Verdict
from harness.running.res_spin_lock import (
    INTERRUPT,
    OUTER,
    check_record,
    needs_lock,
    needs_record,
    total,
)

RULE = (
    "A res_spin_lock forbids preemption, its irqsave flavour interrupts too, and both end with it"
)
LOADERS = ("libbpf",)  # they are kernel functions

FILE = "res_spin_lock_state.bpf.c"
OUTCOMES = ("taken", "refused")  # by their numbers in the C file
FLAVOURS = ("plain", "irqsave")

TURNS = 2000
ASKS, SECONDS = 400, 0.8  # in a task; the time limit
EVERY = 3  # of so many timer interrupts one asks
BUSY, LOOKS = 400_000, 30_000  # runs that keep CPU 0 busy; interrupts by another CPU
LEAST_INSIDE = 3
MOST_ROUNDS = 4
LIMIT = 40.0  # in which the kernel's watchdogs notice interrupts that stay off


def ask(guest, where, outcome, flavour):
    """Let CPU 0 ask; return the stage and the answers."""
    for name in ("told", "stages", "counted"):
        guest.map(name).reset()
    guest.map("orders")[0] = {"turns": TURNS, "elements": 1}
    guest.map("asks")[0] = {"outcome": OUTCOMES.index(outcome), "every": EVERY}
    program, kind = f"ask_in_{where}_{flavour}", OUTER if where == "task" else INTERRUPT
    orders = [calls.Order("interrupt_cpu_0", "look", 0, [1], LOOKS, SECONDS)]
    if where == "task":
        orders.append(calls.Order("test_run", program, 2, [0], ASKS, SECONDS))
    else:
        orders.append(calls.Order("local_timer", program, 2, [], 0))
        orders.append(calls.Order("test_run", "keep_busy", 2, [0], BUSY, 2 * SECONDS))
    guest.call(calls.Drive(orders), limit=LIMIT)
    return guest.map("stages")[0], total(guest, kind)


def came_as_asked(outcome, told):
    """Return how many got the outcome that they were made to get."""
    return told.taken if outcome == "taken" else told.deadlocks


@pytest.mark.contends
@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_state_is_restored(guest, outcome, flavour):
    """Interrupts that were on are on again, those that were off stay off, preemption is balanced."""
    needs_record(guest)
    needs_lock(guest)
    guest.needs("__preempt_count", "6.15")
    if guest.cpus < 2:
        guest.conclude(Verdict(Kind.INCONCLUSIVE, "one CPU cannot interrupt itself"))
        return
    programs = [f"ask_in_{where}_{flavour}" for where in ("task", "interrupt")]
    guest.load(FILE, [*programs, "keep_busy", "look"])
    seen, numbers, weak = [], {}, False
    for where in ("task", "interrupt"):
        burns = inside = looks = got = 0
        for _ in range(MOST_ROUNDS):
            stage, told = ask(guest, where, outcome, flavour)
            burns, inside = burns + stage.burns, inside + stage.inside
            looks, got = looks + stage.looks, got + came_as_asked(outcome, told)
            unwanted = told.runs - came_as_asked(outcome, told)
            check_record(guest, unwanted <= 1 + told.runs // 100, f"{where}: {outcome}", told)
            guest.check(stage.unbalanced == 0, f"{where}: preemption is as before", stage)
            if got and looks and (inside >= LEAST_INSIDE or where == "interrupt"):
                break
        words = (
            f"{where}: {got} {outcome}, {inside} of {looks} interrupts in {burns} sections after it"
        )
        if where == "task":
            guest.check(
                inside > 0 or not (got and looks), f"{where}: interrupts are on again", words
            )
        else:
            guest.check(inside == 0, f"{where}: interrupts stay off", words)
        weak = weak or not got or not looks or (where == "task" and inside < LEAST_INSIDE)
        seen.append(words)
        numbers[where] = [burns, inside, looks, got]
    guest.conclude(Verdict(Kind.INCONCLUSIVE if weak else Kind.PASS, "; ".join(seen)), **numbers)
