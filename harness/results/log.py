# SPDX-License-Identifier: GPL-2.0-only
"""Writes results.jsonl: one line per case, as soon as it ends. Nothing else of a run is stored."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Optional

from harness.errors import SetupError, UsageError
from harness.results.result import Result


class ResultLog:
    """Appends results to a file. Each is on the disk before the next case begins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise SetupError(
                f"Cannot write results to {path} ({error.strerror}); choose another place by --results."
            ) from None

    def add(self, result: Result) -> None:
        """Write one result. Raises SetupError if it cannot be stored."""
        try:
            self._file.write(json.dumps(result.to_json()) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise SetupError(
                f"Cannot write results to {self.path} ({error.strerror}); what came before is kept."
                " Make room, then run again."
            ) from None

    def close(self) -> None:
        """Close the file. Errors of writing were reported by `add` before."""
        try:
            self._file.close()
        except OSError:
            pass


def mend(path: Path) -> bool:
    """Cut off the last line of a results file if a killed run left it unfinished.

    Returns whether the file holds any result. Raises UsageError if the line is not the start of a
    result; the file is then unchanged. Raises SetupError if the file cannot be written.
    """
    try:
        with path.open("r+b") as file:
            whole = file.read()
            end = whole.rfind(b"\n") + 1
            if whole[end : end + 1] not in (b"", b"{", b"\0"):  # a power cut leaves zeros
                raise UsageError(
                    f"{path} is no results file of a run, so no run can continue in it."
                )
            file.truncate(end)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SetupError(f"Cannot go on writing {path} ({error.strerror}).") from None
    return end > 0


def new_directory(chosen: Optional[str]) -> Path:
    """Make the directory for a new run's results: `chosen`, or results/<time>.

    results/<time> is also linked as results/latest. Raises SetupError if it cannot be made.
    """
    directory = Path(chosen or f"results/{datetime.datetime.now():%Y-%m-%dT%H.%M.%S}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if chosen is None:
            link = directory.parent / f".latest-{os.getpid()}"
            link.symlink_to(directory.name)
            link.replace(directory.parent / "latest")
    except OSError as error:
        raise SetupError(
            f"Cannot make {directory} ({error.strerror}); choose another place by --results."
        ) from None
    return directory
