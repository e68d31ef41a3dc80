# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock bench`: measure the cost of the lock, by driver and number of CPUs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import List

from harness.commands import FAILED, INTERRUPTED, OK, SETUP, measuring, output
from harness.errors import UsageError
from harness.machines.target import Target
from harness.scenarios import scenario
from harness.studies import bench


def declare(sub: argparse.ArgumentParser) -> None:
    """Add the options of `spinlock bench`."""
    sub.add_argument(
        "--times", type=int, default=3, metavar="N", help="measure N times (default: %(default)s)"
    )
    sub.add_argument(
        "--driver",
        action="append",
        default=[],
        choices=list(bench.DRIVERS),
        metavar="DRIVER",
        help=f"repeatable; of {', '.join(bench.DRIVERS)} (default: all of them)",
    )
    measuring.declare(sub, "1, 2 and 4, up to the guest's number")
    sub.add_argument(
        "--loader",
        choices=scenario.LOADERS,
        default="libbpf",
        help="load programs through this library (default: %(default)s)",
    )
    sub.add_argument(
        "--html", type=Path, metavar="FILE", help="also write a page with plots and tables"
    )
    sub.add_argument("--svg", type=Path, metavar="FILE", help="also write the first kernel's plots")
    sub.add_argument(
        "--read",
        type=Path,
        metavar="FILE",
        help="measure nothing; show the samples of an earlier --json",
    )


def run(options: argparse.Namespace) -> int:
    """Measure how fast counters are, locked and otherwise; or show what was measured."""
    if options.times < 1:
        raise UsageError("--times must be 1 or more.")
    samples: List[bench.Sample] = list(bench.read(options.read)) if options.read else []
    most = max(options.cpus or [4])
    measured = iter(()) if options.read else measuring.targets(options, [most])
    code = OK
    try:
        for guests in measured:
            _measure(guests, options, samples)
    except KeyboardInterrupt:
        output.progress("interrupted")
        code = INTERRUPTED
    benches = bench.summarize(samples)
    if not benches or not any(each.rows for each in benches):
        return code or SETUP
    if options.json:
        text = json.dumps(bench.to_json(samples), indent=1) + "\n"
    else:
        text = bench.markdown(benches) if options.markdown else bench.terminal(benches)
    output.put(text, options.output)
    for path, made in ((options.html, bench.html), (options.svg, lambda all_: bench.svg(all_[0]))):
        if path is not None:
            output.put(made(benches), path)
    for sentence in bench.wrong(samples):
        print(f"spinlock: counts are wrong: {sentence}", file=sys.stderr)
    return code or (FAILED if bench.wrong(samples) else OK)


def _measure(guests: Target, options: argparse.Namespace, samples: List[bench.Sample]) -> None:
    """Measure on one kernel. Samples are kept one by one, so an interruption loses none."""
    counts = sorted(count for count in set(options.cpus or (1, 2, 4)) if count <= guests.cpus)
    drivers = options.driver or list(bench.DRIVERS)
    what = f"{guests.kernel or guests.name}, {options.loader}"
    each = 1 + len(drivers) * len(bench.KINDS)
    tell = measuring.Ticker(what, options.times * len(counts) * each)

    def keep(sample: bench.Sample) -> None:
        samples.append(sample)
        tell(f"{sample.driver} on {sample.cpus} CPUs, {sample.kind}")

    bench.measure(guests, options.loader, drivers, counts, options.times, keep)
    tell.end()
