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
from pathlib import Path
from typing import Dict, Iterator, List

import psutil

from harness import paths, progress


@contextmanager
def together() -> Iterator[None]:
    """Use them beside others; wait while somebody is alone, or waits for it."""
    with _file("gate") as gate, _file("cores") as cores:
        _lock(gate, fcntl.LOCK_EX)
        _lock(cores, fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@contextmanager
def alone() -> Iterator[None]:
    """Use them when all others have let go; who comes later waits."""
    with _file("gate") as gate, _file("cores") as cores:
        _lock(gate, fcntl.LOCK_EX)  # kept, so that nobody overtakes
        _lock(cores, fcntl.LOCK_EX)
        yield


@contextmanager
def _file(name: str) -> Iterator[int]:
    """Open a file to be locked; closing it unlocks it, as the end of the process does."""
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
