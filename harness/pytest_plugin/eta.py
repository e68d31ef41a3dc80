# SPDX-License-Identifier: GPL-2.0-only
"""How far a run of several kernels is: which are done, and how long the others may take. Pure."""

from __future__ import annotations

from typing import Dict, Iterable, Optional, Sequence

from harness.reports import terminal
from harness.results.result import Result


class Countdown:
    """Counts the cases to come, by kernel."""

    def __init__(self, kernels: Sequence[Optional[str]]) -> None:
        self._kernels = [str(kernel) for kernel in kernels]
        self._left: Dict[str, int] = {}

    def expect(self, ids: Iterable[str]) -> None:
        """Learn which cases are to come, by pytest's names for them."""
        self._left = dict.fromkeys(self._kernels, 0)
        for nodeid in ids:
            named = [kernel for kernel in self._kernels if f"[{kernel}-" in nodeid]
            if named:
                self._left[max(named, key=len)] += 1  # 6.12-rt's are none of 6.12's

    def ended(self, kernel: str, results: Sequence[Result], kept: int, seconds: float) -> str:
        """Note that a case ended; return what is to be said when its kernel is done with it, of
        several, else "".

        The run has taken so many seconds for all of `results` but those `kept` from before.
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
