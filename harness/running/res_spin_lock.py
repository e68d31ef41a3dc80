# SPDX-License-Identifier: GPL-2.0-only
"""What CPUs were told that asked for a res_spin_lock: the map of res_spin_lock_answers.h."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import List, Mapping, Sequence, Tuple

from harness.guest import calls
from harness.judging.verdict import Kind, Verdict
from harness.machines.session import AgentError
from harness.running.driven import Guest, Unmet
from harness.scenarios.scenario import KnownBug
from harness.scenarios.versions import covers

# Who queues is next, even if its host does not run it just now: where virtual CPUs share a host's,
# each operation then takes up to a millisecond, and who tests and sets needs a hundredth of that.
QUEUES = "clearcpuid=hypervisor"
PATHS = ("", "queued")

# On 6.17.13, on each of six boots, the kernel's record of who holds what went wrong once CPUs had
# contended for such locks: whoever then asks for one that he holds waits until the time is over, and
# now and then somebody is told EDEADLK who is in no deadlock. 6.16.12 and 6.18.15 do not do so. A part
# of the series that begins with commit
# beb7021a6003 ("rqspinlock: Enclose lock/unlock within lock entry acquisitions") (in v6.19) went into
# stable kernels between them; that it is the cause is likely, not proven.
RECORD_IS_LOST = KnownBug("beb7021a6003", ">=6.17.13,<6.18")

EDEADLK = -errno.EDEADLK  # as programs return it

# Of res_spin_lock_answers.h: the numbers of answers.
COUNT, OUTER, INNER, ROUTE, HOLD, WAIT, NEST, INTERRUPT = range(8)


@dataclass(frozen=True)
class Answers:
    """What CPUs were told; struct answers."""

    runs: int
    taken: int
    deadlocks: int
    timeouts: int
    others: int
    untried: int
    longest_ns: int  # of the refusals
    at_once: int  # of these, within a millisecond

    def __str__(self) -> str:
        words = f"{self.taken + self.refused} asked: {self.taken} taken, {self.deadlocks} EDEADLK"
        words += f", {self.timeouts} ETIMEDOUT"
        words += f", {self.others} others" if self.others else ""
        words += f", {self.untried} untried" if self.untried else ""
        longest = f"the longest refusal took {self.longest_ns / 1e6:.1f} ms"
        return f"{words}; {longest}, {self.at_once} under 1 ms"

    @property
    def refused(self) -> int:
        """How often the lock was not given."""
        return self.deadlocks + self.timeouts + self.others + self.untried


def by_cpu(guest: Guest, kind: int) -> List[Answers]:
    """Return what each CPU was told. Raises as Guest.call does."""
    return [Answers(**dict(answers)) for answers in guest.map("told")[kind]]


def total(guest: Guest, kind: int) -> Answers:
    """Return what all CPUs were told, together. Raises as Guest.call does."""
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
    """Run programs, {(name, kind of answers): CPUs}, at the same time; return what came of it.

    So many times on each CPU, or for so long. Raises as Guest.call does.
    """
    guest.map("told").reset()
    orders = [
        calls.Order("test_run", program, kind, cpus, operations, seconds)
        for (program, kind), cpus in programs.items()
    ]
    return guest.call(calls.Drive(orders, "told"), limit=120)


def boot(guest: Guest, path: str) -> None:
    """Go on where the lock is known; on a path that is "queued", in a guest whose CPUs queue for it.

    Raises Unmet, AgentError, SetupError.
    """
    guest.needs("bpf_res_spin_lock", "6.15")
    if path.startswith("queued"):
        guest.boot_with(QUEUES)
        if guest.facts["virtual"]:
            raise AgentError(f"booted with {QUEUES}, CPUs still say that they are virtual")


def needs_clock(guest: Guest) -> None:
    """Go on only where time goes by while all who wait have interrupts off.

    Where ticks are all that the kernel knows of time, the one that counts them may be the one that
    waits, and neither a deadlock is looked for then, nor has waiting an end. An emulated CPU's kernel
    finds a better clock by CONFIG_X86_PM_TIMER. Raises Unmet.
    """
    clock = str(guest.facts["clocksource"])
    if "jiffies" in clock:
        reason = f"time stands still with interrupts off: the clock is {clock}"
        raise Unmet(Verdict(Kind.SKIP, f"{reason} (CONFIG_X86_PM_TIMER is off?)"))


def needs_record(guest: Guest) -> None:
    """Go on only where who asks in an interrupt is told of a deadlock at once. Raises Unmet."""
    if covers(RECORD_IS_LOST.kernels, guest.release):
        reason = "interrupts wait for a second here for what their CPU holds"
        raise Unmet(Verdict(Kind.SKIP, f"{reason} ({RECORD_IS_LOST.commit})"))


def check_record(guest: Guest, holds: bool, expected: str, seen: object) -> None:
    """Check what holds as long as the kernel's record of who holds what is right."""
    guest.check(holds, expected, seen, bug=None if holds else RECORD_IS_LOST)
