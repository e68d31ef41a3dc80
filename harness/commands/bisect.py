# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock bisect`: find the kernel version where a case's outcome changed."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path

from harness.commands import OK, output
from harness.errors import SetupError, UsageError
from harness.provision import debian_kernel
from harness.pytest_plugin import run_options
from harness.scenarios import scenario
from harness.studies import bisect

ABORT_BISECT = 128  # `git bisect run` stops at exit codes of 128 and above


def declare(sub: argparse.ArgumentParser) -> None:
    """Add the options of `spinlock bisect`."""
    sub.formatter_class = argparse.RawDescriptionHelpFormatter
    sub.description = """\
Find the kernel version where a case's outcome changed.

spinlock bisect SCENARIO --good A --bad B   between two Debian versions, by binary search
spinlock bisect SCENARIO --run KERNEL       one kernel of your own, as `git bisect run` wants it

Versions are compared by observation: the stage, errno and text of a refusal, or whether a run-time
test held. Expectations play no part. A version is good if its observation equals that of A, else
bad. B must differ from A, and may be older. INCONCLUSIVE, ERROR and SKIP make a version untestable;
its neighbours are tried instead.

With --run, the exit code is 0 (good) for PASS, 1 (bad) for FAIL, CRASH and KNOWN, and 125
(untestable) for the rest. With --text, a kernel is good if it prints that text."""
    sub.add_argument("scenario", metavar="SCENARIO", help="a case (see `spinlock list`)")
    sub.add_argument(
        "--good", metavar="VERSION", help="a version; a minor such as 6.12 means its newest"
    )
    sub.add_argument("--bad", metavar="VERSION", help="a version with another outcome")
    sub.add_argument("--run", metavar="KERNEL", help="test this bzImage or build tree only")
    sub.add_argument(
        "--compare",
        choices=bisect.ASPECTS,
        default="observed",
        help="compare stage, errno and text (observed), stage and errno (errno), the stage alone, or"
        " the verdict (default: %(default)s)",
    )
    sub.add_argument("--text", default="", help="compare only whether the kernel printed this text")
    sub.add_argument(
        "--loader",
        choices=scenario.LOADERS,
        default="libbpf",
        help="load programs through this library (default: %(default)s)",
    )
    sub.add_argument(
        "--cpus", type=run_options.cpus, default=4, help="virtual CPUs (default: %(default)s)"
    )
    sub.add_argument(
        "--append",
        type=run_options.append,
        default="",
        help="append to the kernel's command line",
    )
    sub.add_argument("--programs", type=Path, metavar="DIR", help="as in `spinlock run`")
    sub.add_argument("--results", metavar="DIR", help="store the results of each version here")
    sub.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(options: argparse.Namespace) -> int:
    """Search Debian's versions, or test one kernel for `git bisect run`. Raises UsageError."""
    searching = options.good is not None and options.bad is not None
    if searching == (options.run is not None) or (options.run and (options.good or options.bad)):
        raise UsageError("Give either --good VERSION and --bad VERSION, or --run KERNEL.")
    more = ["--cpus", str(options.cpus)]
    more += [f"--append={options.append}"] if options.append else []
    more += ["--programs", str(options.programs.absolute())] if options.programs else []
    chosen = options.results or f"results/bisect-{datetime.now():%Y-%m-%dT%H.%M.%S}"
    question = bisect.Question(
        options.scenario,
        options.loader,
        options.compare,
        options.text,
        tuple(more),
        Path(chosen).absolute(),
    )
    if options.run is not None:
        try:
            result = bisect.run_case(question, str(Path(options.run).absolute()), "kernel")
        except (UsageError, SetupError) as error:
            print(f"spinlock: {error}", file=sys.stderr)
            return ABORT_BISECT  # a user's mistake must not count as a bad kernel
        code = bisect.status(result, options.text)
        word = {bisect.GOOD: "good", bisect.BAD: "bad"}.get(code, "untestable")
        print(f"{word}: {result.kernel or options.run}: {result.verdict.value}: {result.reason}")
        return code
    versions = bisect.debian_versions(
        options.good, options.bad, lambda minor: debian_kernel.available(minor, output.progress)
    )
    answer = bisect.Bisection(question, output.progress).run(versions)
    print(json.dumps(answer.to_json(), indent=1) if options.json else "\n".join(answer.lines()))
    return OK
