# SPDX-License-Identifier: GPL-2.0-only
"""Says what a kernel must do with a program: refuse it, take it, or that this is not known. Pure.

The oracle walks every path of the program with exact states, each state once. It does not abstract,
so it cannot make the verifier's mistakes. What it is not sure of is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Dict, FrozenSet, List, NamedTuple, Optional, Set, Tuple

from harness.fuzz import flow, ir, rules, world

REFUSE, ACCEPT, UNKNOWN = "refuse", "accept", "unknown"
MOST_STATES = 4000  # on paths; more is not waited for
_FAR = 256  # bytes: a pointer that is moved further is not followed
_WRITABLE = ("raw_tracepoint_writable",)
_INNER = "inner of "  # before the outer map's name: the map of a value in an inner map


@dataclass(frozen=True)
class Verdict:
    """What must happen to a program: the answer, its reason, and the rules that its paths touched."""

    answer: str
    reason: str = ""
    rules: FrozenSet[str] = frozenset()


class Pointer(NamedTuple):
    """A pointer into a map value: which lookup it is from, and how far it was moved."""

    map: str
    id: int
    at: int = 0
    reach: int = 0  # so many bytes more at most
    sure: bool = True  # it is not NULL


class Frame(NamedTuple):
    """A call: where it goes on, the called function's kind, and the value of an `each` function."""

    back: int
    kind: str
    value: Optional[Pointer] = None


Held = Optional[Tuple[str, int]]


class State(NamedTuple):
    """A state on a path."""

    at: int
    frames: Tuple[Frame, ...]
    vars: Tuple[Optional[Pointer], ...]
    held: Held
    counters: Tuple[int, ...]


