# SPDX-License-Identifier: GPL-2.0-only
"""Which fields of a value with a lock are touched under it and which without. Pure.

In the spirit of Eraser (Savage et al., 1997), but from the instructions, not from a run: a forward
dataflow follows the pointers that lookups return through registers, the stack and calls, and the
lock that is held. Paths on which different locks are held are kept apart.

Its limits, which LIMITS says to the user: what a pointer does in memory that is not the stack, and
locks of allocated objects, are not followed; an unlocked access may be harmless (before others can
see the element); and what user space does to the map is not in the object.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Deque, Dict, FrozenSet, List, Mapping, Optional, Sequence, Set, Tuple

from harness.guest import uapi
from harness.provision import elf
from harness.provision.btf import Field
from harness.provision.elf import Function, Insn, Object

LIMITS = (
    "Found in the instructions, not in a run. Not followed: pointers kept in maps, allocated objects,"
    " what user space does. An access without the lock may be harmless where nobody else sees the"
    " element yet."
)
MOST_STEPS = 300_000
DEEPEST_CALLS = 8  # as the verifier has it

READ, WRITE, ATOMIC, HELPER = "read", "written", "changed atomically", "given to a helper"
LOCKED, OTHER, UNLOCKED = "under its lock", "under another lock", "without the lock"

_OF_LOCKS = (uapi.BPF_FUNC_SPIN_LOCK, uapi.BPF_FUNC_SPIN_UNLOCK)
_LOOKUP, _UPDATE, _PERCPU_LOOKUP = 1, 2, 195
_STORAGES = (81, 107, 145, 156, 210)  # get_local_storage and the _storage_get family
# Helper -> (register with the callback, register with its context or None).
_CALLBACKS = {164: (2, 3), 170: (2, None), 181: (2, 3)}  # for_each_map_elem, timer_set, loop
_FOR_EACH, _TIMER, _LOOP = 164, 170, 181
# Their callback is given what a timer's is; the second is how kernels up to v6.19 name it.
_WORK_CALLBACKS = ("bpf_wq_set_callback", "bpf_wq_set_callback_impl")
_RES_CALLS = ("bpf_res_spin_lock", "bpf_res_spin_lock_irqsave")
_RES_UNLOCKS = ("bpf_res_spin_unlock", "bpf_res_spin_unlock_irqrestore")

_SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}


@dataclass(frozen=True)
class _Const:
    value: int


@dataclass(frozen=True)
class _MapPointer:
    map: str
    inner: bool = False


@dataclass(frozen=True)
class _Stack:
    frame: int
    offset: int


@dataclass(frozen=True)
class _Code:
    function: str


@dataclass(frozen=True)
class _Value:
    """A pointer into a map's value. `site` tells one lookup's result from another's."""

    map: str
    inner: bool
    site: FrozenSet[Any]
    offset: int = 0
    exact: bool = True  # False: some index was added as well


_Any = Optional[object]  # None: anything
_Lock = Tuple[str, bool, FrozenSet[Any]]  # of which element
_Frames = Tuple[Tuple[str, int], ...]  # (function, index to return to), outermost first


@dataclass(frozen=True)
class _Point:
    """A place in the program with the calls that led there and the locks held."""

    frames: _Frames
    function: str
    index: int
    held: FrozenSet[_Lock]


@dataclass
class _State:
    registers: List[_Any] = field(default_factory=lambda: [None] * 11)
    saved: List[List[_Any]] = field(default_factory=list)  # r6-r9 of the callers
    slots: Dict[Tuple[int, int], _Any] = field(default_factory=dict)

    def copy(self) -> "_State":
        return _State(list(self.registers), [list(s) for s in self.saved], dict(self.slots))


@dataclass(frozen=True)
class Access:
    """One instruction that touches a field."""

    map: str
    field: str
    kind: str
    how: str  # LOCKED, OTHER or UNLOCKED
    program: str
    where: str  # file:line, or the instruction


