# SPDX-License-Identifier: GPL-2.0-only
"""Shares this machine's CPUs between guests: many guests together, or one of them alone.

A broken twin is caught only when two CPUs run at once. If several guests share the cores, the vCPUs
of a guest take turns of milliseconds. A twin that skips one lock in thousands may then do no damage
in a million operations. So some calls run alone; harness/guest/calls.py says which. The locks hold
between processes: xdist's workers, and separate runs.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import Iterator

from harness import paths


@contextmanager
def together() -> Iterator[None]:
    """Use the CPUs together with others. Waits while another user is alone or waits to be alone."""
    with _file("gate") as gate, _file("cores") as cores:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(cores, fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@contextmanager
def alone() -> Iterator[None]:
    """Use the CPUs alone. Waits until all others have ended; later users wait."""
    with _file("gate") as gate, _file("cores") as cores:
        fcntl.flock(gate, fcntl.LOCK_EX)  # kept, so that no other user overtakes
        fcntl.flock(cores, fcntl.LOCK_EX)
        yield


@contextmanager
def _file(name: str) -> Iterator[int]:
    """Open a lock file. It is unlocked when it is closed or the process ends."""
    descriptor = os.open(paths.cache("cores") / name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
