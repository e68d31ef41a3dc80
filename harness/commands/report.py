"""`spinlock report`: the results of runs, as table, page or in a form for others."""

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
from harness.judging.judge import Kind
from harness.provision import build
from harness.reports import export, page, rulebook, terminal
from harness.results import drift as drifting, expected_failures as known_list, matrix
from harness.results.stored import Result
from harness.scenarios import scenario
from harness.scenarios.programs import Programs


def declare(sub: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    sub.epilog = (
        "Exit codes: 0, whatever the results are; 1 as --against and --known say; 2 for what cannot be"
        " read or makes no sense; 4 if the output cannot be written."
    )
    sub.add_argument(
        "places",
        nargs="*",
        type=Path,
        default=[matrix.LATEST],
        metavar="FILE|DIR",
        help="results.jsonl or the directory of a run; of several the newer result wins"
        f" (default: {matrix.LATEST})",
    )
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="as Markdown, a summary for a mail")
    form.add_argument("--json", action="store_true", help="as JSON; harness/README.md says how")
    form.add_argument("--junit", action="store_true", help="as JUnit XML, a suite per kernel")
    form.add_argument("--ktap", action="store_true", help="as KTAP, a test per kernel")
    form.add_argument(
        "--kcidb", metavar="ORIGIN", help="as KCIDB JSON, submitted under this name (KernelCI)"
    )
    form.add_argument("--html", type=Path, metavar="FILE", help="as one page that holds everything")
    form.add_argument(
        "--rules",
        action="store_true",
        help="what each kernel must do, from the C files alone, as Markdown (docs/rules.md)",
    )
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file")
    sub.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="FILE|DIR",
        help="say what changed since these results; exit code 1 on a new failure; repeatable",
    )
    sub.add_argument(
        "--known",
        type=Path,
        metavar="FILE",
        help="a list of expected failures (docs/ci.md); exit code 1 on others (with --against: on new"
        " ones), and on entries that passed or have expired",
    )
    sub.add_argument(
        "--rule", default="", metavar="TEXT", help="only rules and cases with this text"
    )
    sub.add_argument(
        "--kernel", action="append", default=[], metavar="KERNEL", help="only this; repeatable"
    )
    sub.add_argument(
        "--verdict",
        action="append",
        default=[],
        type=str.upper,
        choices=[kind.value for kind in Kind],
        help="only this; repeatable",
    )
    sub.add_argument("--loader", default="", choices=scenario.LOADERS, help="only this")
    sub.add_argument(
        "-v", action="store_true", help="every case, and what is to be said of those that failed"
    )


def run(options: argparse.Namespace) -> int:
    """Show the results of runs, or the rule book."""
    if options.rules:
        output.put(rulebook.markdown(Programs.read(build.PROGRAMS)), options.output)
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
    pivot = matrix.Matrix(chosen.of(reading.results))
    known = _known(options.known, pivot.results)
    drift = _drift(options.against, chosen, pivot.results, known)
    code = FAILED if drift is not None and drift.regressed else OK
    if known is not None and (known.stale or (drift is None and known.unknown)):
        code = FAILED
    output.put(*_report(options, pivot, drift, known))
    if code != OK and (options.junit or options.ktap or options.kcidb is not None):
        # These forms have no place for the reason.
        said = [str(change) for change in drift.of(drifting.What.REGRESSION)] if drift else []
        said = [f"new failure: {change}" for change in said] + (known.lines() if known else [])
        for line in said:
            print(f"spinlock: {line}", file=sys.stderr)
    return code


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
    """Compare with a baseline."""
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
    """Return a report in the form asked for, and where it goes."""
    if options.html:
        return page.html(pivot, drift, known), options.html
    if options.json:
        data = matrix.to_json(pivot)
        data.update({"drift": drift.to_json()} if drift else {})
        data.update({"known": known.to_json()} if known else {})
        return json.dumps(data, indent=1) + "\n", options.output
    if options.markdown:
        return terminal.markdown(pivot, drift, known), options.output
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