class Bad(Exception):
    """The path breaks a rule."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unclear(Exception):
    """What the verifier says to this path is not known."""


@dataclass
class _Walk:
    """What one walk over all paths has found."""

    reason: str = ""  # of the first path that is bad
    unclear: str = ""
    seen: Set[State] = field(default_factory=set)
    states: int = 0
    rules: Set[str] = field(default_factory=set)
    globals: List[int] = field(default_factory=list)  # global functions that are called


def judge(program: ir.Program, kernel: rules.Kernel) -> Verdict:
    """Return what a kernel must do with a program."""
    verdict = Oracle(program, kernel).verdict()
    if kernel.many_rounds or verdict.answer != REFUSE:
        return verdict
    # Such a kernel may have walked a callback exactly once: what only other rounds show is unknown.
    once = Oracle(program, kernel, rounds=1).verdict()
    return once if once.answer == REFUSE else Verdict(UNKNOWN, "rounds", verdict.rules)


class Oracle:
    """The walk over one program's paths. Subclasses in `defects` forget a check."""

    def __init__(self, program: ir.Program, kernel: rules.Kernel, rounds: int = 0) -> None:
        """With `rounds` = 1 a callback is called exactly once, else any number of times."""
        self.program, self.kernel, self.once = program, kernel, rounds == 1
        self.flow = flow.flatten(program)
        self.walk = _Walk()

    def verdict(self) -> Verdict:
        """Walk all paths, until one is bad."""
        walk = self.walk
        nothing = (None,) * ir.VARIABLES
        counters = (0,) * self.flow.counters
        try:
            self.check_maps()
            roots, done = [0], {0}
            while roots and not walk.reason:
                root = roots.pop()
                kind = self.program.functions[root].kind
                start = State(self.flow.entries[root], (Frame(-1, kind),), nothing, None, counters)
                self._explore(start)
                for called in walk.globals:
                    if called not in done:
                        done.add(called)
                        roots.append(called)
        except Bad as bad:
            walk.reason = bad.reason
        except Unclear as unclear:
            walk.unclear = str(unclear)
        touched = frozenset(walk.rules | ({walk.reason} if walk.reason else set()))
        if walk.reason:
            return Verdict(REFUSE, walk.reason, touched)
        if walk.unclear:
            return Verdict(UNKNOWN, walk.unclear, touched)
        for number in self._unwalked_globals():
            return Verdict(UNKNOWN, f"function {number} is dead", touched)
        return Verdict(ACCEPT, "", touched)

    def _unwalked_globals(self) -> List[int]:
        """Return global functions that no path reaches, on a kernel that verifies those as well."""
        if self.kernel.lazy_globals:
            return []
        functions = self.program.functions
        return [
            number
            for number in self.flow.entries
            if functions[number].kind == ir.GLOBAL and number not in self.walk.globals
        ]

    def check_maps(self) -> None:
        """Raise Bad for a map that this type of program may not name, Unclear for other limits."""
        for step in self.flow.steps:
            statement = step.statement
            name = getattr(statement, "map", "")
            if isinstance(statement, ir.Inner) and not self.kernel.inner_maps:
                raise Unclear("inner maps")
            if isinstance(statement, ir.ForEach) and not self.kernel.for_each:
                raise Unclear("no bpf_for_each_map_elem")
            if isinstance(statement, ir.BpfLoop) and not self.kernel.bpf_loop:
                raise Unclear("no bpf_loop")
            if not name or isinstance(statement, ir.Inner):
                continue
            if world.MAPS[name].layout.lock >= 0 and self.program.type in rules.REFUSED_TYPES:
                if self.program.type in _WRITABLE and not self.kernel.writable_traces:
                    raise Unclear("this type has no such helper")
                if not self.excuses_type():
                    raise Bad(rules.PROGRAM_TYPE)

    def _explore(self, start: State) -> None:
        todo = [start]
        walk, steps = self.walk, self.flow.steps
        while todo:
            state = todo.pop()
            step = steps[state.at]
            if step.joins:
                state = _living(state, step.live)
                key = self.key(state)
                if key in walk.seen:
                    continue
                walk.seen.add(key)
            walk.states += 1
            if walk.states > MOST_STATES:
                raise Unclear("too many states")
            try:
                todo.extend(self.after(state, step))
            except Bad as bad:
                excused = self.excused(bad.reason, state, step)
                if excused is None:
                    walk.reason = bad.reason
                    return
                todo.extend(excused)
            except Unclear as unclear:
                walk.unclear = walk.unclear or str(unclear)

    # -- what a subclass may do otherwise ------------------------------------------------------------

    def after(self, state: State, step: flow.Step) -> List[State]:
        """Return the states after a step. Raises Bad, Unclear."""
        return STEPS[step.word](self, state, step)

    def key(self, state: State) -> State:
        """Return what tells a state from others that were walked already."""
        return state

    def excused(self, reason: str, state: State, step: flow.Step) -> Optional[List[State]]:
        """Return what follows a step that breaks a rule, if that is overlooked."""
        return None

    def excuses_type(self) -> bool:
        """Tell whether it is overlooked that this type of program may not lock."""
        return False

    def callback_value(self, state: State, name: str) -> Pointer:
        """Return the value that a callback is called for."""
        return Pointer(name, self._fresh(state))

    # -- variables --------------------------------------------------------------------------------

    def _fresh(self, state: State) -> int:
        """Return the smallest number that identifies no lookup in a state."""
        used = {pointer.id for pointer in state.vars if pointer}
        used.update(frame.value.id for frame in state.frames if frame.value)
        if state.held:
            used.add(state.held[1])
        number = 1
        while number in used:
            number += 1
        return number

    def _put(self, state: State, var: int, value: Optional[Pointer]) -> State:
        values = state.vars[:var] + (value,) + state.vars[var + 1 :]
        return state._replace(at=state.at + 1, vars=values)

    def lookup(self, state: State, step: flow.Step) -> List[State]:
        """bpf_map_lookup_elem() in a map, or in one that was looked up itself."""
        statement = step.statement
        self.call(state)
        assert isinstance(statement, (ir.Lookup, ir.Inner))
        name, kind = statement.map, world.MAPS[statement.map]
        there = kind.is_array and statement.key < kind.entries
        if isinstance(statement, ir.Inner):
            name = _INNER + name
            there = False
        if kind.is_array and not there:
            raise Unclear("an array has no such element")
        sure = there and self.kernel.array_is_there
        pointer = Pointer(name, self._fresh(state), sure=sure)
        return [self._put(state, statement.var, pointer)]

    def direct(self, state: State, step: flow.Step) -> List[State]:
        """The address of an array's only element."""
        statement = step.statement
        assert isinstance(statement, ir.Direct)
        number = 0 if self.kernel.same_address else self._fresh(state)
        return [self._put(state, statement.var, Pointer(statement.map, number))]

    def value(self, state: State, step: flow.Step) -> List[State]:
        """The value that a callback was called for."""
        assert isinstance(step.statement, ir.Value)
        return [self._put(state, step.statement.var, state.frames[-1].value)]

    def copy(self, state: State, step: flow.Step) -> List[State]:
        """One variable to another."""
        assert isinstance(step.statement, ir.Copy)
        return [self._put(state, step.statement.var, state.vars[step.statement.of])]

    def clear(self, state: State, step: flow.Step) -> List[State]:
        """A variable to NULL."""
        assert isinstance(step.statement, ir.Clear)
        return [self._put(state, step.statement.var, None)]

    def move(self, state: State, step: flow.Step) -> List[State]:
        """A constant, or a number that is not known, is added to a pointer."""
        statement = step.statement
        assert isinstance(statement, (ir.Move, ir.Shift))
        pointer = state.vars[statement.var]
        if pointer is None or not pointer.sure:
            raise Unclear("arithmetic with NULL")
        if isinstance(statement, ir.Move):
            moved = pointer._replace(at=pointer.at + statement.by)
        else:
            self._input(state)
            moved = pointer._replace(reach=pointer.reach + statement.mask)
        if abs(moved.at) + moved.reach > _FAR:
            raise Unclear("far from the value")
        return [self._put(state, statement.var, moved)]

    # -- the lock ---------------------------------------------------------------------------------

    def _lock(self, state: State, statement: ir.Statement) -> Pointer:
        """Return the pointer to a lock. Raises Bad."""
        assert isinstance(statement, (ir.Lock, ir.Unlock))
        pointer = state.vars[statement.var]
        if pointer is None or not pointer.sure:
            raise Bad(rules.NULL)
        layout = _layout(pointer.map)
        if layout.lock < 0:
            raise Bad(rules.NO_LOCK_THERE)
        if pointer.reach:
            raise Bad(rules.VARIABLE_LOCK)
        if pointer.at + statement.at != layout.lock:
            raise Bad(rules.NO_LOCK_THERE)
        return pointer

    def lock(self, state: State, step: flow.Step) -> List[State]:
        """bpf_spin_lock()."""
        if state.held:
            raise Bad(rules.SECOND_LOCK)
        pointer = self._lock(state, step.statement)
        self.walk.rules.update((rules.NO_LOCK_THERE, rules.PROGRAM_TYPE))
        if pointer.map.startswith(_INNER) and self.program.type in rules.REFUSED_TYPES:
            raise Bad(rules.INNER_TYPE)
        return [state._replace(at=state.at + 1, held=(pointer.map, pointer.id))]

    def unlock(self, state: State, step: flow.Step) -> List[State]:
        """bpf_spin_unlock()."""
        pointer = self._lock(state, step.statement)
        if not state.held:
            raise Bad(rules.NOT_LOCKED)
        if state.held != (pointer.map, pointer.id):
            raise Bad(rules.DIFFERENT_LOCK)
        self.walk.rules.update((rules.NOT_LOCKED, rules.DIFFERENT_LOCK))
        return [state._replace(at=state.at + 1, held=None)]

    # -- memory -----------------------------------------------------------------------------------

    def access(self, state: State, step: flow.Step) -> List[State]:
        """A load, a store or an atomic operation."""
        statement = step.statement
        assert isinstance(statement, (ir.Load, ir.Store, ir.Atomic))
        pointer = state.vars[statement.var]
        if isinstance(statement, ir.Atomic) and pointer:
            if (pointer.at + statement.at) % statement.size or pointer.reach:
                raise Unclear("an atomic operation that is not aligned")
        self._touch(state, statement.var, statement.at, statement.size, rules.LOCK_ACCESSED)
        return [state._replace(at=state.at + 1)]

    def hand(self, state: State, step: flow.Step) -> List[State]:
        """A helper reads the value."""
        statement = step.statement
        assert isinstance(statement, ir.Pass)
        self.call(state)
        self._touch(state, statement.var, statement.at, 8, rules.LOCK_PASSED)
        return [state._replace(at=state.at + 1)]

    def _touch(self, state: State, var: int, at: int, size: int, reason: str) -> None:
        pointer = state.vars[var]
        if pointer is None or not pointer.sure:
            raise Bad(rules.NULL)
        layout = _layout(pointer.map)
        first, last = pointer.at + at, pointer.at + at + pointer.reach + size
        if first < 0 or last > layout.size:
            raise Bad(rules.OUTSIDE)
        if layout.lock >= 0 and first < layout.lock + 4 and layout.lock < last:
            raise Bad(reason)
        self.walk.rules.add(reason)

    # -- calls ------------------------------------------------------------------------------------

    def call(self, state: State) -> None:
        """Raise Bad if a helper may not be called now."""
        if state.held:
            raise Bad(rules.CALL_LOCKED)

    def helper(self, state: State, step: flow.Step) -> List[State]:
        """A helper without arguments."""
        self.call(state)
        self.walk.rules.add(rules.CALL_LOCKED)
        return [state._replace(at=state.at + 1)]

    def load_absolute(self, state: State, step: flow.Step) -> List[State]:
        """BPF_LD_ABS."""
        if not world.TYPES[self.program.type].packets or len(state.frames) > 1:
            raise Unclear("LD_ABS outside of main")
        if state.frames[0].kind != ir.MAIN:
            raise Unclear("LD_ABS outside of main")
        if state.held:
            raise Bad(rules.PACKET_LOCKED)
        self.walk.rules.add(rules.PACKET_LOCKED)
        return [state._replace(at=state.at + 1)]

    def function(self, state: State, step: flow.Step) -> List[State]:
        """A static or global function."""
        assert isinstance(step.statement, ir.Call)
        number = step.statement.function
        kind = self.program.functions[number].kind
        if state.held and not (kind == ir.STATIC and self.kernel.static_calls):
            raise Bad(rules.CALL_LOCKED)
        if kind == ir.GLOBAL:
            self.walk.globals.append(number)
            return [state._replace(at=state.at + 1)]
        frames = (*state.frames, Frame(state.at + 1, kind))
        return [state._replace(at=self.flow.entries[number], frames=frames)]

    def rounds(self, state: State, step: flow.Step) -> List[State]:
        """A callback is called: not at all, or for a value. It comes back here."""
        statement = step.statement
        assert isinstance(statement, (ir.ForEach, ir.BpfLoop))
        self.call(state)
        value = None
        if isinstance(statement, ir.ForEach):
            value = self.callback_value(state, statement.map)
        kind = self.program.functions[statement.function].kind
        frames = (*state.frames, Frame(state.at, kind, value))
        inside = state._replace(at=self.flow.entries[statement.function], frames=frames)
        return [inside] if self.once else [inside, state._replace(at=state.at + 1)]

    def exit(self, state: State, step: flow.Step) -> List[State]:
        """The end of a function, on one path."""
        frame = state.frames[-1]
        self.walk.rules.add(rules.EXIT_LOCKED)
        if len(state.frames) == 1:
            if state.held:
                raise Bad(rules.EXIT_LOCKED)
            return []
        if state.held and frame.kind in (ir.EACH, ir.LOOP):
            raise Bad(rules.CALLBACK_LOCKED)
        if state.held and not self.kernel.static_calls:
            raise Bad(rules.EXIT_LOCKED)
        return self.leave(state)

    def leave(self, state: State) -> List[State]:
        """Return from a function."""
        frame = state.frames[-1]
        if len(state.frames) == 1:
            return []
        back = frame.back + 1 if self.once and frame.kind in (ir.EACH, ir.LOOP) else frame.back
        return [state._replace(at=back, frames=state.frames[:-1])]

    # -- branches ---------------------------------------------------------------------------------

    def _input(self, state: State) -> None:
        if state.frames[0].kind != ir.MAIN:
            raise Unclear("a global function has no input")

    def branch(self, state: State, step: flow.Step) -> List[State]:
        """Both ways of a branch on the input."""
        self._input(state)
        return [state._replace(at=state.at + 1), state._replace(at=step.other)]

    def branch_set(self, state: State, step: flow.Step) -> List[State]:
        """The ways of a branch on whether a variable is NULL."""
        assert isinstance(step.statement, ir.IfSet)
        pointer = state.vars[step.statement.var]
        there, gone = state._replace(at=state.at + 1), state._replace(at=step.other)
        if pointer is None:
            return [gone]
        if pointer.sure:
            return [there]
        found = tuple(
            each._replace(sure=True) if each and each.id == pointer.id else each
            for each in state.vars
        )
        missing = tuple(None if each and each.id == pointer.id else each for each in state.vars)
        return [there._replace(vars=found), gone._replace(vars=missing)]

    def goto(self, state: State, step: flow.Step) -> List[State]:
        """A jump."""
        return [state._replace(at=step.other)]

    def repeat(self, state: State, step: flow.Step) -> List[State]:
        """The begin of a loop."""
        return [self._count(state, step.slot, 0)._replace(at=state.at + 1)]

    def turn(self, state: State, step: flow.Step) -> List[State]:
        """The end of a loop's body."""
        assert isinstance(step.statement, ir.Repeat)
        done = state.counters[step.slot] + 1
        if done < step.statement.times:
            return [self._count(state, step.slot, done)._replace(at=step.other)]
        return [self._count(state, step.slot, 0)._replace(at=state.at + 1)]

    def _count(self, state: State, slot: int, value: int) -> State:
        return state._replace(
            counters=state.counters[:slot] + (value,) + state.counters[slot + 1 :]
        )


