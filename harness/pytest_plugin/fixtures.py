# SPDX-License-Identifier: GPL-2.0-only
"""The fixtures of this project's tests: `run`, `verdict` and `guest`."""

from __future__ import annotations

from typing import Any, Iterator, Optional

import pytest

from harness.judging import lock_path as paths
from harness.pytest_plugin import cases, outcome
from harness.pytest_plugin.run import Run
from harness.results.record import record
from harness.running.driven import Contest, Guest
from harness.scenarios.scenario import Scenario


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    """Return this run's state."""
    plugin = request.config.pluginmanager.get_plugin("spinlock-run")
    assert isinstance(plugin, Run)
    return plugin


@pytest.fixture
def verdict(run: Run, request: pytest.FixtureRequest, kernel: Optional[str]) -> Any:
    """Return a function that judges a scenario and ends the test accordingly."""

    def judge_scenario(case: Scenario, loader: str) -> None:
        together = run.together(kernel, loader, case.file)
        observer = run.targets.observer(kernel, run.programs.scenarios())
        judged, seen = observer.judge(case, loader, together)
        result = record(run.case(request.node), judged, seen.observation, seen.place)
        outcome.finish(request.node, result)

    return judge_scenario


@pytest.fixture
def lock_path() -> str:
    """Return the path of the lock that the test's guest is booted for: of a test that contends."""
    return ""


@pytest.fixture
def guest(
    run: Run, request: pytest.FixtureRequest, loader: str, kernel: Optional[str], lock_path: str
) -> Iterator[Guest]:
    """Provide a session on the kernel under test, with nothing loaded.

    An emulated guest is faster at work that it has done before. So it is kept while tests pass: the
    programs, maps and links of a test go with its session. If the kernel complains between two
    tests, the second test is an ERROR and the guest is given up.
    """
    item = request.node
    asked = lock_path or run.config.option.lock_path or ""
    contest = Contest("" if asked == "all" else asked) if cases.contends(item) else None
    with run.targets.lent(kernel, paths.words(lock_path)) as start:
        yield Guest(run.case(item), start, run.programs, contest)
