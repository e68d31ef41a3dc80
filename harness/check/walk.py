# SPDX-License-Identifier: GPL-2.0-only
"""Follow the programs of an object through their instructions: what they do to maps' values. Pure.

A forward dataflow over values.py, from program to subprogram to callback as the calls go, with the
locks that are held. Places with different calls, locks or turns of a loop are kept apart; the first
turns of a loop are walked one by one, the others together. Where two paths meet, what differs is
joined, and an element gets a name of the place, the same in all registers that hold it on both.

Every access that can happen is found, or a Gap says what was not followed and where.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any, Dict, FrozenSet, Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple

from harness.check import arguments, values
from harness.check.values import LOST, UNKNOWN, Range, Spot, StackSpot, Value
from harness.provision import elf
from harness.provision.btf import KERNEL, LOCKS, Field
from harness.provision.elf import Function, Insn, Object

# Of one program, with the turns of loops apart, and as much again without; and of all of an object.
# An instruction is 1 and more by the values that are known there, and by the fields that it touches.
MOST_STEPS, MOST_OF_ALL = 200_000, 600_000
DEEPEST_CALLS = 8  # as the verifier has it
MOST_HELD = 4
TURNS = (66, 9, 1)  # walked one by one: of a loop, of one in it, of one in that
WIDEN, FORGET = 6, 40  # visits of a place until ranges are widened, and elements lose their names

READ, WRITE, ATOMIC = "read", "written", "changed atomically"
REPLACED = "replaced by bpf_map_update_elem()"
OWN = "its lock"

_SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_RES_LOCKS = ("bpf_res_spin_lock", "bpf_res_spin_lock_irqsave")
_RES_UNLOCKS = ("bpf_res_spin_unlock", "bpf_res_spin_unlock_irqrestore")
_ASYNC = (  # kernel functions whose callback is given (map, key, value) later
    "bpf_wq_set_callback",
    "bpf_wq_set_callback_impl",
    "bpf_task_work_schedule_signal",
    "bpf_task_work_schedule_resume",
    "bpf_task_work_schedule_signal_impl",
    "bpf_task_work_schedule_resume_impl",
)
_TREE_ADD = ("bpf_rbtree_add", "bpf_rbtree_add_impl")
_THROW = "bpf_throw"
_EXTENSION = "freplace"  # which is given what the function that it replaces is given
_CONTEXTS = frozenset(  # of the types of programs
    "xdp_md __sk_buff bpf_sock bpf_sock_addr bpf_sock_ops sk_msg_md sk_reuseport_md bpf_sk_lookup"
    " bpf_cgroup_dev_ctx bpf_sysctl bpf_sockopt bpf_nf_ctx bpf_perf_event_data pt_regs"
    " user_pt_regs bpf_raw_tracepoint_args".split()
)
_CAST = "bpf_rdonly_cast"
# Helper -> registers of its callback and of the context, and that which the callback has it in.
_CALLBACKS = {
    arguments.FOR_EACH: (2, 3, 4),
    arguments.LOOP: (2, 3, 2),
    arguments.DRAIN: (2, 3, 2),
    arguments.FIND_VMA: (3, 4, 3),
}
_F_NOEXIST, _F_LOCK = 1, 4
_ARRAY, _MAPS_OF_MAPS = 2, (12, 13)
_ABSENT = object()

Key = Tuple[str, bool]  # a map, or the maps that are in it


class Held(NamedTuple):
    """A lock that is held: of the element of a name, in one of some maps."""

    name: Any
    keys: FrozenSet[Tuple[str, bool, str]]  # (map, inner, the lock's field)
    resilient: bool
    followed: bool = True  # False: it may be any lock


class Frame(NamedTuple):
    """Where a call returns to."""

    function: str
    to: int
    turns: Tuple[Tuple[int, int], ...]
    callback: str = ""  # "loop" or "each": it may be called again, and need not be called


class Point(NamedTuple):
    """A place in the program, with the calls that led there, the locks held, and the turn."""

    frames: Tuple[Frame, ...]
    function: str
    at: int
    turns: Tuple[Tuple[int, int], ...] = ()  # (first instruction of a loop, turn)
    shape: Tuple[Any, ...] = ()  # of the locks held, without names


class _Merge(NamedTuple):
    """The name of an element that is another one on another path to a place."""

    place: int
    location: Any


@dataclass(frozen=True)
class Access:
    """One instruction that touches a field, or may."""

    key: Key
    field: str
    kind: str
    changes: bool
    tied: FrozenSet[str]  # locks that are held, and of this element or the only one
    others: FrozenSet[str]  # locks that are held, of another element
    program: str
    where: str  # file:line, or the instruction
    doubt: str = ""  # why it is not sure; "" if it is
    whole: bool = False  # one aligned load or store of all of the field: never torn


@dataclass(frozen=True)
class Gap:
    """What could not be followed: anything may have been touched there."""

    reason: str
    program: str
    where: str
    types: Tuple[int, ...] = ()  # of maps; () all


@dataclass
class _State:
    registers: List[Value] = field(default_factory=lambda: [UNKNOWN] * 11)
    saved: List[List[Value]] = field(default_factory=list)  # r6-r9 of callers, of callbacks r1-r5
    slots: Dict[Tuple[int, int], Tuple[int, Value]] = field(default_factory=dict)
    held: Tuple[Held, ...] = ()

    def copy(self) -> "_State":
        return _State(
            list(self.registers), [list(s) for s in self.saved], dict(self.slots), self.held
        )

    def __len__(self) -> int:
        return len(self.registers) + sum(map(len, self.saved)) + len(self.slots)

    def all(self) -> Iterator[Tuple[Any, Value]]:
        """Go through all values, with what finds them again."""
        for index, value in enumerate(self.registers):
            yield (0, index, 0), value
        for depth, row in enumerate(self.saved):
            for index, value in enumerate(row):
                yield (1, depth, index), value
        for (frame, offset), (_, value) in self.slots.items():
            yield (2, frame, offset), value

    def put(self, location: Any, value: Value) -> None:
        """Set what all() has shown."""
        kind, first, second = location
        if kind == 0:
            self.registers[first] = value
        elif kind == 1:
            self.saved[first][second] = value
        else:
            self.slots[first, second] = (self.slots[first, second][0], value)


class _Loops(NamedTuple):
    leaders: FrozenSet[int]
    ends: Mapping[int, int]  # first instruction -> last
    inside: FrozenSet[int]  # instructions of loops
    thresholds: List[int]


class Walker:
    """Follows programs one after the other; `accesses` and `gaps` are what was found."""

    def __init__(self, source: Object) -> None:
        self._source = source
        self._maps: Dict[Key, elf.Map] = {}
        for name, declared in source.maps.items():
            self._maps[name, False] = declared
            if declared.inner is not None:
                self._maps[name, True] = declared.inner
        self._data = {name for name in source.maps if name.startswith(".")}
        self._loops: Dict[str, _Loops] = {}
        self.accesses: Dict[Access, None] = {}
        self.gaps: Dict[Gap, None] = {}
        self.unfinished: List[str] = []
        self.called: Set[str] = set()  # kernel functions
        self.taken: Set[Key] = set()  # maps of whose locks one was taken
        self.touched: Set[Key] = set()
        self._program = ""
        self._steps = 0
        self._most_turns: Tuple[int, ...] = TURNS
        self._clear()
        self._later: List[Tuple[str, Tuple[Value, ...]]] = []

    def _clear(self) -> None:
        self._ids: Dict[Any, int] = {}
        self._states: Dict[int, _State] = {}
        self._visits: Dict[int, int] = {}
        self._queue: List[Tuple[int, int, int, Point]] = []
        self._waiting: Set[int] = set()

    def walk(self, program: str) -> None:
        """Follow one program, and the callbacks it leaves behind."""
        self._program = program
        section = self._source.functions[program].section
        if section.partition("/")[2].startswith(("bpf_map_elem", "bpf_sk_storage_map")):
            reason = "it is given values of the map that it is attached to"
            self.gaps[Gap(reason, program, section, (1, 2, 5, 6, 9, 10, 24))] = None
        self._later = [(program, self._given_first(program))]
        seen: Set[Tuple[str, Tuple[Value, ...]]] = set()
        while self._later:
            begin = self._later.pop()
            if begin in seen or begin[0] not in self._source.functions:
                continue
            seen.add(begin)
            if not (self._follow(begin, TURNS) or self._follow(begin, (0, 0, 0))):
                self.unfinished.append(program)
                return

    def _given_first(self, program: str) -> Tuple[Value, ...]:
        """Return what a program is called with: an extension with memory, perhaps."""
        types = self._source.types
        parameters = types.parameters(program) if types is not None else None
        if not self._source.functions[program].section.startswith(_EXTENSION):
            return (UNKNOWN,) * 5
        if parameters is None:
            return (LOST,) * 5
        given = [LOST if p.pointer and p.target not in _CONTEXTS else UNKNOWN for p in parameters]
        return tuple([*given, *(UNKNOWN,) * 5][:5])

    def _follow(self, begin: Tuple[str, Tuple[Value, ...]], turns: Tuple[int, ...]) -> bool:
        """Follow a function to its end; tell whether that was reached."""
        self._clear()
        self._most_turns = turns
        start = _State()
        start.registers[1:6] = begin[1]
        start.registers[10] = Value(None, stacks=frozenset([StackSpot(0, 0, 0)]))
        self._reach(Point((), begin[0], 0), start)
        enough = self._steps + min(MOST_STEPS, MOST_OF_ALL - self._steps)
        while self._queue:
            _, _, ident, point = heapq.heappop(self._queue)
            self._waiting.discard(ident)
            self._run(point, self._states[ident].copy(), enough)
            if self._steps >= enough:
                return False
        return True

    def _run(self, point: Point, state: _State, enough: int) -> None:
        """Go on until paths part or meet, or it is enough."""
        while self._steps < enough:
            self._steps += 1 + len(state) // 16
            found = self._step(point, state)
            if len(found) == 1 and found[0][0].at not in self._about(point.function).leaders:
                point, state = found[0]
                continue
            for index, (after, then) in enumerate(found):
                self._reach(after, then if index == 0 else then.copy())
            break

    # -- where paths meet --------------------------------------------------------------------------

    def _number(self, thing: Any) -> int:
        return self._ids.setdefault(thing, len(self._ids))

    def _reach(self, point: Point, state: _State) -> None:
        """Join a state into what is known of a place; look at the place again if that is news."""
        self._steps += len(state) // 4
        ident = self._number(point)
        known = self._states.get(ident)
        if known is None:
            self._states[ident] = state.copy()
        else:
            visits = self._visits[ident] = self._visits.get(ident, 0) + 1
            thresholds = self._about(point.function).thresholds
            if not _merge(ident, known, state, visits, thresholds):
                return
        if ident not in self._waiting:
            self._waiting.add(ident)
            heapq.heappush(self._queue, (-len(point.frames), point.at, ident, point))

    def _about(self, name: str) -> _Loops:
        found = self._loops.get(name)
        if found is None:
            found = self._loops[name] = _loops(self._source.functions[name])
        return found

    def _to(self, point: Point, index: int) -> Point:
        """Return the point to which a jump leads, or going on does."""
        about = self._about(point.function)
        if index not in about.inside:
            return Point(point.frames, point.function, index, (), point.shape)
        ends = about.ends
        turns = [(h, n) for h, n in point.turns if h <= index <= ends[h]]
        if index <= point.at and index in ends:
            turns = [(h, n) for h, n in turns if h != index]
            before = dict(point.turns).get(index, 0)
            turns.append((index, min(before + 1, self._most(len(turns)))))
        for header in sorted(h for h, end in ends.items() if h <= index <= end):
            if header not in dict(turns):
                turns.append((header, 0))
        return point._replace(at=index, turns=tuple(turns))

    def _most(self, depth: int) -> int:
        return self._most_turns[min(depth, len(self._most_turns) - 1)]

    # -- one instruction ---------------------------------------------------------------------------

    def _step(self, point: Point, state: _State) -> List[Tuple[Point, _State]]:
        function = self._source.functions[point.function]
        if not 0 <= point.at < len(function.insns):  # a damaged object's jump leads anywhere
            return []
        insn = function.insns[point.at]
        if max(insn.dst, insn.src) > 10:
            return []
        kind = insn.code & 7
        if insn.code == 0x18:
            state.registers[insn.dst] = self._constant(function, point, insn)
            return [(self._to(point, point.at + 2), state)]
        if kind in (5, 6):
            return self._jump(point, insn, state)
        if kind in (1, 2, 3):
            self._memory(point, insn, state)
        elif kind in (4, 7):
            _arithmetic(insn, state, self._number(point))
        else:  # LD_ABS and LD_IND
            state.registers[0:6] = [UNKNOWN] * 6
        return [(self._to(point, point.at + 1), state)]

    def _constant(self, function: Function, point: Point, insn: Insn) -> Value:
        target = function.targets.get(point.at)
        if target is None:
            high = function.insns[point.at + 1].imm if point.at + 1 < len(function.insns) else 0
            both = (insn.imm & 0xFFFFFFFF) | (high & 0xFFFFFFFF) << 32
            signed = both - (1 << 64) if both >> 63 else both
            return values.number(signed) if insn.src == 0 else LOST
        if target.kind == "map":
            return Value(None, maps=frozenset([(target.name, False)]))
        if target.kind == "function":
            return Value(None, codes=frozenset([target.name]))
        if target.kind == "data" and target.name == "maps":  # as before libbpf 1.0, without types
            return Value(None, maps=frozenset([(f"maps+{target.offset}", False)]))
        if target.kind == "data":
            spot = Spot(target.name, False, target.offset, target.offset)
            return Value(None, name=("data", target.name), spots=frozenset([spot]))
        return UNKNOWN

    def _memory(self, point: Point, insn: Insn, state: _State) -> None:
        kind, size = insn.code & 7, _SIZES[insn.code & 0x18]
        atomic = kind == 3 and insn.code & 0xE0 == 0xC0
        load = kind == 1 or (atomic and insn.imm == 0x100)  # which is load_acquire
        base = state.registers[insn.src if load else insn.dst]
        at = values.shift(base, (insn.off, insn.off))
        plain = not atomic or insn.imm == 0x110  # which is store_release
        how = READ if load else WRITE if plain else ATOMIC
        self._touch(point, state, at, (size, size), how, changes=not load)
        if load:
            found = _load(state, at, size)
            state.registers[insn.dst] = found
            if insn.code & 0xE0 == 0x80:
                state.registers[insn.dst] = values.extended(found, 8 * size)
            return
        stored = values.number(insn.imm)
        if kind == 3:
            stored = _linked(state, insn.src, self._number(point))
        self._put_away(point, state, at, stored)
        before = _load(state, at, size)
        _store(state, at, size, stored if plain else values.join(stored, UNKNOWN, None))
        if not plain and insn.imm & 1:  # fetch
            state.registers[0 if insn.imm == 0xF1 else insn.src] = before

    def _put_away(self, point: Point, state: _State, at: Value, stored: Value) -> None:
        """Note that an address goes where it is not followed: it may be used from there."""
        if (stored.spots or stored.lost) and (at.spots or at.lost or not at.stacks):
            self._given(point, state, stored, "memory that is not followed")

    # -- what is touched ---------------------------------------------------------------------------

    def _touch(
        self,
        point: Point,
        state: _State,
        at: Value,
        size: Range,
        kind: str,
        *,
        changes: bool,
        doubt: str = "",
    ) -> None:
        """Note an access of `size` bytes, of the least and the most that it may be."""
        if at.lost:
            self._gap(point, "a pointer was not followed")
        for spot in at.spots:
            declared = self._maps.get((spot.map, spot.inner))
            if declared is None:
                continue
            self.touched.add((spot.map, spot.inner))
            least, most = size[0], size[1]
            low = max(spot.low, 0)
            end = declared.value_size or max([f.offset + f.size for f in declared.fields] or [0])
            high = min(max(spot.high, 0) + most, max(end, low + least))
            parts = [f for f in declared.fields if f.overlaps(low, high - low)]
            self._steps += len(declared.fields) // 16 + len(parts)
            for part in parts if high > low else ():
                why = doubt
                if spot.low != spot.high and len(parts) > 1:
                    why = why or "an index is not known well enough"
                elif not least or (spot.low == spot.high and not part.overlaps(low, least)):
                    why = why or "how many bytes is not known"
                whole = kind in (READ, WRITE, ATOMIC) and _is_whole(part, spot, size)
                self._note(point, state, (at.name, spot), part, (kind, whole), changes, why)

    def _note(
        self,
        point: Point,
        state: _State,
        place: Tuple[Any, Spot],
        part: Field,
        how: Tuple[str, bool],
        changes: bool,
        doubt: str,
    ) -> None:
        if part.lock or part.kernel:
            return
        kind, whole = how
        name, spot = place
        tied, others, which = self._locks(spot, name, state.held)
        key = (spot.map, spot.inner)
        where = self.where(point)
        doubt = doubt or which
        program = self._program
        found = Access(key, part.name, kind, changes, tied, others, program, where, doubt, whole)
        self.accesses[found] = None

    def _locks(
        self, spot: Spot, name: Any, held: Tuple[Held, ...]
    ) -> Tuple[FrozenSet[str], FrozenSet[str], str]:
        """Return the locks held that are of this element, the others, and a doubt."""
        tied, others, doubt = set(), set(), ""
        for each in held:
            here = [label for map_, inner, label in each.keys if (map_, inner) == spot[:2]]
            if not each.followed:
                doubt = "which lock is held is not known"
            elif len(each.keys) == 1 and all(map_ in self._data for map_, _, _ in each.keys):
                tied |= {f"{map_}.{label}" for map_, _, label in each.keys}
            elif len(here) == 1 and name is not None and name == each.name:
                tied.add(f"{OWN}.{here[0]}")
            elif here and (name is None or each.name is None or name == each.name):
                doubt = "which element's lock is held is not known"
            else:
                others |= {f"{self.title((m, i))}.{label}" for m, i, label in each.keys} or {
                    "an allocated object's lock"
                }
        return frozenset(tied), frozenset(others), doubt

    def title(self, key: Key) -> str:
        """Return what a map is called."""
        declared = self._maps.get(key)
        return declared.name if declared is not None else key[0]

    def where(self, point: Point) -> str:
        """Return the line of the source, or the instruction."""
        function = self._source.functions[point.function]
        found = function.line(point.at)
        if found is None:
            return f"{function.name}+{point.at}"
        return f"{found[0].rsplit('/', 1)[-1]}:{found[1]}"

    def _gap(self, point: Point, reason: str) -> None:
        self.gaps[Gap(reason, self._program, self.where(point))] = None

    # -- jumps -------------------------------------------------------------------------------------

    def _jump(self, point: Point, insn: Insn, state: _State) -> List[Tuple[Point, _State]]:
        operation = insn.code & 0xF0
        after = self._to(point, point.at + 1)
        if operation == 0x80:
            return self._call(point, insn, state)
        if operation == 0x90:
            return self._return(point, state)
        if insn.code == 0x0D:
            self._gap(point, "a jump through a table is not followed")
            return []
        wide_jump = insn.code == 0x06  # a jump of 32 bits, of -mcpu=v4
        there = self._to(point, point.at + 1 + (insn.imm if wide_jump else insn.off))
        if operation == 0x00:
            return [(there, state)]
        if operation == 0xE0:  # may_goto
            return [(after, state), (there, state.copy())]
        found = []
        for truth, to in ((False, after), (True, there)):
            then = state.copy()
            if _assume(then, insn, truth):
                found.append((to, then))
        return found

    # -- calls -------------------------------------------------------------------------------------

    def _call(self, point: Point, insn: Insn, state: _State) -> List[Tuple[Point, _State]]:
        target = self._source.functions[point.function].targets.get(point.at)
        if insn.code != 0x85:
            self._gap(point, "a call through a pointer is not followed")
        elif insn.src == 1 and target is not None and target.kind == "function":
            return self._enter(target.name, point, state)
        elif insn.src == 1 and target is not None and target.kind == "extern":
            self.called.add(target.name)
            return self._kernel_function(target.name, point, state)
        elif insn.src == 0:
            return self._helper(insn.imm, point, state)
        else:
            self._gap(point, "a call is not followed")
        return self._result(point, state, UNKNOWN)

    def _result(self, point: Point, state: _State, result: Value) -> List[Tuple[Point, _State]]:
        state.registers[0:6] = [result, *[UNKNOWN] * 5]
        shape = tuple(held[1:] for held in state.held)
        return [(self._to(point, point.at + 1)._replace(shape=shape), state)]

    def _helper(self, number: int, point: Point, state: _State) -> List[Tuple[Point, _State]]:
        first = state.registers[1]
        if number == arguments.LOCK:
            self._lock(state, first, resilient=False)
            return self._result(point, state, UNKNOWN)
        if number == arguments.UNLOCK:
            state.held = tuple(h for h in state.held if h.resilient)
            return self._result(point, state, UNKNOWN)
        self._memory_of_helper(number, point, state)
        if number == arguments.SYS_BPF:
            self._gap(point, "what bpf_sys_bpf() does is not followed")
        if number == arguments.UPDATE:
            self._update(point, state, first, state.registers[4])
        if number in (arguments.LOOKUP, arguments.PERCPU_LOOKUP, *arguments.STORAGES):
            result = self._looked_up(point, first, state, number)
            if number == arguments.CGROUP_STORAGE and not result.lost:  # which is never NULL
                result = result._replace(range=None)
            return self._result(point, state, result)
        if number == arguments.TIMER_SET:
            self._put_off(point, state.registers[2], first)
        elif number in _CALLBACKS:
            return self._callback(number, point, state)
        result = UNKNOWN
        if number not in arguments.HELPERS and number not in arguments.KNOWN:
            result = _somewhere(state.registers[1:6])
        return self._result(point, state, result)

    def _memory_of_helper(self, number: int, point: Point, state: _State) -> None:
        name, known = arguments.HELPERS.get(number, (f"helper {number}", ()))
        context = _CALLBACKS[number][1] if number in _CALLBACKS else 0
        for register in range(1, arguments.argument_count(number) + 1):
            memory = next((m for m in known if m.register == register), None)
            given = state.registers[register]
            if register == context or (register == 1 and number in arguments.OF_FIELDS):
                continue
            if number == arguments.DYNPTR_FROM_MEM and register == 1:
                size = state.registers[2].range or (0, 0)
                doubt = "a dynptr to it is made"
                most = (max(size[1], 0),) * 2
                self._touch(point, state, given, most, "in a dynptr", changes=True, doubt=doubt)
            elif memory is None:
                self._given(point, state, given, f"{name}()")
            else:
                self._by_size(point, state, given, memory, name)

    def _by_size(
        self, point: Point, state: _State, given: Value, memory: arguments.Memory, name: str
    ) -> None:
        size = self._size(memory.size, state)
        kind = f"{'written' if memory.writes else READ} by {name}()"
        self._touch(point, state, given, size, kind, changes=memory.writes)
        if memory.writes:
            _overwrite(state, given, size[1])
        else:
            self._addresses(point, state, given, size[1], name)

    def _size(self, size: Any, state: _State) -> Range:
        if isinstance(size, int):
            return (size, size)
        if size in ("key", "value"):
            declared = [self._maps.get(key) for key in state.registers[1].maps]
            sizes = [m.key_size if size == "key" else m.value_size for m in declared if m]
            if sizes and all(sizes) and len(sizes) == len(declared):
                return (min(sizes), max(sizes))
            return (0, values.FAR)
        found = state.registers[int(size)]
        if not found.pure or found.range is None or found.range[0] < 0:
            return (0, values.FAR)
        return found.range

    def _addresses(self, point: Point, state: _State, given: Value, size: int, name: str) -> None:
        """What memory is given by its address, in other memory, may be touched."""
        for spot in given.stacks:
            for (frame, offset), (_, value) in list(state.slots.items()):
                if frame == spot.frame and spot.low <= offset < spot.high + size:
                    if value.spots or value.lost:
                        self._given(point, state, value, f"{name}() by its address")

    def _given(self, point: Point, state: _State, given: Value, name: str) -> None:
        """Note that something may do anything to what a pointer points to."""
        self._touch(
            point,
            state,
            given,
            (0, values.FAR),
            f"given to {name}",
            changes=True,
            doubt=f"what {name} does to it is not known",
        )
        _overwrite(state, given, values.FAR)

    def _lock(self, state: _State, pointer: Value, resilient: bool) -> None:
        keys = set()
        for spot in pointer.spots:
            declared = self._maps.get((spot.map, spot.inner))
            for part in declared.locks if declared is not None else ():
                if spot.low <= part.offset <= spot.high:
                    keys.add((spot.map, spot.inner, part.name))
                    self.taken.add((spot.map, spot.inner))
        if pointer.spots and not keys and not pointer.lost:
            return  # no lock is there, and no kernel takes it
        followed = not pointer.lost and all(s.low == s.high for s in pointer.spots)
        if len(state.held) < MOST_HELD:  # a loop may lock and never unlock
            state.held += (Held(pointer.name, frozenset(keys), resilient, followed),)

    def _unlock_resilient(self, state: _State, pointer: Value) -> None:
        held = [h for h in state.held if h.resilient]
        same = [h for h in held if h.name is not None and h.name == pointer.name]
        gone = same if len(same) == 1 else held  # of which one, is not known: none is sure
        state.held = tuple(h for h in state.held if h not in gone)

    def _looked_up(
        self, point: Point, pointer: Value, state: _State, number: int = arguments.LOOKUP
    ) -> Value:
        same = self._same_element(pointer, state, number)
        if pointer.lost or not pointer.maps:
            return Value((0, 0), lost=True)
        place = self._number((point.frames, point.function, point.at, point.turns))
        fresh = _fresh(state, place)
        name = same or fresh
        spots, maps, lost = set(), set(), False
        for key in pointer.maps:
            declared = self._maps.get(key)
            if declared is not None and not key[1] and declared.type in _MAPS_OF_MAPS:
                lost = lost or declared.inner is None
                maps.add((key[0], True))
            else:
                spots.add(Spot(key[0], key[1], 0, 0))
        if lost:
            return Value((0, 0), lost=True)
        return Value((0, 0), ("at", place), name, frozenset(spots), maps=frozenset(maps))

    def _same_element(self, pointer: Value, state: _State, number: int) -> Any:
        """Return the name of an element that each such lookup finds; None if another may be found.

        That of an array by a key that is a known number, or the storage of the program's own cgroup.
        """
        if pointer.lost or len(pointer.maps) != 1:
            return None
        (key,) = pointer.maps
        declared = self._maps.get(key)
        if declared is None or key[1]:
            return None
        if number == arguments.CGROUP_STORAGE:
            return ("only", key)
        at = state.registers[2]
        if number != arguments.LOOKUP or declared.type != _ARRAY or not at.stacks or at.range:
            return None
        index = _load(state, at, 4).constant
        return None if index is None else ("only", key, index & 0xFFFFFFFF)

    def _update(self, point: Point, state: _State, to: Value, flags: Value) -> None:
        if to.lost or not to.maps:
            self._gap(point, "which map is updated is not known")
        known = flags.constant
        if known is not None and known & 3 == _F_NOEXIST:
            return  # nobody saw the element before
        doubt = "" if known is not None else "the flags of bpf_map_update_elem() are not known"
        kind = REPLACED
        if known is not None and known & _F_LOCK:
            kind = f"{REPLACED} with BPF_F_LOCK"
        where = self.where(point)
        for key in to.maps:
            declared = self._maps.get(key)
            for part in declared.fields if declared is not None else ():
                if part.lock or part.kernel:
                    continue
                assert declared is not None
                tied: FrozenSet[str] = frozenset()
                if known is not None and known & _F_LOCK:
                    tied = frozenset(f"{OWN}.{lock.name}" for lock in declared.locks)
                tied |= self._locks(Spot(*key, 0, 0), None, state.held)[0]
                self.accesses[
                    Access(
                        key, part.name, kind, True, tied, frozenset(), self._program, where, doubt
                    )
                ] = None

    # -- kernel functions --------------------------------------------------------------------------

    def _kernel_function(
        self, name: str, point: Point, state: _State
    ) -> List[Tuple[Point, _State]]:
        if name == _THROW:
            return []
        if name in _RES_LOCKS:
            _overwrite(state, state.registers[2], 8)
            failed = state.copy()
            self._lock(state, state.registers[1], resilient=True)
            return [
                *self._result(point, state, values.number(0)),
                *self._result(point, failed, values.number(-4095, -1)),
            ]
        if name in _RES_UNLOCKS:
            self._unlock_resilient(state, state.registers[1])
            return self._result(point, state, UNKNOWN)
        if name == _CAST:
            return self._result(point, state, state.registers[1]._replace(link=None))
        parameters = self._source.externs.get(name)
        count = len(parameters) if parameters is not None else 5
        given = state.registers[1 : count + 1]
        for at, value in enumerate(given):
            known = parameters[at] if parameters is not None else None
            self._argument(name, point, state, at + 1, value, known)
        if any(value.codes for value in given):
            return self._with_callback(name, point, state, given)
        return self._result(point, state, _somewhere([self._plain(value) for value in given]))

    def _plain(self, value: Value) -> Value:
        """Return a value without pointers to the kernel's fields: what is in those is no value."""
        spots = frozenset(
            spot
            for spot in value.spots
            if not (
                spot.low == spot.high
                and (spot.map, spot.inner) in self._maps
                and _special(self._maps[spot.map, spot.inner], spot.low)
            )
        )
        return value._replace(spots=spots)

    def _argument(
        self, name: str, point: Point, state: _State, register: int, given: Value, known: Any
    ) -> None:
        if known is not None and known.target in LOCKS + KERNEL:
            return  # the lock, or a field of the kernel's
        size = self._size_of_argument(name, state, register, known)
        self._addresses(point, state, given, size[1], name)
        if known is not None and known.const:
            self._touch(point, state, given, size, f"{READ} by {name}()", changes=False)
            return
        if size[1] != values.FAR:
            self._touch(point, state, given, size, f"given to {name}()", changes=False)
        doubt = f"what {name}() does to it is not known"
        kind = f"given to {name}()"
        self._touch(point, state, given, size, kind, changes=True, doubt=doubt)
        _overwrite(state, given, size[1])

    def _size_of_argument(self, name: str, state: _State, register: int, known: Any) -> Range:
        """Return the least and the most memory that a kernel function is given.

        Its size may be in the next register. The compiler leaves out the name by which the verifier
        knows that; but it has no other way to take memory of no type. Of memory with a type the
        number may be one of elements. A text ends with a NUL, wherever that is.
        """
        parameters = self._source.externs.get(name, ())
        if known is None:
            return (0, values.FAR)
        following = parameters[register] if register < len(parameters) else None
        counted = following is not None and not following.pointer
        if following is not None and counted and following.name:
            counted = following.name.endswith(("__sz", "__szk"))
        many = self._size(str(register + 1), state) if counted else None
        if not known.size:
            return many or (0, values.FAR)
        if known.target == "char":
            return (1, values.FAR) if many is None else (min(many[0], 1), max(many[1], 1))
        most = (
            known.size if many is None else max(known.size, min(many[1], values.FAR) * known.size)
        )
        return (known.size, min(most, values.FAR))

    def _with_callback(
        self, name: str, point: Point, state: _State, given: List[Value]
    ) -> List[Tuple[Point, _State]]:
        codes = Value(None, codes=frozenset().union(*(value.codes for value in given)))
        if name in _ASYNC:
            element = next((value for value in given if value.spots), LOST)
            self._put_off(point, codes, element)
        elif name in _TREE_ADD:
            return self._enter_callback(codes, [UNKNOWN] * 5, "loop", point, state)
        else:
            for code in codes.codes:
                self._later.append((code, (LOST,) * 5))
        return self._result(point, state, UNKNOWN)

    # -- subprograms and callbacks -----------------------------------------------------------------

    def _put_off(self, point: Point, code: Value, owner: Value) -> None:
        """Note a callback that runs by itself, given (map, key, value) of the field's owner."""
        if code.lost or not code.codes:
            self._gap(point, "a callback is not known")
        if owner.lost or not owner.spots:
            element, maps = LOST, LOST
        else:
            keys = {spot[:2] for spot in owner.spots}
            spots = frozenset(Spot(*key, 0, 0) for key in keys)
            element = Value(None, name=("callback",), spots=spots)
            maps = Value(None, maps=frozenset(keys))
        for name in sorted(code.codes):
            self._later.append((name, (maps, UNKNOWN, element, UNKNOWN, UNKNOWN)))

    def _callback(self, number: int, point: Point, state: _State) -> List[Tuple[Point, _State]]:
        at, context, into = _CALLBACKS[number]
        given = [UNKNOWN] * 5
        given[into - 1] = state.registers[context]
        kind = "loop"
        if number == arguments.FOR_EACH:
            given[0], kind = state.registers[1], "each"
        return self._enter_callback(state.registers[at], given, kind, point, state)

    def _enter_callback(
        self, code: Value, given: List[Value], kind: str, point: Point, state: _State
    ) -> List[Tuple[Point, _State]]:
        """Enter a callback that is called any number of times, none as well."""
        found = []
        if code.lost or not code.codes:
            self._gap(point, "a callback is not known")
        for name in sorted(code.codes):
            inside = state.copy()
            inside.registers[1:6] = given
            found += self._enter(name, point, inside, kind)
        return found + self._result(point, state, UNKNOWN)

    def _enter(
        self, name: str, point: Point, state: _State, callback: str = ""
    ) -> List[Tuple[Point, _State]]:
        if len(point.frames) >= DEEPEST_CALLS or name not in self._source.functions:
            self._gap(point, "calls are nested too deeply")
            return self._result(point, state, UNKNOWN)
        given = state.registers[1:6]
        state.saved.append(state.registers[6:10] + (given if callback else []))
        after = self._to(point, point.at + 1)
        frame = Frame(point.function, after.at, after.turns, callback)
        start = Point((*point.frames, frame), name, 0, (), point.shape)
        return [self._begin(start, given, state)]

    def _begin(self, start: Point, given: List[Value], state: _State) -> Tuple[Point, _State]:
        """Set the registers as a function finds them."""
        depth = len(start.frames)
        state.registers = [UNKNOWN, *given, *[UNKNOWN] * 4, UNKNOWN]
        state.registers[10] = Value(None, stacks=frozenset([StackSpot(depth, 0, 0)]))
        if start.frames[-1].callback == "each":
            element = self._looked_up(start, given[0], state, arguments.FOR_EACH)
            state.registers[3] = element if element.lost else element._replace(range=None)
        return start, state

    def _return(self, point: Point, state: _State) -> List[Tuple[Point, _State]]:
        if not point.frames:
            return []
        depth, frame = len(point.frames), point.frames[-1]
        state.slots = {s: v for s, v in state.slots.items() if s[0] < depth}
        outside = state.copy()
        kept = outside.saved.pop()
        result = UNKNOWN if frame.callback else state.registers[0]
        own = Value(None, stacks=frozenset([StackSpot(depth - 1, 0, 0)]))
        outside.registers = [result, *[UNKNOWN] * 5, *kept[:4], own]
        back = Point(point.frames[:-1], frame.function, frame.to, frame.turns, point.shape)
        found = [(back, outside)]
        if frame.callback:
            again = Point(point.frames, point.function, 0, (), point.shape)
            found.append(self._begin(again, list(kept[4:]), state))
        return found


