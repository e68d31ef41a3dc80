"""Where the harness keeps what it has built and downloaded."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from harness.errors import SetupError


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
