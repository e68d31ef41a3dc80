# SPDX-License-Identifier: GPL-2.0-only
"""What a run shows as it goes, of results that real kernels gave (data/results.jsonl, trimmed)."""

import collections
from pathlib import Path

import pytest

from harness.judging.verdict import Kind
from harness.reports import live, terminal
from harness.results import matrix

DATA = Path(__file__).parent.parent / "data" / "results.jsonl"


@pytest.fixture(scope="module")
def results():
    return matrix.read([DATA]).results


def planned(results):
    return {
        f"{place}": live.Planned(result.rule, result.column, f"{result.name} {result.loader}")
        for place, result in enumerate(results)
    }


def played(results, width=100):
    rules = live.Rules()
    rules.expect(planned(results))
    shown = []
    for place, result in enumerate(results):
        line = rules.end(f"{place}", live.Ended.of(result, 1.0), width)
        shown += [line.plain] if line is not None else []
    return rules, shown


def test_each_rule_has_one_line_on_each_kernel_with_all_its_cases(results):
    rules, shown = played(results)
    groups = collections.Counter((result.rule, result.column) for result in results)
    assert len(shown) == len(groups) == len(set(shown))
    total = 0
    for line in shown:
        numbers = [int(word) for word in line.split() if word.isdigit()]
        total += sum(numbers)
    assert total == len(results) == rules.ended == rules.total


def test_a_line_is_there_with_the_last_case_and_begins_with_the_worst_verdict(results):
    on = [r for r in results if r.column == "6.12" and "every path" in r.rule]
    passed = next(r for r in on if r.verdict is Kind.PASS)
    failed = matrix.Result(**{**passed.__dict__, "name": "another", "verdict": Kind.FAIL})
    skipped = matrix.Result(**{**passed.__dict__, "name": "third", "verdict": Kind.SKIP})
    rules = live.Rules()
    rules.expect(planned([failed, passed, skipped]))
    assert rules.end("0", live.Ended.of(failed, 0.5), 80) is None
    assert rules.end("2", live.Ended.of(skipped, 0.5), 80) is None
    line = rules.end("1", live.Ended.of(passed, 2.2), 80)
    assert line.plain.split() == [
        *("FAIL", *passed.rule.split(), "1", "FAIL,", "1", "SKIP,", "1", "PASS", "3.2", "s")
    ]
    assert rules.position() == "3 of 3 cases, 1 bad"
    assert rules.end("1", live.Ended.of(passed, 2.2), 80) is None, "it has ended already"


@pytest.mark.parametrize("kinds, said", [(["SKIP", "PASS"], "PASS"), (["SKIP"], "SKIP")])
def test_a_rule_of_which_something_ran_is_no_skip(results, kinds, said):
    given = [matrix.Result(**{**results[0].__dict__, "verdict": Kind(kind)}) for kind in kinds]
    _, (line,) = played(given)
    assert line.split()[0] == said


@pytest.mark.parametrize("width", [60, 80, 160])
def test_a_line_fits_its_terminal(results, width):
    _, shown = played(results, width)
    assert max(map(len, shown)) <= width or width < 70
    cases = [live.case_line(live.Ended.of(result, 12.3), width) for result in results]
    assert max(len(line) for line in cases) <= width
    assert all(line.plain.endswith("12.3 s") for line in cases)


def test_the_kernel_stands_in_a_line_where_there_are_several(results):
    one = [result for result in results if result.column == "6.12"]
    assert not any("6.12" in line for line in played(one)[1])
    assert any("6.12: " in line for line in played(results)[1])


def test_a_failure_is_told_with_its_evidence_and_what_repeats_it(results):
    failed = next(result for result in results if result.verdict is Kind.FAIL)
    shown = [line.plain for line in live.failure(terminal.explain(failed))]
    assert shown[0].startswith(f"FAIL {failed.name} [{failed.loader}]")
    assert failed.repeat and f"  repeat   {failed.repeat}" in shown
    assert any(failed.evidence[0] in line for line in shown)
    assert live.failure("")[0].plain == ""


# -- the time left -----------------------------------------------------------------------------------


def test_the_time_left_is_that_of_the_last_run_shared_by_the_workers():
    clock = live.Clock({"a": 30.0, "b": 10.0, "gone": 99.0}, 2, now=100.0)
    assert clock.left(100.0) is None
    clock.expect(["a", "b", "new"])  # the new one is as long as the others are on average
    assert clock.left(100.0) == 30.0 and clock.left(104.0) == 26.0


def test_the_pace_of_what_ended_counts_once_it_is_a_measure():
    clock = live.Clock({"a": 10.0, "b": 20.0}, 1, now=0.0)
    clock.expect(["a", "b"])
    clock.end("a", 40.0, now=40.0)
    assert clock.left(40.0) == 80.0, "the machine is four times slower than it was"
    assert clock.left(200.0) is None, "it takes longer, nobody knows how long"
    assert clock.times == {"a": 40.0, "b": 20.0}
    clock.end("b", 20.0, now=60.0)
    assert clock.left(60.0) is None


def test_the_time_left_in_words():
    assert live.time_left(None) == ""
    assert live.time_left(59.6) == "about 1:00 left" and live.time_left(725) == "about 12:05 left"
