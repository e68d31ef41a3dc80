# SPDX-License-Identifier: GPL-2.0-only
"""Output of the commands: reports to standard output or a file, progress to standard error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Optional

from harness.errors import SetupError


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


def write(text: str, output: Path) -> None:
    """Write text to a file. Raises SetupError on failure."""
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"Cannot write {output} ({error.strerror}).") from None
