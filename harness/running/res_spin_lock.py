# SPDX-License-Identifier: GPL-2.0-only
"""Return values of bpf_res_spin_lock() per CPU: the map of res_spin_lock_answers.h."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import List, Mapping, Sequence, Tuple

from harness.guest import calls
from harness.judging.verdict import Kind, Verdict
from harness.running.driven import Guest, Unmet
from harness.scenarios.scenario import KnownBug
from harness.scenarios.versions import covers

# On 6.17.13, the per-CPU table of held locks goes wrong once CPUs have contended for such locks.
# Seen on each of six boots. Then a CPU that re-acquires its own lock waits for the full timeout.
# Some CPUs get EDEADLK without a deadlock. 6.16.12 and 6.18.15 are correct. The likely cause,
# not proven, is a backport of a part of the series that begins with
# commit beb7021a6003 ("rqspinlock: Enclose lock/unlock within lock entry acquisitions") (in v6.19).
RECORD_IS_LOST = KnownBug("beb7021a6003", ">=6.17.13,<6.18")

EDEADLK = -errno.EDEADLK  # as programs return it

# Keys of the map `told`, from res_spin_lock_answers.h.
COUNT, OUTER, INNER, ROUTE, HOLD, WAIT, NEST, INTERRUPT = range(8)


@dataclass(frozen=True)
class Answers:
    """Counts of the return values that CPUs got; struct answers."""

    runs: int
    taken: int
    deadlocks: int
    timeouts: int
    others: int
    untried: int
    longest_ns: int  # the longest time until a refusal
    at_once: int  # number of refusals within a millisecond

    def __str__(self) -> str:
        words = f"{self.taken + self.refused} asked: {self.taken} taken, {self.deadlocks} EDEADLK"
        words += f", {self.timeouts} ETIMEDOUT"
        words += f", {self.others} others" if self.others else ""
        words += f", {self.untried} untried" if self.untried else ""
        longest = f"the longest refusal took {self.longest_ns / 1e6:.1f} ms"
        return f"{words}; {longest}, {self.at_once} under 1 ms"

    @property
    def refused(self) -> int:
        """The number of attempts that did not get the lock."""
        return self.deadlocks + self.timeouts + self.others + self.untried


def by_cpu(guest: Guest, kind: int) -> List[Answers]:
    """Return the answers of each CPU, by CPU. Raises as Guest.call does."""
    return [Answers(**dict(answers)) for answers in guest.map("told")[kind]]


def total(guest: Guest, kind: int) -> Answers:
    """Return the sum of the answers of all CPUs. Raises as Guest.call does."""
    cpus = by_cpu(guest, kind)
    names = ("runs", "taken", "deadlocks", "timeouts", "others", "untried", "at_once")
    sums = {name: sum(getattr(cpu, name) for cpu in cpus) for name in names}
    return Answers(**sums, longest_ns=max(cpu.longest_ns for cpu in cpus))


def drive(
    guest: Guest,
    programs: Mapping[Tuple[str, int], Sequence[int]],
    operations: int,
    seconds: float = 0.0,
) -> calls.Drove:
    """Run programs at the same time: {(name, kind of answers): CPUs}.

    Each program runs `operations` times per CPU, or for `seconds` if that ends first and is not 0.
    Raises as Guest.call does.
    """
    guest.map("told").reset()
    orders = [
        calls.Order("test_run", program, kind, cpus, operations, seconds)
        for (program, kind), cpus in programs.items()
    ]
    return guest.call(calls.Drive(orders, "told"), limit=60)


def needs_lock(guest: Guest) -> None:
    """Skip the test unless the kernel has the lock. Raises Unmet."""
    guest.needs("bpf_res_spin_lock", "6.15")


def needs_clock(guest: Guest) -> None:
    """Skip the test unless the clock advances while all waiting CPUs have interrupts off.

    The clocksource "jiffies" advances with the timer tick of one CPU. If that CPU waits for the
    lock with interrupts off, time stands still: no deadlock check and no timeout happens. With
    CONFIG_X86_PM_TIMER an emulated CPU has a better clocksource. Raises Unmet.
    """
    clock = str(guest.facts["clocksource"])
    if "jiffies" in clock:
        reason = f"time stands still with interrupts off: the clock is {clock}"
        raise Unmet(Verdict(Kind.SKIP, f"{reason} (CONFIG_X86_PM_TIMER is off?)"))


def needs_record(guest: Guest) -> None:
    """Skip the test on kernels with RECORD_IS_LOST, which detect no deadlock in interrupts.

    Raises Unmet.
    """
    if covers(RECORD_IS_LOST.kernels, guest.release):
        reason = "an interrupt waits for the full timeout for a lock that its own CPU holds"
        raise Unmet(Verdict(Kind.SKIP, f"{reason} ({RECORD_IS_LOST.commit})"))


def check_record(guest: Guest, holds: bool, expected: str, seen: object) -> None:
    """Check a condition that depends on the kernel's table of held locks being right."""
    guest.check(holds, expected, seen, bug=None if holds else RECORD_IS_LOST)
