# SPDX-License-Identifier: GPL-2.0-only
"""What changed between two runs, made of results that real kernels gave."""

import dataclasses
import datetime
import json
from pathlib import Path

import pytest

from harness import __main__ as command
from harness.errors import UsageError
from harness.judging.verdict import Kind
from harness.results import drift, expected_failures, matrix
from harness.results.drift import What

DATA = Path(__file__).parent.parent / "data" / "results.jsonl"
RESULTS = matrix.read([DATA]).results
PASSED = next(r for r in RESULTS if r.name == "missing_unlock" and r.column == "6.12")
TODAY = datetime.date(2026, 11, 24)


def change(result, **changes):
    return dataclasses.replace(result, **changes)


def seen(result, **changes):
    return change(result, observation=dataclasses.replace(result.observation, **changes))


def kinds(old, new, *rest):
    return [c.what for c in drift.compare(old, new, *rest).changes]


def test_nothing_changed_against_itself():
    found = drift.compare(RESULTS, RESULTS)
    assert (found.changes, found.compared, found.regressed) == ((), len(RESULTS), False)


@pytest.mark.parametrize(
    "old, new, what",
    [
        (Kind.PASS, Kind.FAIL, What.REGRESSION),
        (Kind.SKIP, Kind.ERROR, What.REGRESSION),
        (Kind.KNOWN, Kind.INCONCLUSIVE, What.REGRESSION),
        (Kind.FAIL, Kind.CRASH, What.REGRESSION),
        (Kind.CRASH, Kind.FAIL, What.VERDICT),
        (Kind.FAIL, Kind.PASS, What.FIXED),
        (Kind.KNOWN, Kind.PASS, What.FIXED),
        (Kind.PASS, Kind.SKIP, What.VERDICT),
    ],
)
def test_a_change_of_verdict(old, new, what):
    assert kinds([change(PASSED, verdict=old)], [change(PASSED, verdict=new)]) == [what]


def test_a_failure_on_the_list_is_no_regression():
    failed = change(PASSED, verdict=Kind.FAIL)
    assert kinds([PASSED], [failed], {matrix.key(failed)}) == [What.VERDICT]


@pytest.mark.parametrize(
    "now, changed",
    [
        ({"errno": "EACCES"}, True),
        ({"stage": "map_create"}, True),
        ({"log": "another text"}, True),
        ({"stage": None, "retval": 3}, True),
        ({"log": PASSED.observation.log.replace("processed", "processed 9")}, False),
    ],
)
def test_another_errno_stage_or_text_with_the_same_verdict(now, changed):
    assert kinds([PASSED], [seen(PASSED, **now)]) == [What.SEEN] * changed


def test_numbers_in_a_text_are_no_change_but_a_returned_one_is():
    texts = ["invalid access off=12", "invalid access off=16"]
    assert kinds([seen(PASSED, log=texts[0])], [seen(PASSED, log=texts[1])]) == []
    ran = [seen(PASSED, stage=None, retval=value) for value in (0, 1)]
    assert kinds(ran[:1], ran[1:]) == [What.SEEN]


def test_appeared_and_vanished():
    other = change(PASSED, name="other")
    assert kinds([PASSED], [other]) == [What.APPEARED, What.VANISHED]
    assert kinds([], [change(PASSED, verdict=Kind.FAIL)]) == [What.REGRESSION]


def test_one_kernel_on_each_side_is_compared_whatever_its_name():
    assert kinds([PASSED], [change(PASSED, column="6.12.119")]) == []


def timed(seconds):
    return [change(PASSED, name=f"c{n}", seconds={"case": s}) for n, s in enumerate(seconds)]


def test_a_slower_machine_is_no_change_but_a_case_that_is_slower_than_it_is():
    old = timed([1, 2, 1, 2, 1, 2, 1, 2, 1, 2])
    slow = timed([r.seconds["case"] * 5 for r in old])
    found = drift.compare(old, slow)
    assert (found.changes, found.speeds) == ((), {"6.12 bcc": 5.0})
    hung = [*slow[:9], change(slow[9], seconds={"case": 100.0})]
    (only,) = drift.compare(old, hung).changes
    assert (only.what, only.name, only.old) == (What.TIME, "c9", "10.00 s at this speed")
    assert not drift.compare(old, hung).regressed
    assert drift.compare(old[:5], timed([1, 2, 1, 2, 90])).changes == ()  # too few to tell


# -- known failures --------------------------------------------------------------------------------

ENTRY = "- {case: 'wrong_*', kernel: '>=6.1', reason: a text, expires: 2026-12-01}\n"


