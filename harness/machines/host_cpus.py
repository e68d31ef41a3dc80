# SPDX-License-Identifier: GPL-2.0-only
"""Who uses this machine's CPUs at the moment: many guests together, or one of them alone.

What shows a lock's twin to be broken is two CPUs at the same moment. Where several guests share the
cores, a guest's virtual CPUs take turns instead, for milliseconds each, and a twin that leaves out
one lock in thousands may do no damage in a million operations. So such calls ask to be alone, and
all others wait or go together: harness/guest/calls.py says which. It holds between processes: xdist's
workers, and runs that were started apart.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import Iterator

from harness import paths


@contextmanager
def together() -> Iterator[None]:
    """Use them beside others; wait while somebody is alone, or waits for it."""
    with _file("gate") as gate, _file("cores") as cores:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(cores, fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@contextmanager
def alone() -> Iterator[None]:
    """Use them when all others have let go; who comes later waits."""
    with _file("gate") as gate, _file("cores") as cores:
        fcntl.flock(gate, fcntl.LOCK_EX)  # kept, so that nobody overtakes
        fcntl.flock(cores, fcntl.LOCK_EX)
        yield


@contextmanager
def _file(name: str) -> Iterator[int]:
    """Open a file to be locked; closing it unlocks it, as the end of the process does."""
    descriptor = os.open(paths.cache("cores") / name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
