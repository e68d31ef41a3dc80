# SPDX-License-Identifier: GPL-2.0-only
"""Measure the harness's times and their ratios; run it on an idle machine.

    .venv/bin/python benchmarks/speed.py [--repeat N] [--full]

Each row is the median of N runs in seconds, and a ratio to the row it should be compared with, so
that numbers from different machines can be read side by side. --full adds the complete run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List

from harness.judging import history
from harness.machines import qemu_guest, target
from harness.machines.qemu_command import Machine
from harness.provision import build, kernel_store, userland

ROOT = Path(__file__).resolve().parent.parent


def timed(action: Callable[[], object], repeat: int) -> float:
    """Return the median seconds of several runs."""
    seconds: List[float] = []
    for _ in range(repeat):
        started = time.monotonic()
        action()
        seconds.append(time.monotonic() - started)
    return statistics.median(seconds)


def start(snapshot: bool) -> None:
    """Bring one guest up until its agent answers."""
    found, booted = userland.ensure(print), kernel_store.fetch(target.DEFAULT_KERNEL, print)
    agent = build.agent()
    qemu_guest.start(booted, found, Machine(), agent=agent, snapshot=snapshot).close()


def run(*arguments: str) -> None:
    """Run the spinlock command; its results are of no interest here."""
    subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def history_of(operations: int, processes: int = 8) -> List[history.Operation]:
    """Return what a lock gave to processes that took turns and overlapped."""
    return [
        history.Operation(n, 100 * n, 100 * n + 150, f"CPU {n % processes}")
        for n in range(operations)
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    start(snapshot=True)  # whatever must be built is built
    unit = [sys.executable, "-m", "pytest", "-q", "tests/unit", "-p", "no:cacheprovider"]
    million = history_of(1_000_000)
    rows: Dict[str, float] = {
        "cold boot": timed(lambda: start(snapshot=False), options.repeat),
        "restored guest": timed(lambda: start(snapshot=True), options.repeat),
        "list": timed(lambda: run("list"), options.repeat),
        "one scenario, libbpf": timed(
            lambda: run("run", "missing_unlock", "--loader", "libbpf"), options.repeat
        ),
        "one scenario, bcc": timed(
            lambda: run("run", "missing_unlock", "--loader", "bcc"), options.repeat
        ),
        "sort a million operations": timed(lambda: sorted(million), options.repeat),
        "check a million operations": timed(
            lambda: history.check(million, len(million)), options.repeat
        ),
        "unit tests": timed(
            lambda: subprocess.run(unit, cwd=ROOT, stdout=subprocess.DEVNULL, check=True),
            options.repeat,
        ),
    }
    against = {
        "restored guest": "cold boot",
        "one scenario, libbpf": "restored guest",
        "one scenario, bcc": "one scenario, libbpf",
        "check a million operations": "sort a million operations",
    }
    if options.full:
        rows["all, both loaders, -j 2"] = timed(lambda: run("run", "--loader", "all", "-j", "2"), 1)
        against["all, both loaders, -j 2"] = "one scenario, bcc"
    if options.json:
        print(json.dumps(rows))
        return
    for name, seconds in rows.items():
        base = against.get(name)
        ratio = f"{seconds / rows[base]:8.2f} x {base}" if base else ""
        print(f"{name:<26}{seconds:8.2f} s{ratio}")


if __name__ == "__main__":
    main()
