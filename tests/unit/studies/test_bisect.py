# SPDX-License-Identifier: GPL-2.0-only
"""Bisection: the search itself, what counts as a change, and which versions there are."""

import math

import pytest
from hypothesis import given, strategies as st

from harness.errors import UsageError
from harness.judging.verdict import Kind, Observation
from harness.results.result import Result
from harness.studies import bisect
from harness.studies.bisect import (
    BAD,
    GOOD,
    UNTESTABLE,
    Bisection,
    Bounds,
    Question,
    outcome,
    status,
)


@given(st.data())
def test_the_change_is_found_around_every_hole(data):
    count = data.draw(st.integers(2, 60))
    change = data.draw(st.integers(1, count - 1))  # the first that is bad
    holes = data.draw(st.sets(st.integers(1, max(1, count - 2)))) - {0, count - 1}
    asked = []

    def test(index, bounds):
        asked.append(index)
        return None if index in holes else index < change

    found = bisect.search(Bounds(0, count - 1), test)
    testable = [i for i in range(count) if i not in holes]
    assert found.good == max(i for i in testable if i < change)
    assert found.bad == min(i for i in testable if i >= change)
    assert set(found.between()) == set(range(found.good + 1, found.bad))
    assert len(asked) == len(set(asked)), "no version is tested twice"
    if not holes:
        assert len(asked) <= math.ceil(math.log2(count))


def test_steps_are_estimated():
    assert [Bounds(0, n).steps_left() for n in (1, 2, 4, 16)] == [0, 1, 2, 4]


def result(kind=Kind.PASS, reason="", **observation):
    observation = {"stage": None, **observation}
    return Result("c", "libbpf", "6.12", kind, reason, observation=Observation(**observation))


REFUSED = {"stage": "prog_load", "errno": "EINVAL", "log": "0: x\nunlock is missing\nprocessed 9"}


def test_what_was_observed_is_compared_not_whether_it_was_expected():
    as_expected, unexpected = result(**REFUSED), result(Kind.FAIL, **REFUSED)
    assert (
        outcome(as_expected)
        == outcome(unexpected)
        == "refused at prog_load: EINVAL unlock is missing"
    )
    assert outcome(as_expected, "errno") == "refused at prog_load: EINVAL"
    assert outcome(as_expected, "stage") == "refused at prog_load"
    assert outcome(as_expected, "verdict") != outcome(unexpected, "verdict")
    assert outcome(result(stage=None, retval=7)) == "loaded, returned 7"


def test_a_bug_on_record_is_the_break_that_is_looked_for():
    assert outcome(result(Kind.KNOWN, measurements={})) == "does not hold"
    assert outcome(result(measurements={})) == "holds"


def test_crashes_are_compared_without_what_differs_each_time():
    one = result(
        Kind.CRASH, "soft lockup: [   23.1] BUG: soft lockup - CPU#2 stuck for 11s! [python3:9]"
    )
    two = result(
        Kind.CRASH, "soft lockup: [   41.9] BUG: soft lockup - CPU#0 stuck for 12s! [python3:7]"
    )
    assert outcome(one) == outcome(two) != outcome(result(Kind.CRASH, "panic: x"))


@pytest.mark.parametrize(
    "text, says", [("missing", "says 'missing'"), ("x y", "does not say 'x y'")]
)
def test_a_text_may_be_all_that_counts(text, says):
    assert outcome(result(**REFUSED), text=text) == says


@pytest.mark.parametrize("kind", [Kind.ERROR, Kind.SKIP, Kind.INCONCLUSIVE])
def test_what_says_nothing_is_never_good(kind):
    for text in ("", "missing"):
        assert outcome(result(kind, **REFUSED), text=text) is None
        assert status(result(kind, **REFUSED), text) == UNTESTABLE


def test_git_is_told_good_or_bad():
    assert status(result()) == GOOD
    assert [status(result(k)) for k in (Kind.FAIL, Kind.CRASH, Kind.KNOWN)] == [BAD] * 3
    assert status(result(Kind.FAIL, **REFUSED), "missing") == GOOD
    assert status(result(**REFUSED), "other") == BAD


