"""The fixtures that tests of this project use: `verdict`, `guest`, and the run that they are of."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Iterator, Optional, Tuple

import pytest

from harness.machines.session import Session
from harness.machines.target import Target
from harness.pytest_plugin import cases, outcome
from harness.pytest_plugin.run import Run
from harness.results.stored import Expected, Result
from harness.running.driven import Guest
from harness.scenarios import scenario
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
        verifier = run.targets.verifier(kernel, run.programs.scenarios())
        judged, seen = verifier.judge(case, loader, together)
        opened, release = run.targets.target(kernel), seen.release
        outcome.finish(
            request.node,
            Result(
                name=case.name,
                loader=loader,
                kernel=seen.facts.get("release", ""),
                verdict=judged.kind,
                reason=judged.reason,
                column=opened.kernel or seen.facts.get("release", ""),
                evidence=judged.evidence,
                rule=case.rule,
                rule_text=run.programs.rule(case.rule).text,
                where=cases.where(request.node),
                description=case.description,
                comment=case.comment,
                commits=tuple(
                    dict.fromkeys(
                        (*scenario.commits(case.comment), *run.programs.rule(case.rule).commits)
                    )
                ),
                expected=tuple(
                    Expected(e.kernels, str(e), e.covers(release)) for e in case.expectations
                ),
                known_bugs=tuple((bug.commit, bug.kernels) for bug in case.known_bugs),
                target=opened.name,
                observation=seen.observation.to_json(),
                facts={**seen.facts, **opened.describe(), **run.sources(case.file)},
                seconds=seen.seconds,
                repeat=run.repeat(request.node),
            ),
        )

    return judge_scenario


@pytest.fixture
def guest(
    run: Run, request: pytest.FixtureRequest, loader: str, kernel: Optional[str]
) -> Iterator[Guest]:
    """Give a session on the kernel under test, with nothing loaded.

    An emulated guest is fast at what was done in it before, so it is kept while tests pass: what
    they load, attach and make goes with them. Where the kernel complains between two tests, the
    second is an ERROR, nobody's crash, and the guest is given up.
    """
    run.targets.target(kernel)  # before others are left: it may not be to be had
    run.targets.finish_verifying()
    run.targets.leave(kernel)
    with ExitStack() as sessions:

        def start(also: str) -> Tuple[Target, Session]:
            opened = run.targets.target(kernel, also)
            return opened, sessions.enter_context(opened.session(warm=True))

        yield Guest(run.case(request.node), start, run.programs)
