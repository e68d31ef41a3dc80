# SPDX-License-Identifier: GPL-2.0-only
"""The `spinlock` command: its subcommands, and the exit codes of errors and interrupts."""

from __future__ import annotations

import argparse
import errno
import importlib
import signal
import sys
from pathlib import Path
from typing import Callable, Optional, Sequence

from harness.commands import EXIT_CODES, INTERRUPTED, SETUP, USAGE, version
from harness.errors import SetupError, UsageError

# The subcommands: each is a module of `commands` with run() and, if it takes anything, declare().
_COMMANDS = {
    "doctor": "Check this machine for what spinlock needs.",
    "list": "List the scenarios, by rule. Needs no VM.",
    "run": "Run all scenarios, or the named ones.",
    "report": "Show results: rules x kernels, as text or as a page.",
    "bisect": "Find the kernel version where a case's outcome changed.",
    "check": "Load your own programs into real kernels; explain refusals.",
    "fuzz": "Ask kernels about random programs; an oracle knows the answers.",
    "explore": "Interleave operations in every way, by schedules that can be repeated.",
    "power": "Measure how often each broken twin of a lock is caught.",
    "bench": "Measure the cost of the lock, by driver and number of CPUs.",
    "shell": "Open a root shell in a fresh guest, which is then discarded.",
    "kernels": "List, fetch or remove Debian's kernels.",
    "image": "Build or remove the guest's userland and kernel.",
    "completion": "Print a completion script for bash or zsh.",
}


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
    words = sys.argv[1:] if arguments is None else arguments
    asked = next((word for word in words if word in _COMMANDS), None)
    options, more = _parser(asked).parse_known_args(words)
    takes = {"names": str, "places": Path, "files": Path}
    listed = next((name for name in takes if hasattr(options, name)), None)
    if more and (listed is None or any(word.startswith("-") for word in more)):
        options.parser.error(f"unrecognized arguments: {' '.join(more)}")
    if more and listed is not None:
        names = [*getattr(options, listed), *map(takes[listed], more)]
        setattr(options, listed, names)
    return options


def _parser(asked: Optional[str] = None) -> argparse.ArgumentParser:
    """Return the parser. Only the subcommand that is asked for, if any, has its module imported:
    those of the others would cost each start a tenth of a second."""
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
    for name, text in _COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        if asked not in (None, name):
            continue
        module = importlib.import_module(f"harness.commands.{name}")
        action: Callable[[argparse.Namespace], int] = module.run
        sub.set_defaults(action=action, parser=sub, whole=_parser)
        if hasattr(module, "declare"):
            module.declare(sub)
    return parser


if __name__ == "__main__":
    sys.exit(main())