LISTED = {
    "6.12": ["6.12", "6.12.43+deb12", "6.12.90+deb12", "6.12.90+deb13", "6.12.118+deb13"],
    "6.16": ["6.16.3+deb13", "6.16.12+deb13"],
    "6.17": [],
    "6.18": ["6.18.5+deb13"],
}


def versions(good, bad):
    return bisect.debian_versions(good, bad, LISTED.__getitem__)


def test_versions_lie_between_the_ends_in_the_order_asked_for():
    assert versions("6.12.90", "6.16.3") == ("6.12.90+deb13", "6.12.118+deb13", "6.16.3+deb13")
    assert versions("6.18", "6.16")[0] == "6.18.5+deb13"
    assert versions("6.18", "6.16")[-1] == "6.16.12+deb13"
    assert versions("6.12.43", "6.12.90+deb12") == ("6.12.43+deb12", "6.12.90+deb13")


@pytest.mark.parametrize(
    "good, bad, words",
    [
        ("6.12.44", "6.16", "has no 6.12.44"),
        ("6.16", "6.16.12", "the same version"),
        ("6.12-rt", "6.16", "cloud kernels"),
        ("/boot/vmlinuz", "6.16", "git bisect run"),
        ("6.17", "6.16", "has no 6.17"),
    ],
)
def test_ends_that_make_no_sense_are_explained(good, bad, words):
    with pytest.raises(UsageError, match=words):
        versions(good, bad)


def bisection(monkeypatch, outcomes):
    def run_case(question, name, label):
        return outcomes[label]

    monkeypatch.setattr(bisect, "run_case", run_case)
    monkeypatch.setattr(bisect.kernel_store, "fetched", dict)
    said = []
    question = Question("c", "libbpf", "observed", "", (), bisect.Path("/r"))
    return Bisection(question, said.append), said


def test_an_answer_names_the_versions_and_those_that_could_not_be_tested(monkeypatch):
    old, new, hole = result(stage=None), result(**REFUSED), result(Kind.INCONCLUSIVE, "too weak")
    bisecting, said = bisection(monkeypatch, {"1": old, "2": old, "3": hole, "4": new, "5": new})
    answer = bisecting.run(["1", "2", "3", "4", "5"])
    assert (answer.before.version, answer.after.version) == ("2", "4")
    assert [step.version for step in answer.untestable] == ["3"]
    text = "\n".join(answer.lines())
    assert "between 2 and 4" in text and "It may also have been 3" in text and "too weak" in text
    data = answer.to_json()
    assert data["first_with_new_outcome"]["outcome"].endswith("unlock is missing")
    assert len(data["steps"]) == len(set(step["version"] for step in data["steps"]))
    assert any("tests to come: 2" in line for line in said)


def test_a_third_outcome_is_said_to_be_another_change(monkeypatch):
    runs = {
        "1": result(stage=None),
        "2": result(**{**REFUSED, "log": "else"}),
        "3": result(**REFUSED),
    }
    bisecting, _ = bisection(monkeypatch, runs)
    assert "another change" in "\n".join(bisecting.run(["1", "2", "3"]).lines())


def test_ends_that_do_not_differ_are_said_so(monkeypatch):
    bisecting, _ = bisection(monkeypatch, {"1": result(stage=None), "2": result(stage=None)})
    with pytest.raises(UsageError, match="Nothing changed"):
        bisecting.run(["1", "2"])


def test_an_end_that_says_nothing_is_refused(monkeypatch):
    bisecting, _ = bisection(monkeypatch, {"1": result(Kind.ERROR, "no boot"), "2": result()})
    with pytest.raises(UsageError, match="--good 1 says nothing .*no boot"):
        bisecting.run(["1", "2"])


@pytest.mark.parametrize(
    "output, words",
    [
        ("x\nERROR: There is no scenario 'y'; see.\n", "There is no scenario 'y'; see."),
        ("", "nothing was said"),
    ],
)
def test_the_last_words_of_a_run_are_passed_on(output, words):
    assert bisect._last_words(output) == words
