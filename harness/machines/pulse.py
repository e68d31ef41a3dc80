# SPDX-License-Identifier: GPL-2.0-only
"""Detects CPUs of a guest that are stuck, and limits the time of an answer."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Callable, Dict, Mapping, Optional, Tuple

# A CPU that spins with interrupts off does not run its own watchdog. RCU complains only if a grace
# period is waited for. But the CPU's timer interrupt stays pending, so long calls check for that.
PULSE_SECONDS = 1.0
STUCK_PULSES = 12
STUCK_RAN_SECONDS = 3.0  # of host CPU time since then: a vCPU that waits for a core is not stuck
MOST_PATIENCE = 9  # the most extra time of a call on a busy host, as a multiple of its limit
TIMER_VECTOR = 236  # LOCAL_TIMER_VECTOR, arch/x86/include/asm/irq_vectors.h: since before v5.10


@dataclass(frozen=True)
class Tick:
    """A pending timer interrupt of a CPU.

    `armed` is the setting of the CPU's timer. The interrupt handler sets the timer anew. So equal
    settings at two times show that no handler ran in between.
    """

    armed: str
    ran: float = 0.0  # host CPU time of the vCPU since its start, in seconds


def pending_tick(lapic: str) -> Optional[Tick]:
    """Return the pending timer interrupt in the output of QEMU's `info lapic`, or None."""
    requested = re.search(r"^IRR\s+(.*)$", lapic, re.MULTILINE)
    if requested is None or str(TIMER_VECTOR) not in re.findall(r"\d+", requested.group(1)):
        return None
    armed = re.search(r"initial_count = \d+", lapic)
    periodic = re.search(r"^LVTT\s.*\bperiodic\b", lapic, re.MULTILINE)
    return Tick("periodic" if periodic or armed is None else armed.group())


def kept_registers(dump: str) -> str:
    """Return the callee-saved registers in `info registers`: a CPU in one loop keeps them."""
    found = re.findall(r"\b(?:RSP|RBP|R12|R13|R14|R15)=[0-9a-f]{16}", dump)
    return " ".join(sorted(found))


class Pulse:
    """Finds CPUs that make no progress between looks although the host runs them."""

    def __init__(self) -> None:
        self._looks = 0
        self._since: Dict[int, Tuple[int, Tick]] = {}  # CPU -> the first of its equal looks

    def stuck(self, overdue: Mapping[int, Tick]) -> Dict[int, str]:
        """Look once more. Return the stuck CPUs, each with the evidence in words.

        A CPU with another pending tick than before has taken one since, so it is not stuck.
        """
        since = {}
        for cpu, tick in overdue.items():
            look, first = self._since.get(cpu, (self._looks, tick))
            since[cpu] = (look, first) if first.armed == tick.armed else (self._looks, tick)
        self._looks, self._since = self._looks + 1, since
        return {
            cpu: f"{first.armed}, and still after the host ran it for {ran:.1f} s"
            for cpu, (look, first) in since.items()
            for ran in [overdue[cpu].ran - first.ran]
            if self._looks - look >= STUCK_PULSES and ran >= STUCK_RAN_SECONDS
        }


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
