"""Where the harness keeps what it has built and downloaded."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Iterator

import platformdirs
from filelock import FileLock

from harness.errors import SetupError

DISTRIBUTION = "bpf-spinlock-harness"
_LANDMARK = Path("bpf_progs") / "spinlock.h"


@lru_cache(maxsize=None)
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
        held.acquire()
    except OSError as error:
        raise SetupError(
            f"Cannot write {path} ({error.strerror}): set SPINLOCK_CACHE to a directory you may write."
        ) from error
    try:
        yield
    finally:
        held.release()
