# SPDX-License-Identifier: GPL-2.0-only
"""An answer's causes are told once, and a long report folds."""

import pytest

from harness.check import examine, report
from harness.check.answer import OBJECT, Answer
from harness.check.examine import OnKernel, Outcome
from harness.check.refusal import Refusal
from harness.provision import elf

KERNELS = ("6.1", "6.12")


def answer(whys, problem=None, kernels=KERNELS):
    """What kernels said, all the same: the refusal of each program by its name, None: it loads."""
    programs = {name: Outcome(why) for name, why in whys.items()}
    rows = [OnKernel(kernel, f"{kernel}.1", programs, problem) for kernel in kernels]
    source = examine.Source("prog.o", b"", elf.Object({}, tuple(whys), {}))
    return Answer(source, tuple(whys), tuple(rows), None, tuple(kernels))


def refused(line="no unlock", number=3, name="missing-unlock", advice="unlock"):
    return Refusal(name, line, file="a.c", line_number=number, source="return 0;", advice=advice)


def test_one_cause_of_several_programs_is_told_once_with_its_places():
    found = answer({"one": refused(number=3), "two": refused(number=9), "three": None})
    (group,) = found.groups()
    assert (group.programs, group.kernels) == (("one", "two"), KERNELS)
    assert [place[0] for place in group.places] == ["a.c:3", "a.c:9"]
    text = report.terminal(found)
    assert text.count("no unlock") == 1
    assert "a.c:3  return 0;  (one)\n           a.c:9  return 0;  (two)\n" in text


def test_symptoms_of_one_cause_are_left_out():
    told = {n: refused(f"BTF refused; so: {n}", name="btf-refused") for n in ("one", "two")}
    (group,) = answer(told).groups()
    assert group.refusal.line == "BTF refused"
    (alone,) = answer({"one": told["one"], "two": None}).groups()
    assert alone.refusal.line == "BTF refused; so: one"


def test_causes_that_differ_stay_apart():
    for other in (refused("another"), refused(advice="x"), refused(name="second-lock")):
        assert len(answer({"one": refused(), "two": other}).groups()) == 2


def test_a_refusal_of_the_whole_object_is_told_once():
    found = answer({"one": None, "two": None}, refused(name="object"))
    (group,) = found.groups()
    assert group.programs == (OBJECT,) and not found.good
    assert report.terminal(found).count("no unlock") == 1


@pytest.mark.parametrize("count, folds", [(12, False), (13, True), (200, True)])
def test_a_long_table_folds_and_all_of_it_is_there_for_the_asking(count, folds):
    whys = {f"p{i}": refused(number=i) if i % 2 else None for i in range(count)}
    short, whole = report.terminal(answer(whys)), report.terminal(answer(whys), everything=True)
    assert ("more" in short.split("\n\n")[1]) is folds
    assert all(f"\np{i} " in whole for i in range(count))
    assert len(short.splitlines()) < 35
    refusals = range(1, count, 2)
    assert all(f"a.c:{i} " in whole for i in refusals)
    assert f"and {len(refusals) - report.MOST_PLACES} more places: --all" in short


def test_many_causes_fold():
    found = answer({f"p{i}": refused(f"line {i}") for i in range(20)})
    text = report.terminal(found)
    assert "line 7" in text and "line 8" not in text
    assert "12 more causes are not shown, of p8, p9, p10, p11, p12, p13 and 6 more" in text
    assert "line 19" in report.terminal(found, everything=True)
    assert "line 8" not in report.markdown(found) and "line 19" in report.markdown(found, True)