def _living(state: State, live: int) -> State:
    """Return a state without the variables that do not matter any more."""
    kept = tuple(each if live >> var & 1 else None for var, each in enumerate(state.vars))
    return state if kept == state.vars else state._replace(vars=kept)


def _layout(name: str) -> world.Layout:
    return world.MAPS[name[len(_INNER) :] if name.startswith(_INNER) else name].layout


# By word of the step.
STEPS: Dict[str, Callable[[Oracle, State, flow.Step], List[State]]] = {
    ir.Lookup.word: Oracle.lookup,
    ir.Inner.word: Oracle.lookup,
    ir.Direct.word: Oracle.direct,
    ir.Value.word: Oracle.value,
    ir.Copy.word: Oracle.copy,
    ir.Clear.word: Oracle.clear,
    ir.Move.word: Oracle.move,
    ir.Shift.word: Oracle.move,
    ir.Lock.word: Oracle.lock,
    ir.Unlock.word: Oracle.unlock,
    ir.Load.word: Oracle.access,
    ir.Store.word: Oracle.access,
    ir.Atomic.word: Oracle.access,
    ir.Pass.word: Oracle.hand,
    ir.Helper.word: Oracle.helper,
    ir.LoadAbsolute.word: Oracle.load_absolute,
    ir.Call.word: Oracle.function,
    ir.ForEach.word: Oracle.rounds,
    ir.BpfLoop.word: Oracle.rounds,
    ir.Exit.word: Oracle.exit,
    ir.If.word: Oracle.branch,
    ir.IfSet.word: Oracle.branch_set,
    ir.Repeat.word: Oracle.repeat,
    flow.GOTO: Oracle.goto,
    flow.TURN: Oracle.turn,
}
