# SPDX-License-Identifier: GPL-2.0-only
"""Where a command's words go: what it was asked for, and what it tells beside that."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Optional

from harness.errors import SetupError


def progress(message: str) -> None:
    """Tell what takes time, apart from what a command prints."""
    print(f"spinlock: {message}", file=sys.stderr)


def put(text: str, output: Optional[Path]) -> None:
    """Write a report where it is wanted. Raises SetupError when it cannot be written."""
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"Cannot write {output} ({error.strerror}).") from None
    print(output)
