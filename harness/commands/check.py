# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock check`: load the user's own programs into real kernels, and explain refusals."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Dict, Sequence

from harness import paths
from harness.check import checking, examine, own_loader, report, report_json, sarif
from harness.check.answer import Answer
from harness.commands import FAILED, OK, output, version
from harness.errors import UsageError
from harness.machines import target
from harness.pytest_plugin import run_options
from harness.scenarios import scenario


def declare(sub: argparse.ArgumentParser) -> None:
    """Add the options of `spinlock check`."""
    sub.epilog = (
        "Exit codes: 0 every required kernel loads the file, 1 one refuses it, or --run accuses it,"
        " 2 usage, 4 set-up error."
    )
    sub.add_argument(
        "files",
        type=Path,
        metavar="FILE",
        nargs="*",
        help="a .bpf.c file, an object, or C for --loader bcc; none with --command",
    )
    sub.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="KERNEL",
        help="load into this kernel, which must accept the file; all tries every kernel and requires"
        " none; repeatable"
        f" (default: {target.DEFAULT_KERNEL})",
    )
    sub.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="KERNEL",
        help="with --kernel all: this kernel (or all) must accept the file; repeatable",
    )
    sub.add_argument(
        "--next",
        action="store_true",
        help="also ask the newer kernels that are fetched, and the rule book for the others: what of"
        " it will be refused; required of none",
    )
    sub.add_argument(
        "--program",
        action="append",
        default=[],
        metavar="NAME",
        help="load only this program; repeatable",
    )
    sub.add_argument(
        "--loader",
        choices=scenario.LOADERS,
        default="libbpf",
        help="bcc: FILE is C for bcc, compiled in the guest (default: %(default)s)",
    )
    sub.add_argument(
        "--section",
        action="append",
        default=[],
        metavar="NAME=KIND",
        help="with --loader bcc: the program type as in SEC(), needed if the program's argument does"
        " not show it; repeatable",
    )
    _declare_own_loader(sub)
    _declare_guest(sub)
    sub.add_argument(
        "-I", type=Path, action="append", default=[], metavar="DIR", help="passed to clang"
    )
    sub.add_argument(
        "-D", action="append", default=[], metavar="NAME=VALUE", help="passed to the compiler"
    )
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print Markdown")
    form.add_argument("--json", action="store_true", help="print JSON (see docs/formats.md)")
    sub.add_argument(
        "-v", "--all", action="store_true", help="fold nothing: show every program, cause and place"
    )
    sub.add_argument(
        "--sarif",
        type=Path,
        metavar="FILE",
        help="also write SARIF 2.1.0 to a file, for code scanning and editors",
    )
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file")


def _declare_own_loader(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--command",
        metavar="COMMAND",
        help="the judge is your own loader: './loader prog.o' runs in the guest, with the files that it"
        " names",
    )
    sub.add_argument(
        "--with",
        dest="more",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="with --command: carry these files and directories into the guest, too",
    )
    sub.add_argument(
        "--time-limit",
        type=float,
        metavar="SECONDS",
        help="with --command: end it after so long; what is loaded then counts"
        f" (default: {own_loader.SECONDS:g})",
    )


def _declare_guest(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--target", choices=target.NAMES, help="as in `spinlock run`")
    sub.add_argument(
        "--cpus", type=run_options.cpus, default=4, help="virtual CPUs (default: %(default)s)"
    )
    sub.add_argument(
        "--append",
        type=run_options.append,
        default="",
        help="append to the kernel's command line",
    )
    sub.add_argument(
        "--run",
        action="store_true",
        help="also run the programs on all CPUs at once, with and without their locks, and compare"
        " with what one CPU leaves",
    )
    sub.add_argument(
        "--packet",
        action="append",
        default=[],
        metavar="FILE|HEX",
        help="with --run: the bytes of a packet, from its Ethernet header on, in place of the usual"
        " ones; repeatable",
    )
    sub.add_argument(
        "--entry",
        action="append",
        default=[],
        metavar="NAME",
        help="with --run: run only this program, as one that calls the others; repeatable",
    )


def run(options: argparse.Namespace) -> int:
    """Load the user's programs; return 1 if a required kernel refuses one. Raises UsageError."""
    how = checking.Options(
        programs=tuple(options.program),
        require=tuple(options.require),
        loader=options.loader,
        sections=_sections(options.section),
        include=tuple(options.I),
        defines=tuple(options.D),
        run=options.run,
        packets=tuple(options.packet),
        entries=tuple(options.entry),
        next=options.next,
        target=options.target,
        cpus=options.cpus,
        append=options.append,
    )
    _agree(options)
    for path in (options.output, options.sarif):
        if path is not None:
            output.look(path)
    if options.command is not None:
        seconds = own_loader.SECONDS if options.time_limit is None else options.time_limit
        loader = own_loader.open_loader(options.command, options.more, seconds)
        answers = [checking.check_loader(loader, options.kernel, how, output.progress)]
        files = [Path(loader.name)]
    else:
        for file in options.files[1:]:
            examine.look(file)  # of several, before the first one takes its time
        files = options.files
        answers = [checking.check(f, options.kernel, how, output.progress) for f in files]
    if options.sarif is not None:
        log = sarif.to_sarif([*zip(files, answers)], version.version(paths.root()))
        output.write(json.dumps(log, indent=1) + "\n", options.sarif)
    output.put("\n".join(_text(answer, options) for answer in answers), options.output)
    return OK if all(answer.good for answer in answers) else FAILED


def _agree(options: argparse.Namespace) -> None:
    """Raise UsageError for options of which one has no meaning with another."""
    if options.command is None:
        if not options.files:
            raise UsageError("There is no file to check: name a .bpf.c file or an object.")
        if options.more or options.time_limit is not None:
            word = "--with" if options.more else "--time-limit"
            raise UsageError(f"{word} goes with --command.")
        if options.json and len(options.files) > 1:
            raise UsageError("--json is of one file: check the others by calls of their own.")
        return
    if options.files:
        raise UsageError("--command is instead of a file: carry it by --with.")
    given = {
        "--program": options.program,
        "--section": options.section,
        "--run": options.run,
        "--loader": options.loader != "libbpf",
        "-I": options.I,
        "-D": options.D,
    }
    for word in (word for word, value in given.items() if value):
        raise UsageError(f"{word} does not go with --command: the loader alone decides that.")


def _text(answer: Answer, options: argparse.Namespace) -> str:
    if options.json:
        return json.dumps(report_json.to_json(answer), indent=1) + "\n"
    shown = report.markdown if options.markdown else report.terminal
    return shown(answer, options.all)


def _sections(words: Sequence[str]) -> Dict[str, str]:
    """Return program types by program name, from --section. Raises UsageError."""
    sections = {}
    for word in words:
        name, equals, kind = word.partition("=")
        if not (name and equals and kind):
            raise UsageError(f"--section {word}: NAME=KIND was expected, as in count=xdp.")
        sections[name] = kind
    return sections