@dataclass(frozen=True)
class Findings:
    """What was found in an object."""

    accesses: Tuple[Access, ...]
    untouched: Tuple[Tuple[str, str], ...]  # (map, field) of values with a lock
    unfinished: Tuple[str, ...] = ()  # programs too large to follow to the end
    maps: Tuple[str, ...] = ()  # with a lock

    def verdict(self, name: str, part: str) -> str:
        """Say of one field whether its lock protects it."""
        of = [a for a in self.accesses if (a.map, a.field) == (name, part)]
        changes = [a for a in of if a.kind != READ]
        if not of:
            return "not touched"
        if all(a.how == LOCKED for a in of):
            return "protected"
        if not changes:
            return "only read"
        if all(a.kind == ATOMIC for a in changes) and not any(a.how == LOCKED for a in of):
            return "atomic, without the lock"
        if any(a.how != LOCKED for a in changes):
            return "NOT PROTECTED" if any(a.how == LOCKED for a in of) else "never locked"
        return "read without the lock"

    def fields(self) -> List[Tuple[str, str]]:
        """Return the (map, field)s, in order."""
        return list(dict.fromkeys([(a.map, a.field) for a in self.accesses] + [*self.untouched]))

    def lines(self) -> List[str]:
        """Return what is to be said, as lines of text."""
        if not self.maps:
            return []
        lines = ["does the lock protect it?"]
        shown = self.fields()
        width = max([len(f"{name}.{part}") for name, part in shown] or [0]) + 2
        for name, part in shown:
            lines.append(f"  {f'{name}.{part}':<{width}}{self.verdict(name, part)}")
            if self.verdict(name, part) in ("protected", "not touched", "only read"):
                continue
            of = [a for a in self.accesses if (a.map, a.field) == (name, part)]
            for kind, how in dict.fromkeys((a.kind, a.how) for a in of):
                places = dict.fromkeys(
                    f"{a.where} ({a.program})" for a in of if (a.kind, a.how) == (kind, how)
                )
                more = f" and {len(places) - 4} more" if len(places) > 4 else ""
                lines.append(f"    {kind} {how}: {', '.join([*places][:4])}{more}")
        for program in self.unfinished:
            lines.append(f"  {program} is too large to be followed to its end")
        return [*lines, f"  {LIMITS}"]

    def to_json(self) -> Dict[str, Any]:
        """Return it as JSON."""
        return {
            "maps": list(self.maps),
            "fields": [
                {
                    "map": name,
                    "field": part,
                    "verdict": self.verdict(name, part),
                    "accesses": [
                        {"kind": a.kind, "how": a.how, "program": a.program, "where": a.where}
                        for a in self.accesses
                        if (a.map, a.field) == (name, part)
                    ],
                }
                for name, part in self.fields()
            ],
            "unfinished": list(self.unfinished),
            "limits": LIMITS,
        }


def analyse(source: Object, programs: Sequence[str]) -> Findings:
    """Follow programs of an object; say what they do to the values that hold a lock."""
    locked = {
        (m.name, inner): m
        for outer in source.maps.values()
        for inner, m in ((False, outer), (True, outer.inner))
        if m is not None and m.locks
    }
    if not locked:
        return Findings((), ())
    names = {key: m.name for key, m in locked.items()}
    walker = _Walker(source, {(outer, inner): m for outer, inner, m in _values(source)})
    for program in programs:
        if program in source.functions:
            walker.walk(program)
    accesses = tuple(dict.fromkeys(walker.accesses))
    touched = {(a.map, a.field) for a in accesses}
    untouched = tuple(
        (m.name, part.name)
        for m in locked.values()
        for part in m.fields
        if not part.lock and (m.name, part.name) not in touched
    )
    return Findings(accesses, untouched, tuple(walker.unfinished), tuple(names.values()))


def _values(source: Object) -> List[Tuple[str, bool, elf.Map]]:
    found = []
    for name, declared in source.maps.items():
        found.append((name, False, declared))
        if declared.inner is not None:
            found.append((name, True, declared.inner))
    return found


