# SPDX-License-Identifier: GPL-2.0-only
"""The scenarios of bpf_progs/ as a rule book: complete, declared, and with their commits."""

import re
from collections import Counter
from pathlib import Path

import pytest
from packaging.version import Version

from harness.provision import catalogue
from harness.provision.build import PROGRAMS
from harness.scenarios import versions
from harness.scenarios.programs import Programs

READ = Programs.read(PROGRAMS)
FILES = READ.files
CASES = {case.name: case for file in FILES for case in file.scenarios}
DECLARED = [*READ.headers, *(file.declared for file in FILES)]
REFUSALS = [refusal for declared in DECLARED for refusal in declared.refusals]
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


def test_every_rule_has_a_topic_and_what_came_first_stands_first():
    """The restrictions of the lock's first kernel come before what later kernels added."""
    versions = {topic.name: [] for topic in READ.topics()}
    for rule in RULES.values():
        versions[rule.topic].append(Version(rule.since))
    first = [min(brought) for brought in versions.values()]
    assert first[:7] == [Version("5.1")] * 7 and Version("5.1") not in first[7:]


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


def test_what_kernels_say_is_written_once():
    """A text that several cases are told is a refusal's, and one of a header has several files."""
    texts = [m for refusal in REFUSALS for m in {m for e in refusal.clauses for m in e.messages}]
    for file in FILES:
        texts += re.findall(r'__msg\("(.*?)"\)', file.path.read_text())
    assert len(texts) > 80
    assert not [text for text, count in Counter(texts).items() if count > 1]


def test_a_refusal_stands_beside_its_cases_unless_several_files_have_it():
    for refusal in REFUSALS:
        files = {case.file for case in CASES.values() if refusal.name in case.refusals}
        declared = Path(refusal.where.rpartition(":")[0])
        assert len(files) > 1 if declared.suffix == ".h" else files == {declared}, refusal.name
        assert len(refusal.clauses) == 1 or refusal.commits, refusal.name
