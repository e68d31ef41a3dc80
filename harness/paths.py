# SPDX-License-Identifier: GPL-2.0-only
"""Where the harness keeps what it has built and downloaded."""

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
_YOUNG_SECONDS = 60.0  # between being made and being held, a directory looks like one left behind


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
    return checkout  # whoever needs a file in it says that it is not there


def cache(*parts: str) -> Path:
    """Return the cache directory, or the directory `parts` below it, made when missing.

    SPINLOCK_CACHE overrides the place. Raises SetupError when it cannot be made.
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
    """Hold a lock file of the cache; whoever holds it already is waited for. Raises SetupError."""
    held = FileLock(str(path))
    try:
        with progress.waiting(lambda: f"{_made_under(path)}, which another process is making"):
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
    """A directory that goes with the process that made it.

    A killed process cannot remove its own: then the next one that makes one in the same place does,
    which tells by the lock that nobody holds it any more.
    """

    def __init__(self, place: Optional[Path] = None) -> None:
        """Make one below `place`; else where temporary files go."""
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
        """Remove it with all that is in it; may be called again."""
        self._directory.cleanup()
        if self._hold is not None:
            os.close(self._hold)
            self._hold = None


@functools.lru_cache(maxsize=None)
def _sweep(place: Path) -> None:
    """Remove, once per process, what killed processes of this user left in a place."""
    for path in place.glob(f"{_PREFIX}*"):
        try:
            facts = path.stat()
            if facts.st_uid != os.geteuid() or time.time() - facts.st_mtime < _YOUNG_SECONDS:
                continue
            hold = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue  # another one was faster
        try:
            fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(hold)