class _Walker:
    def __init__(self, source: Object, maps: Mapping[Tuple[str, bool], elf.Map]) -> None:
        self._source, self._maps = source, maps
        self.accesses: List[Access] = []
        self.unfinished: List[str] = []
        self._program = ""
        self._states: Dict[_Point, _State] = {}
        self._queue: Deque[_Point] = deque()
        self._later: List[Tuple[str, _State]] = []  # callbacks that run by themselves

    def walk(self, program: str) -> None:
        """Follow one program, and the callbacks it leaves behind."""
        self._program = program
        self._later = [(program, _State())]
        seen: Set[str] = set()
        steps = 0
        while self._later:
            name, start = self._later.pop()
            if name in seen or name not in self._source.functions:
                continue
            seen.add(name)
            self._states.clear()
            start.registers[10] = _Stack(0, 0)
            self._reach(_Point((), name, 0, frozenset()), start)
            while self._queue:
                steps += 1
                if steps > MOST_STEPS:
                    self._queue.clear()
                    self.unfinished.append(program)
                    return
                point = self._queue.popleft()
                self._step(point, self._states[point].copy())

    def _reach(self, point: _Point, state: _State) -> None:
        """Join a state into what is known of a place; look at the place again if that is news."""
        known = self._states.get(point)
        if known is None:
            self._states[point] = state.copy()
            self._queue.append(point)
            return
        changed = False
        for index, (old, new) in enumerate(zip(known.registers, state.registers)):
            joined = _join(old, new)
            if joined != old:
                known.registers[index], changed = joined, True
        for old_saved, new_saved in zip(known.saved, state.saved):
            for index, (old, new) in enumerate(zip(old_saved, new_saved)):
                joined = _join(old, new)
                if joined != old:
                    old_saved[index], changed = joined, True
        for slot, old in list(known.slots.items()):
            joined = _join(old, state.slots.get(slot))
            if joined != old:
                known.slots[slot], changed = joined, True
        if changed and point not in self._queue:
            self._queue.append(point)

    # -- one instruction ---------------------------------------------------------------------------

    def _step(self, point: _Point, state: _State) -> None:
        function = self._source.functions[point.function]
        if not 0 <= point.index < len(function.insns):  # a damaged object's jump leads anywhere
            return
        insn = function.insns[point.index]
        if max(insn.dst, insn.src) > 10:
            return
        kind = insn.code & 7
        after = replace(point, index=point.index + 1)
        if insn.code == 0x18:
            state.registers[insn.dst] = self._constant(function, point, insn)
            self._reach(replace(point, index=point.index + 2), state)
        elif kind in (1, 2, 3):
            self._memory(function, point, insn, state)
            self._reach(after, state)
        elif kind in (4, 7):
            _arithmetic(insn, state)
            self._reach(after, state)
        elif kind in (5, 6):
            self._jump(function, point, insn, state)
        else:  # LD_ABS and LD_IND
            state.registers[0:6] = [None] * 6
            self._reach(after, state)

    def _constant(self, function: Function, point: _Point, insn: Insn) -> _Any:
        target = function.targets.get(point.index)
        if target is None:
            return _Const(insn.imm) if insn.src == 0 else None
        if target.kind == "map":
            return _MapPointer(target.name)
        if target.kind == "function":
            return _Code(target.name)
        if target.kind == "data":
            site: FrozenSet[Any] = frozenset([target.name])  # there is but one value
            return _Value(target.name, False, site, target.offset)
        return None

    def _memory(self, function: Function, point: _Point, insn: Insn, state: _State) -> None:
        kind, size = insn.code & 7, _SIZES[insn.code & 0x18]
        atomic = insn.code & 0xE0 == 0xC0
        base = state.registers[insn.src if kind == 1 else insn.dst]
        if isinstance(base, _Value):
            how = ATOMIC if atomic else READ if kind == 1 else WRITE
            self._touch(function, point, base, insn.off, size, how)
        if isinstance(base, _Stack):
            slot = (base.frame, base.offset + insn.off)
            if kind == 1:
                state.registers[insn.dst] = state.slots.get(slot) if size == 8 else None
                return
            for at in range(-7, size):
                state.slots.pop((slot[0], slot[1] + at), None)
            if not atomic and size == 8:
                state.slots[slot] = state.registers[insn.src] if kind == 3 else _Const(insn.imm)
        if kind == 1:
            state.registers[insn.dst] = None
        elif atomic and insn.imm & 1:  # fetch
            state.registers[0 if insn.imm == 0xF1 else insn.src] = None

    def _touch(
        self, function: Function, point: _Point, base: _Value, off: int, size: int, kind: str
    ) -> None:
        declared = self._maps.get((base.map, base.inner))
        if declared is None or not declared.locks:
            return
        own = (base.map, base.inner, base.site)
        how = LOCKED if own in point.held else OTHER if point.held else UNLOCKED
        parts = [f for f in declared.fields if f.overlaps(base.offset + off, size)]
        for part in parts or [Field("(outside its type)", 0, 0)]:
            if not part.lock:
                where = self._where(function, point)
                self.accesses.append(
                    Access(declared.name, part.name, kind, how, self._program, where)
                )

    def _where(self, function: Function, point: _Point) -> str:
        found = function.line(point.index)
        if found is None:
            return f"{function.name}+{point.index}"
        return f"{found[0].rsplit('/', 1)[-1]}:{found[1]}"

    def _jump(self, function: Function, point: _Point, insn: Insn, state: _State) -> None:
        operation = insn.code & 0xF0
        after = replace(point, index=point.index + 1)
        if operation == 0x80:
            self._call(function, point, insn, state)
            return
        if operation == 0x90:
            self._return(point, state)
            return
        wide = insn.code == 0x06  # a jump of 32 bits, of -mcpu=v4
        there = replace(point, index=point.index + 1 + (insn.imm if wide else insn.off))
        if operation == 0x00:
            self._reach(there, state)
            return
        if operation == 0xE0:  # may_goto
            self._reach(after, state)
            self._reach(there, state)
            return
        left = state.registers[insn.dst]
        equal, unequal = (there, after) if operation == 0x10 else (after, there)
        with_zero = operation in (0x10, 0x50) and not insn.code & 8 and insn.imm == 0
        if with_zero and isinstance(left, _Value):
            null = state.copy()
            null.registers = [
                _Const(0) if isinstance(r, _Value) and r.site == left.site else r
                for r in state.registers
            ]
            self._reach(equal, null)
            self._reach(unequal, state)
            return
        if with_zero and isinstance(left, _Const):
            self._reach(equal if left.value == 0 else unequal, state)
            return
        self._reach(after, state)
        self._reach(there, state)

    # -- calls -------------------------------------------------------------------------------------

    def _call(self, function: Function, point: _Point, insn: Insn, state: _State) -> None:
        after = replace(point, index=point.index + 1)
        target = function.targets.get(point.index)
        if insn.src == 1 and target is not None and target.kind == "function":
            self._enter(target.name, point, after, state)
            return
        arguments = state.registers[1:6]
        name = target.name if target is not None and target.kind == "extern" else ""
        held, result = point.held, None
        number = insn.imm if insn.src == 0 and not name else 0
        first = arguments[0]
        element = (first.map, first.inner, first.site) if isinstance(first, _Value) else None
        if (number == uapi.BPF_FUNC_SPIN_LOCK or name in _RES_CALLS) and element is not None:
            held = held | {element}
        elif (number == uapi.BPF_FUNC_SPIN_UNLOCK or name in _RES_UNLOCKS) and element is not None:
            held = held - {element}
        elif isinstance(first, _MapPointer) and number in (_LOOKUP, *_STORAGES):
            result = self._looked_up(point, first, state)
        elif number == _UPDATE and isinstance(first, _MapPointer):
            self._update(function, point, first, arguments[3])
        elif number in _CALLBACKS or name in _WORK_CALLBACKS:
            self._callback(point, number or _TIMER, arguments, state, after)
        for at, argument in enumerate(arguments):
            if isinstance(argument, _Value) and number not in _OF_LOCKS and not name:
                if at < _arguments_of(number):
                    self._touch(function, point, argument, 0, 1, HELPER)
        state.registers[0:6] = [result, None, None, None, None, None]
        self._reach(replace(after, held=held), state)

    def _looked_up(self, point: _Point, pointer: _MapPointer, state: _State) -> _Any:
        declared = self._maps.get((pointer.map, False))
        if declared is not None and declared.inner is not None and not pointer.inner:
            return _MapPointer(pointer.map, True)
        place = (point.frames, point.function, point.index)
        site: FrozenSet[Any] = frozenset([place])
        old: FrozenSet[Any] = frozenset([(place, "earlier")])

        def aged(value: _Any) -> _Any:
            """What an earlier turn of a loop found here is another element now."""
            if isinstance(value, _Value) and place in value.site:
                return replace(value, site=value.site - site | old)
            return value

        state.registers = [aged(value) for value in state.registers]
        state.saved = [[aged(value) for value in frame] for frame in state.saved]
        state.slots = {slot: aged(value) for slot, value in state.slots.items()}
        return _Value(pointer.map, pointer.inner, site)

    def _update(self, function: Function, point: _Point, to: _MapPointer, flags: _Any) -> None:
        declared = self._maps.get((to.map, to.inner))
        if declared is None or not declared.locks:
            return
        value = flags.value if isinstance(flags, _Const) else 0
        if value & uapi.BPF_NOEXIST:
            return  # nobody saw the element before
        how = LOCKED if value & uapi.BPF_F_LOCK else UNLOCKED
        where = self._where(function, point)
        for part in declared.fields:
            if not part.lock:
                self.accesses.append(
                    Access(
                        declared.name,
                        part.name,
                        "replaced by bpf_map_update_elem()",
                        how,
                        self._program,
                        where,
                    )
                )

    def _callback(
        self, point: _Point, number: int, arguments: List[_Any], state: _State, after: _Point
    ) -> None:
        at, context = _CALLBACKS[number]
        code, first = arguments[at - 1], arguments[0]
        if not isinstance(code, _Code):
            return
        inside = state.copy()
        inside.registers[1:6] = [None] * 5
        element: _Any = None
        if number == _FOR_EACH and isinstance(first, _MapPointer):
            element = self._looked_up(point, first, inside)
            inside.registers[4] = arguments[2]
        elif number == _TIMER and isinstance(first, _Value):
            element = replace(first, offset=0, site=frozenset([(code.function, "timer")]))
        elif number == _LOOP:
            inside.registers[2] = arguments[2]
        if element is not None:
            inside.registers[3] = element
        if context is None:
            alone = _State()
            alone.registers[3] = element
            self._later.append((code.function, alone))
            return
        self._enter(code.function, point, after, inside)

    def _enter(self, name: str, point: _Point, after: _Point, state: _State) -> None:
        if len(point.frames) >= DEEPEST_CALLS or name not in self._source.functions:
            state.registers[0:6] = [None] * 6
            self._reach(after, state)
            return
        inside = state.copy()
        inside.saved.append(state.registers[6:10])
        inside.registers = [None, *state.registers[1:6], *[None] * 5]
        inside.registers[10] = _Stack(len(point.frames) + 1, 0)
        frames = (*point.frames, (point.function, after.index))
        self._reach(_Point(frames, name, 0, point.held), inside)

    def _return(self, point: _Point, state: _State) -> None:
        if not point.frames:
            return
        depth = len(point.frames)
        name, index = point.frames[-1]
        outside = state.copy()
        kept = outside.saved.pop()
        outside.registers = [state.registers[0], *[None] * 5, *kept, _Stack(depth - 1, 0)]
        outside.slots = {s: v for s, v in outside.slots.items() if s[0] < depth}
        self._reach(_Point(point.frames[:-1], name, index, point.held), outside)


