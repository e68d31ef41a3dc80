# SPDX-License-Identifier: GPL-2.0-only
"""Which path of the lock CPUs took, and verdicts of cases that were asked for on one."""

import pytest

from harness.judging.lock_path import LEAST_HELD, QUEUED, TEST_AND_SET, named, on_path, words
from harness.judging.verdict import Kind, Verdict

PASS = Verdict(Kind.PASS, "all was counted", ("MATCHED",))


@pytest.mark.parametrize(
    "held, queued, path",
    [
        (0, 0, ""),
        (LEAST_HELD - 1, 0, ""),
        (LEAST_HELD, 0, TEST_AND_SET),
        (5, 1, QUEUED),
        (9 * LEAST_HELD, 7 * LEAST_HELD, QUEUED),
    ],
)
def test_the_lock_word_tells_the_path(held, queued, path):
    assert named(held, queued) == path


@pytest.mark.parametrize("asked, took", [("", QUEUED), ("", ""), (QUEUED, QUEUED)])
def test_a_verdict_stands_on_the_path_that_was_asked_for(asked, took):
    assert on_path(PASS, asked, took) is PASS


@pytest.mark.parametrize(
    "took, seen",
    [(TEST_AND_SET, "took the lock by test-and-set"), ("", "CPUs did not contend for it")],
)
@pytest.mark.parametrize("kind", [Kind.PASS, Kind.KNOWN])
def test_on_another_path_nothing_was_shown(took, seen, kind):
    verdict = on_path(Verdict(kind, "all was counted", ("MATCHED",)), QUEUED, took)
    assert verdict.kind is Kind.INCONCLUSIVE and verdict.evidence == ("MATCHED",)
    assert "asked for the lock by queued" in verdict.reason and seen in verdict.reason


@pytest.mark.parametrize("kind", [Kind.FAIL, Kind.CRASH, Kind.ERROR, Kind.SKIP])
def test_a_failure_counts_on_any_path(kind):
    broken = Verdict(kind, "lost updates")
    assert on_path(broken, QUEUED, TEST_AND_SET) is broken


def test_only_the_queue_needs_a_guest_of_its_own():
    assert (words(QUEUED), words(TEST_AND_SET), words("")) == ("clearcpuid=159", "", "")
