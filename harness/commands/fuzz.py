# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock fuzz`: random programs, which an oracle knows the answer to, on real kernels."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from harness.commands import output
from harness.errors import SetupError, UsageError
from harness.fuzz import campaign, defects, differential, findings, ir, listing, lower, rules
from harness.guest.uapi import errno_name
from harness.machines import choose, target
from harness.machines.loss import GuestLost
from harness.machines.session import AgentError
from harness.provision import catalogue
from harness.pytest_plugin import run_options
from harness.scenarios.versions import kernel_version

DEFAULT_PROGRAMS = 2000
MOST_OF_POWER = 5000
TOLD_EVERY_SECONDS = 10.0


def declare(sub: argparse.ArgumentParser) -> None:
    """Add the options of `spinlock fuzz`."""
    sub.epilog = (
        "Exit codes: 0 every kernel does what the oracle says, but for what is on record; 1 one does"
        " not; 2 usage, 4 set-up error."
    )
    sub.add_argument("--target", choices=target.NAMES, help="as in `spinlock run`")
    sub.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="KERNEL",
        help=f"as in `spinlock run`; repeatable (default: {target.DEFAULT_KERNEL})",
    )
    sub.add_argument(
        "--programs",
        type=_number,
        metavar="N",
        help=f"ask about so many programs (default: {DEFAULT_PROGRAMS}, unless --minutes is given)",
    )
    sub.add_argument(
        "--minutes", type=_minutes, metavar="M", help="end after so many minutes per kernel"
    )
    sub.add_argument(
        "--seed", type=_number, default=1, help="decides all programs (default: %(default)s)"
    )
    sub.add_argument(
        "--append",
        type=run_options.append,
        default="",
        help="append to the kernel's command line",
    )
    sub.add_argument(
        "--replay",
        type=Path,
        metavar="FILE",
        help="ask about the program of a file only, and show what the verifier says",
    )
    sub.add_argument(
        "--corpus",
        type=Path,
        metavar="DIR",
        help="begin with the programs of this directory, and add those of findings",
    )
    sub.add_argument(
        "--differential",
        action="store_true",
        help="ask all kernels about the same programs, and show which answers change and why",
    )
    sub.add_argument(
        "--power",
        action="store_true",
        help="ask no kernel: show how many programs find each of many simulated defects",
    )
    sub.add_argument(
        "--known", action="store_true", help="show the programs of known findings as well"
    )
    sub.add_argument("--json", action="store_true", help="print JSON (see docs/formats.md)")
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file")


def _number(text: str) -> int:
    if not text.isdigit() or int(text) < 1 or int(text) > 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 1000000000")
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= 10000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes above 0, up to 10000")
    return minutes


def run(options: argparse.Namespace) -> int:
    """Ask each kernel; return 1 if one did not do what it must. Raises UsageError, SetupError."""
    names: List[Optional[str]] = [*catalogue.expand(options.kernel)]
    for name in names:
        catalogue.find(str(name))
    if options.power:
        return _power(options, names)
    try:
        if options.replay:
            return _replay(options, names)
        return (_differential if options.differential else _campaigns)(options, names)
    except (GuestLost, AgentError) as lost:
        raise SetupError(f"The guest was lost: {lost}.") from None


def _targets(
    options: argparse.Namespace, names: List[Optional[str]]
) -> Iterator[Tuple[str, target.Target]]:
    """Yield the name and an open target of each kernel, one at a time."""
    for name in names or [None]:
        settings = target.Settings(options.target, name, cpus=1, append=options.append)
        with closing(choose.open_target(settings, output.progress)) as guests:
            yield name or guests.name, guests


def _campaigns(options: argparse.Namespace, names: List[Optional[str]]) -> int:
    first = findings.corpus(options.corpus) if options.corpus else []
    programs = options.programs or (0 if options.minutes else DEFAULT_PROGRAMS)
    plan = campaign.Plan(options.seed, programs, 60 * (options.minutes or 0.0), tuple(first))
    outcomes = []
    for name, guests in _targets(options, names):
        ticker = _Ticker(name)
        try:
            outcome = campaign.run(guests, plan, ticker)
        except KeyboardInterrupt:
            if ticker.last is not None:  # what was found so far is not lost
                output.put(_text(ticker.last, options.known), options.output)
            raise
        outcomes.append(outcome)
        if options.corpus:
            findings.save(options.corpus, list(outcome.findings.values()), outcome.release)
    if options.json:
        output.put(json.dumps([_json(each) for each in outcomes], indent=1) + "\n", options.output)
    else:
        shown = (_text(each, options.known) for each in outcomes)
        output.put("\n".join(shown), options.output)
    return int(any(each.new for each in outcomes))


