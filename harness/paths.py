# SPDX-License-Identifier: GPL-2.0-only
"""The checkout, the cache directory, locks in the cache, and temporary directories."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Iterator, Optional, Type

import platformdirs
from filelock import FileLock

from harness import progress
from harness.errors import SetupError

DISTRIBUTION = "bpf-spinlock-harness"
_LANDMARK = Path("bpf_progs") / "spinlock.h"
_PREFIX = "spinlock-run-"
_YOUNG_SECONDS = 60.0  # a new directory is not locked yet, and so looks abandoned


@functools.lru_cache(maxsize=None)
def root() -> Path:
    """Return the directory that holds bpf_progs/, tests/ and setup.cfg.

    It is the checkout, or else where an installed wheel put them.
    """
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / _LANDMARK).is_file():
        return checkout
    try:
        files = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.parts[-2:] == _LANDMARK.parts:
            return Path(str(file.locate())).resolve().parent.parent
    return checkout  # the caller reports the file that it does not find there


def cache(*parts: str) -> Path:
    """Return the cache directory, or the directory `parts` below it. Create it if missing.

    SPINLOCK_CACHE overrides the location. Raises SetupError if the directory cannot be made.
    """
    chosen = os.environ.get("SPINLOCK_CACHE")
    root = Path(chosen) if chosen else platformdirs.user_cache_path("spinlock")
    path = root.absolute().joinpath(*parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"Cannot make the cache directory {path} ({error.strerror}): "
            "set SPINLOCK_CACHE to a directory you may write."
        ) from error
    return path


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a lock file of the cache. Waits while another process holds it.

    Raises SetupError if the file cannot be written.
    """
    held = FileLock(str(path))
    try:
        with progress.waiting(lambda: f"{_made_under(path)}, which is being made"):
            held.acquire()
    except OSError as error:
        raise SetupError(
            f"Cannot write {path} ({error.strerror}): set SPINLOCK_CACHE to a directory you may write."
        ) from error
    try:
        yield
    finally:
        held.release()


def _made_under(path: Path) -> str:
    """Return what a lock of the cache guards, in words: its place there."""
    try:
        place = path.relative_to(cache())
    except ValueError:
        return str(path)
    return str(place.parent if place.name == "lock" else place.with_suffix(""))


class Scratch:
    """A temporary directory that is removed with the process that made it.

    A killed process leaves its directory behind. The next process that makes a Scratch in the same
    place removes it: a directory that nobody has locked is abandoned.
    """

    def __init__(self, place: Optional[Path] = None) -> None:
        """Make the directory below `place`, by default the system's directory for such files."""
        place = place or Path(tempfile.gettempdir())
        _sweep(place)
        self._directory = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=place)
        self.path = Path(self._directory.name)
        self._hold: Optional[int] = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._hold, fcntl.LOCK_EX)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the directory and its contents. May be called again."""
        self._directory.cleanup()
        if self._hold is not None:
            os.close(self._hold)
            self._hold = None


@functools.lru_cache(maxsize=None)
def _sweep(place: Path) -> None:
    """Remove the directories that killed processes of this user left in a place.

    Done once per process and place.
    """
    for path in place.glob(f"{_PREFIX}*"):
        try:
            facts = path.stat()
            if facts.st_uid != os.geteuid() or time.time() - facts.st_mtime < _YOUNG_SECONDS:
                continue
            hold = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue  # another process removed it first
        try:
            fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(hold)
