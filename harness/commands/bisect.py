# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock bisect`: the kernel version where a case's outcome changed."""

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

ABORT_BISECT = 128  # at 128 and above, `git bisect run` stops instead of going on


def declare(sub: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    sub.formatter_class = argparse.RawDescriptionHelpFormatter
    sub.description = """\
Find the kernel version where a case's outcome changed.

spinlock bisect SCENARIO --good A --bad B   between two Debian versions, by binary search
spinlock bisect SCENARIO --run KERNEL       one kernel of your own, as `git bisect run` wants it

Between versions, what was observed is compared, not whether it was as expected there. A version
is good when it does what A does, and bad when it does anything else; B, which may be older than
A, must do something else. One that says nothing (INCONCLUSIVE, ERROR, SKIP) is never good: its
neighbours are tried.

With --run, PASS is good (exit code 0), FAIL, CRASH and KNOWN are bad (1), all else is untestable
(125). With --text, good is what says that text."""
    sub.add_argument("scenario", metavar="SCENARIO", help="a case (see `spinlock list`)")
    sub.add_argument("--good", metavar="VERSION", help="a version, or a minor for its newest")
    sub.add_argument("--bad", metavar="VERSION", help="one with another outcome")
    sub.add_argument("--run", metavar="KERNEL", help="a bzImage or a build tree")
    sub.add_argument(
        "--compare",
        choices=bisect.ASPECTS,
        default="observed",
        help="what must be the same to be good: all that was observed (stage, errno, text), stage and"
        " errno, only the stage, or the verdict (default: %(default)s)",
    )
    sub.add_argument(
        "--text", default="", help="compare only whether this text was in the kernel's words"
    )
    sub.add_argument(
        "--loader",
        choices=scenario.LOADERS,
        default="libbpf",
        help="load through this (default: %(default)s)",
    )
    sub.add_argument(
        "--cpus", type=run_options.cpus, default=4, help="virtual CPUs (default: %(default)s)"
    )
    sub.add_argument(
        "--append",
        type=run_options.append,
        default="",
        help="more words for the kernel's command line",
    )
    sub.add_argument("--programs", type=Path, metavar="DIR", help="as in `spinlock run`")
    sub.add_argument("--results", metavar="DIR", help="where the results of each version go")
    sub.add_argument("--json", action="store_true", help="the answer as JSON")


def run(options: argparse.Namespace) -> int:
    """Search among Debian's versions, or say good or bad of one kernel."""
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
            return ABORT_BISECT  # a mistake of the user's must not be taken for a kernel's
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
