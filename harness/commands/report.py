# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock report`: stored results as a table, a page or a machine-readable format."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from datetime import date
from pathlib import Path
from typing import Optional, Sequence, Tuple

from rich.console import Console

from harness.commands import FAILED, OK, output
from harness.errors import UsageError
from harness.judging.verdict import Kind
from harness.provision import build
from harness.reports import export, lock_paths, page, rulebook, slowest, terminal
from harness.results import (
    drift as drifting,
    expected_failures as known_list,
    matrix,
    rejudge as rejudging,
)
from harness.results.result import Result
from harness.scenarios import scenario
from harness.scenarios.programs import Programs


def declare(sub: argparse.ArgumentParser) -> None:
    """Add the options of `spinlock report`."""
    sub.epilog = (
        "Exit codes: 0 the report was made, also when it has failures; 1 --against, --known or"
        " --rejudge found something; 2 unreadable input or wrong options; 4 the output cannot be"
        " written."
    )
    _declare_input(sub)
    _declare_form(sub)
    _declare_comparison(sub)
    _declare_selection(sub)


def _declare_input(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "places",
        nargs="*",
        type=Path,
        default=[matrix.LATEST],
        metavar="FILE|DIR",
        help="results.jsonl or the directory of a run; if several have a case, the newer file wins"
        f" (default: {matrix.LATEST})",
    )
    sub.add_argument(
        "--programs",
        type=Path,
        default=build.PROGRAMS,
        metavar="DIR",
        help="the C files for --rejudge and --rules, if the run used others",
    )


def _declare_form(sub: argparse.ArgumentParser) -> None:
    form = sub.add_mutually_exclusive_group()
    form.add_argument(
        "--markdown", action="store_true", help="print Markdown, short enough to mail"
    )
    form.add_argument("--json", action="store_true", help="print JSON (see docs/formats.md)")
    form.add_argument("--junit", action="store_true", help="print JUnit XML, a suite per kernel")
    form.add_argument("--ktap", action="store_true", help="print KTAP, a test per kernel")
    form.add_argument(
        "--slowest",
        type=_count,
        metavar="N",
        help="list the N cases that took longest, and in what",
    )
    form.add_argument(
        "--kcidb", metavar="ORIGIN", help="print KCIDB JSON with this origin, for KernelCI"
    )
    form.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained page")
    form.add_argument(
        "--rules",
        action="store_true",
        help="print the rule book (docs/rules.md): the C files' expectations per kernel, as Markdown",
    )
    form.add_argument(
        "--lock-paths",
        action="store_true",
        help="print by which path contending CPUs took the lock on each kernel, as Markdown",
    )
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file")
    sub.add_argument(
        "-v", action="store_true", help="show every case, and the evidence of each failure"
    )


