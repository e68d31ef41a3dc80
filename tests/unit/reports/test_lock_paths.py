# SPDX-License-Identifier: GPL-2.0-only
"""The table of lock paths x kernels, and where else a result's path is shown."""

import dataclasses
import json

from harness import __main__ as command
from harness.judging.lock_path import QUEUED, TEST_AND_SET
from harness.judging.verdict import Kind
from harness.reports import lock_paths, terminal
from harness.results import matrix
from harness.results.matrix import Matrix
from harness.results.result import Result

RES = "A res_spin_lock serializes, and ends a deadlock"


def result(name, kernel, path, verdict=Kind.PASS, rule="Locked updates are serialized"):
    return Result(name, "libbpf", f"{kernel}.1", verdict, "why", kernel, rule=rule, lock_path=path)


RESULTS = [
    result("count", "6.12", TEST_AND_SET),
    result("count_queued", "6.12", QUEUED),
    result("hooks", "6.12", TEST_AND_SET, Kind.FAIL),
    result("count_queued", "7.3", QUEUED),
    result("res_queued", "7.3", QUEUED, rule=RES),
    result("verdict_of_the_verifier", "7.3", ""),
]


def test_a_row_per_lock_and_path_and_a_column_per_kernel():
    assert lock_paths.markdown(Matrix(RESULTS)).splitlines() == [
        "| lock | path | 6.12 | 7.3 |",
        "|---|---|---|---|",
        "| `bpf_spin_lock` | test-and-set | 1 FAIL, 1 PASS | – |",
        "| `bpf_spin_lock` | queued | 1 PASS | 1 PASS |",
        "| `bpf_res_spin_lock` | queued | – | 1 PASS |",
    ]


def test_results_without_a_path_make_no_table():
    assert "run the contests first" in lock_paths.markdown(Matrix(RESULTS[-1:]))


def test_the_command_prints_the_table(tmp_path, capsys):
    stored = tmp_path / "results.jsonl"
    stored.write_text("".join(json.dumps(each.to_json()) + "\n" for each in RESULTS))
    assert command.main(["report", "--lock-paths", str(stored)]) == 0
    assert "| `bpf_res_spin_lock` | queued |" in capsys.readouterr().out


def test_the_path_is_part_of_the_explanation_and_of_json():
    assert "CPUs took it by test-and-set" in terminal.explain(RESULTS[2])
    assert "took it by" not in terminal.explain(RESULTS[-1])
    [first, *_] = matrix.to_json(Matrix(RESULTS))["rules"][0]["cases"]
    assert first["results"][0]["lock_path"] == TEST_AND_SET
    assert dataclasses.replace(RESULTS[0]) == Result.from_json(RESULTS[0].to_json())
