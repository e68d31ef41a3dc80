# SPDX-License-Identifier: GPL-2.0-only
"""What each case took the last time, by which the time left is told: a small file in the cache."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Dict

from harness import paths


def _file() -> Path:
    return paths.cache() / "times.json"


def read() -> Dict[str, float]:
    """Return seconds by case; of a file that is not there, or damaged, none. Raises SetupError."""
    try:
        held = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(held, dict):
        return {}
    return {key: value for key, value in held.items() if isinstance(value, (int, float))}


def write(times: Dict[str, float]) -> None:
    """Keep seconds by case. Where they cannot be kept, the next run tells no time left."""
    beside = _file().with_name(f".times-{os.getpid()}")
    try:
        beside.write_text(json.dumps(times), encoding="utf-8")
        beside.replace(_file())
    except OSError:
        beside.unlink(missing_ok=True)