# -- states ----------------------------------------------------------------------------------------


def _merge(place: int, known: _State, new: _State, visits: int, thresholds: List[int]) -> bool:
    """Join a state into another; tell whether that has changed it."""
    classes: Dict[Tuple[Any, Any], Any] = {}
    others = dict(new.all())
    mine = dict(known.all())
    changed = False
    for location in [*mine, *(other for other in others if other not in mine)]:
        old, now = mine.get(location, UNKNOWN), others.get(location, UNKNOWN)
        if location[0] == 2 and _of_other_size(known, new, location[1:]):
            now = UNKNOWN if now.pure else now
        if old == now and not isinstance(old.name, _Merge):
            continue
        name = _name(place, location, _named(old), _named(now), classes, visits)
        joined = values.join(old, now, name)
        if visits > WIDEN:
            joined = values.widen(old, joined, thresholds)
        if joined != old or location not in mine:
            changed = _keep(known, location, joined, location in mine) or changed
    held = []
    for index, (was, is_) in enumerate(zip(known.held, new.held)):
        name = _name(place, (3, index, 0), was.name, is_.name, classes, visits)
        held.append(was._replace(name=name))
    if tuple(held) != known.held:
        known.held, changed = tuple(held), True
    return changed


def _keep(state: _State, location: Any, joined: Value, there: bool) -> bool:
    """Put what two paths have in common where it belongs; tell whether that is news."""
    kind, slot = location[0], location[1:]
    if kind != 2:
        state.put(location, joined)
    elif not joined.pure:  # a pointer, which may be there on one path only
        state.slots[slot] = (8, joined)
    elif not there:
        return False
    elif joined.range == values.FULL:
        state.slots.pop(slot, None)
    else:
        state.put(location, joined)
    return True