def _arguments_of(number: int) -> int:
    """Return how many registers a helper reads, as far as it matters: those that hold pointers."""
    return {_LOOKUP: 2, _UPDATE: 3, 3: 2}.get(number, 5)


def _arithmetic(insn: Insn, state: _State) -> None:
    operation, registers = insn.code & 0xF0, state.registers
    right: _Any = registers[insn.src] if insn.code & 8 else _Const(insn.imm)
    left = registers[insn.dst]
    wide = insn.code & 7 == 7
    result: _Any = None
    if operation == 0xB0:
        result = right if wide or isinstance(right, _Const) else None
        if insn.code & 8 and insn.off:  # a move that extends the sign
            result = None
    elif operation in (0x00, 0x10) and wide:
        sign = 1 if operation == 0 else -1
        if isinstance(right, (_Value, _Stack)) and sign == 1 and not isinstance(left, _Value):
            left, right = right, left
        step = right.value * sign if isinstance(right, _Const) else None
        if isinstance(left, _Value):
            if step is None:
                result = replace(left, exact=False)
            else:
                result = replace(left, offset=left.offset + step)
        elif isinstance(left, _Stack) and step is not None:
            result = replace(left, offset=left.offset + step)
        elif isinstance(left, _Const) and step is not None:
            result = _Const(left.value + step)
    registers[insn.dst] = result


def _join(left: _Any, right: _Any) -> _Any:
    """Return what is true of both. NULL beside a value is left out: it is tested before it is used."""
    if left == right:
        return left
    if isinstance(left, _Value) and right == _Const(0):
        return left
    if isinstance(right, _Value) and left == _Const(0):
        return right
    if isinstance(left, _Value) and isinstance(right, _Value):
        if (left.map, left.inner) == (right.map, right.inner):
            # The widest of a few: offsets that differ are those of an index.
            low = min(left.offset, right.offset)
            return _Value(
                left.map,
                left.inner,
                left.site | right.site,
                low,
                left.exact and right.exact and left.offset == right.offset,
            )
    return None
