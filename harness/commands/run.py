# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock run`: run scenarios through pytest."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from typing import List, Optional

import psutil
import pytest

from harness import paths
from harness.commands import EXIT_CODES, INTERRUPTED, SETUP, USAGE
from harness.errors import SetupError, UsageError
from harness.pytest_plugin import cases, run_options, sharding
from harness.pytest_plugin.run import Run
from harness.results.result import exit_code

ROOT = paths.root()


def declare(sub: argparse.ArgumentParser) -> None:
    """Add the options of `spinlock run`."""
    sub.epilog = EXIT_CODES
    sub.add_argument("names", nargs="*", metavar="NAME", help="a scenario (see `spinlock list`)")
    run_options.declare(sub.add_argument)
    sub.add_argument("-j", type=int, default=1, metavar="N", help="N guests at once")
    sub.add_argument(
        "-k",
        metavar="EXPRESSION",
        help="only cases with matching names, as in pytest: 'skb or xdp'",
    )
    sub.add_argument("-x", action="store_true", help="stop at the first case that does not pass")
    sub.add_argument("-v", action="store_true", help="print a line per case as it ends")


def run(options: argparse.Namespace) -> int:
    """Run scenarios through pytest; return the exit code for their verdicts.

    Raises UsageError when no case is selected, SetupError without pytest-xdist for -j.
    """
    arguments = pytest_arguments()
    arguments += [f"--scenario={name}" for name in options.names]
    arguments += [f"--kernel={name}" for name in options.kernel or ()]
    for name in ("target", "loader", "cpus", "programs", "append", "results", "shard"):
        value = getattr(options, name)
        arguments += [] if value is None else [f"--{name}={value}"]
    arguments += ["--jit=off"] if options.jit == "off" else []
    arguments += [f"--lock-path={options.lock_path}"] if options.lock_path else []
    arguments += ["-k", options.k] if options.k else []
    arguments += ["-x"] * options.x + ["-vv"] * options.v + ["--resume"] * options.resume
    jobs = options.j
    if options.target in (None, "qemu"):
        available = psutil.virtual_memory().available >> 20
        jobs, less = sharding.bounded(jobs, available, len(os.sched_getaffinity(0)))
        if less:
            print(f"spinlock: {less}", file=sys.stderr)
    if jobs > 1:
        if importlib.util.find_spec("xdist") is None:
            raise SetupError(f"-j {jobs} needs pytest-xdist: `pip install pytest-xdist`.")
        arguments += ["-n", str(jobs), "--dist", "loadgroup"]
    keep = Keep()
    code = int(pytest.main(arguments, plugins=[keep]))
    ended = [pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED]
    if options.resume or options.shard:  # an empty remainder or shard is no error
        ended.append(pytest.ExitCode.NO_TESTS_COLLECTED)
    if keep.run is not None and keep.run.failed_setup is not None:
        return SETUP
    if code in ended and keep.run is not None:
        return exit_code(keep.run.results)
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise UsageError("No case fits all that was asked for; `spinlock list` shows them.")
    return {
        pytest.ExitCode.INTERRUPTED: INTERRUPTED,
        pytest.ExitCode.USAGE_ERROR: USAGE,
    }.get(pytest.ExitCode(code), SETUP)


class Keep:
    """A pytest plugin that keeps the run and its cases for the caller."""

    def __init__(self) -> None:
        self.run: Optional[Run] = None
        self.items: List[pytest.Item] = []

    def pytest_plugin_registered(self, plugin: object) -> None:
        """Remember the run's plugin; with -j this is the process that collects the results."""
        self.run = plugin if isinstance(plugin, Run) else self.run

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember the cases."""
        self.items = [item for item in session.items if cases.needs_guest(item)]


def pytest_arguments() -> List[str]:
    """Return pytest's arguments for the cases of this checkout."""
    # This process has imported the plugin already, so pytest warns that it cannot rewrite asserts.
    # The plugin has none.
    quiet = ["-q", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    here = ["-c", str(ROOT / "setup.cfg"), f"--rootdir={ROOT}"]
    # Only unit tests need hypothesis; its plugin costs a second per run.
    plugins = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    return [*here, *plugins, *quiet, str(ROOT / "tests" / "lock")]