def _of_other_size(known: _State, new: _State, slot: Tuple[int, int]) -> bool:
    mine, other = known.slots.get(slot), new.slots.get(slot)
    return mine is not None and other is not None and mine[0] != other[0]


def _named(value: Value) -> Any:
    return value.name if value.spots else _ABSENT


def _name(
    place: int, location: Any, old: Any, new: Any, classes: Dict[Tuple[Any, Any], Any], visits: int
) -> Any:
    """Return what an element is called after two paths have met.

    Registers that hold the same element on both paths are given the same name. A name of this very
    place, from an earlier turn, is given anew: another register may hold the next turn's.
    """
    if old is _ABSENT and new is _ABSENT:
        return None
    pair = (old, new)
    if pair not in classes:
        there = {each for each in pair if each is not _ABSENT}
        mine = any(isinstance(each, _Merge) and each.place == place for each in there)
        if None in there:
            classes[pair] = None
        elif len(there) == 1 and not mine:
            classes[pair] = there.pop()
        elif visits > FORGET:
            classes[pair] = None
        else:
            classes[pair] = _Merge(place, location)
    return classes[pair]


def _fresh(state: _State, place: int) -> Any:
    """Return the name of what a place finds now; what it found earlier is called otherwise."""
    name, older = ("at", place), ("older", place)
    renamed = {name: older, older: None}
    for location, value in list(state.all()):
        if value.name in renamed or value.link == name:
            link = None if value.link == name else value.link
            called = renamed.get(value.name, value.name)
            state.put(location, value._replace(name=called, link=link))
    state.held = tuple(h._replace(name=renamed.get(h.name, h.name)) for h in state.held)
    return name


