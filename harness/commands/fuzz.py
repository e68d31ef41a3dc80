# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock fuzz`: random programs, which an oracle knows the answer to, on real kernels."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Dict, List, Optional

from harness.commands import output
from harness.errors import SetupError
from harness.fuzz import campaign, ir
from harness.machines import choose, target
from harness.machines.loss import GuestLost
from harness.machines.session import AgentError
from harness.provision import catalogue
from harness.pytest_plugin import run_options

DEFAULT_PROGRAMS = 2000
TOLD_EVERY_SECONDS = 10.0


def declare(sub: argparse.ArgumentParser) -> None:
    """Add the options of `spinlock fuzz`."""
    sub.epilog = (
        "Exit codes: 0 every kernel does what the oracle says, 1 one does not, 2 usage, 4 set-up"
        " error."
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
    programs = options.programs or (0 if options.minutes else DEFAULT_PROGRAMS)
    plan = campaign.Plan(options.seed, programs, 60 * (options.minutes or 0.0))
    outcomes = []
    for name in names or [None]:
        settings = target.Settings(options.target, name, cpus=1, append=options.append)
        with closing(choose.open_target(settings, output.progress)) as guests:
            try:
                outcomes.append(campaign.run(guests, plan, _Ticker(name or guests.name)))
            except (GuestLost, AgentError) as lost:
                raise SetupError(f"The guest was lost: {lost}.") from None
    if options.json:
        output.put(json.dumps([_json(each) for each in outcomes], indent=1) + "\n", options.output)
    else:
        output.put("\n".join(map(_text, outcomes)), options.output)
    return int(any(each.findings or each.splats for each in outcomes))


class _Ticker:
    """Says every few seconds how far a campaign is."""

    def __init__(self, name: str) -> None:
        self._name, self._told = name, time.monotonic()

    def __call__(self, outcome: campaign.Outcome) -> None:
        if time.monotonic() - self._told < TOLD_EVERY_SECONDS:
            return
        self._told = time.monotonic()
        rate = outcome.programs / outcome.seconds
        print(
            f"spinlock: {self._name}: {outcome.programs} programs, {rate:.0f} per second,"
            f" {len(outcome.findings)} answered otherwise than they must be",
            file=sys.stderr,
        )


def _text(outcome: campaign.Outcome) -> str:
    rate = outcome.programs / max(outcome.seconds, 0.001)
    counts = ", ".join(f"{outcome.answers[key]} {key}" for key in ("refuse", "accept", "unknown"))
    lines = [
        f"{outcome.release}: {outcome.programs} programs in {outcome.seconds:.1f} s ({rate:.0f}/s)",
        f"  the oracle says: {counts}; too complex for the verifier: {outcome.given_up}",
        f"  rules touched: {len(outcome.reached)}",
    ]
    lines += [f"  the kernel complained: {line}" for line in outcome.splats]
    lines.append(f"  findings: {len(outcome.findings)}")
    for finding in outcome.findings:
        lines += [f"\n{finding.words}", ir.show(finding.asked.program).rstrip()]
    return "\n".join(lines) + "\n"


def _json(outcome: campaign.Outcome) -> Dict[str, Any]:
    return {
        "kernel": outcome.release,
        "programs": outcome.programs,
        "seconds": round(outcome.seconds, 2),
        "answers": dict(outcome.answers),
        "given_up": outcome.given_up,
        "rules": outcome.reached,
        "splats": outcome.splats,
        "findings": [
            {
                "what": finding.words,
                "reason": finding.asked.verdict.reason,
                "errno": finding.asked.errno,
                "program": ir.show(finding.asked.program),
            }
            for finding in outcome.findings
        ],
    }
