# SPDX-License-Identifier: GPL-2.0-only
"""Counting how often twins are seen; the recorded runs are of a real kernel."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.errors import UsageError
from harness.judging.serialization import LOCKED, TWINS, UNLOCKED
from harness.judging.verdict import Kind
from harness.running import contended
from harness.studies import power
from harness.studies.power import SCENARIO, Problem, Rate, Report, Setting, interval, runs_to_show

RECORDED = Path(__file__).parent.parent / "data" / "power-6.12.118.jsonl"
SETTING = Setting("6.12", 4, "libbpf", "6.12.118+deb13-cloud-amd64", "tcg")


def records():
    return power.read([RECORDED])


def changed(where, **changes):
    """Return the recorded runs, those that `where` holds for with changes."""
    return tuple(dataclasses.replace(r, **changes) if where(r) else r for r in records())


@pytest.mark.parametrize(
    "hits, runs, low, high",
    [  # the values that tables of Clopper and Pearson's limits have
        (0, 10, 0.0, 0.3085),
        (1, 10, 0.0025, 0.4450),
        (5, 10, 0.1871, 0.8129),
        (10, 10, 0.6915, 1.0),
        (19, 20, 0.7513, 0.9987),
        (20, 20, 0.8316, 1.0),
        (0, 1, 0.0, 0.975),
        (990, 1000, 0.9817, 0.9952),
    ],
)
def test_interval(hits, runs, low, high):
    assert interval(hits, runs) == pytest.approx((low, high), abs=6e-5)


def test_interval_is_symmetric_and_covers_what_it_says():
    for hits in range(31):
        low, high = interval(hits, 30)
        mirrored = interval(30 - hits, 30)
        assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))
        assert low <= hits / 30 <= high
    for rate in (0.02, 0.3, 0.5, 0.9, 0.99):
        covered = sum(
            math.comb(30, hits) * rate**hits * (1 - rate) ** (30 - hits)
            for hits in range(31)
            if interval(hits, 30)[0] <= rate <= interval(hits, 30)[1]
        )
        assert covered >= 0.95


def test_runs_to_show():
    needed = runs_to_show(0.99)
    assert interval(needed, needed)[0] >= 0.99 > interval(needed - 1, needed - 1)[0]


@pytest.mark.parametrize(
    "what, hits, runs, judgement",
    [
        (UNLOCKED.name, 20, 20, "open"),
        (UNLOCKED.name, 400, 400, "shown"),
        (UNLOCKED.name, 18, 20, "below"),
        (UNLOCKED.name, 0, 1, "below"),
        (LOCKED.name, 0, 20, "never accused"),
        (LOCKED.name, 1, 20, "ACCUSED"),
    ],
)
def test_judgement(what, hits, runs, judgement):
    assert Rate(SETTING, "test_run", what, hits, runs, 1.0).judgement(0.99) == judgement


def test_recorded_runs():
    report = Report(records())
    rates = {(rate.contest, rate.what): rate for rate in report.rates()}
    assert [what for contest, what in rates if contest == "test_run"] == [
        *(way.name for way in (LOCKED, *TWINS)),
        SCENARIO,
    ]
    assert {(rate.hits, rate.runs) for rate in rates.values() if rate.is_twin} == {(2, 2)}
    assert rates["test_run", LOCKED.name].hits == 0
    assert rates["test_run", SCENARIO].hits == 2
    assert report.exit_code() == 0
    text = report.terminal()
    assert "2 of 2  0.158–1.000    open" in text
    assert "It takes 368 runs" in text
    assert "| `test_run` | locked | 0 of 2 (0.000–0.842) |" in report.markdown()
    row = report.to_json()["rates"][1]
    assert row["what"] == "no lock" and row["low"] == 0.1581 and row["accelerator"] == "tcg"


def test_lines_keep_everything():
    problem = Problem(SETTING, "fentry", Kind.SKIP, "too old")
    for record in (*records(), problem):
        assert power.from_line(power.to_line(record)) == record


def test_accused():
    report = Report(
        changed(lambda r: r.way == "locked" and r.round == 2, seen=True, reason="lost updates: 3")
    )
    assert report.exit_code() == 1
    assert "ACCUSED" in report.terminal()
    assert "test_run, run 2, locked: lost updates: 3" in report.terminal()
    assert "**ACCUSED**" in report.markdown()


def test_twin_that_is_not_seen():
    report = Report(changed(lambda r: r.way == "1 in 4096 without the lock", seen=False))
    assert report.exit_code() == 3
    found = next(r for r in report.rates() if r.what == SCENARIO)
    assert (found.hits, found.runs) == (0, 2)


def test_cpus_that_never_met():
    report = Report(changed(lambda r: r.way == "locked", blind=True, reason="it ran on 1 CPU"))
    assert report.exit_code() == 3
    assert {r.hits for r in report.rates() if r.what == SCENARIO} == {0}


def test_twins_of_choice_are_not_the_scenario():
    some = [r for r in records() if r.way in (LOCKED.name, UNLOCKED.name)]
    whole = [r.contest for r in Report(tuple(some)).rates() if r.what == SCENARIO]
    assert whole == ["tcx_ingress", "all_hooks"]


def test_interrupted_round_counts_for_what_ran():
    found = {r.what: r for r in Report(records()[:10]).rates()}
    assert (found["locked"].runs, found["try and give up"].runs) == (2, 1)
    assert found[SCENARIO].runs == 1


@pytest.mark.parametrize(
    "kind, code", [(Kind.CRASH, 1), (Kind.FAIL, 1), (Kind.ERROR, 4), (Kind.SKIP, 0)]
)
def test_problems(kind, code):
    report = Report((*records(), Problem(SETTING, "fentry", kind, "because")))
    assert report.exit_code() == code
    assert f"fentry: {kind.value}: because" in report.terminal()


def test_runs_of_two_measurements_are_counted_together():
    found = {r.what: r for r in Report(power.read([RECORDED, RECORDED])).rates()}
    assert (found["locked"].runs, found[SCENARIO].runs) == (4, 4)


def test_reading_what_was_killed_and_what_is_none(tmp_path):
    text = RECORDED.read_text()
    (tmp_path / power.TRIALS).write_text(text + text.splitlines()[0][:50])
    assert power.read([tmp_path]) == records()
    broken = tmp_path / "broken"
    broken.write_text("{}\n" + text)
    with pytest.raises(UsageError, match="broken:1 is no record"):
        power.read([broken])
    with pytest.raises(UsageError, match="No such file"):
        power.read([tmp_path / "nowhere"])


def test_command_reads(capsys):
    assert main(["power", "--read", str(RECORDED), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rates"]) == 14
    assert main(["power", "--read", str(RECORDED), "--at-least", "2"]) == 2


def test_contests_are_complete():
    assert set(contended.WORDS.values()) == set(TWINS)
    for contest in contended.ALL.values():
        plan = contest.plan(4)
        assert plan.drives and contest.twins
        assert plan.room >= 0
