"""The scenarios of bpf_progs/ as a rule book: complete, declared, and with their commits."""

import pytest
from packaging.version import Version

from harness.provision import catalogue
from harness.provision.build import PROGRAMS
from harness.scenarios import versions
from harness.scenarios.programs import Programs

FILES = Programs.read(PROGRAMS).files
CASES = {case.name: case for file in FILES for case in file.scenarios}
RULES = {rule.name: rule for file in FILES for rule in file.rules}

# What v6.1 does with the lock of a callback's value (see callback.bpf.c) leaves nothing to ask there.
SILENT = {("for_each_callback_calls_under_lock", "6.1"), ("unlock_of_other_callback_value", "6.1")}


@pytest.mark.parametrize("minor, version", catalogue.CHECKED.items())
def test_every_case_speaks_of_every_kernel(minor, version):
    """Either one clause does, or the case needs what the kernel is too old to have."""
    silent = {
        (case.name, minor)
        for case in CASES.values()
        if case.expectation(Version(version)) is None
        and not any(Version(need.since) > Version(version) for need in case.needs)
    }
    assert silent == {(name, where) for name, where in SILENT if where == minor}


def test_every_rule_is_declared_and_asked_about():
    named = {case.rule for case in CASES.values()}
    assert named <= set(RULES), "declare it by a comment: Rule: its name, what it is, its commits"
    assert all(rule.text and rule.commits for rule in RULES.values())


def test_every_refusal_has_a_twin_that_is_legal_on_the_same_kernels():
    """A twin that is refused where the case is asked about would make it INCONCLUSIVE there."""
    for case in CASES.values():
        twin = CASES.get(case.twin or "")
        for version in map(Version, catalogue.CHECKED.values()):
            expected = case.expectation(version)
            absent = any(Version(need.since) > version for need in case.needs)
            on_record = any(versions.covers(bug.kernels, version) for bug in case.known_bugs)
            if expected is None or expected.accepted or absent or on_record:
                continue
            assert twin is not None, case.name
            legal = twin.expectation(version)
            assert (
                legal is not None and legal.accepted
            ), f"{twin.name}, of {case.name}, on {version}"
