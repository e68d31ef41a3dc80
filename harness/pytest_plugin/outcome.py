# SPDX-License-Identifier: GPL-2.0-only
"""Turns the end of a test with a guest into a verdict, and the verdict into pytest's outcome."""

from __future__ import annotations

from typing import Any, Generator, Optional, Tuple

import pytest
from _pytest.runner import runtestprotocol

from harness.errors import SetupError
from harness.judging.verdict import Kind
from harness.machines.loss import GuestLost
from harness.machines.session import AgentError, KernelRefusal
from harness.reports import terminal
from harness.results.result import Result
from harness.running.driven import Guest


class Judged(Exception):
    """A verdict other than PASS. Carries the text that pytest shows."""


# Exceptions that may end a case before it can be judged.
NOT_RUN = (SetupError, GuestLost, AgentError, KernelRefusal)

RESULT: pytest.StashKey[Result] = pytest.StashKey()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: Optional[pytest.Item]) -> Optional[bool]:
    """Run a test with a guest again if the emulator failed it, and report the second run."""
    if "guest" not in getattr(item, "fixturenames", ()):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    if any(_is_the_emulators(report) for report in reports):
        item._initrequest()  # type: ignore[attr-defined]  # as pytest-rerunfailures does
        if RESULT in item.stash:
            del item.stash[RESULT]
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for each in reports:
        item.ihook.pytest_runtest_logreport(report=each)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _is_the_emulators(report: Any) -> bool:
    """Tell whether the test of a report failed because of the emulator."""
    data = getattr(report, "spinlock", None)
    seen = Result.from_json(data).observation if data is not None else None
    return seen is not None and seen.emulator_failed


@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, None]:
    """Turn the end of a test with a guest into a verdict, and the verdict into an outcome."""
    outcome = yield
    guest = pyfuncitem.funcargs.get("guest")
    raised = outcome.excinfo[1] if outcome.excinfo is not None else None
    # Every kind of failure becomes a verdict. What is no Exception, as Ctrl-C, goes on its way.
    if isinstance(guest, Guest) and (raised is None or isinstance(raised, Exception)):
        try:
            finish(pyfuncitem, guest.finish(raised))
        except BaseException as ending:  # noqa: B902  handed to pytest as it is
            outcome.force_exception(ending)
        else:
            outcome.force_result(True)


def finish(item: pytest.Item, result: Result) -> None:
    """Attach a result to its item and end the test accordingly."""
    item.stash[RESULT] = result
    if result.verdict is Kind.PASS:
        return
    if result.verdict is Kind.SKIP:
        pytest.skip(result.reason)
    if result.verdict is Kind.KNOWN:
        pytest.xfail(result.reason)
    raise Judged(terminal.explain(result, whole=item.config.option.verbose > 0))


def pytest_report_teststatus(report: Any) -> Optional[Tuple[str, str, str]]:
    """Show verdicts instead of pytest's outcomes."""
    data = getattr(report, "spinlock", None)
    if data is None:
        return None
    kind = Kind(data["verdict"])
    if getattr(report, "not_run", False):
        return "not run", kind.value[0], kind.value
    category = {Kind.PASS: "passed", Kind.SKIP: "skipped", Kind.KNOWN: "xfailed"}.get(
        kind, "failed"
    )
    return category, {"passed": "."}.get(category, kind.value[0]), kind.value
