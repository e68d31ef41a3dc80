# SPDX-License-Identifier: GPL-2.0-only
"""A result as JSON and back, also one that an older harness wrote."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.version import Version

from harness.judging.verdict import Kind, Observation, Verdict
from harness.results import matrix
from harness.results.record import Case, Place, record
from harness.results.result import Build, Expected, Result
from harness.scenarios.scenario import Expectation, KnownBug, Rule

DATA = Path(__file__).parent.parent / "data"
RULE = Rule("One lock", "No more.", ('bbbbbbbbbbbb ("b: it") (in v5.1)',), "bpf_progs/a.bpf.c:1")
CASE = Case(
    name="second_lock",
    loader="libbpf",
    rule=RULE,
    repeat="spinlock run second_lock",
    comment='Since commit aaaaaaaaaaaa ("a: it") (in v6.1), too.',
    expectations=(Expectation("<6.1", True), Expectation(">=6.1", False, errno="EINVAL")),
    known_bugs=(KnownBug("cccccccccccc", "<6.2"), KnownBug("cccccccccccc", "<6.2")),
    sources={"source": "bpf_progs/a.bpf.c"},
)
PLACE = Place(
    target="qemu",
    kernel="6.12",
    facts={"release": "6.12.1-amd64", "version": "#1 SMP Debian 6.12.1-1"},
    seconds={"boot": 0.5},
    compiler="clang version 14.0.6",
    builds=(Build("a.bpf.c", "TWO", "0123456789abcdef"),),
)
SEEN = Observation(
    "prog_load", "EINVAL", "no\n", kernel_log=("a line",), stuck=(1,), emulator_failed=False
)
RESULT = record(CASE, Verdict(Kind.PASS, "refused", ("MATCHED",)), SEEN, PLACE)


def stored(result):
    return json.loads(json.dumps(result.to_json()))


def test_a_result_says_what_was_asked_where_and_of_what():
    assert (RESULT.column, RESULT.kernel, RESULT.target) == ("6.12", "6.12.1-amd64", "qemu")
    assert [c[:12] for c in RESULT.commits] == ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]
    assert RESULT.expected[1] == Expected(">=6.1", "refused at prog_load, EINVAL", True)
    assert not RESULT.expected[0].applies
    assert RESULT.known_bugs == (("cccccccccccc", "<6.2"),)
    assert RESULT.facts["source"] == "bpf_progs/a.bpf.c"
    assert (RESULT.compiler, RESULT.builds) == (PLACE.compiler, PLACE.builds)


def test_where_no_guest_came_up_the_kernel_is_as_it_was_named():
    result = record(CASE, Verdict(Kind.ERROR, "no boot"), None, Place(kernel="6.12"))
    assert (result.column, result.kernel, result.facts) == ("6.12", "", {})
    assert Place().release == Version("0")


@pytest.mark.parametrize(
    "result",
    [
        RESULT,
        replace(RESULT, observation=None),
        replace(RESULT, observation=Observation(None, retval=-1, measurements={"runs": [1, 2.5]})),
        replace(RESULT, observation=Observation(lost="it is dead", emulator_failed=True)),
    ],
)
def test_what_is_stored_is_read_again(result):
    assert Result.from_json(stored(result)) == result


def test_older_results_have_observations_too():
    for file in ("results.jsonl", "rejudged.jsonl"):
        for result in matrix.read([DATA / file]).results:
            assert isinstance(result.observation, Observation) and result.builds == ()
            assert result.observation.kernel_log is not None
    assert Result.from_json({**stored(RESULT), "observation": {}}).observation is None


@pytest.mark.parametrize(
    "observation, said",
    [
        ({"stage": 3}, "stage cannot be 3"),
        ({"stage": "prog_load", "moon": 1}, "observation has 'moon', which only a newer"),
        ({"retval": "0"}, 'retval cannot be "0"'),
        ({"kernel_log": [1]}, "kernel_log cannot be 1"),
        ({"stuck": "all"}, 'stuck cannot be "all"'),
        ("lost", 'observation cannot be "lost"'),
    ],
)
def test_what_is_no_observation_is_named(observation, said):
    with pytest.raises(ValueError, match=said):
        Result.from_json({**stored(RESULT), "observation": observation})
