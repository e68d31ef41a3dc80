# SPDX-License-Identifier: GPL-2.0-only
"""Whether a guest makes progress, and how long it may take to answer."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Callable, Dict, Mapping, Optional, Tuple

# A CPU that spins with interrupts off sees no watchdog of its own, and RCU complains only when
# somebody waits for it. Its timer interrupt stays pending, which a call that takes long is asked for.
PULSE_SECONDS = 1.0
STUCK_PULSES = 12
STUCK_RAN_SECONDS = (
    3.0  # of the host's time, meanwhile: one that is left waiting for it is not stuck
)
MOST_PATIENCE = 9  # times the limit of a call may be added, where the host is busy
TIMER_VECTOR = 236  # LOCAL_TIMER_VECTOR, arch/x86/include/asm/irq_vectors.h: since before v5.10


@dataclass(frozen=True)
class Tick:
    """A timer interrupt that waits for its CPU.

    `armed` says how the CPU's timer is set. The handler of the interrupt sets it anew, so two equal
    ones a while apart show that no handler ran between them.
    """

    armed: str
    ran: float = 0.0  # for how many seconds of its life the host has run the CPU


def pending_tick(lapic: str) -> Optional[Tick]:
    """Return the timer interrupt that waits in a local APIC, from QEMU's `info lapic`, or None."""
    requested = re.search(r"^IRR\s+(.*)$", lapic, re.MULTILINE)
    if requested is None or str(TIMER_VECTOR) not in re.findall(r"\d+", requested.group(1)):
        return None
    armed = re.search(r"initial_count = \d+", lapic)
    periodic = re.search(r"^LVTT\s.*\bperiodic\b", lapic, re.MULTILINE)
    return Tick("periodic" if periodic or armed is None else armed.group())


def kept_registers(dump: str) -> str:
    """Return the registers of QEMU's `info registers` that a CPU in one loop does not change."""
    found = re.findall(r"\b(?:RSP|RBP|R12|R13|R14|R15)=[0-9a-f]{16}", dump)
    return " ".join(sorted(found))


class Pulse:
    """Tells from look to look which CPUs make no progress, though the host runs them."""

    def __init__(self) -> None:
        self._looks = 0
        self._since: Dict[int, Tuple[int, Tick]] = {}  # CPU -> the first of its equal looks

    def stuck(self, overdue: Mapping[int, Tick]) -> Dict[int, str]:
        """Look once more; return the CPUs that are stuck, with the two looks that show it.

        A CPU that is found with another tick than before has taken one meanwhile.
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
    """How long an answer may take: what a busy host keeps a guest from running does not count."""

    def __init__(self, seconds: float, waited: Callable[[], Mapping[int, float]]) -> None:
        self._seconds, self._waited = seconds, waited
        self._begun, self._before = time.monotonic(), waited()
        self.more = 0.0  # seconds that did not count so far

    def left(self) -> float:
        """Return how many seconds are left."""
        now = self._waited()
        kept = (seconds - self._before.get(cpu, seconds) for cpu, seconds in now.items())
        self.more = min(max(kept, default=0.0), MOST_PATIENCE * self._seconds)
        return self._seconds + self.more - (time.monotonic() - self._begun)
