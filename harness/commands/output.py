# SPDX-License-Identifier: GPL-2.0-only
"""Output of the commands: reports to standard output or a file, progress to standard error."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Optional

from harness.errors import SetupError, UsageError


def progress(message: str) -> None:
    """Print a progress message to standard error."""
    print(f"spinlock: {message}", file=sys.stderr)


def put(text: str, output: Optional[Path]) -> None:
    """Write a report to a file, or to standard output for None. Raises SetupError on failure."""
    if output is None:
        sys.stdout.write(text)
        return
    write(text, output)
    print(output)


def look(path: Path) -> None:
    """Raise UsageError for a file that cannot be written, before the work of which it is to tell."""
    if path.is_dir():
        raise UsageError(f"Cannot write {path}: it is a directory.")
    if not path.parent.is_dir():
        raise UsageError(f"Cannot write {path}: there is no directory {path.parent}.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"Cannot write {path}: permission denied.")


def write(text: str, output: Path) -> None:
    """Write text to a file. Raises SetupError on failure."""
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"Cannot write {output} ({error.strerror}).") from None
