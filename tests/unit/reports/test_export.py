# SPDX-License-Identifier: GPL-2.0-only
"""The forms of others, made of results that real kernels gave, and the CI files of docs/ci.md."""

import dataclasses
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from harness import __main__ as command
from harness.provision import catalogue
from harness.reports import export
from harness.results import matrix

DATA = Path(__file__).parent.parent / "data" / "results.jsonl"
ROOT = Path(__file__).resolve().parents[3]
LINE = re.compile(
    r"(ok|not ok) (\d+)(?: - )?(?: ?[^#]+)?(?: # (SKIP|TODO|XFAIL|TIMEOUT|ERROR)\b.*)?"
)


@pytest.fixture(scope="module")
def pivot():
    return matrix.Matrix(matrix.read([DATA]).results)


def test_junit_has_a_suite_per_kernel(pivot):
    root = ElementTree.fromstring(export.junit(pivot))
    assert [s.get("name") for s in root] == ["5.10", "6.12", "7.3"]
    for suite in root:
        cases = suite.findall("testcase")
        assert len(cases) == int(suite.get("tests"))
        for word in ("failure", "error", "skipped"):
            counted = suite.get(word if word == "skipped" else f"{word}s")
            assert len(suite.findall(f"testcase/{word}")) == int(counted)
    assert {f.get("type") for f in root.iter("failure")} == {"FAIL", "CRASH"}


def test_junit_survives_what_a_console_may_hold(pivot):
    evil = dataclasses.replace(pivot.results[-1], reason="\x1b[1m\x00\ud800<&", evidence=("\x07",))
    root = ElementTree.fromstring(export.junit(matrix.Matrix([evil])))
    assert "<&" in next(root.iter("failure")).get("message")


def read_ktap(lines, indent=""):
    """Check one level of KTAP as Documentation/dev-tools/ktap.rst has it; return its results."""
    assert lines[0] == "KTAP version 1"
    rest = [line for line in lines[1:] if not line.startswith("#")]
    plan = re.fullmatch(r"1\.\.(\d+)", rest[0])
    found, nested = [], []
    for line in rest[1:]:
        if line.startswith("  "):
            nested.append(line[2:])
            continue
        match = LINE.fullmatch(line)
        assert match, line
        found.append((match[1], read_ktap(nested) if nested else [], match[3]))
        assert int(match[2]) == len(found)
        nested = []
    assert len(found) == int(plan[1]) and not nested
    return found


def test_ktap_keeps_the_rules(pivot):
    kernels = read_ktap(export.ktap(pivot).splitlines())
    assert [ok for ok, _, _ in kernels] == ["not ok", "not ok", "ok"]
    cases = [case for _, cases, _ in kernels for case in cases]
    assert len(cases) == len(pivot.results)
    assert {"XFAIL", "ERROR", None} == {directive for _, _, directive in cases}
    skipped = dataclasses.replace(pivot.results[1], verdict=matrix.Kind.SKIP, reason="no # here")
    assert "ok 1 missing_unlock.bcc # SKIP no _ here" in export.ktap(matrix.Matrix([skipped]))


def test_kcidb_takes_it(pivot):
    schema = pytest.importorskip("kcidb_io", reason="pip install -e .[test] brings it").schema
    data = export.kcidb(pivot, "me")
    schema.V5_3.validate(data)
    assert len({test["id"] for test in data["tests"]}) == len(pivot.results)
    assert {t["build_id"] for t in data["tests"]} == {b["id"] for b in data["builds"]}
    assert {b["checkout_id"] for b in data["builds"]} == {c["id"] for c in data["checkouts"]}


def test_kcidb_of_a_kernel_that_did_not_come_up(pivot):
    dead = dataclasses.replace(pivot.results[1], kernel="", column="~/linux", facts={})
    (test,) = export.kcidb(matrix.Matrix([dead]), "me")["tests"]
    assert test["status"] == "MISS"


def test_the_command_writes_them(tmp_path, capsys):
    for form, start in ((["--junit"], "<?xml"), (["--ktap"], "KTAP"), (["--kcidb", "me"], "{")):
        assert command.main(["report", str(DATA), *form]) == 0
        assert capsys.readouterr().out.startswith(start)
    assert command.main(["report", str(DATA), "--kcidb", "Me!"]) == 2


def test_the_ci_files_are_yaml_and_name_every_kernel():
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "ci.md").read_text(), re.DOTALL)
    github, gitlab = [yaml.safe_load(block) for block in blocks[:2]]
    assert github["jobs"]["kernel"]["strategy"]["matrix"]["kernel"] == catalogue.all_names()
    assert github["jobs"]["report"]["needs"] == "kernel"
    assert gitlab["kernel"]["parallel"]["matrix"][0]["KERNEL"] == catalogue.all_names()
    assert gitlab["report"]["needs"] == ["kernel"]
    for script in re.findall(r"spinlock (?:run|report) .*", "".join(blocks)):
        words = re.sub(r"\$\{\{.*?\}\}", "6.12", script).split(" ||")[0].split()[1:]
        command._parser().parse_args([word.strip('"') for word in words])