def _somewhere(given: List[Value]) -> Value:
    """Return a pointer to anywhere in what a function was given."""
    found = UNKNOWN
    for value in given:
        if value.spots or value.lost:
            name = value.name if not found.spots else None
            moved = values.shift(value, values.FULL)._replace(range=values.FULL)
            found = values.join(found, moved, name)
    return found


def _load(state: _State, at: Value, size: int) -> Value:
    """Return what a load finds."""
    plain = values.UNKNOWN if size == 8 else values.number(0, (1 << 8 * size) - 1)
    if not at.stacks:
        return plain
    only = len(at.stacks) == 1 and not (at.spots or at.lost)
    found: Optional[Value] = None if only else plain
    for spot in at.stacks:
        there = plain
        if spot.low == spot.high:
            there = _slot(state, (spot.frame, spot.low), size, plain)
        found = there if found is None else values.join(found, there, there.name)
    return plain if found is None else found


def _slot(state: _State, slot: Tuple[int, int], size: int, plain: Value) -> Value:
    stored = state.slots.get(slot)
    if stored is None:
        return plain
    if stored[0] == size and (size == 8 or stored[1].pure):
        return stored[1]
    number = stored[1].constant
    if stored[0] > size and number is not None:
        return values.number(number & ((1 << 8 * size) - 1))
    return plain


