# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock shell`: a root shell in a fresh guest."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing

from harness.commands import output
from harness.errors import UsageError
from harness.guest import calls
from harness.machines import choose, target
from harness.machines.session import KernelRefusal
from harness.pytest_plugin import run_options

LIMIT_SECONDS = 3600.0  # for one command


def declare(sub: argparse.ArgumentParser) -> None:
    """Add the options of `spinlock shell`."""
    sub.add_argument(
        "--kernel",
        metavar="KERNEL",
        default=target.DEFAULT_KERNEL,
        help="one kernel, as in `spinlock run` (default: %(default)s)",
    )
    sub.add_argument(
        "--cpus", type=run_options.cpus, default=4, help="virtual CPUs (default: %(default)s)"
    )
    sub.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="COMMAND", help="run this command and exit"
    )


def run(options: argparse.Namespace) -> int:
    """Open a root shell in a fresh guest, or run one command; return its exit status."""
    settings = target.Settings("qemu", options.kernel, options.cpus)
    opened = choose.open_target(settings, output.progress)
    with closing(opened) as guests, guests.session() as session:
        command = options.words[1:] if options.words[:1] == ["--"] else options.words
        words = command or ([] if sys.stdin.isatty() else ["/bin/bash"])
        if words:
            typed = "" if command else sys.stdin.read()
            try:
                done = session.call(calls.Command(words, input=typed), limit=LIMIT_SECONDS)
            except KernelRefusal as refusal:
                raise UsageError(f"The guest cannot run {words[0]!r}: {refusal.errno}.") from None
            sys.stdout.write(done["stdout"])
            sys.stderr.write(done["stderr"])
            status: int = done["status"]
            return status
        return session.interact(["/bin/bash", "-l"])
