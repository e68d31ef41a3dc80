# SPDX-License-Identifier: GPL-2.0-only
"""The language of random programs: its text, its instructions and the world's BTF."""

import base64
import struct
import zlib

import pytest
from hypothesis import given, settings, strategies as st
from packaging.version import Version

from harness.errors import UsageError
from harness.fuzz import flow, generate, ir, lower, pack, rules, seeds, world
from harness.provision import btf

KERNEL = rules.of(Version("6.18"))


def generated(seed):
    return generate.Generator(seed, KERNEL).program()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**9))
def test_text_of_a_program_is_read_again(seed):
    program = generated(seed)
    assert ir.parse(ir.show(program)) == program


def test_a_seed_decides_the_programs():
    ones, others = (generate.Generator(7, KERNEL) for _ in range(2))
    assert [ones.program() for _ in range(50)] == [others.program() for _ in range(50)]


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "ends where"),
        (
            "program type=xdp\nfunction kind=main {\nlocked var=0\n}",
            "Line 3: there is no statement",
        ),
        ("program type=xdp\nfunction kind=main {\nlock var=0\n}", "Line 3: at= is missing"),
        ("program type=xdp\nfunction kind=main {\nlock var=x at=1\n}", "a number was expected"),
        ("program type=xdp\nfunction kind=main {\nlock var=9 at=1\n}", "variables are 0 to 5"),
        ("program type=xdp\nfunction kind=main {\ncall function=0\n}", "only later ones"),
        ("program type=xdp\nfunction kind=other {\n}", "a function's kind is one of"),
        ("program type=xdp\nfunction kind=static {\n}", "of kind main"),
        ("program type=xdp\nfunction kind=main {\nif bit=1 {\n", "ends where"),
    ],
)
def test_what_is_no_program_is_said(text, words):
    with pytest.raises(UsageError, match=words):
        ir.parse(text)


def test_functions_that_nothing_calls_are_left_out():
    program = ir.parse(
        "program type=xdp\nfunction kind=main {\ncall function=2\n}\n"
        "function kind=static {\n}\nfunction kind=static {\nclear var=1\n}"
    )
    assert ir.trimmed(program).functions == (
        ir.Function(ir.MAIN, (ir.Call(1),)),
        ir.Function(ir.STATIC, (ir.Clear(1),)),
    )


def test_a_call_after_a_return_is_none():
    program = ir.parse(
        "program type=xdp\nfunction kind=main {\nif bit=1 {\nexit\n} else {\nexit\n}\n"
        "call function=1\n}\nfunction kind=static {\n}"
    )
    assert ir.called(program) == [0]
    assert ir.trimmed(program).functions == (ir.Function(ir.MAIN, program.functions[0].body[:1]),)


def instructions(code):
    return list(struct.iter_unpack("<BBhi", code.instructions))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**9))
def test_jumps_stay_in_the_program_and_every_way_ends(seed):
    code = lower.lower(generated(seed))
    rows = instructions(code)
    second = {n + 1 for n, row in enumerate(rows) if row[0] == 0x18}
    for number, (opcode, registers, off, imm) in enumerate(rows):
        if number in second:
            continue
        target = None
        if opcode & 7 == 5 and opcode not in (0x85, 0x95):
            target = number + 1 + off
        if (opcode == 0x85 and registers >> 4 == 1) or (opcode == 0x18 and registers >> 4 == 4):
            target = number + 1 + imm
        assert target is None or (0 <= target < len(rows) and target not in second)
    assert rows[-1][0] == 0x95


def test_a_small_program_becomes_these_instructions():
    program = ir.parse("program type=xdp often=1\nfunction kind=main {\ncopy var=1 of=0\n}")
    code = lower.lower(program)
    assert (code.type, code.flags, code.functions) == (6, 8, ())
    assert instructions(code)[-4:] == [
        (0x79, 0x91, -16, 0),
        (0x7B, 0x19, -24, 0),
        (0xB7, 0x00, 0, 0),
        (0x95, 0x00, 0, 0),
    ]


def test_functions_are_told_where_callbacks_need_it():
    code = lower.lower(seeds.PROGRAMS[2])
    assert [kind for _, kind in code.functions] == ["global", "static", "static"]


def test_a_batch_has_the_programs_one_after_the_other():
    codes = [lower.lower(program) for program in seeds.PROGRAMS]
    data = zlib.decompress(base64.b64decode(pack.pack(codes, world.types())))
    sizes = [20 + len(code.instructions) + 8 * len(code.functions) for code in codes]
    assert len(data) == sum(sizes)
    assert data[20 : 20 + len(codes[0].instructions)] == codes[0].instructions
    assert pack.errnos(base64.b64encode(struct.pack("<3h", 0, 22, 13)).decode()) == [0, 22, 13]


def test_dead_statements_are_no_steps():
    program = ir.parse("program type=xdp\nfunction kind=main {\nexit\nclear var=0\n}")
    assert [step.word for step in flow.flatten(program).steps] == ["exit"]


def test_the_btf_has_the_locks_where_the_layouts_say():
    types = world.types()
    read = btf.Btf(types.data)
    for layout, number in types.values.items():
        assert read.size(number) == layout.size
        locks = [field.offset for field in read.fields(number) if field.lock]
        assert locks == ([layout.lock] if layout.lock >= 0 else [])


def test_damage_makes_no_call_of_an_earlier_function():
    """Once a call was put into the function that it calls."""
    made = generate.Generator(5, KERNEL)
    assert all(ir.is_valid(made.program()) for _ in range(300))