def _count(text: str) -> int:
    """Parse a number of cases. Raises argparse's error."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of cases: write 10, say")
    return int(text)


def _declare_comparison(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--rejudge",
        action="store_true",
        help="judge stored results again with today's rules and C files, as text or with --json;"
        " exit code 1 if a verdict differs",
    )
    sub.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="FILE|DIR",
        help="list the changes since these results; exit code 1 on a new failure; repeatable",
    )
    sub.add_argument(
        "--known",
        type=Path,
        metavar="FILE",
        help="a list of expected failures (docs/ci.md); exit code 1 on an unlisted failure (with"
        " --against: a new failure), on a listed case that passed and on an expired entry",
    )


def _declare_selection(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--rule", default="", metavar="TEXT", help="only rules and cases with this text"
    )
    sub.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="KERNEL",
        help="only this kernel; repeatable",
    )
    sub.add_argument(
        "--verdict",
        action="append",
        default=[],
        type=str.upper,
        choices=[kind.value for kind in Kind],
        help="only this verdict; repeatable",
    )
    sub.add_argument(
        "--loader", default="", choices=scenario.LOADERS, help="only results of this loader"
    )


def run(options: argparse.Namespace) -> int:
    """Print results or the rule book. Raises UsageError for unreadable input or wrong options."""
    if options.rejudge:
        _no_other_form(options)
    if options.rules:
        output.put(
            rulebook.markdown(Programs.read(options.programs, build.PROGRAMS)), options.output
        )
        return OK
    if options.against and options.verdict:
        raise UsageError("--verdict and --against do not go together: a verdict may have changed.")
    if options.html and options.output:
        raise UsageError("--html FILE says where the page goes: leave out -o.")
    reading = matrix.read(options.places)
    for note in reading.notes:
        print(f"spinlock: {note}", file=sys.stderr)
    chosen = matrix.Selection(
        options.rule, tuple(options.kernel), tuple(options.verdict), options.loader
    )
    selected = chosen.of(reading.results)
    if options.rejudge:
        return _rejudge(options, reading.results, selected)
    pivot = matrix.Matrix(selected)
    known = _known(options.known, pivot.results)
    drift = _drift(options.against, chosen, pivot.results, known)
    code = FAILED if drift is not None and drift.regressed else OK
    if known is not None and (known.stale or (drift is None and known.unknown)):
        code = FAILED
    output.put(*_report(options, pivot, drift, known))
    if code != OK and (options.junit or options.ktap or options.kcidb is not None):
        # These formats cannot express the reason for exit code 1.
        said = [str(change) for change in drift.of(drifting.What.REGRESSION)] if drift else []
        said = [f"new failure: {change}" for change in said] + (known.lines() if known else [])
        for line in said:
            print(f"spinlock: {line}", file=sys.stderr)
    return code


def _no_other_form(options: argparse.Namespace) -> None:
    """Raise UsageError for an option that does not go with --rejudge."""
    others = {
        "--against": options.against,
        "--known": options.known,
        "--markdown": options.markdown,
        "--junit": options.junit,
        "--ktap": options.ktap,
        "--kcidb": options.kcidb,
        "--html": options.html,
        "--rules": options.rules,
        "--lock-paths": options.lock_paths,
        "--slowest": options.slowest,
    }
    for name, value in others.items():
        if value:
            raise UsageError(f"--rejudge and {name} do not go together: it gives text, or --json.")


def _rejudge(
    options: argparse.Namespace, found: Sequence[Result], selected: Sequence[Result]
) -> int:
    """Judge the selected results again; legal twins are looked up among all that were `found`."""
    scenarios = Programs.read(options.programs, build.PROGRAMS).scenarios()
    rejudged = rejudging.rejudge(selected, scenarios, found)
    text = "\n".join(rejudged.lines())
    if options.json:
        text = json.dumps(rejudged.to_json(), indent=1)
    output.put(text + "\n", options.output)
    return FAILED if rejudged.differs else OK


def _known(path: Optional[Path], found: Sequence[Result]) -> Optional[known_list.Known]:
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"Cannot read {path} ({reason}).") from None
    return known_list.apply(known_list.parse(text, str(path)), found, date.today())


def _drift(
    places: Sequence[Path],
    chosen: matrix.Selection,
    found: Sequence[Result],
    known: Optional[known_list.Known],
) -> Optional[drifting.Drift]:
    """Compare with the baseline of --against; None without that option."""
    if not places:
        return None
    reading = matrix.read(places)
    for note in reading.notes:
        print(f"spinlock: {note}", file=sys.stderr)
    baseline = dataclasses.replace(chosen, kernels=()).of(reading.results)
    if chosen.kernels:
        names = {matrix.column(result) for result in found}
        baseline = [result for result in baseline if matrix.column(result) in names]
    return drifting.compare(baseline, found, known.keys if known else frozenset())


def _report(
    options: argparse.Namespace,
    pivot: matrix.Matrix,
    drift: Optional[drifting.Drift],
    known: Optional[known_list.Known],
) -> Tuple[str, Optional[Path]]:
    """Return the report in the chosen format, and its file (None: standard output)."""
    if options.html:
        return page.html(pivot, drift, known), options.html
    if options.json:
        data = matrix.to_json(pivot)
        data.update({"drift": drift.to_json()} if drift else {})
        data.update({"known": known.to_json()} if known else {})
        return json.dumps(data, indent=1) + "\n", options.output
    if options.markdown:
        return terminal.markdown(pivot, drift, known), options.output
    if options.lock_paths:
        return lock_paths.markdown(pivot), options.output
    if options.slowest:
        return slowest.text(pivot.results, options.slowest) + "\n", options.output
    if options.junit:
        return export.junit(pivot), options.output
    if options.ktap:
        return export.ktap(pivot), options.output
    if options.kcidb is not None:
        if not re.fullmatch("[a-z0-9_]+", options.kcidb):
            raise UsageError(
                f"--kcidb {options.kcidb}: an origin consists of a-z, 0-9 and _, as KCIDB wants it."
            )
        return json.dumps(export.kcidb(pivot, options.kcidb), indent=1) + "\n", options.output
    console = Console()
    colour = options.output is None and console.is_terminal
    width = console.width if colour else terminal.LOG_WIDTH
    parts = [terminal.terminal(pivot, width, colour, options.v), "\n".join(terminal.totals(pivot))]
    if options.v:
        parts += [terminal.explain(result, whole=True) for result, _ in pivot.notable()]
    parts += [terminal.changes(drift, width)] if drift is not None else []
    parts += ["\n".join(known.lines())] if known is not None and known.lines() else []
    return "\n\n".join(parts) + "\n", options.output