def _store(state: _State, at: Value, size: int, value: Value) -> None:
    """Put a value where a pointer points to, if it is the stack."""
    sure = len(at.stacks) == 1 and not (at.spots or at.lost)
    for spot in at.stacks:
        if not (sure and spot.low == spot.high):
            _overwrite(state, at, size)
            if spot.low == spot.high and size == 8 and not value.pure:
                old = state.slots.get((spot.frame, spot.low), (8, UNKNOWN))[1]
                name = value.name if not old.spots else None
                state.slots[spot.frame, spot.low] = (8, values.join(old, value, name))
            continue
        for start in range(spot.low - 7, spot.low + size):
            old_size, _ = state.slots.get((spot.frame, start), (0, UNKNOWN))
            if start + old_size > spot.low:
                state.slots.pop((spot.frame, start), None)
        known = value
        if size < 8:
            known = _truncated(value, size)
        if not known.pure or known.range != values.FULL:
            state.slots[spot.frame, spot.low] = (size, known)


def _truncated(value: Value, size: int) -> Value:
    most = (1 << 8 * size) - 1
    if value.pure and value.range is not None:
        if 0 <= value.range[0] and value.range[1] <= most:
            return value
        if value.constant is not None:
            return values.number(value.constant & most)
    return values.number(0, most)


