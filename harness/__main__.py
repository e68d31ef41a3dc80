# SPDX-License-Identifier: GPL-2.0-only
"""The `spinlock` command: its subcommands, and the exit codes of errors and interrupts."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from pathlib import Path
from typing import Callable, Optional, Sequence

from harness.commands import (
    EXIT_CODES,
    INTERRUPTED,
    OK,
    SETUP,
    USAGE,
    bench,
    bisect,
    check,
    completion,
    doctor,
    image,
    kernels,
    list as listing,
    power,
    report,
    run,
    shell,
    version,
)
from harness.errors import SetupError, UsageError
from harness.provision import catalogue


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command and return its exit code.

    0 passed, 1 failed or crashed, 2 usage, 3 inconclusive, 4 harness or set-up error.
    """
    # SIGTERM raises KeyboardInterrupt, so that child processes are ended as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        options = _parse(arguments)
        code: int = options.action(options)
        return code
    except UsageError as error:
        print(f"spinlock: {error}", file=sys.stderr)
        return USAGE
    except SetupError as error:
        if error.console:
            print(error.console.rstrip(), file=sys.stderr)
        print(f"spinlock: {error}", file=sys.stderr)
        return SETUP
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"spinlock: {error.strerror}{where}: make room, or write elsewhere.", file=sys.stderr)
        return SETUP
    except KeyboardInterrupt:
        print("spinlock: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parse(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    """Return the options.

    Names may stand before and after options. argparse alone ends a list of names at the first
    option.
    """
    options, more = _parser().parse_known_args(arguments)
    takes = {"names": str, "places": Path}
    listed = next((name for name in takes if hasattr(options, name)), None)
    if more and (listed is None or any(word.startswith("-") for word in more)):
        options.parser.error(f"unrecognized arguments: {' '.join(more)}")
    if more and listed is not None:
        names = [*getattr(options, listed), *map(takes[listed], more)]
        setattr(options, listed, names)
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spinlock",
        description="Test bpf_spin_lock on a real kernel in a VM.",
        epilog=EXIT_CODES,
    )
    parser.add_argument(
        "--version",
        action=version.ShowVersion,
        help="show the release and, in a checkout, the commit",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, action: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(action=action, parser=sub)
        return sub

    command("doctor", doctor.run, "Check this machine for what spinlock needs.")
    listing.declare(command("list", listing.run, "List the scenarios, by rule. Needs no VM."))
    run.declare(command("run", run.run, "Run all scenarios, or the named ones."))
    report.declare(
        command("report", report.run, "Show results: rules x kernels, as text or as a page.")
    )
    bisect.declare(
        command("bisect", bisect.run, "Find the kernel version where a case's outcome changed.")
    )
    check.declare(
        command("check", check.run, "Load your own programs into real kernels; explain refusals.")
    )
    power.declare(
        command("power", power.run, "Measure how often each broken twin of a lock is caught.")
    )
    bench.declare(
        command("bench", bench.run, "Measure the cost of the lock, by driver and number of CPUs.")
    )
    shell.declare(
        command("shell", shell.run, "Open a root shell in a fresh guest, which is then discarded.")
    )
    kernels.declare(command("kernels", kernels.run, "List, fetch or remove Debian's kernels."))
    image.declare(command("image", image.run, "Build or remove the guest's userland and kernel."))
    completing = command("completion", _completion, "Print a completion script for bash or zsh.")
    completing.add_argument(
        "shell", choices=completion.SHELLS, help="bash: eval the output; zsh: save it in $fpath"
    )
    return parser


def _completion(options: argparse.Namespace) -> int:
    """Print a shell's completion script. It is made from the parser, so it is defined here."""
    known = ["all", *catalogue.names()]
    sys.stdout.write(completion.script(_parser(), options.shell, list(listing.all_cases()), known))
    return OK


if __name__ == "__main__":
    sys.exit(main())
