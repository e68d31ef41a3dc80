# SPDX-License-Identifier: GPL-2.0-only
"""Results that real kernels gave, judged again with today's rules."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness import __main__ as command
from harness.judging.verdict import Kind
from harness.provision import build
from harness.results import matrix
from harness.results.rejudge import Kept, rejudge
from harness.scenarios.programs import Programs

DATA = Path(__file__).parent.parent / "data" / "rejudged.jsonl"
RESULTS = matrix.read([DATA]).results
TWINS = [r for r in RESULTS if r.column == "6.12" and r.loader == "bcc"]
REFUSED = next(r for r in TWINS if r.name == "missing_unlock")
SPLAT = ("[   1.0] BUG: spinlock recursion on CPU#0, a/1",)


@pytest.fixture(scope="module")
def scenarios():
    return Programs.read(build.PROGRAMS).scenarios()


def test_what_real_kernels_did_is_judged_as_it_was(scenarios):
    found = rejudge(RESULTS, scenarios)
    assert found.verdicts == () and found.reasons == () and not found.differs
    assert found.same >= 18
    assert found.same + sum(found.kept.values()) == len(RESULTS)
    assert set(found.kept) <= {Kept.RUN_TIME, Kept.NO_CASE, Kept.NO_TWIN}


def test_a_rule_that_changed_shows_in_each_result_it_concerns(scenarios):
    def changed(case):
        if case.name != REFUSED.name:
            return case
        clauses = tuple(replace(clause, errno="EPERM") for clause in case.expectations)
        return replace(case, expectations=clauses)

    found = rejudge(RESULTS, [changed(case) for case in scenarios])
    named = [r for r in RESULTS if r.name == REFUSED.name]
    assert [each.stored for each in found.verdicts] == named and found.differs
    assert {each.now.kind for each in found.verdicts} == {Kind.FAIL}
    assert "PASS (refused at" in str(found.verdicts[0]) and "EPERM" in str(found.verdicts[0])
    assert f"{len(named)} have another verdict now" in found.lines()[0]


def observed(result, **changes):
    return replace(result, observation=replace(result.observation, **changes))


def test_a_splat_that_is_one_today_is_a_crash(scenarios):
    run_time = next(r for r in RESULTS if r.observation.measurements is not None)
    for result in (REFUSED, run_time):
        (one,) = rejudge([observed(result, kernel_log=SPLAT)], scenarios, RESULTS).verdicts
        assert one.now.kind is Kind.CRASH
    crashed = observed(replace(run_time, verdict=Kind.CRASH), kernel_log=SPLAT)
    assert rejudge([crashed], scenarios).same == 1
    (one,) = rejudge([replace(run_time, verdict=Kind.CRASH)], scenarios).verdicts
    assert one.now.kind is Kind.ERROR and "run it again" in one.now.reason


def test_a_refusal_counts_beside_its_twin_of_the_same_kernel_and_loader(scenarios):
    twin = next(case.twin for case in scenarios if case.name == REFUSED.name)
    beside = next(r for r in TWINS if r.name == twin)
    assert rejudge([REFUSED], scenarios, [beside]).same == 1
    for other in (replace(beside, column="5.10"), replace(beside, loader="libbpf")):
        assert rejudge([REFUSED], scenarios, [other]).kept == {Kept.NO_TWIN: 1}
    broken = observed(beside, stage="prog_load", errno="EINVAL")
    (one,) = rejudge([REFUSED], scenarios, [broken]).verdicts
    assert one.now.kind is Kind.INCONCLUSIVE
    # What hangs on no twin needs none.
    (one,) = rejudge([observed(REFUSED, errno="EPERM")], scenarios).verdicts
    assert one.now.kind is Kind.FAIL


def test_what_cannot_be_judged_again_is_counted(scenarios):
    unseen = replace(REFUSED, observation=None, verdict=Kind.ERROR)
    gone = replace(REFUSED, name="no_such_case")
    found = rejudge([unseen, gone], scenarios, RESULTS)
    assert found.kept == {Kept.UNSEEN: 1, Kept.NO_CASE: 1} and found.same == 0
    assert "1 keep their verdict: the C files have no such case now" in found.lines()


def test_other_words_are_no_other_verdict(scenarios):
    found = rejudge([replace(REFUSED, reason="it was refused")], scenarios, RESULTS)
    assert not found.differs and len(found.reasons) == found.same == 1
    assert "in other words, as missing_unlock [bcc] on 6.12" in found.lines()[-1]


def test_the_command_says_it_and_exits_so(tmp_path, capsys):
    assert command.main(["report", "--rejudge", str(DATA)]) == 0
    assert "0 have another verdict now" in capsys.readouterr().out
    other = tmp_path / "results.jsonl"
    failed = replace(REFUSED, verdict=Kind.FAIL).to_json()
    lines = [json.dumps(r.to_json()) for r in RESULTS if r is not REFUSED]
    other.write_text("\n".join([*lines, json.dumps(failed)]) + "\n")
    assert command.main(["report", str(other), "--rejudge", "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    (one,) = data["verdicts"]
    assert (data["format"], one["name"], one["old"], one["new"]) == (
        1,
        "missing_unlock",
        "FAIL",
        "PASS",
    )
    # A filter leaves the twin where it was.
    assert command.main(["report", "--rejudge", str(DATA), "--rule", "missing_unlock"]) == 0
    assert "keep" not in capsys.readouterr().out
    assert command.main(["report", "--rejudge", str(DATA), "--junit"]) == 2
    assert "--rejudge and --junit do not go together" in capsys.readouterr().err