def _overwrite(state: _State, at: Value, size: int) -> None:
    """Forget numbers in the stack that may be overwritten; pointers there may stay what they are."""
    for spot in at.stacks:
        for (frame, offset), (length, value) in list(state.slots.items()):
            if frame == spot.frame and offset + length > spot.low and offset < spot.high + size:
                if value.pure:
                    del state.slots[frame, offset]
                else:
                    kept = value._replace(range=values.FULL, link=None)
                    state.slots[frame, offset] = (length, kept)


def _arithmetic(insn: Insn, state: _State, place: int) -> None:
    operation, registers = insn.code & 0xF0, state.registers
    wide = insn.code & 7 == 7
    right = registers[insn.src] if insn.code & 8 else values.number(insn.imm)
    left = registers[insn.dst]
    if operation == 0xB0:
        registers[insn.dst] = _moved(insn, state, right, place)
    elif operation == 0xD0:
        few = insn.imm in (16, 32)
        registers[insn.dst] = values.number(0, (1 << insn.imm) - 1) if few else UNKNOWN
    else:
        registers[insn.dst] = values.arithmetic(operation, left, right, wide, bool(insn.off))


def _moved(insn: Insn, state: _State, right: Value, place: int) -> Value:
    """Return what a move moves. Two registers are known to be equal from then on."""
    wide = insn.code & 7 == 7
    if insn.code & 8 and insn.off:
        return values.extended(right, insn.off) if insn.off in (8, 16, 32) else UNKNOWN
    if not wide:
        if right.pure and right.range is not None:
            same = values.WORD[0] <= right.range[0] and right.range[1] <= values.WORD[1]
            if not same:
                return Value(values.word(right.range))
        else:
            return Value(values.WORD)
    return _linked(state, insn.src, place) if insn.code & 8 else right


