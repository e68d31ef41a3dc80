# SPDX-License-Identifier: GPL-2.0-only
"""The C files of a run, and what is said of names that are in none."""

import pytest

from harness.errors import UsageError
from harness.provision import build
from harness.scenarios.programs import Programs


@pytest.fixture(scope="module")
def programs():
    return Programs.read(build.PROGRAMS)


def test_every_scenario_has_one_turn_and_a_twin_comes_before_those_that_need_it(programs):
    ordered = [case.name for case in programs.in_order()]
    assert sorted(ordered) == sorted(case.name for case in programs.scenarios())
    assert len(set(ordered)) == len(ordered)
    case = next(c for c in programs.scenarios() if c.name == "missing_unlock")
    assert ordered.index(case.twin) < ordered.index(case.name)


def test_a_rule_that_nobody_declared_has_no_words(programs):
    assert programs.rule("Unlock before return, on every path").text
    undeclared = programs.rule("Run-time behaviour")
    assert undeclared.name == "Run-time behaviour" and not undeclared.text


def test_a_name_that_selects_nothing_is_explained(programs):
    one = next(case for case in programs.scenarios() if len(case.loaders) == 1)
    said = programs.unknown(one.name, ["missing_unlock"])
    assert said.startswith(f"The scenario '{one.name}' can be loaded by {one.loaders[0]} only: ")
    said = programs.unknown("mising_unlock", ["missing_unlock"])
    assert "There is no scenario 'mising_unlock'" in said and "'missing_unlock'" in said


def test_a_file_is_found_by_its_name(programs):
    assert programs.file("counter.bpf.c").path == build.PROGRAMS / "driven/counter.bpf.c"
    assert programs.file("balance.bpf.c").path == build.PROGRAMS / "rules/balance.bpf.c"
    with pytest.raises(UsageError, match="There is no C file no.bpf.c in "):
        programs.file("no.bpf.c")


LEGAL = 'SEC("tc") __rule("r") __success\nint NAME(struct __sk_buff *skb) { return 0; }\n'


def test_files_are_read_from_a_directory_and_the_folders_in_it_in_order_of_name(tmp_path):
    for place in (
        "b.bpf.c",
        "rules/c.bpf.c",
        "driven/a.bpf.c",
        "rules/deeper/d.bpf.c",
        "rules/e.c",
    ):
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(LEGAL.replace("NAME", file.name[0]))
    read = Programs.read(tmp_path)
    assert [case.name for case in read.in_order()] == ["a", "b", "c"]
    assert read.file("c.bpf.c").path == tmp_path / "rules" / "c.bpf.c"


def test_two_files_of_one_name_are_refused(tmp_path):
    for number, folder in enumerate(("driven", "rules")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.bpf.c").write_text(LEGAL.replace("NAME", f"program_{number}"))
    with pytest.raises(
        UsageError, match="rules/a.bpf.c has the name of .*driven/a.bpf.c: a C file"
    ):
        Programs.read(tmp_path)
