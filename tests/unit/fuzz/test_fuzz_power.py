# SPDX-License-Identifier: GPL-2.0-only
"""Simulated defects, and the comparison of kernels."""

import pytest
from packaging.version import Version

from harness.fuzz import defects, differential, ir, oracle, rules
from harness.fuzz.findings import Asked

KERNEL, OLD = rules.of(Version("6.12")), rules.of(Version("6.8"))

# A program for each of some defects, which the right oracle refuses.
SHOWS = {
    "returns from main with the lock held": "lock var=0 at=8",
    "unlocks what is not locked": "unlock var=0 at=8",
    "locks twice": "lock var=0 at=8\nlock var=0 at=8\nunlock var=0 at=8",
    "calls a helper under the lock": "lock var=0 at=8\nhelper number=5\nunlock var=0 at=8",
    "LD_ABS under the lock": "lock var=0 at=8\nload_absolute\nunlock var=0 at=8",
    "reads the lock": "load var=0 at=8 size=4",
    "equal states may differ in which lock is held": (
        "if bit=1 {\nlock var=0 at=8\n}\nif bit=2 {\n}\nhelper number=5\nif bit=3 {\n"
        "if_set var=0 {\n}\n}\nif bit=3 {\n}"
    ),
    "equal states may differ in which element a pointer means": (
        "lookup var=1 map=hash key=2\nif_set var=1 {\ncopy var=2 of=0\nif bit=1 {\n"
        "copy var=2 of=1\n}\nif bit=2 {\n}\nlock var=0 at=8\nunlock var=2 at=8\n}"
    ),
}


def program(text, calls=""):
    found = f"lookup var=0 map=hash key=1\nif_set var=0 {{\n{text}\n}}"
    return ir.parse(f"program type=sched_cls\nfunction kind=main {{\n{found}\n}}\n{calls}")


@pytest.mark.parametrize("name", [each.name for each in defects.DEFECTS if each.name in SHOWS])
def test_a_defect_lets_its_program_pass_and_no_other(name):
    shown = program(SHOWS[name])
    assert oracle.judge(shown, KERNEL).answer == oracle.REFUSE
    passing = {
        each.name
        for each in defects.DEFECTS
        if defects.Defective(shown, KERNEL, each).verdict().answer == oracle.ACCEPT
    }
    assert name in passing
    legal = program("lock var=0 at=8\nunlock var=0 at=8")
    for each in defects.DEFECTS:
        if not each.loses:
            assert defects.Defective(legal, KERNEL, each).verdict().answer == oracle.ACCEPT


def test_most_defects_are_found_soon():
    found = defects.power(1, KERNEL, 250)
    assert len(defects.DEFECTS) >= 30
    assert sum(after is not None for after in found.values()) >= 20


def answers(release, clauses, programs, errnos):
    asked = tuple(
        Asked(each, oracle.judge(each, clauses), errno) for each, errno in zip(programs, errnos)
    )
    return differential.Answers(release, Version(release), clauses, asked)


def test_a_changed_answer_is_explained_by_a_clause_or_not_at_all():
    static = "function kind=static {\n}"
    by_clause = program("lock var=0 at=8\ncall function=1\nunlock var=0 at=8", static)
    by_nothing = program("lock var=0 at=8\nunlock var=0 at=8")
    same = program("load var=0 at=0 size=8")
    some = [by_clause, by_nothing, same]
    before = answers("6.8", OLD, some, [22, 0, 0])
    after = answers("6.12", KERNEL, some, [0, 22, 0])
    changes = differential.compare(before, after)
    assert [(each.accepted, each.explained, each.times) for each in changes] == [
        (False, False, 1),
        (True, True, 1),
    ]
    assert "static_calls" in changes[1].cause


def test_a_fault_on_record_explains_a_change():
    confused = program(SHOWS["equal states may differ in which element a pointer means"])
    clauses = rules.of(Version("6.1"))
    before = answers("6.1", clauses, [confused], [0])
    after = answers("6.12", KERNEL, [confused], [22])
    (change,) = differential.compare(before, after)
    assert change.explained and "6.1 is on record" in change.cause