def test_a_listed_failure_is_known_and_others_are_not():
    found = expected_failures.apply(expected_failures.parse(ENTRY, "known.yaml"), RESULTS, TODAY)
    assert [r.name for r, _ in found.failures] == ["wrong_text"]
    assert not found.stale
    assert "hang" in {r.name for r in found.unknown}


def test_an_unexpected_pass_an_expired_entry_and_one_that_did_not_run_are_said():
    text = (
        "- {case: missing_unlock, loader: bcc, kernel: '<6', reason: r, expires: 2026-12-01}\n"
        "- {case: wrong_text, reason: r, expires: 2026-11-23}\n"
        "- {case: nobody, reason: r, expires: 2026-12-01}\n"
    )
    found = expected_failures.apply(expected_failures.parse(text, "known.yaml"), RESULTS, TODAY)
    assert found.stale
    assert [line.split(":")[0] for line in found.lines()] == [
        "unexpected pass",
        "expired on 2026-11-23",
        "not run",
        "not on the list",
    ]
    assert [kernel for _, kernel in found.passes] == ["5.10"]
    assert "wrong_text" in {r.name for r in found.unknown}


@pytest.mark.parametrize(
    "text, words",
    [
        ("{a: [", "is no YAML"),
        ("- case: x\n  - y", "known.yaml:2 is no YAML: "),
        ("- {case: x, case: y}", "known.yaml:1 is no YAML: 'case' is given twice"),
        ("case: x", "must be a list"),
        ("false", "must be a list"),
        ("- x", "entry 1 is no mapping"),
        ("- {case: x, why: y}", "'why', which means nothing"),
        ("- {case: x, expires: 2026-12-01}", "has no reason"),
        ("- {case: x, reason: y}", "has no expires"),
        ("- {case: x, reason: y, expires: soon}", "expires cannot be 'soon'"),
        ("- {case: x, reason: y, expires: 2026-13-01}", "has a date or a number that is none"),
        ("- {case: x, reason: y, expires: 2026-12-01, kernel: new}", "'new' is no range"),
        ("- {case: x, reason: y, expires: 2026-12-01, kernel: '>=7,<6'}", "is no range that a"),
        ("- {case: x, reason: y, expires: 2026-12-01, loader: ld}", "loader is bcc or libbpf"),
        (
            "- {case: x, reason: y, expires: 2026-12-01}\n- {case: x, reason: z, expires: 2027-01-01}",
            "entry 2 is about the same as entry 1 (x)",
        ),
    ],
)
def test_a_bad_list_is_one_sentence(text, words):
    with pytest.raises(UsageError) as raised:
        expected_failures.parse(text, "known.yaml")
    assert words in str(raised.value) and "\n" not in str(raised.value)


# -- the command -------------------------------------------------------------------------------------


def write(path, results):
    path.write_text("".join(json.dumps(r.to_json()) + "\n" for r in results))
    return str(path)


def test_the_command_exits_1_on_a_regression_in_every_form(tmp_path, capsys):
    old = write(tmp_path / "old.jsonl", [PASSED])
    new = write(tmp_path / "new.jsonl", [change(PASSED, verdict=Kind.FAIL, reason="<b>why</b>")])
    assert command.main(["report", old, "--against", old]) == 0
    capsys.readouterr()
    for form, words in (
        ([], "1 new failures:\n  missing_unlock [bcc] on 6.12: PASS"),
        (["--markdown"], "**1 new failures**"),
        (["--json"], '"what": "REGRESSION"'),
    ):
        assert command.main(["report", new, "--against", old, *form]) == 1
        assert words in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert command.main(["report", new, "--against", old, "--html", str(page)]) == 1
    assert "1 new failures, against the baseline" in page.read_text()
    assert "<b>why" not in page.read_text()


def test_the_command_and_a_list(tmp_path, capsys):
    new = write(tmp_path / "new.jsonl", [change(PASSED, verdict=Kind.FAIL)])
    file = tmp_path / "known.yaml"
    row = "- {{case: {}, reason: why, expires: {}}}\n"
    for case, day, code in (
        ("missing_*", "2999-01-01", 0),
        ("other", "2999-01-01", 1),
        ("missing_*", "2000-01-01", 1),
        ("missing_*", "x", 2),
    ):
        file.write_text(row.format(case, day))
        assert command.main(["report", new, "--known", str(file)]) == code
    assert command.main(["report", new, "--known", str(tmp_path / "none")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_files_that_disagree_are_named(tmp_path):
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write(a, [PASSED])
    write(b, [change(PASSED, verdict=Kind.FAIL)])
    assert f"is PASS in {a} and FAIL in {b}" in "".join(matrix.read([a, b]).notes)
