# SPDX-License-Identifier: GPL-2.0-only
"""Whether every CPU still runs what it is given: interrupts on, preemption balanced."""

from __future__ import annotations

import ctypes
import os
import threading
from typing import List

# A CPU of an emulated guest on a busy host may have to wait for seconds; one that is stuck waits on.
ANSWER_SECONDS = 10.0
_BACKTRACES = "l"  # of all CPUs, by NMI: Documentation/admin-guide/sysrq.rst


def stuck(seconds: float = ANSWER_SECONDS) -> List[int]:
    """Return the first CPU on which a thread does not get to run within so many seconds, or nothing.

    One thread goes from CPU to CPU, so a healthy guest needs no more than a switch for each. Where
    it does not come back from is where it is lost; the kernel log then shows what every CPU does.
    """
    arrived = threading.Event()
    tour = sorted(os.sched_getaffinity(0))
    at = tour[0]

    def go_round() -> None:
        nonlocal at
        for at in tour:
            _move_to(at)
        arrived.set()

    threading.Thread(target=go_round, daemon=True).start()
    if arrived.wait(seconds):
        return []
    try:
        with open("/proc/sysrq-trigger", "w", encoding="ascii") as trigger:
            trigger.write(_BACKTRACES)
    except OSError:
        pass  # without CONFIG_MAGIC_SYSRQ: the CPU is stuck all the same
    return [at]


def _move_to(cpu: int) -> None:
    """Run on a CPU from now on. os.sched_setaffinity() would keep the GIL while it waits for that."""
    mask = (ctypes.c_ulong * (cpu // 64 + 1))()
    mask[cpu // 64] = 1 << cpu % 64
    ctypes.CDLL(None).sched_setaffinity(0, ctypes.sizeof(mask), mask)
