# SPDX-License-Identifier: GPL-2.0-only
"""Random programs, run by an interpreter: what lockset calls protected is so in every run."""

import random
from dataclasses import dataclass, field
from typing import Any, Dict, List, Tuple

from hypothesis import HealthCheck, given, settings, strategies as st

from harness.check import lockset
from harness.provision import elf
from harness.provision.btf import Field
from harness.provision.elf import Insn, Target

FIELDS = (
    Field("lock", 0, 4, lock="bpf_spin_lock"),
    Field("a", 4, 4),
    Field("b", 8, 8),
    Field("many", 16, 16),
    Field("c", 32, 8),
)
SIZE = 40
MAPS = {
    name: elf.Map(name, 1, True, FIELDS, key_size=4, value_size=SIZE) for name in ("one", "two")
}
R = st.integers(6, 9)
SLOT = st.sampled_from([-8, -16])
JUMP = st.integers(-12, 12)
OP = st.one_of(
    st.tuples(st.just("lookup"), R, st.sampled_from(["one", "two"])),
    st.tuples(st.just("lock"), R),
    st.tuples(st.just("unlock"), R),
    st.tuples(st.just("move"), R, R),
    st.tuples(st.just("set"), R, st.sampled_from([0, 1, 4, 8])),
    st.tuples(st.just("random"), R, st.sampled_from([0, 1, 3, 7, 12, -1])),
    st.tuples(st.just("add"), R, st.sampled_from([4, 8, -4, 16])),
    st.tuples(st.just("sum"), R, R),
    st.tuples(st.just("load"), R, R, st.sampled_from([4, 8, 16, 20, 32])),
    st.tuples(st.just("store"), R, st.sampled_from([4, 8, 16, 24, 32])),
    st.tuples(st.just("atomic"), R, st.sampled_from([8, 32])),
    st.tuples(st.just("spill"), SLOT, R),
    st.tuples(st.just("fill"), R, SLOT),
    st.tuples(st.just("send"), R, st.sampled_from([4, 8, 28, 36])),
    st.tuples(st.just("sendsome"), R, R),
    st.tuples(st.just("null"), R, JUMP),
    st.tuples(st.just("some"), R, JUMP),
    st.tuples(st.just("above"), R, st.integers(0, 9), JUMP),
    st.tuples(st.just("perhaps"), JUMP),
    st.tuples(st.just("update"), st.sampled_from([0, 1, 4])),
)
OPS = st.lists(OP, min_size=3, max_size=22)

_LD, _EXIT = 0x18, Insn(0x95, 0, 0, 0, 0)


def call(number):
    return Insn(0x85, 0, 0, 0, number)


def move(to, of):
    return Insn(0xBF, to, of, 0, 0)


def assembled(ops):
    """Return (instructions, maps in them) of operations; jumps count in operations."""
    blocks: List[List[Any]] = []
    for op, *rest in ops:
        blocks.append(block(op, rest))
    starts, at = [], 0
    for each in blocks:
        starts.append(at)
        at += len(each)
    starts.append(at)
    insns: List[Insn] = []
    targets: Dict[int, Target] = {}
    for index, each in enumerate(blocks):
        for item in each:
            if isinstance(item, tuple) and not isinstance(item, Insn):
                insn, what = item
                if isinstance(what, str):
                    targets[len(insns)] = Target("map", what)
                else:
                    to = starts[min(max(index + 1 + what, 0), len(blocks))]
                    insn = insn._replace(off=to - len(insns) - 1)
                item = insn
            insns.append(item)
    return [*insns, _EXIT], targets


def load_map(name, to=1):
    return [(Insn(_LD, to, 1, 0, 0), name), Insn(0, 0, 0, 0, 0)]


