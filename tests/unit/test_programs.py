"""The C files of a run, and what is said of names that are in none."""

import pytest

from harness import build
from harness.errors import UsageError
from harness.programs import Programs


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
