# SPDX-License-Identifier: GPL-2.0-only
"""Shared by `spinlock power` and `spinlock bench`: options, targets and the progress line."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Iterator, List, Optional, Sequence

from harness.commands import output
from harness.machines import choose, target
from harness.provision import catalogue
from harness.pytest_plugin import run_options


def declare(sub: argparse.ArgumentParser, cpus: str) -> None:
    """Add the options of both; `cpus` is the default of --cpus in words."""
    sub.add_argument("--target", choices=target.NAMES, help="as in `spinlock run`")
    sub.add_argument(
        "--kernel",
        action="append",
        default=[],
        help=f"as in `spinlock run`; repeatable (default: {target.DEFAULT_KERNEL})",
    )
    sub.add_argument(
        "--cpus",
        type=run_options.cpus,
        action="append",
        default=[],
        help=f"number of CPUs; repeatable (default: {cpus})",
    )
    sub.add_argument(
        "--append",
        type=run_options.append,
        default="",
        help="append to the kernel's command line",
    )
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print Markdown")
    form.add_argument("--json", action="store_true", help="print JSON (see docs/formats.md)")
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file")


def targets(options: argparse.Namespace, cpus: Sequence[int]) -> Iterator[target.Target]:
    """Yield an open target per kernel and number of CPUs, one at a time."""
    names: List[Optional[str]] = [*catalogue.expand(options.kernel)]
    for name in names:
        catalogue.find(str(name))
    for name in names or [None]:
        for count in cpus:
            settings = target.Settings(options.target, name, count, append=options.append)
            with closing(choose.open_target(settings, output.progress)) as guests:
                yield guests


class Ticker:
    """Shows progress: one line that is redrawn on a terminal, else a line per EVERY_SECONDS."""

    EVERY_SECONDS = 60.0

    def __init__(self, what: str, steps: int) -> None:
        self._what, self._steps, self._done = what, steps, 0
        self._started = self._told = time.monotonic()

    def __call__(self, word: str) -> None:
        """Count one finished step; `word` names it."""
        self._done += 1
        now = time.monotonic()
        left = (now - self._started) / self._done * max(0, self._steps - self._done)
        line = f"spinlock: {self._what}: {self._done} of {self._steps} runs, {left:.0f} s to go: {word}"
        if sys.stderr.isatty():
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{line[:width]}", end="", file=sys.stderr, flush=True)
        elif now - self._told >= self.EVERY_SECONDS:
            self._told = now
            print(line, file=sys.stderr)

    def end(self) -> None:
        """Print the total number of runs and the time spent."""
        spent = time.monotonic() - self._started
        start = "\r\033[K" if sys.stderr.isatty() else ""
        print(f"{start}spinlock: {self._what}: {self._done} runs in {spent:.0f} s", file=sys.stderr)
