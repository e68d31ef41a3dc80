# SPDX-License-Identifier: GPL-2.0-only
"""What happens in a run is shown: pytest's reporter without its dots, and what it says instead."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any, Callable, Dict, Generator, List, Optional

import pytest
from _pytest.terminal import TerminalReporter
from rich.text import Text

from harness import progress
from harness.judging.verdict import Kind
from harness.pytest_plugin import cases, screen, times
from harness.reports import live
from harness.results.result import Result

_NODES = "bringing up nodes..."  # what xdist says, however quiet it shall be
_OUTCOMES = {"passed": Kind.PASS, "failed": Kind.FAIL, "skipped": Kind.SKIP}


@pytest.hookimpl(trylast=True)  # pytest's reporter is there then, and xdist's asks for it later
def pytest_configure(config: pytest.Config) -> None:
    """Register what shows a run."""
    show = Show(config)
    config.pluginmanager.register(show, "spinlock-show")
    show.take_over()


class Reporter(TerminalReporter):  # type: ignore[misc]  # final to types only
    """Pytest's own, which counts and sums up; what is shown in between is not its business."""

    def __init__(self, config: pytest.Config, shown: "Show") -> None:
        super().__init__(config)
        self._shown = shown

    def pytest_runtest_logstart(self, nodeid: Any, location: Any) -> None:
        """Show nothing yet."""

    def pytest_runtest_logfinish(self, nodeid: Any) -> None:
        """Show nothing more."""

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count."""
        self._tests_ran = True
        hook = self.config.hook
        category = hook.pytest_report_teststatus(report=report, config=self.config)[0]
        self._add_stats(category, [report])

    def write_line(self, line: Any, **markup: bool) -> None:
        """Write a line, above the bar if there is one."""
        if self.verbosity < 0 and line in ("", _NODES):
            return
        if self._shown.has_bar:
            self._shown.say(str(line))
        else:
            super().write_line(line, **markup)

    def rewrite(self, line: str, **markup: bool) -> None:
        """Write a line that takes the place of the last one."""
        if _NODES not in line:
            super().rewrite(line, **markup)

    def summary_failures(self) -> None:
        """Leave out what was shown when it happened."""
        self._without(super().summary_failures, "failed")

    def summary_errors(self) -> None:
        """Leave out what was shown when it happened."""
        self._without(super().summary_errors, "error")

    def short_test_summary(self) -> None:
        """Leave out what the table of verdicts says."""
        self._without(super().short_test_summary, *self.stats, cases_only=True)

    def _without(self, show: Callable[[], None], *kinds: str, cases_only: bool = False) -> None:
        """Show something as if there were no reports of these kinds that are shown elsewhere."""
        whole = {kind: self.stats[kind] for kind in kinds if kind in self.stats}
        for kind, reports in whole.items():
            self.stats[kind] = [r for r in reports if not _is_shown(r, cases_only)]
        try:
            show()
        finally:
            self.stats.update(whole)


def _is_shown(report: Any, cases_only: bool) -> bool:
    return hasattr(report, "spinlock") or (not cases_only and hasattr(report, "shown"))


class Show:
    """Shows each rule as the last of its cases ends, failures at once, and how far the run is."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._screen: Optional[screen.Screen] = None  # none in a worker
        self._elsewhere: progress.Progress = progress.to_stderr  # where lines go without a screen
        self._held = ExitStack()
        self._plan: Dict[str, List[str]] = {}  # of a worker, until it is sent
        self._planned: Dict[str, live.Planned] = {}
        self._spent: Dict[str, float] = {}
        self._rules = live.Rules()
        self._clock = live.Clock({}, 1, time.monotonic())
        workerinput = getattr(config, "workerinput", {})
        if workerinput:
            self._elsewhere = screen.saying(workerinput["spinlock_said"])
            self._held.enter_context(progress.shown_by(self.say))

    @property
    def has_bar(self) -> bool:
        """Whether lines must go above a bar."""
        return self._screen is not None and self._screen.has_bar

    def take_over(self) -> None:
        """Take the place of pytest's reporter, if this process has one."""
        manager = self._config.pluginmanager
        old: Any = manager.get_plugin("terminalreporter")
        if old is None or hasattr(self._config, "workerinput"):
            return
        manager.unregister(old)
        reporter = Reporter(self._config, self)
        manager.register(reporter, "terminalreporter")
        self._screen = screen.Screen(reporter._tw)
        self._held.callback(self._screen.close)
        self._held.enter_context(progress.shown_by(self.say))
        if getattr(self._config.option, "numprocesses", None):
            self._said = self._held.enter_context(screen.heard(self.say))

    def say(self, message: str) -> None:
        """Show a line about what is under way."""
        if self._screen is None:
            self._elsewhere(message)
        else:
            self._screen.say(Text(f"spinlock: {message}"))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell an xdist worker where to say what it waits for."""
        node.workerinput["spinlock_said"] = str(self._said)

    # -- what is to come ----------------------------------------------------------------------------

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Learn of the cases to come."""
        plan = {item.nodeid: list(_planned(item)) for item in session.items}
        if hasattr(self._config, "workerinput"):
            self._plan = plan
        elif not self._config.option.collectonly:
            self._expect(plan)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, None]:
        """Send what is to come with the first report of a worker: xdist itself sends names only."""
        outcome = yield
        if self._plan:
            outcome.get_result().spinlock_plan = self._plan
            self._plan = {}

    def _expect(self, plan: Dict[str, List[str]]) -> None:
        if self._screen is None or self._planned or not plan:
            return
        self._planned = {nodeid: live.Planned(*words) for nodeid, words in plan.items()}
        self._rules.expect(self._planned)
        workers = getattr(self._config.option, "numprocesses", None) or 1
        self._clock = live.Clock(times.read(), workers, time.monotonic())
        self._clock.expect(planned.key for planned in self._planned.values())
        clock = self._clock
        self._screen.begin(
            len(plan),
            self._rules.position(),
            lambda: live.time_left(clock.left(time.monotonic())),
        )

    # -- what ended ---------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        """Show what a report tells; runs in the process that talks to the user."""
        if self._screen is None:
            return
        self._expect(report.__dict__.pop("spinlock_plan", {}))
        nodeid = str(report.nodeid)
        self._spent[nodeid] = self._spent.get(nodeid, 0.0) + report.duration
        if report.failed:
            report.shown = True
            for line in live.failure(_why(report)):
                self._screen.say(line)
        if report.when == "call" or (report.when == "setup" and not report.passed):
            self._ended(nodeid, _ended(report, self._spent.pop(nodeid)))

    def _ended(self, nodeid: str, case: live.Ended) -> None:
        assert self._screen is not None
        planned = self._planned.get(nodeid)
        if planned is not None:
            self._clock.end(planned.key, case.seconds, time.monotonic())
        if self._config.option.verbose > 0:
            self._screen.say(live.case_line(case, self._screen.width))
        line = self._rules.end(nodeid, case, self._screen.width)
        if line is not None:
            self._screen.say(line)
        self._screen.go_on(self._rules.ended, self._rules.position())

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Leave the terminal to what sums up; keep the times for the next run."""
        if self._screen is not None:
            self._screen.end()
            if self._planned:
                times.write(self._clock.times)

    def pytest_enter_pdb(self) -> None:
        """Leave the terminal to the debugger."""
        if self._screen is not None:
            self._screen.end()

    def pytest_unconfigure(self) -> None:
        """Let go of the terminal."""
        self._held.close()


def _planned(item: pytest.Item) -> List[str]:
    """Return what is to be known of an item to come, as Planned has it."""
    if not cases.needs_guest(item):
        folder = item.nodeid.partition("::")[0].rpartition("/")[0]
        return [folder or item.nodeid, "", item.nodeid]
    kernel = cases.kernel(item) or ""
    return [cases.rule(item), kernel, f"{cases.name(item)} {cases.loader(item)} {kernel}"]


def _ended(report: Any, seconds: float) -> live.Ended:
    data = getattr(report, "spinlock", None)
    if data is not None:
        return live.Ended.of(Result.from_json(data), seconds)
    known = report.skipped and hasattr(report, "wasxfail")
    kind = Kind.KNOWN if known else _OUTCOMES[report.outcome]
    return live.Ended(str(report.nodeid), kind, seconds)


def _why(report: Any) -> str:
    """Return what is told of a failure: of a case its evidence, else pytest's traceback."""
    data = getattr(report, "spinlock", None)
    if data is None:
        kept = [f"---- {title} ----\n{text.rstrip()}" for title, text in report.sections]
        return "\n".join([f"FAIL {report.nodeid}", str(report.longreprtext), *kept])
    words = str(report.longrepr)  # without the line that names a worker
    if report.when == "call" and words.startswith(data["verdict"]):
        return words
    name = f"{data['verdict']} {data['name']} [{data['loader']}]"
    return f"{name}: {words}\n  repeat   {data['repeat']}"