def block(op, rest):
    if op == "lookup":
        return [*load_map(rest[1]), call(1), move(rest[0], 0)]
    if op in ("lock", "unlock"):
        return [move(1, rest[0]), call(93 if op == "lock" else 94)]
    if op == "move":
        return [move(*rest)]
    if op == "set":
        return [Insn(0xB7, rest[0], 0, 0, rest[1])]
    if op == "random":
        return [call(7), move(rest[0], 0), Insn(0x57, rest[0], 0, 0, rest[1])]
    if op == "add":
        return [Insn(0x07, rest[0], 0, 0, rest[1])]
    if op == "sum":
        return [Insn(0x0F, rest[0], rest[1], 0, 0)]
    if op == "load":
        return [Insn(0x61, rest[0], rest[1], rest[2], 0)]
    if op == "store":
        return [Insn(0x62, rest[0], 0, rest[1], 1)]
    if op == "atomic":
        return [Insn(0xB7, 3, 0, 0, 1), Insn(0xDB, rest[0], 3, rest[1], 0)]
    if op == "spill":
        return [Insn(0x7B, 10, rest[1], rest[0], 0)]
    if op == "fill":
        return [Insn(0x79, rest[0], 10, rest[1], 0)]
    if op == "send":
        return [move(2, rest[0]), Insn(0xB7, 3, 0, 0, rest[1]), call(130)]
    if op == "sendsome":
        return [move(2, rest[0]), move(3, rest[1]), call(130)]
    if op == "null":
        return [(Insn(0x15, rest[0], 0, 0, 0), rest[1])]
    if op == "some":
        return [(Insn(0x55, rest[0], 0, 0, 0), rest[1])]
    if op == "above":
        return [(Insn(0x25, rest[0], 0, 0, rest[1]), rest[2])]
    if op == "perhaps":
        return [call(7), Insn(0x57, 0, 0, 0, 1), (Insn(0x15, 0, 0, 0, 0), rest[0])]
    return [*load_map("one"), Insn(0xB7, 4, 0, 0, rest[0]), call(2)]


@dataclass(frozen=True)
class At:
    """A pointer to an offset in an element."""

    map: str
    element: int
    offset: int


class Refused(Exception):
    """The verifier would not have it."""


@dataclass
class Run:
    """One run: (map, field, is a change, is under the element's lock)."""

    insns: List[Insn]
    targets: Dict[int, Target]
    chance: random.Random
    registers: List[Any] = field(default_factory=lambda: [None] * 11)
    slots: Dict[int, Any] = field(default_factory=dict)
    held: Tuple[Any, ...] = ()
    seen: List[Tuple[str, str, bool, bool]] = field(default_factory=list)

    def go(self):
        at = 0
        try:
            for _ in range(400):
                insn = self.insns[at]
                if insn.code == 0x95:
                    return
                at = self.step(at, insn)
        except Refused:
            pass

    def step(self, at, insn):
        r, code = self.registers, insn.code
        if code == _LD:
            r[insn.dst] = self.targets[at].name
            return at + 2
        if code == 0x85:
            self.call(insn.imm)
        elif code in (0x15, 0x55, 0x25):
            return at + 1 + (insn.off if self.true(code, r[insn.dst], insn.imm) else 0)
        elif code in (0xBF, 0xB7):
            r[insn.dst] = r[insn.src] if code == 0xBF else insn.imm
        elif code == 0x57:
            r[insn.dst] &= insn.imm & 0xFFFFFFFF
        elif code in (0x07, 0x0F):
            r[insn.dst] = self.sum(r[insn.dst], insn.imm if code == 0x07 else r[insn.src])
        elif code == 0x7B:
            self.slots[insn.off] = r[insn.src]
        elif code == 0x79:
            r[insn.dst] = self.slots.get(insn.off)
        elif code == 0x61:
            self.touch(r[insn.src], insn.off, 4, False)
            r[insn.dst] = self.chance.choice([0, 1, 5, 1 << 31])
        else:
            self.touch(r[insn.dst], insn.off, 8 if code == 0xDB else 4, True)
        return at + 1

    def true(self, code, left, right):
        if left is None or (isinstance(left, At) and code == 0x25):
            raise Refused
        if isinstance(left, At):
            return code == 0x55
        return {0x15: left == right, 0x55: left != right, 0x25: left > right}[code]

    def sum(self, left, right):
        if isinstance(right, At):
            left, right = right, left
        if not isinstance(right, int) or left is None:
            raise Refused
        if isinstance(left, At):
            return At(left.map, left.element, left.offset + right)
        return (left + right) & ((1 << 64) - 1)

    def call(self, number):
        r, result = self.registers, None
        if number == 1:
            result = self.chance.choice([0, At(r[1], 0, 0), At(r[1], 1, 0)])
        elif number == 7:
            result = self.chance.getrandbits(32)
        elif number in (93, 94):
            self.lock(r[1], number == 93)
        elif number == 2 and r[4] != 1:
            self.seen += [(r[1], f.name, True, r[4] == 4) for f in FIELDS[1:]]
        elif number == 130:
            if not isinstance(r[3], int):
                raise Refused
            self.touch(r[2], 0, r[3], False)
        r[0:6] = [result, *[None] * 5]

    def lock(self, pointer, take):
        if not isinstance(pointer, At) or pointer.offset != 0:
            raise Refused
        element = (pointer.map, pointer.element)
        if take == bool(self.held) or (not take and element not in self.held):
            raise Refused
        self.held = (element,) if take else ()

    def touch(self, pointer, offset, size, change):
        if not isinstance(pointer, At):
            raise Refused
        at = pointer.offset + offset
        if at < 4 or at + size > SIZE:
            raise Refused
        locked = (pointer.map, pointer.element) in self.held
        for part in FIELDS[1:]:
            if size and part.overlaps(at, size):
                self.seen.append((pointer.map, part.name, change, locked))


