# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock power`: measure how often the judge catches each broken twin."""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import List

from harness.commands import INTERRUPTED, OK, SETUP, measuring, output
from harness.errors import UsageError
from harness.provision import catalogue
from harness.running import contended
from harness.scenarios import scenario
from harness.studies import power


def declare(sub: argparse.ArgumentParser) -> None:
    """Add the options of `spinlock power`."""
    sub.add_argument(
        "--times", type=int, default=20, metavar="N", help="N runs of each (default: %(default)s)"
    )
    sub.add_argument(
        "--driver",
        action="append",
        default=[],
        choices=list(contended.ALL),
        metavar="DRIVER",
        help=f"repeatable; of {', '.join(contended.ALL)} (default: all of them)",
    )
    sub.add_argument(
        "--twin",
        action="append",
        default=[],
        choices=list(contended.WORDS),
        metavar="TWIN",
        help=f"repeatable; of {', '.join(contended.WORDS)} (default: the scenario's own)",
    )
    sub.add_argument(
        "--at-least",
        type=float,
        default=0.99,
        metavar="RATE",
        help="exit with 3 if a twin's whole confidence interval is below RATE (default: %(default)s)",
    )
    measuring.declare(sub, "4")
    sub.add_argument(
        "--loader",
        choices=(*scenario.LOADERS, "all"),
        default="libbpf",
        help="load programs through this library (default: %(default)s)",
    )
    sub.add_argument(
        "--results", metavar="DIR", help="store every run here (default: results/power-<time>)"
    )
    sub.add_argument(
        "--read",
        type=Path,
        action="append",
        default=[],
        metavar="FILE|DIR",
        help="run nothing; count the runs that earlier measurements stored; repeatable",
    )


def run(options: argparse.Namespace) -> int:
    """Run contests and their broken twins --times times and count, or count stored runs.

    Raises UsageError.
    """
    if options.times < 1 or not 0 < options.at_least <= 1:
        raise UsageError("--times must be 1 or more, and --at-least above 0 and at most 1.")
    if options.read:
        return _say(options, power.Report(power.read(options.read), options.at_least))
    chosen = {name: contended.ALL[name] for name in options.driver or contended.ALL}
    loaders = scenario.LOADERS if options.loader == "all" else (options.loader,)
    for kernel in catalogue.expand(options.kernel):
        catalogue.find(kernel)  # a wrong name must not leave an empty directory of results
    kept = Path(options.results or f"results/power-{datetime.now():%Y-%m-%dT%H.%M.%S}")
    log = power.Log(kept.absolute())
    records: List[power.Record] = []
    code = OK
    try:
        for guests in measuring.targets(options, options.cpus or [4]):
            for loader, name in ((loader, name) for loader in loaders for name in chosen):
                ways = [contended.WORDS[word] for word in options.twin] or list(chosen[name].twins)
                line = f"{guests.kernel or guests.name}, {guests.cpus} CPUs, {loader}: {name}"
                tell = measuring.Ticker(line, options.times * (1 + len(ways)))

                def keep(record: power.Record, tell: measuring.Ticker = tell) -> None:
                    log.add(record)
                    records.append(record)
                    tell(record.way if isinstance(record, power.Trial) else record.kind.value)

                power.measure(guests, loader, name, chosen[name], ways, options.times, keep)
                tell.end()
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        log.close()
    output.progress(f"{'interrupted; ' if code else ''}every run is kept in {log.path}")
    said = _say(options, power.Report(tuple(records), options.at_least)) if records else SETUP
    return code or said


def _say(options: argparse.Namespace, report_: power.Report) -> int:
    """Print the report in the chosen format; return its exit code."""
    if options.json:
        text = json.dumps(report_.to_json(), indent=1) + "\n"
    else:
        text = report_.markdown() if options.markdown else report_.terminal()
    output.put(text, options.output)
    return report_.exit_code()
