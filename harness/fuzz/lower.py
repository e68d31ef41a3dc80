# SPDX-License-Identifier: GPL-2.0-only
"""Makes BPF instructions of a program. Pure.

r6 holds the context in main, r8 the value of an `each` function, r9 points to the frame with the
variables: main's own, handed to static functions and callbacks, or a global function's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Type

from harness.fuzz import ir, world
from harness.guest import uapi

# Offsets in the frame of the variables.
_CONTEXT, _VARIABLES, _COUNTERS = -8, -16, -16 - 8 * ir.VARIABLES
# Offsets of a helper's key: below the counters, or in a frame without variables.
_KEY, _OWN_KEY = _COUNTERS - 8 * ir.MOST_LOOPS, -8
_ROUNDS = 1000  # of bpf_loop()

_MAP_FD, _MAP_VALUE, _CALL, _FUNC = 1, 2, 1, 4  # src_reg: BPF_PSEUDO_…
_WIDTH = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_LDX, _ST, _STX, _ATOMIC = 0x61, 0x62, 0x63, 0xC3
_LOOKUP, _UPDATE, _FOR_EACH, _LOOP = 1, 2, 164, 181
_JSET, _JEQ, _JLT = 0x45, 0x15, 0xA5
BPF_F_TEST_STATE_FREQ = 1 << 3


@dataclass(frozen=True)
class Code:
    """A program as it is loaded."""

    type: int
    attach: int
    flags: int
    instructions: bytes
    functions: Tuple[Tuple[int, str], ...]  # (first instruction, static or global); () if not told


@dataclass
class _Jump:
    """An instruction whose target is not known yet."""

    place: int
    label: int


class Lowering:
    """The instructions of one program, as they are written."""

    def __init__(self, program: ir.Program) -> None:
        self._program = program
        self._type = world.TYPES[program.type]
        self._code: List[bytes] = []
        self._jumps: List[_Jump] = []
        self._labels: List[int] = []
        self._references: List[Tuple[int, int]] = []  # instructions that name a function
        self._counters = 0
        self._key_at = _KEY
        self._called = ir.called(program)

    def code(self) -> Code:
        """Write all functions; return them."""
        starts: Dict[int, int] = {}
        functions = self._program.functions
        for number in self._called:
            starts[number] = len(self._code)
            self._enter(functions[number].kind)
            if self._body(functions[number].body):
                self._exit()
        for jump in self._jumps:
            self._aim(jump)
        for place, number in self._references:
            code, registers, off, _ = struct.unpack("<BBhi", self._code[place])
            self._code[place] = _insn(code, registers, off, starts[number] - place - 1)
        kinds = [functions[number].kind for number in self._called]
        told: Tuple[Tuple[int, str], ...] = ()
        if set(kinds) - {ir.MAIN, ir.STATIC}:
            whole = (ir.MAIN, ir.GLOBAL)
            told = tuple(
                (starts[number], "global" if functions[number].kind in whole else "static")
                for number in self._called
            )
        flags = BPF_F_TEST_STATE_FREQ if self._program.often else 0
        kind = self._type
        return Code(kind.number, kind.attach, flags, b"".join(self._code), told)

    # -- instructions -----------------------------------------------------------------------------

    def _put(self, code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> None:
        self._code.append(_insn(code, src << 4 | dst, off, imm))

    def _mov(self, dst: int, src: int) -> None:
        self._put(0xBF, dst, src)

    def _set(self, dst: int, imm: int) -> None:
        self._put(0xB7, dst, imm=imm)

    def _add(self, dst: int, imm: int) -> None:
        if imm:
            self._put(0x07, dst, imm=imm)

    def _load(self, dst: int, src: int, off: int, size: int = 8) -> None:
        self._put(_LDX | _WIDTH[size], dst, src, off)

    def _store(self, dst: int, off: int, src: int) -> None:
        self._put(_STX | _WIDTH[8], dst, src, off)

    def _wide(self, dst: int, src: int, low: int, high: int = 0) -> None:
        self._put(0x18, dst, src, imm=low)
        self._put(0, imm=high)

    def _map(self, dst: int, name: str) -> None:
        self._wide(dst, _MAP_FD, world.map_fd(name))

    def _helper(self, number: int) -> None:
        self._put(0x85, imm=number)

    def _exit(self) -> None:
        self._set(0, 0)
        self._put(0x95)

    def _label(self) -> int:
        self._labels.append(-1)
        return len(self._labels) - 1

    def _here(self, label: int) -> None:
        self._labels[label] = len(self._code)

    def _jump(self, label: int, code: int = 0x05, dst: int = 0, imm: int = 0) -> None:
        self._jumps.append(_Jump(len(self._code), label))
        self._put(code, dst, imm=imm)

    def _aim(self, jump: _Jump) -> None:
        code, registers, _, imm = struct.unpack("<BBhi", self._code[jump.place])
        off = self._labels[jump.label] - jump.place - 1
        self._code[jump.place] = _insn(code, registers, off, imm)

    # -- functions and variables ------------------------------------------------------------------

    def _enter(self, kind: str) -> None:
        """Begin a function: find or make the frame with the variables."""
        self._key_at = _KEY if kind in (ir.MAIN, ir.GLOBAL) else _OWN_KEY
        if kind == ir.STATIC:
            self._mov(9, 1)
        elif kind == ir.LOOP:
            self._mov(9, 2)
        elif kind == ir.EACH:
            self._mov(8, 3)
            self._mov(9, 4)
        else:
            self._mov(9, 10)
            if kind == ir.MAIN:
                self._mov(6, 1)
                self._store(9, _CONTEXT, 1)
            self._set(1, 0)
            if kind == ir.GLOBAL:
                self._store(9, _CONTEXT, 1)
            for var in range(ir.VARIABLES):
                self._store(9, _slot(var), 1)
        if kind != ir.EACH:
            self._set(8, 0)

    def _get(self, dst: int, var: int) -> None:
        self._load(dst, 9, _slot(var))

    def _keep(self, var: int, src: int) -> None:
        self._store(9, _slot(var), src)

    def _number(self, dst: int, mask: int) -> None:
        """A number that the verifier knows nothing of but a mask."""
        off, size = self._type.field
        self._load(dst, 9, _CONTEXT)
        self._load(dst, dst, off, size)
        if mask:
            self._put(0x57, dst, imm=mask)

    def _key(self, key: int) -> None:
        """Make r2 point to a key."""
        self._put(_ST, 10, off=self._key_at, imm=key)
        self._mov(2, 10)
        self._add(2, self._key_at)

    # -- statements -------------------------------------------------------------------------------

    def _body(self, body: ir.Body) -> bool:
        """Write a body; return whether its end is reached."""
        for statement in body:
            if _STATEMENTS[type(statement)](self, statement) is False:
                return False
        return True

    def lookup(self, s: ir.Lookup) -> None:
        """See ir.Lookup."""
        self._map(1, s.map)
        self._key(s.key)
        self._helper(_LOOKUP)
        self._keep(s.var, 0)

    def inner(self, s: ir.Inner) -> None:
        """See ir.Inner."""
        done = self._label()
        self._map(1, s.map)
        self._key(s.element)
        self._helper(_LOOKUP)
        self._jump(done, _JEQ, 0, 0)
        self._mov(1, 0)
        self._key(s.key)
        self._helper(_LOOKUP)
        self._here(done)
        self._keep(s.var, 0)

    def direct(self, s: ir.Direct) -> None:
        """See ir.Direct."""
        self._wide(1, _MAP_VALUE, world.map_fd(s.map))
        self._keep(s.var, 1)

    def value(self, s: ir.Value) -> None:
        """See ir.Value."""
        self._keep(s.var, 8)

    def copy(self, s: ir.Copy) -> None:
        """See ir.Copy."""
        self._get(1, s.of)
        self._keep(s.var, 1)

    def clear(self, s: ir.Clear) -> None:
        """See ir.Clear."""
        self._set(1, 0)
        self._keep(s.var, 1)

    def move(self, s: ir.Move) -> None:
        """See ir.Move."""
        self._get(1, s.var)
        self._add(1, s.by)
        self._keep(s.var, 1)

    def shift(self, s: ir.Shift) -> None:
        """See ir.Shift."""
        self._number(2, s.mask)
        self._get(1, s.var)
        self._put(0x0F, 1, 2)
        self._keep(s.var, 1)

    def lock(self, s: ir.Lock) -> None:
        """See ir.Lock."""
        self._get(1, s.var)
        self._add(1, s.at)
        self._helper(uapi.BPF_FUNC_SPIN_LOCK)

    def unlock(self, s: ir.Unlock) -> None:
        """See ir.Unlock."""
        self._get(1, s.var)
        self._add(1, s.at)
        self._helper(uapi.BPF_FUNC_SPIN_UNLOCK)

    def load(self, s: ir.Load) -> None:
        """See ir.Load."""
        self._get(1, s.var)
        self._load(2, 1, s.at, s.size)

    def store(self, s: ir.Store) -> None:
        """See ir.Store."""
        self._get(1, s.var)
        self._put(_ST | _WIDTH[s.size], 1, off=s.at, imm=1)

    def atomic(self, s: ir.Atomic) -> None:
        """See ir.Atomic."""
        self._get(1, s.var)
        self._set(2, 1)
        self._put(_ATOMIC | _WIDTH[s.size], 1, 2, s.at)

    def hand(self, s: ir.Pass) -> None:
        """See ir.Pass."""
        self._map(1, "plain")
        self._key(0)
        self._get(3, s.var)
        self._add(3, s.at)
        self._set(4, 0)
        self._helper(_UPDATE)

    def helper(self, s: ir.Helper) -> None:
        """See ir.Helper."""
        self._helper(s.number)

    def load_absolute(self, s: ir.LoadAbsolute) -> None:
        """See ir.LoadAbsolute."""
        self._put(0x20, imm=0)

    def branch(self, s: ir.If) -> Optional[bool]:
        """See ir.If."""
        self._number(1, 0)
        label = self._label()
        skip = self._label()
        self._jump(label, _JSET, 1, 1 << s.bit)
        self._jump(skip)
        self._here(label)
        return self._two(s.then, s.orelse, skip)

    def branch_set(self, s: ir.IfSet) -> Optional[bool]:
        """See ir.IfSet."""
        self._get(1, s.var)
        label = self._label()
        self._jump(label, _JEQ, 1, 0)
        return self._two(s.then, s.orelse, label)

    def _two(self, then: ir.Body, orelse: ir.Body, label: int) -> Optional[bool]:
        """Write a body, and another at a label; return False if no end is reached."""
        end = self._label()
        here = self._body(then)
        if here and orelse:
            self._jump(end)
        self._here(label)
        there = self._body(orelse)
        self._here(end)
        return None if here or there else False

    def repeat(self, s: ir.Repeat) -> Optional[bool]:
        """See ir.Repeat."""
        at = _COUNTERS - 8 * self._counters
        self._counters += 1
        self._set(1, 0)
        self._store(9, at, 1)
        label = self._label()
        self._here(label)
        if not self._body(s.body):
            return False
        self._load(1, 9, at)
        self._add(1, 1)
        self._store(9, at, 1)
        self._jump(label, _JLT, 1, s.times)
        return None

    def call(self, s: ir.Call) -> None:
        """See ir.Call."""
        if self._program.functions[s.function].kind == ir.STATIC:
            self._mov(1, 9)
        self._references.append((len(self._code), s.function))
        self._put(0x85, src=_CALL)

    def for_each(self, s: ir.ForEach) -> None:
        """See ir.ForEach."""
        self._map(1, s.map)
        self._callback(s.function)
        self._helper(_FOR_EACH)

    def bpf_loop(self, s: ir.BpfLoop) -> None:
        """See ir.BpfLoop."""
        self._set(1, _ROUNDS)
        self._callback(s.function)
        self._helper(_LOOP)

    def _callback(self, function: int) -> None:
        self._references.append((len(self._code), function))
        self._wide(2, _FUNC, 0)
        self._mov(3, 9)
        self._set(4, 0)

    def exit(self, s: ir.Exit) -> bool:
        """See ir.Exit."""
        self._exit()
        return False


def lower(program: ir.Program) -> Code:
    """Return the instructions of a program."""
    return Lowering(program).code()


def _slot(var: int) -> int:
    return _VARIABLES - 8 * var


def _insn(code: int, registers: int, off: int, imm: int) -> bytes:
    return struct.pack("<BBhi", code, registers, off, imm)


# By type of statement; each takes its own.
_STATEMENTS: Mapping[Type[ir.Statement], Callable[[Lowering, Any], Optional[bool]]] = {
    ir.Lookup: Lowering.lookup,
    ir.Inner: Lowering.inner,
    ir.Direct: Lowering.direct,
    ir.Value: Lowering.value,
    ir.Copy: Lowering.copy,
    ir.Clear: Lowering.clear,
    ir.Move: Lowering.move,
    ir.Shift: Lowering.shift,
    ir.Lock: Lowering.lock,
    ir.Unlock: Lowering.unlock,
    ir.Load: Lowering.load,
    ir.Store: Lowering.store,
    ir.Atomic: Lowering.atomic,
    ir.Pass: Lowering.hand,
    ir.Helper: Lowering.helper,
    ir.LoadAbsolute: Lowering.load_absolute,
    ir.If: Lowering.branch,
    ir.IfSet: Lowering.branch_set,
    ir.Repeat: Lowering.repeat,
    ir.Call: Lowering.call,
    ir.ForEach: Lowering.for_each,
    ir.BpfLoop: Lowering.bpf_loop,
    ir.Exit: Lowering.exit,
}