def _replay(options: argparse.Namespace, names: List[Optional[str]]) -> int:
    """Ask kernels about the program of a file; return 1 if one does not do what it must."""
    program = findings.read(options.replay)
    wrong, rows = False, []
    for name, guests in _targets(options, names):
        release, asked, log = campaign.replay(guests, program)
        wrong = wrong or asked.differs
        seen = f"refused with {errno_name(asked.errno)}" if asked.errno else "accepted"
        must = {"refuse": "must be refused", "accept": "must be accepted"}
        said = must.get(asked.verdict.answer, "what must be is not known")
        reason = f" ({asked.verdict.reason})" if asked.verdict.reason else ""
        rows.append(f"{release}: {seen}; {said}{reason}\n{log.rstrip()}\n")
    listed = listing.listing(lower.lower(program))
    output.put("\n".join([ir.show(program), listed, *rows]), options.output)
    return int(wrong)


def _differential(options: argparse.Namespace, names: List[Optional[str]]) -> int:
    """Compare neighbouring kernels; return 1 if an answer changed for no known cause."""
    if len(names) < 2:
        raise UsageError("--differential compares kernels: name two or more by --kernel.")
    number = options.programs or DEFAULT_PROGRAMS
    programs: List[ir.Program] = []

    def make(kernel: rules.Kernel) -> List[ir.Program]:
        programs.extend(() if programs else differential.programs(options.seed, number, kernel))
        return programs

    rows = [differential.ask(guests, make) for _, guests in _targets(options, names)]
    lines, wrong = [], False
    for before, after in zip(rows, rows[1:]):
        changes = differential.compare(before, after)
        wrong = wrong or not all(change.explained for change in changes)
        lines.append(f"{before.release} -> {after.release}: {number} programs")
        if not changes:
            lines.append("  no answer changes")
        for change in changes:
            how = "accepted" if change.accepted else "refused"
            mark = "" if change.explained else "UNEXPLAINED "
            lines.append(f"  {mark}newly {how}: {change.times}: {change.cause}")
            if options.known or not change.explained:
                lines.append(ir.show(change.smallest))
    output.put("\n".join(lines) + "\n", options.output)
    return int(wrong)


def _power(options: argparse.Namespace, names: List[Optional[str]]) -> int:
    """Show after how many programs each simulated defect is found; return 1 if one is not."""
    kernel = names[0] if names else target.DEFAULT_KERNEL
    most = options.programs or MOST_OF_POWER
    clauses = rules.of(kernel_version(str(kernel)))
    found = defects.power(options.seed, clauses, most)
    rows = defects.rows(found, most)
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{name:{width}}  {after:>7}  {rule}" for name, rule, after in rows]
    there = sum(after is not None for after in found.values())
    lines.append(f"{there} of {len(rows)} defects within {most} programs (kernel {kernel})")
    output.put("\n".join(lines) + "\n", options.output)
    return int(there < len(rows))


class _Ticker:
    """Says every few seconds how far a campaign is."""

    def __init__(self, name: str) -> None:
        self._name, self._told = name, time.monotonic()
        self.last: Optional[campaign.Outcome] = None

    def __call__(self, outcome: campaign.Outcome) -> None:
        self.last = outcome
        if time.monotonic() - self._told < TOLD_EVERY_SECONDS:
            return
        self._told = time.monotonic()
        rate = outcome.programs / outcome.seconds
        print(
            f"spinlock: {self._name}: {outcome.programs} programs, {rate:.0f} per second,"
            f" {len(outcome.findings)} kinds of findings",
            file=sys.stderr,
        )


def _text(outcome: campaign.Outcome, whole: bool) -> str:
    rate = outcome.programs / max(outcome.seconds, 0.001)
    counts = ", ".join(f"{outcome.answers[key]} {key}" for key in ("refuse", "accept", "unknown"))
    lines = [
        f"{outcome.release}: {outcome.programs} programs in {outcome.seconds:.1f} s ({rate:.0f}/s)",
        f"  the oracle says: {counts}; too complex for the verifier: {outcome.given_up}",
        f"  rules touched: {len(outcome.reached)}; findings on record: "
        f"{len(outcome.findings) - len(outcome.new)}; new: {len(outcome.new)}",
    ]
    for finding in outcome.findings.values():
        mark = f"KNOWN  {finding.record.name}" if finding.record else "NEW   "
        mended = (
            f" (mended by {finding.record.mended})"
            if finding.record and finding.record.mended
            else ""
        )
        lines.append(f"{mark}{mended}")
        lines.append(f"  {finding.words}")
        lines.append(f"  first after {finding.after} programs, {finding.times} in all")
        if finding.record is None or whole:
            lines += ["", findings.text(finding)]
    return "\n".join(lines) + "\n"


def _json(outcome: campaign.Outcome) -> Dict[str, Any]:
    return {
        "kernel": outcome.release,
        "programs": outcome.programs,
        "seconds": round(outcome.seconds, 2),
        "answers": dict(outcome.answers),
        "given_up": outcome.given_up,
        "rules": outcome.reached,
        "findings": [findings.to_json(each) for each in outcome.findings.values()],
    }
