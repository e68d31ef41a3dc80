# SPDX-License-Identifier: GPL-2.0-only
"""The type of the callback that shows the progress of long work, one line per call."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import Callable, Iterator, List

Progress = Callable[[str], None]

MOMENT = 2.0  # seconds: no wait that is shorter is worth a line


def to_stderr(message: str) -> None:
    """Show a line where commands show theirs."""
    print(f"spinlock: {message}", file=sys.stderr, flush=True)


_shown_by: List[Progress] = [to_stderr]


@contextmanager
def shown_by(progress: Progress) -> Iterator[None]:
    """Let waiting, wherever it happens in this process, be shown by `progress`."""
    _shown_by.append(progress)
    try:
        yield
    finally:
        _shown_by.remove(progress)


@contextmanager
def waiting(for_what: Callable[[], str]) -> Iterator[None]:
    """Say for what is waited, if that takes more than a moment; where it returns "", nothing."""

    def say() -> None:
        words = for_what()
        if words:
            _shown_by[-1](f"waiting for {words}")

    timer = threading.Timer(MOMENT, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
