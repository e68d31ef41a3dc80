# SPDX-License-Identifier: GPL-2.0-only
"""A program and the functions it calls, counted as the verifier counts them."""

from harness.check import examine
from harness.check.linked import Linked
from harness.provision import elf
from harness.provision.elf import Insn, Target

NOTHING, EXIT = Insn(0xB7, 0, 0, 0, 0), Insn(0x95, 0, 0, 0, 0)


def function(name, section, calls, lines=None):
    insns = [*(Insn(0x85, 0, 1, 0, 0) for _ in calls), EXIT]
    targets = {at: Target("function", called) for at, called in enumerate(calls)}
    return elf.Function(name, section, insns, targets, lines or {}, is_global=section != ".text")


FUNCTIONS = {
    f.name: f
    for f in (
        function("main", "tc", ["a", "b"]),
        function("a", ".text", ["c"]),
        function("b", ".text", ["a"]),
        function("c", ".text", [], {0: ("prog.c", 7)}),
        function("slot", "xdp", ["c"]),
        function("new", "freplace/slot", []),
    )
}


def test_what_is_called_first_comes_first_with_all_that_it_calls():
    linked = Linked(FUNCTIONS, "main")
    assert [part.name for part in linked.parts] == ["main", "a", "c", "b"]
    assert linked.place(3) == (FUNCTIONS["a"], 0)
    assert linked.line(5) == ("prog.c", 7)
    assert linked.place(8) is None and linked.place(None) is None


def test_functions_that_call_each_other_end():
    circle = {f.name: f for f in (function("x", "tc", ["y"]), function("y", ".text", ["x"]))}
    assert [part.name for part in Linked(circle, "x").parts] == ["x", "y"]
    assert Linked(circle, "x").why_not_under_lock("y") == "the global function x()"


def test_which_locks_are_taken():
    code = [Insn(0x85, 0, 0, 0, 93), Insn(0x85, 0, 2, 0, -1), EXIT]
    target = Target("extern", "bpf_res_spin_lock_irqsave")
    one = elf.Function("one", "tc", code, {1: target})
    assert Linked({"one": one}, "one").lock_kinds == {"bpf_spin_lock", "bpf_res_spin_lock"}
    assert not Linked(FUNCTIONS, "main").lock_kinds


def test_the_target_of_an_extension_is_found_in_its_object():
    source = examine.Source("x.o", b"", elf.Object(FUNCTIONS, ("main", "slot", "new"), {}))
    assert source.extended() == {"new": ("slot", "slot")}
    inner = {**FUNCTIONS, "new": function("new", "freplace/c", [])}
    source = examine.Source("x.o", b"", elf.Object(inner, ("slot", "new"), {}))
    assert source.extended() == {"new": ("slot", "c")}
