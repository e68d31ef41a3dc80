# SPDX-License-Identifier: GPL-2.0-only
"""The slowest cases, and what they were slow at."""

from harness.judging.verdict import Kind
from harness.reports import slowest
from harness.results.result import Result


def result(name: str, **seconds: float) -> Result:
    return Result(name, "bcc", "6.12", Kind.PASS, "loaded", seconds=seconds)


def test_the_slowest_come_first_with_the_parts_that_took_time() -> None:
    results = [
        result("quick", boot=9.0, case=0.2),
        result("queued", boot=0.0, case=12.34, waited=0.01, queued=8.2),
        result("compiled", boot=7.0, build=0.5, case=4.0, open=3.0, settle=0.0049),
        result("unknown"),
    ]
    assert slowest.text(results, 2).splitlines() == [
        "  case  name      loader  kernel  of it; and before it",
        "12.3 s  queued    bcc     6.12    queued 8.2",
        " 4.0 s  compiled  bcc     6.12    open 3.0; boot 7.0, build 0.5",
    ]
    assert len(slowest.text(results, 9).splitlines()) == 5
