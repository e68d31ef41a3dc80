# SPDX-License-Identifier: GPL-2.0-only
"""A check that every CPU still schedules: interrupts are on, the preempt count is balanced."""

from __future__ import annotations

import ctypes
import os
import threading
from typing import List

# On a busy host the CPU of an emulated guest may be descheduled for seconds.
ANSWER_SECONDS = 10.0
_BACKTRACES = "l"  # sysrq: NMI backtraces of all CPUs, Documentation/admin-guide/sysrq.rst


def stuck(seconds: float = ANSWER_SECONDS) -> List[int]:
    """Return [the first CPU that runs no thread within the time limit], or [].

    One thread visits the CPUs in turn, so a healthy guest pays one context switch per CPU. If the
    thread does not return, its last CPU is stuck; backtraces of all CPUs then go to the kernel log.
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
    """Pin this thread to a CPU. os.sched_setaffinity() would hold the GIL while it waits."""
    mask = (ctypes.c_ulong * (cpu // 64 + 1))()
    mask[cpu // 64] = 1 << cpu % 64
    ctypes.CDLL(None).sched_setaffinity(0, ctypes.sizeof(mask), mask)
