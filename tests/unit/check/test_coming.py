# SPDX-License-Identifier: GPL-2.0-only
"""`--next`: newer kernels are asked where they are fetched; for the others the rule book speaks."""

import json

import pytest

from harness.check import checking, coming, examine, lockset, report, report_json, since
from harness.check.answer import Answer
from harness.check.coming import Breach, Coming
from harness.check.examine import OnKernel, Outcome
from harness.check.refusal import Refusal
from harness.provision import elf, kernel_store
from harness.provision.btf import Field

WHY = Refusal("two-locks", "more than one lock")
LOCKS = tuple(Field(f"{n}.lock", 8 * i, 4, lock="bpf_spin_lock") for i, n in enumerate("ab"))


def source(declared, section="tc"):
    code = [elf.Insn(0x18, 1, 1, 0, 0), elf.Insn(0, 0, 0, 0, 0), elf.Insn(0x95, 0, 0, 0, 0)]
    uses = elf.Function("one", section, code, {0: elf.Target("map", "m")})
    free = elf.Function("two", section, code[2:])
    functions = {"one": uses, "two": free}
    return examine.Source("a.o", b"", elf.Object(functions, ("one", "two"), {"m": declared}))


TWO = source(elf.Map("m", 1, True, LOCKS))


def row(kernel, one=None, two=None, release=""):
    release = release or f"{kernel}.1"
    return OnKernel(kernel, release, {"one": Outcome(one), "two": Outcome(two)})


def test_the_rule_book_speaks_of_what_loads_on_the_newest_and_no_later_one_was_asked():
    (breach,) = coming.breaches(TWO, row("6.16"), [])
    assert breach.programs == ("one",) and breach.what == "map 'm' has 2 locks in a value"
    assert breach.scenario == "two_inner_locks" and "before v7.2" in breach.taken
    assert breach.rule == "One lock per value"


@pytest.mark.parametrize(
    "base, asked",
    [
        (row("6.16", one=WHY), []),  # it does not load today
        (row("6.16"), [row("7.3", one=WHY)]),  # a later kernel was asked
        (row("7.3"), []),  # the rule book says that this kernel refuses it already
    ],
)
def test_the_rule_book_is_silent(base, asked):
    assert coming.breaches(TWO, base, asked) == ()


def test_a_later_kernel_that_takes_it_still_leaves_the_rule_book_its_word():
    assert coming.breaches(TWO, row("6.16"), [row("7.1")])


@pytest.mark.parametrize(
    "declared, expected",
    [
        (
            elf.Map("m", 1, True, (LOCKS[0], Field("lock", 16, 4, "bpf_spin_lock"))),
            "lock_and_inner_lock",
        ),
        (
            elf.Map("m", 1, True, (LOCKS[0], Field("r", 16, 8, "bpf_res_spin_lock"))),
            "both_kinds_of_lock",
        ),
        (
            elf.Map("m", 24, True, (LOCKS[0], Field("t", 16, 16, kernel="bpf_timer"))),
            "lock_beside_timer_in_storage",
        ),
        (elf.Map("m", 1, True, (LOCKS[0], Field("t", 16, 16, kernel="bpf_timer"))), None),
        (elf.Map("m", 1, True, LOCKS[:1]), None),
    ],
)
def test_what_is_compared_with_the_rule_book(declared, expected):
    found = [each for _, each, _ in coming._doings(source(declared))]
    assert found == ([expected] if expected else [])
    assert all(since.spans(each) for each in found), "there is such a scenario"


def test_which_kernels_are_newer(monkeypatch):
    monkeypatch.setattr(kernel_store, "cached", lambda name: name if name != "7.0" else None)
    fetched, left = coming.newer(row("6.18", release="6.18.15"))
    assert fetched[0] == "6.19" and left == ["7.0"] and "6.18" not in fetched
    assert coming.newer(row("own", release="99.1"))[0] == []


def answer(rows, breaches=()):
    known = Coming("6.16", ("7.2", "7.3"), ("7.1",), breaches)
    return Answer(TWO, ("one", "two"), rows, lockset.Findings(()), ("6.16",), coming=known)


def test_what_newer_kernels_refuse_is_told_and_says_who_says_so():
    rows = (row("6.16"), row("7.2", one=WHY), row("7.3", one=WHY, two=WHY))
    found = answer(rows, (Breach("map 'm' has 2 locks in a value", "two_inner_locks", ("one",)),))
    assert found.good, "newer kernels are not required"
    text = report.terminal(found)
    assert "kernels newer than 6.16\n" in text
    assert "  one: refused on 7.2, 7.3, as they were asked: two-locks" in text
    assert "  two: refused on 7.3, as they were asked: two-locks" in text
    assert "  one: by the rule book: map 'm' has 2 locks in a value; " in text
    assert "only looked up in the rule book: 7.1" in text and "kernels fetch 7.1" in text
    assert "one: refused on 7.2, 7.3" in report.markdown(found)
    data = json.loads(json.dumps(report_json.to_json(found)))["next"]
    assert data["refused"][0] == {"program": "one", "kernels": ["7.2", "7.3"], "class": "two-locks"}
    assert data["by_rule_book"][0]["scenario"] == "two_inner_locks" and data["not_asked"] == ["7.1"]


def test_nothing_refused_is_said_too():
    text = report.terminal(answer((row("6.16"), row("7.2"), row("7.3"))))
    assert "asked, and none refuses what loads on 6.16" in text
    assert "none refuses" not in report.terminal(answer((row("6.16"), row("7.2", one=WHY))))


def test_newer_kernels_are_asked_after_those_that_were_named(monkeypatch):
    opened = []

    class Guests:
        name = "qemu"

        def close(self):
            opened.append("closed")

    def open_target(settings, progress):
        opened.append(settings.kernel)
        return Guests()

    monkeypatch.setattr(checking.choose, "open_target", open_target)
    monkeypatch.setattr(checking.coming, "newer", lambda base: (["7.2"], ["7.1"]))
    rows = []
    asking = checking._Asking(["6.12", "6.16"], checking.Options(next=True), print)
    for kernel, _ in asking.guests(rows):
        rows.append(row(kernel))
    assert opened == ["6.12", "closed", "6.16", "closed", "7.2", "closed"]
    found = asking.newer(rows, TWO)
    assert (found.base, found.asked, found.left) == ("6.16", ("7.2",), ("7.1",))
    plain = checking._Asking(["6.12"], checking.Options(), print)
    assert [kernel for kernel, _ in plain.guests([])] == ["6.12"] and plain.newer(rows, TWO) is None
