# SPDX-License-Identifier: GPL-2.0-only
"""Unlock restores the state before the lock: interrupts on or off, the preempt count.

The programs are those of bpf_progs/driven/interrupts.bpf.c.
"""

from typing import NamedTuple

from packaging.version import Version

from harness.guest import calls
from harness.judging.verdict import Kind, Verdict

RULE = "Unlock puts interrupts and preemption back"
LOADERS = ("libbpf",)  # some of it needs functions and variables of the kernel

LIMIT = 40.0  # of a call: in that time the kernel's watchdogs notice interrupts that stay off

LONG_SECONDS = 0.4  # of one system call
TURNS = 2000  # of the critical section
ROUNDS = 3
LEAST_TICKS = 10 * ROUNDS  # without a lock

BURN_NS = 2_000_000  # time spent after the unlock
EVERY = 2  # one of so many timer interrupts spends it
BURNS = 150
LEAST_BURNS = 10
MOST_BURNS = 4  # the most runs until enough was seen
LOOKS = 10_000  # interrupts sent meanwhile
HOLDS = 100_000  # runs that keep a CPU busy
RUNS = 2_000  # of the program that reads the preempt count

LEAST_INSIDE = 5  # interrupts while burning, where they are on


def write_order(guest, locked=True, burn_ns=0, every=0):
    """Fill in struct order."""
    order = {"turns": TURNS, "locked": locked, "burn_ns": burn_ns, "every": every}
    guest.map("orders")[0] = order


def check_lock_word(guest):
    word = guest.call(calls.TestRun("lock_word_of_interrupts"))["retval"]
    guest.check(word == 0, "the lock word is zero afterwards", word)


def hold(guest, locked, repeat):
    """Run the program `repeat` times in one system call on CPU 0; return (ticks, nanoseconds)."""
    write_order(guest, locked)
    guest.map("spans").reset()
    guest.call(calls.TestRun("hold_for_long", repeat=repeat, cpu=0), limit=LIMIT)
    span = guest.map("spans")[0][0]  # of CPU 0
    guest.check(span.runs == repeat, f"{repeat} runs are seen", span.runs)
    return span.last_ticks - span.first_ticks, span.last_ns - span.first_ns


def test_interrupts_are_on_after_unlock(guest):
    """Timer interrupts come as usual during a long system call that locks and unlocks."""
    guest.load("interrupts.bpf.c", ["count_tick", "hold_for_long", "lock_word_of_interrupts"])
    guest.call(calls.Attach("count_tick"))
    _, trial_ns = hold(guest, False, 5_000)
    repeat = int(5_000 * LONG_SECONDS * 1e9 / trial_ns)
    ticks, ns = {True: 0, False: 0}, {True: 0, False: 0}
    for _ in range(ROUNDS):
        for locked in ticks:
            seen = hold(guest, locked, repeat)
            ticks[locked] += seen[0]
            ns[locked] += seen[1]
    check_lock_word(guest)
    expected = ticks[False] * ns[True] / ns[False]
    seen = (
        f"{ticks[True]} ticks in {ns[True] / 1e9:.2f} s with the lock, {ticks[False]} in"
        f" {ns[False] / 1e9:.2f} s without"
    )
    weak = ticks[False] < LEAST_TICKS
    guest.check(weak or ticks[True] * 10 > expected, "interrupts are on again after unlock", seen)
    kind = Kind.INCONCLUSIVE if weak else Kind.PASS
    guest.conclude(
        Verdict(kind, seen), ticks=list(ticks.values()), ns=list(ns.values()), repeat=repeat
    )


class Burnt(NamedTuple):
    """Counts of CPU 0's runs, and of interrupts there."""

    burns: int
    burnt_ns: int  # in all
    looks: int  # interrupts on CPU 0
    inside: int  # interrupts while the program spent time after the unlock
    seconds: float


def burn(guest, program, by_itself=False):
    """Let CPU 0 spend time after the unlock while another CPU interrupts it; return the counts."""
    for name in ("stages", "ticks", "runs"):
        guest.map(name).reset()
    write_order(guest, burn_ns=BURN_NS, every=EVERY)
    orders = [("interrupt_cpu_0", "look_from_interrupt", 0, [1], LOOKS)]
    if by_itself:  # an idle CPU has no timer interrupts
        orders += [
            ("local_timer", program, 1, [], 0),
            ("test_run", "hold_for_long", 1, [0], HOLDS),
        ]
        if guest.cpus > 2:  # another CPU's unlock must not restore its state on CPU 0
            orders.append(("test_run", "hold_beside", 2, [2], HOLDS))
    else:
        orders.append(("test_run", program, 1, [0], BURNS))
    drive = calls.Drive([calls.Order(*order) for order in orders], "runs")
    facts = guest.call(drive, limit=LIMIT)
    stage = guest.map("stages")[0][0]  # of CPU 0
    return Burnt(stage.runs, stage.burnt_ns, stage.looks, stage.inside, facts["seconds"])


