# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin: collection, running, reporting, and a result for every case.

A test with the argument `scenario` runs for every annotated program. A test with the fixture
`guest` gets a session on the kernel under test. Both end in a Verdict, which becomes pytest's
outcome and a line of results.jsonl.
"""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.pytest_plugin import fixtures, outcome, run_options, sharding
from harness.pytest_plugin.run import Run
from harness.pytest_plugin.selection import Selection

pytest_plugins = ["harness.pytest_plugin.show"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the plugin's options."""
    group = parser.getgroup("spinlock", "bpf_spin_lock on a real kernel")
    run_options.declare(group.addoption)
    group.addoption(
        "--scenario",
        action="append",
        default=[],
        metavar="NAME",
        help="run only this case; repeatable",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the plugins of a run. Raises pytest.UsageError for an invalid --shard."""
    if config.option.shard is not None:
        try:
            sharding.shard(config.option.shard)
        except UsageError as error:
            raise pytest.UsageError(str(error)) from None
    config.addinivalue_line(
        "markers",
        "contends(both=False): CPUs contend for a lock, so its path matters; both: without --lock-path"
        " the test is run test-and-set and queued",
    )
    # Of pytest-xdist, which may be absent.
    config.addinivalue_line("markers", "xdist_group(name): tests that go to one worker")
    run = Run(config)
    if len(run.kernels) == 1 and hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # else xdist goes by size, and no rule is over early
    config.pluginmanager.register(run, "spinlock-run")
    config.pluginmanager.register(Selection(run), "spinlock-selection")
    config.pluginmanager.register(fixtures, "spinlock-fixtures")
    config.pluginmanager.register(outcome, "spinlock-outcome")
