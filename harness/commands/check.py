# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock check`: load the user's own programs into real kernels, and explain refusals."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Dict, Sequence

from harness import paths
from harness.check import checking, report, report_json, sarif
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
        "file", type=Path, metavar="FILE", help="a .bpf.c file, an object, or C for --loader bcc"
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
        target=options.target,
        cpus=options.cpus,
        append=options.append,
    )
    answer = checking.check(options.file, options.kernel, how, output.progress)
    if options.sarif is not None:
        log = sarif.to_sarif(answer, options.file, version.version(paths.root()))
        output.write(json.dumps(log, indent=1) + "\n", options.sarif)
    output.put(_text(answer, options), options.output)
    return OK if answer.good else FAILED


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
