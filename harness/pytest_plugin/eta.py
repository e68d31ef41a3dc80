# SPDX-License-Identifier: GPL-2.0-only
"""Estimates the progress of a run on several kernels: which are done, and the time left. Pure."""

from __future__ import annotations

from typing import Dict, Iterable, Optional, Sequence

from harness.reports import terminal
from harness.results.result import Result


class Countdown:
    """Counts the remaining cases, by kernel."""

    def __init__(self, kernels: Sequence[Optional[str]]) -> None:
        self._kernels = [str(kernel) for kernel in kernels]
        self._left: Dict[str, int] = {}

    def expect(self, ids: Iterable[str]) -> None:
        """Add cases that will run, by their pytest ids."""
        self._left = dict.fromkeys(self._kernels, 0)
        for nodeid in ids:
            named = [kernel for kernel in self._kernels if f"[{kernel}-" in nodeid]
            if named:
                self._left[max(named, key=len)] += 1  # a case of 6.12-rt is not one of 6.12

    def ended(self, kernel: str, results: Sequence[Result], kept: int, seconds: float) -> str:
        """Count a case that ended. Return a sentence if it was the last one of its kernel, else "".

        There is no sentence for a run on one kernel. The run took `seconds` for all `results` but
        those `kept` from an earlier run.
        """
        if len(self._kernels) < 2 or kernel not in self._left:
            return ""
        self._left[kernel] -= 1
        if self._left[kernel] != 0:
            return ""
        of_kernel = [result for result in results if result.column == kernel]
        done = sum(left == 0 for left in self._left.values())
        left, ran = sum(self._left.values()), max(len(results) - kept, 1)
        share = ran / (left + ran)
        return (
            f"{kernel}: {terminal.summary(of_kernel)}; {done} of {len(self._left)} kernels"
            f" in {seconds / 60:.1f} min, about {seconds / share / 60 - seconds / 60:.1f} to go"
        )
