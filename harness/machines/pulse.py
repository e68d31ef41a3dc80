# SPDX-License-Identifier: GPL-2.0-only
"""Detects CPUs of a guest that are stuck, tells slow from hung, and limits the time of an answer."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Tuple

# A CPU that spins with interrupts off does not run its own watchdog. RCU complains only if a grace
# period is waited for. But the CPU sets its timer no more, so long calls check for that.
PULSE_SECONDS = 1.0
STUCK_PULSES = 12
ASLEEP_PULSES = 30  # with every CPU idle: what a call waits for does not come any more
STUCK_RAN_SECONDS = 3.0  # of host CPU time since then: a vCPU that waits for a core is not stuck
MOST_PATIENCE = 9  # the most extra time of a call on a busy host, as a multiple of its limit
TIMER_VECTOR = 236  # LOCAL_TIMER_VECTOR, arch/x86/include/asm/irq_vectors.h: since before v5.10

_INTERRUPTS_ON = 1 << 9  # X86_EFLAGS_IF


@dataclass(frozen=True)
class Timer:
    """The timer of a CPU in the output of QEMU's `info lapic`."""

    pending: bool  # its interrupt is requested, and not taken yet
    expired: bool  # it is one-shot, its time is over, and nobody has set it again
    armed: str  # how it is set
    periodic: bool = False  # the handler never sets it anew


def timer(lapic: str) -> Timer:
    """Return the timer of a CPU, given the output of `info lapic`."""
    requested = re.search(r"^IRR\s+(.*)$", lapic, re.MULTILINE)
    pending = requested is not None and str(TIMER_VECTOR) in re.findall(r"\d+", requested.group(1))
    armed = re.search(r"initial_count = (\d+) current_count = (\d+)", lapic)
    mode = re.search(r"^LVTT\s.*$", lapic, re.MULTILINE)
    words = mode.group() if mode is not None else ""
    if armed is None or "periodic" in words:
        return Timer(pending, False, "periodic", periodic=True)
    ours = f"vec {TIMER_VECTOR})" in words and "masked" not in words and armed.group(1) != "0"
    expired = ours and armed.group(2) == "0"
    return Timer(pending, expired, f"initial_count = {armed.group(1)}")


@dataclass(frozen=True)
class Registers:
    """The state of a CPU in the output of QEMU's `info registers`."""

    idle: bool  # halted
    interrupts: bool  # on
    at: str  # the address of its instruction
    kept: str  # the callee-saved registers: a CPU in one loop keeps them


def registers(dump: str) -> Registers:
    """Return the state of a CPU, given the output of `info registers`."""
    flags = re.search(r"\bRFL=([0-9a-f]+)", dump)
    at = re.search(r"\bRIP=([0-9a-f]+)", dump)
    found = re.findall(r"\b(?:RSP|RBP|R12|R13|R14|R15)=[0-9a-f]{16}", dump)
    return Registers(
        idle="HLT=1" in dump,
        interrupts=flags is None or bool(int(flags.group(1), 16) & _INTERRUPTS_ON),
        at=at.group(1) if at else "",
        kept=" ".join(sorted(found)),
    )


@dataclass(frozen=True)
class Look:
    """One look at a CPU.

    `armed` is the setting of the CPU's timer, or its kept registers if the timer is periodic. The
    interrupt handler sets the timer anew, and a CPU that leaves its loop has other registers. So
    equal settings at two times show that the CPU did neither in between.
    """

    armed: str
    ran: float = 0.0  # host CPU time of the vCPU since its start, in seconds
    overdue: bool = False  # it owes its timer an answer: the interrupt, or a new setting
    idle: bool = False
    at: str = ""  # the address of its instruction


def owes(timer: Timer, registers: Callable[[], Registers]) -> bool:
    """Tell whether a CPU owes its timer an answer at this moment.

    Either the interrupt is pending, or the handler itself got stuck: it has acknowledged the
    interrupt, but not set the timer again, and interrupts are off.
    """
    if timer.pending:
        return True
    if not timer.expired:
        return False
    now = registers()
    return not now.idle and not now.interrupts


class Pulse:
    """Finds CPUs that make no progress between looks although the host runs them."""

    def __init__(self) -> None:
        self._looks: List[Mapping[int, Look]] = []  # the last ones, the newest at the end
        self._count = 0
        self._since: Dict[int, Tuple[int, Look]] = {}  # CPU -> the first of its equal looks
        self._idle = 0  # looks in a row that found every CPU idle

    def stuck(self, looks: Mapping[int, Look]) -> Dict[int, str]:
        """Look once more at all CPUs. Return the stuck ones, each with the two looks in words.

        A CPU that set its timer since the look before has taken an interrupt, so it is not stuck.
        """
        since = {}
        overdue = {cpu: look for cpu, look in looks.items() if look.overdue}
        for cpu, look in overdue.items():
            number, first = self._since.get(cpu, (self._count, look))
            same = first.armed == look.armed
            since[cpu] = (number, first) if same else (self._count, look)
        self._count, self._since = self._count + 1, since
        self._looks = [*self._looks[-STUCK_PULSES:], looks]
        asleep = bool(looks) and all(look.idle for look in looks.values())
        self._idle = self._idle + 1 if asleep else 0
        return {
            cpu: f"{_at(first)}{first.armed}, and after the host had run it for {ran:.1f} s"
            f" {_at(overdue[cpu])}the same"
            for cpu, (number, first) in since.items()
            for ran in [overdue[cpu].ran - first.ran]
            if self._count - number >= STUCK_PULSES and ran >= STUCK_RAN_SECONDS
        }

    def asleep(self) -> bool:
        """Tell whether every CPU has been idle for long, so that the call will not be answered."""
        return self._idle >= ASLEEP_PULSES

    def progress(self) -> str:
        """Return in words which CPUs worked between the oldest and the newest look; "": none.

        A CPU that worked was run by the host and took timer interrupts. If it is not idle, it is
        slow at something, and not hung.
        """
        if len(self._looks) < 2:
            return ""
        before, now = self._looks[0], self._looks[-1]
        found = []
        for cpu, look in sorted(now.items()):
            first = before.get(cpu, look)
            busy = sum(not looks[cpu].idle for looks in self._looks if cpu in looks)
            ran = look.ran - first.ran
            if first.armed == look.armed or ran < _least_ran(len(self._looks)):
                continue
            if 2 * busy > len(self._looks):
                found.append(
                    f"CPU {cpu}'s timer went from {first.armed} to {look.armed}"
                    f" while the host ran it for {ran:.1f} s"
                )
        return "; ".join(found)


def _at(look: Look) -> str:
    return f"at {look.at}, " if look.at else ""


def _least_ran(looks: int) -> float:
    """Return the seconds that a working CPU ran in so many looks."""
    return STUCK_RAN_SECONDS * PULSE_SECONDS * looks / STUCK_PULSES


class Patience:
    """The time limit of an answer. Time in which a busy host did not run the guest is added."""

    def __init__(self, seconds: float, waited: Callable[[], Mapping[int, float]]) -> None:
        self._seconds, self._waited = seconds, waited
        self._begun, self._before = time.monotonic(), waited()
        self.more = 0.0  # seconds added to the limit so far

    def left(self) -> float:
        """Return the seconds that are left."""
        now = self._waited()
        kept = (seconds - self._before.get(cpu, seconds) for cpu, seconds in now.items())
        self.more = min(max(kept, default=0.0), MOST_PATIENCE * self._seconds)
        return self._seconds + self.more - (time.monotonic() - self._begun)
