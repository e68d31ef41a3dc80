# SPDX-License-Identifier: GPL-2.0-only
"""The user's own programs: which pairs are explored, and when an end is that of no order."""

from types import SimpleNamespace

import pytest

from harness import __main__ as command
from harness.errors import UsageError
from harness.explore import own, verdicts
from harness.explore.own import State
from harness.explore.schedule import Outcome, Step, What, parse
from harness.explore.verdicts import Explored
from harness.judging.verdict import Kind
from harness.machines.gdb_stub import Region
from harness.provision.btf import Field
from harness.provision.elf import Map

VISITS = Map(
    "visits",
    2,
    True,
    (Field("lock", 0, 4, "bpf_spin_lock"), Field("packets", 8, 8), Field("bytes", 16, 8)),
    value_size=24,
    key_size=4,
)


def file(**sections):
    functions = {name: SimpleNamespace(section=section) for name, section in sections.items()}
    source = SimpleNamespace(
        name="a.bpf.c",
        programs=tuple(sections),
        object=SimpleNamespace(functions=functions, maps={"visits": VISITS, ".bss": VISITS}),
    )
    return own.Own(source, (VISITS,), b"")


def state(packets, octets, returned=0):
    memory = bytes(8) + packets.to_bytes(8, "little") + octets.to_bytes(8, "little")
    return State((memory,), (bytes(4), returned.to_bytes(4, "little")))


def pair(first, second):
    """A pair of programs whose ends in both orders are known."""
    found = object.__new__(own.Pair)
    found._own = file(add="tc")
    found._memory = SimpleNamespace(elements=(Region(0x1000, 24),))
    found._serial = [first, second]
    found._varies = [frozenset(), frozenset()]
    return found


def test_each_program_is_paired_with_itself_and_with_the_others():
    assert own.pairs(file(add="tc", reset="xdp"), []) == [
        ("add", "add"),
        ("add", "reset"),
        ("reset", "reset"),
    ]
    assert own.pairs(file(add="tc", reset="xdp"), ["reset", "add"]) == [("reset", "add")]


def test_what_cannot_be_run_is_left_out_or_refused_by_name():
    mixed = file(add="tc", probe="kprobe/vfs_read")
    assert own.pairs(mixed, []) == [("add", "add")]
    with pytest.raises(UsageError, match="kprobe/vfs_read"):
        own.pairs(mixed, ["probe"])
    with pytest.raises(UsageError, match="no program sub: it has add, probe"):
        own.pairs(mixed, ["sub"])
    with pytest.raises(UsageError, match="--program"):
        own.pairs(file(**{f"p{number}": "tc" for number in range(5)}), [])


def test_maps_that_are_not_watched_are_named():
    assert file(add="tc").left_out == (".bss",)


def test_an_end_of_either_order_is_right():
    both = pair(state(1, 64), state(0, 0))
    assert both._judged(state(1, 64)) == "" and both._judged(state(0, 0)) == ""


def test_a_lost_update_names_the_field_and_what_it_should_be():
    assert pair(state(2, 128), state(2, 128))._judged(state(1, 128)) == (
        "visits[0].packets is 1, and one program after the other makes it 2"
    )


def test_a_torn_pair_of_fields_is_that_of_no_order():
    assert "one order stand beside" in pair(state(1, 64), state(0, 0))._judged(state(1, 0))


def test_a_return_value_counts():
    wrong = pair(state(2, 2), state(2, 2))._judged(state(2, 2, returned=7))
    assert "what B returned is 7" in wrong


def test_bytes_that_vary_from_run_to_run_are_left_out():
    both = pair(state(2, 100), state(2, 200))
    both._varies = [own._differ(state(2, 100), state(2, 101))] * 2
    assert both._judged(state(2, 117)) == ""
    assert both._judged(state(1, 100)) != ""


def explored(broken="", points=2):
    wanted = parse("A:1 B:end A:end", 2)
    whats = (What.POINT, What.BLOCKED, What.DONE)
    steps = tuple(Step(m, what, 1, "", what is What.POINT) for m, what in zip(wanted.moves, whats))
    return Explored("a | b", (Outcome(wanted, steps, broken),), {"A": points, "B": 2})


def test_the_verdict_on_own_programs():
    assert verdicts.judge_serial(explored(), "x").kind is Kind.PASS
    failed = verdicts.judge_serial(explored("visits[0].packets is 1"), "spinlock explore a.bpf.c")
    assert failed.kind is Kind.FAIL
    assert failed.evidence[-1].startswith("replay: spinlock explore a.bpf.c --replay")
    assert verdicts.judge_serial(explored(points=0), "x").kind is Kind.INCONCLUSIVE


@pytest.mark.parametrize(
    "words, said",
    [
        (["counter", "--program", "x"], "--program goes with a FILE"),
        (["a.bpf.c", "b.bpf.c"], "stands alone"),
        (["missing.bpf.c"], "missing.bpf.c"),
    ],
)
def test_what_cannot_be_explored_is_told_in_one_sentence(words, said, capsys):
    assert command.main(["explore", *words]) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told
