# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock completion`: complete options, files, cases and kernels in bash and zsh."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Callable, Iterator, Sequence

from harness.commands import OK
from harness.commands.list import all_cases
from harness.errors import SetupError
from harness.provision import catalogue

SHELLS = ("bash", "zsh")
_CASES = ("names", "scenario")
_KERNELS = ("kernel", "require", "good", "bad")
_FILES = ("places", "results", "against")


def declare(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    sub.add_argument("shell", choices=SHELLS, help="bash: eval the output; zsh: save it in $fpath")


def run(options: argparse.Namespace) -> int:
    """Print a shell's completion script, made from the parser of all subcommands."""
    known = ["all", *catalogue.names()]
    sys.stdout.write(script(options.whole(), options.shell, list(all_cases()), known))
    return OK


def script(
    parser: argparse.ArgumentParser, shell: str, cases: Sequence[str], kernels: Sequence[str]
) -> str:
    """Return the shell's completion script, with today's cases and kernels. Raises SetupError."""
    try:
        import shtab
    except ImportError:
        raise SetupError(
            "Completion needs Python's package shtab: `pip install shtab` in the virtual"
            " environment of spinlock."
        ) from None
    for action in _actions(parser):
        words = kernels if action.dest in _KERNELS else cases if action.dest in _CASES else ()
        if action.metavar == "KERNEL":
            words = kernels
        if words:
            function = "_spinlock_kernels" if words is kernels else "_spinlock_cases"
            setattr(action, "complete", {"bash": function, "zsh": f"({' '.join(words)})"})
        elif action.type is Path or action.dest in _FILES:
            setattr(action, "complete", shtab.FILE)
    preamble = {
        "bash": "".join(
            f"_spinlock_{name}() {{\n  compgen -W '{' '.join(words)}' -- \"$1\"\n}}\n"
            for name, words in (("kernels", kernels), ("cases", cases))
        )
    }
    complete: Callable[..., str] = shtab.complete  # its annotations reject a preamble per shell
    text = complete(parser, shell=shell, preamble=preamble)
    # For a list of arguments shtab writes "(*)::", which zsh reads as one optional word.
    return text.replace('"(*)::', '"*:') if shell == "zsh" else text


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the options and arguments of all commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _actions(sub)
        else:
            yield action
