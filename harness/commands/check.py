# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock check`: the user's own program on every kernel."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path
from typing import Dict, List, Optional, Union

from harness.check import bcc_source, examine, lockset, report
from harness.commands import output
from harness.errors import UsageError
from harness.machines import choose, target
from harness.provision import catalogue
from harness.pytest_plugin import run_options
from harness.scenarios import scenario


def declare(sub: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    sub.epilog = (
        "Exit codes: 0 every required kernel takes it, 1 one does not, 2 usage, 4 set-up error."
    )
    sub.add_argument("file", type=Path, metavar="FILE", help="prog.bpf.c or prog.o, or C for bcc")
    sub.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="KERNEL",
        help="a kernel that must take it; or all, to see which do; repeatable"
        f" (default: {target.DEFAULT_KERNEL})",
    )
    sub.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="KERNEL",
        help="of --kernel all, one that must take it, or all; repeatable",
    )
    sub.add_argument("--program", action="append", default=[], metavar="NAME", help="only this")
    sub.add_argument(
        "--loader",
        choices=scenario.LOADERS,
        default="libbpf",
        help="bcc: FILE is C as bcc takes it, compiled in the guest (default: %(default)s)",
    )
    sub.add_argument(
        "--section",
        action="append",
        default=[],
        metavar="NAME=KIND",
        help="with --loader bcc: of what kind a program is, as SEC() names it, where what it is given"
        " does not tell; repeatable",
    )
    sub.add_argument("--target", choices=target.NAMES, help="as in `spinlock run`")
    sub.add_argument(
        "--cpus", type=run_options.cpus, default=4, help="virtual CPUs (default: %(default)s)"
    )
    sub.add_argument(
        "--append",
        type=run_options.append,
        default="",
        help="more words for the kernel's command line",
    )
    sub.add_argument("-I", type=Path, action="append", default=[], metavar="DIR", help="to clang")
    sub.add_argument("-D", action="append", default=[], metavar="NAME=VALUE", help="to clang")
    sub.add_argument(
        "--run", action="store_true", help="run what BPF_PROG_TEST_RUN can, on all CPUs at once"
    )
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="as Markdown")
    form.add_argument("--json", action="store_true", help="as JSON; docs/formats.md says how")
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file")


def run(options: argparse.Namespace) -> int:
    """Load a program of the user's own; return 1 if a kernel that is required refuses it."""
    if options.section and options.loader != "bcc":
        raise UsageError("--section goes with --loader bcc; an object has its own SEC().")
    named = [name for name in options.kernel if name != "all"]
    required = catalogue.expand([*named, *options.require])
    chosen = catalogue.expand([*options.kernel, *options.require])
    if not chosen and options.target in (None, "qemu"):
        chosen = required = [target.DEFAULT_KERNEL]
    for chosen_name in chosen:
        catalogue.find(chosen_name)

    examine.look(options.file)
    source = _open_at_once(options)
    if source is not None:
        examine.choose(source, options.program)
    rows = []
    asked: List[Optional[str]] = [*chosen]
    for name in asked or [None]:  # None: whatever a running machine has
        settings = target.Settings(options.target, name, options.cpus, append=options.append)
        with closing(choose.open_target(settings, output.progress)) as guests:
            if source is None:
                source = examine.open_source(options.file, guests.headers(), options.I, options.D)
            programs = examine.choose(source, options.program)
            shown = name or guests.name
            output.progress(f"{source.name} on {shown}")
            rows.append(examine.examine(guests, shown, source, programs, options.run))
    assert source is not None
    locks = None
    if isinstance(source, examine.Source):
        # Of all programs: one that is not asked for may be the one that does not lock.
        locks = lockset.analyse(source.object, source.programs)
    found = report.Report(source, programs, tuple(rows), locks)
    output.put(_text(found, options), options.output)
    return report.exit_code(found, required or [row.kernel for row in rows if not chosen])


def _open_at_once(options: argparse.Namespace) -> Union[examine.Source, bcc_source.Text, None]:
    """Open what needs no guest's headers, so that it is refused before there is one; else None."""
    if options.loader == "bcc":
        return examine.open_text(options.file, options.D, _sections(options))
    if options.file.suffix != ".c":
        return examine.open_source(options.file, Path())
    return None


def _text(found: report.Report, options: argparse.Namespace) -> str:
    if options.json:
        return json.dumps(report.to_json(found), indent=1) + "\n"
    return report.markdown(found) if options.markdown else report.terminal(found)


def _sections(options: argparse.Namespace) -> Dict[str, str]:
    """Return the kinds of programs that were named. Raises UsageError."""
    if options.run or options.I:
        word = "--run" if options.run else "-I"
        raise UsageError(f"{word} does not go with --loader bcc, which compiles in the guest.")
    sections = {}
    for word in options.section:
        name, equals, kind = word.partition("=")
        if not (name and equals and kind):
            raise UsageError(f"--section {word}: NAME=KIND was expected, as in count=xdp.")
        sections[name] = kind
    return sections