def judge(ops, seed, turns=20):
    """Fail if a run of the program contradicts what is said of its fields."""
    insns, targets = assembled(ops)
    program = elf.Function("program", "tc", insns, targets)
    found = elf.Object({"program": program}, ("program",), MAPS)
    findings = lockset.analyse(found, found.programs)
    for turn in range(turns):
        run = Run(insns, targets, random.Random(seed + turn))
        run.go()
        for name, part, change, locked in run.seen:
            verdict = findings.verdict(name, part)
            shown = (verdict, name, part, change, locked, [*enumerate(insns)])
            assert verdict != "not touched", shown
            assert verdict != "protected" or locked, shown
            unlocked_change = change and not locked
            assert (
                verdict not in ("only read", "read without the lock") or not unlocked_change
            ), shown


def found(register, name):
    """Return a lookup after which there is a value, or the program ends."""
    return [("lookup", register, name), ("null", register, 99)]


SLOW = [HealthCheck.too_slow]
SEEDS = st.integers(0, 1 << 30)


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(st.lists(st.tuples(R, st.sampled_from(["one", "two"])), max_size=2), OPS, SEEDS)
def test_what_is_called_protected_is_so_in_every_run(lookups, ops, seed):
    judge([op for look in lookups for op in found(*look)] + ops, seed)


SHUFFLE = st.lists(
    st.one_of(
        st.tuples(st.just("move"), R, R),
        st.tuples(st.just("perhaps"), st.integers(1, 3)),
        st.tuples(st.just("spill"), SLOT, R),
        st.tuples(st.just("fill"), R, SLOT),
        st.tuples(st.just("lookup"), R, st.just("one")),
        st.tuples(st.just("some"), R, st.integers(1, 3)),
        st.tuples(st.just("set"), R, st.just(0)),
        st.tuples(st.just("perhaps"), st.integers(-8, -1)),
    ),
    max_size=9,
)


@settings(max_examples=6, deadline=None, suppress_health_check=SLOW)
@given(SHUFFLE, SHUFFLE, R, R, st.booleans(), SEEDS)
def test_an_element_is_not_taken_for_another(before, within, locked, changed, again, seed):
    """Elements change places on some paths and in some turns; one is locked, one is written."""
    ops = [*found(6, "one"), *found(7, "one"), ("move", 8, 6), ("move", 9, 7), *before]
    ops += [("lock", locked), *within, ("store", changed, 8), ("unlock", locked)]
    judge([*ops, ("perhaps", -len(before) - len(within) - 4)] if again else ops, seed, 30)