def burn_until(is_telling, guest, program, by_itself=False):
    """Repeat burn() until its counts are telling, at most MOST_BURNS times; return their sums."""
    seen = burn(guest, program, by_itself)
    for _ in range(MOST_BURNS - 1):
        if is_telling(seen):
            break
        seen = Burnt(*map(sum, zip(seen, burn(guest, program, by_itself))))
    return seen


def burnt_enough(seen):
    """Tell whether interrupts were sent while enough sections spent time."""
    return seen.burns >= LEAST_BURNS and seen.looks > 0


def came_inside(seen):
    """Tell whether enough interrupts came inside, as they do where they are on."""
    return seen.inside >= LEAST_INSIDE


def conclude_burning(guest, off, on):
    """Judge the counts with interrupts off before the lock; `on` are those with interrupts on."""
    check_lock_word(guest)
    guest.check(off.inside == 0, "unlock leaves interrupts off that were off", off)
    seen = (
        f"{off.looks} interrupts, {off.inside} inside of {off.burns} sections with interrupts off;"
        f" where they were on, {on.inside} inside of {on.burns}"
    )
    weak = not burnt_enough(off) or not came_inside(on)
    kind = Kind.INCONCLUSIVE if weak else Kind.PASS
    guest.conclude(Verdict(kind, seen), off=off._asdict(), on=on._asdict())


def test_interrupts_stay_off_in_interrupt(guest):
    """No interrupt comes after the unlock in a timer interrupt."""
    guest.needs_two_cpus("one CPU cannot interrupt itself")
    programs = ["burn_in_test_run", "burn_in_interrupt", "hold_for_long", "look_from_interrupt"]
    programs += ["hold_beside", "lock_word_of_interrupts"]
    guest.load("interrupts.bpf.c", programs, locks_since="5.15")
    off = burn_until(burnt_enough, guest, "burn_in_interrupt", by_itself=True)
    on = burn_until(came_inside, guest, "burn_in_test_run")
    conclude_burning(guest, off, on)


def test_interrupts_stay_off_where_a_program_turned_them_off(guest):
    guest.needs_two_cpus("one CPU cannot interrupt itself")
    guest.needs("bpf_local_irq_save", "6.14")
    programs = ["burn_in_test_run", "look_from_interrupt", "lock_word_of_interrupts"]
    guest.load("interrupts.bpf.c", [*programs, "burn_with_interrupts_off"])
    off = burn_until(burnt_enough, guest, "burn_with_interrupts_off")
    on = burn_until(came_inside, guest, "burn_in_test_run")
    conclude_burning(guest, off, on)


# The preempt count on x86: a per-CPU variable of its own, or a member of a struct.
PREEMPT_COUNTS = {
    "__preempt_count": "read_preempt_count",
    "pcpu_hot": "read_preempt_count_in_struct",
}


def test_preempt_count_is_balanced(guest):
    """commit 5861d1e8dbc4 ("bpf: Allow bpf_spin_{lock,unlock} in sleepable progs") (in v6.6)"""
    options = guest.call(calls.Options(["CONFIG_PREEMPT_COUNT", "CONFIG_SMP"]))
    if options.get("CONFIG_SMP") == "n":
        # Per-CPU variables are ordinary ones then, and BTF does not describe those.
        reason = "the kernel was built without CONFIG_SMP: its BTF has no per-CPU variables"
        guest.conclude(Verdict(Kind.SKIP, reason))
        return
    named = guest.call(calls.Has(list(PREEMPT_COUNTS)))
    name = next((name for name in PREEMPT_COUNTS if named[name]), None)
    if name is None:
        guest.needs("__preempt_count", "5.11")  # before it, BTF did not describe per-CPU variables
    guest.load("interrupts.bpf.c", [PREEMPT_COUNTS[name], "lock_word_of_interrupts"])
    guest.call(calls.TestRun(PREEMPT_COUNTS[name], repeat=RUNS, cpu=0))
    count = guest.map("preemption")[0]
    check_lock_word(guest)
    seen = (
        f"{count.before:#x} before, {count.inside:#x} inside, {count.after:#x} after, at the last"
    )
    seen += f" of {count.runs} runs"
    guest.check(count.runs == RUNS, f"{RUNS} runs are seen", count.runs)
    guest.check(
        count.unbalanced == 0, "the count is after unlock what it was before the lock", seen
    )
    counts = options.get("CONFIG_PREEMPT_COUNT") == "y"
    if counts and guest.release >= Version("6.6"):
        guest.check(count.higher == count.runs, "the lock forbids preemption", seen)
    guest.conclude(
        Verdict(Kind.PASS, seen),
        unbalanced=count.unbalanced,
        higher=count.higher,
        counted=counts,
    )
