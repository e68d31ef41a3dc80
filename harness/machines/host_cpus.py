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
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List

import psutil

from harness import paths, progress


@contextmanager
def together() -> Iterator[float]:
    """Use the CPUs together with others. Waits while another user is alone or waits to be alone.

    Yields the seconds of the wait.
    """
    asked = time.monotonic()
    with _file("gate") as gate, _file("cores") as cores:
        _lock(gate, fcntl.LOCK_EX)
        _lock(cores, fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield time.monotonic() - asked


@contextmanager
def alone() -> Iterator[float]:
    """Use the CPUs alone. Waits until all others have ended; later users wait.

    Yields the seconds of the wait.
    """
    asked = time.monotonic()
    with _file("gate") as gate, _file("cores") as cores:
        _lock(gate, fcntl.LOCK_EX)  # kept, so that nobody overtakes
        _lock(cores, fcntl.LOCK_EX)
        yield time.monotonic() - asked


@contextmanager
def _file(name: str) -> Iterator[int]:
    """Open a lock file. It is unlocked when it is closed or the process ends."""
    descriptor = os.open(paths.cache("cores") / name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, how: int) -> None:
    """Lock an open file. A wait for another run that takes more than a moment is said."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        with progress.waiting(lambda: _another_run(descriptor)):
            fcntl.flock(descriptor, how)


_said: Dict[str, bool] = {}  # of what this process waited for already


def _another_run(descriptor: int) -> str:
    """Return which other run has a locked file, each once; "" where it is this run's own workers."""
    file = os.fstat(descriptor)
    family = {os.getpid(), os.getppid()}
    for pid in holders(Path("/proc/locks").read_text(encoding="ascii"), file.st_dev, file.st_ino):
        try:
            others = {pid, psutil.Process(pid).ppid()}
        except psutil.Error:  # it has let go meanwhile
            continue
        words = f"another run on this machine, process {pid}, to let go of the CPUs"
        if not others & family and not _said.setdefault(words, False):
            _said[words] = True
            return words
    return ""


def holders(locks: str, device: int, inode: int) -> List[int]:
    """Return the processes that hold a file's lock, given /proc/locks; not those that wait for it."""
    place = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    rows = (line.split() for line in locks.splitlines())
    return [int(row[4]) for row in rows if row[1] == "FLOCK" and row[5] == place]