def _linked(state: _State, register: int, place: int) -> Value:
    """Return what is in a register, with a link by which its copies are known as such."""
    value = state.registers[register]
    if value.link is None and value.constant is None:
        link = ("copied", place)
        for location, other in list(state.all()):
            if other.link == link:
                state.put(location, other._replace(link=None))
        value = state.registers[register] = value._replace(link=link)
    return value


def _assume(state: _State, insn: Insn, truth: bool) -> bool:
    """Narrow what is known by a condition; return False if it cannot be so."""
    registers, wide = state.registers, insn.code & 7 == 5
    left = registers[insn.dst]
    right = registers[insn.src] if insn.code & 8 else values.number(insn.imm)
    if not wide and not insn.code & 8 and insn.imm < 0:
        return True
    found = values.compare(insn.code & 0xF0, left, right, wide, truth)
    if found is None:
        return False
    for register, old, new in ((insn.dst, left, found[0]), (insn.src, right, found[1])):
        if new == old or (register == insn.src and not insn.code & 8):
            continue
        registers[register] = new
        if old.link is not None:
            for location, value in list(state.all()):
                if value.link == old.link:
                    state.put(location, new)
    return True


def _is_whole(part: Field, spot: Spot, size: Range) -> bool:
    """Tell whether an access of a size takes all of a field by one aligned instruction."""
    return (part.offset, part.offset, part.size, part.size) == (
        spot.low,
        spot.high,
        *size,
    ) and part.offset % part.size == 0


def _special(declared: elf.Map, offset: int) -> bool:
    """Tell whether a lock or a field of the kernel's begins at an offset."""
    return any((f.lock or f.kernel) and f.offset == offset for f in declared.fields)


def _loops(function: Function) -> _Loops:
    """Find where paths meet in a function, and which instructions are in loops."""
    leaders, ends, thresholds = {0}, {}, {0, 1}
    for index, insn in enumerate(function.insns):
        if insn.code & 7 not in (5, 6):
            continue
        operation = insn.code & 0xF0
        if operation == 0x80:
            leaders.add(index + 1)
        elif operation != 0x90:
            to = index + 1 + (insn.imm if insn.code == 0x06 else insn.off)
            leaders.add(to)
            if to <= index:
                ends[to] = index
            if not insn.code & 8:
                thresholds |= {insn.imm - 1, insn.imm, insn.imm + 1}
    inside = frozenset(at for first, last in ends.items() for at in range(first, last + 1))
    return _Loops(frozenset(leaders), ends, inside, sorted(thresholds))
