# SPDX-License-Identifier: GPL-2.0-only
"""Verifiers with a defect, simulated in the oracle: how many programs find each? Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from harness.fuzz import flow, generate, ir, oracle, rules
from harness.fuzz.oracle import State

# Whether the defective verifier lets a broken rule pass, given where and in what state it is broken.
Lets = Callable[[State, flow.Step], bool]


@dataclass(frozen=True)
class Defect:
    """A fault of a verifier: a rule that it does not check everywhere, or a thing that it forgets."""

    name: str
    reason: str = ""  # that it overlooks
    lets: Lets = lambda state, step: True
    also: str = ""  # what else it overlooks, without which the first would make no difference
    forgets: str = ""  # what equal states may differ in: "identity" or "held"
    nameless: bool = False  # the values of callbacks have no identity
    loses: str = ""  # after statements of this word no lock is held any more


class Defective(oracle.Oracle):
    """The oracle, with a defect."""

    def __init__(self, program: ir.Program, kernel: rules.Kernel, defect: Defect) -> None:
        super().__init__(program, kernel)
        self._defect = defect

    def excused(self, reason: str, state: State, step: flow.Step) -> Optional[List[State]]:
        """Go on after what the defect overlooks, as if it had been legal."""
        defect = self._defect
        if reason != defect.also and (reason != defect.reason or not defect.lets(state, step)):
            return None
        if step.word == ir.Exit.word:
            left = self.leave(state)
            # Where a callback was called, the verifier sees that the lock is held; not so this one.
            return [each._replace(held=None) for each in left] if _returned(state) else left
        if reason == rules.INNER_TYPE:
            pointer = state.vars[getattr(step.statement, "var")]
            assert pointer is not None
            return [state._replace(at=state.at + 1, held=(pointer.map, pointer.id))]
        if step.word == ir.Unlock.word:
            return [state._replace(at=state.at + 1, held=None)]
        if reason in _NOT_WHILE_LOCKED:
            try:
                after = oracle.STEPS[step.word](self, state._replace(held=None), step)
            except oracle.Bad:
                return None
            if step.word == ir.Lock.word:
                return after
            return [each._replace(held=state.held) for each in after]
        return [state._replace(at=state.at + 1)]

    def excuses_type(self) -> bool:
        """Tell whether the defect overlooks that this type of program may not lock."""
        start = State(0, (), (), None, ())
        defect = self._defect
        typed = flow.Step(self.program.type, ir.Exit())
        return defect.reason == rules.PROGRAM_TYPE and defect.lets(start, typed)

    def key(self, state: State) -> State:
        """Return what the defect compares of a state."""
        if self._defect.forgets == "held":
            return state._replace(held=None)
        if self._defect.forgets == "identity":
            values = tuple(each._replace(id=0) if each else None for each in state.vars)
            return state._replace(vars=values)
        return state

    def callback_value(self, state: State, name: str) -> oracle.Pointer:
        """Return a callback's value, with or without an identity."""
        if self._defect.nameless:
            return oracle.Pointer(name, 0)
        return super().callback_value(state, name)

    def after(self, state: State, step: flow.Step) -> List[State]:
        """Return what follows a step."""
        found = super().after(state, step)
        if self._defect.loses == step.word:
            return [each._replace(held=None) for each in found]
        return found


def _returned(state: State) -> bool:
    return state.frames[-1].kind in (ir.EACH, ir.LOOP)


_NOT_WHILE_LOCKED = (rules.CALL_LOCKED, rules.SECOND_LOCK, rules.PACKET_LOCKED)


def _word(*words: str) -> Lets:
    return lambda state, step: step.word in words


def _in(*kinds: str) -> Lets:
    return lambda state, step: state.frames[-1].kind in kinds


def _size(size: int) -> Lets:
    return lambda state, step: getattr(step.statement, "size", 0) == size


def _helper(number: int) -> Lets:
    return lambda state, step: getattr(step.statement, "number", 0) == number


def _held_map(same: bool) -> Lets:
    """Another lock of the same map as the held one, or of another map."""

    def lets(state: State, step: flow.Step) -> bool:
        pointer = state.vars[getattr(step.statement, "var")]
        assert pointer is not None and state.held is not None
        return bool(pointer.map == state.held[0]) == same

    return lets


def _moved(state: State, step: flow.Step) -> bool:
    pointer = state.vars[getattr(step.statement, "var")]
    return pointer is not None and bool(pointer.at or pointer.reach)


DEFECTS: Sequence[Defect] = (
    Defect("returns from main with the lock held", rules.EXIT_LOCKED, _in(ir.MAIN)),
    Defect("returns from a global function with the lock held", rules.EXIT_LOCKED, _in(ir.GLOBAL)),
    Defect("an element's callback returns with the lock held", rules.CALLBACK_LOCKED, _in(ir.EACH)),
    Defect("a loop's callback returns with the lock held", rules.CALLBACK_LOCKED, _in(ir.LOOP)),
    Defect("unlocks what is not locked", rules.NOT_LOCKED),
    Defect("unlocks what is not locked, in a static function", rules.NOT_LOCKED, _in(ir.STATIC)),
    Defect("unlocks what is not locked, in a callback", rules.NOT_LOCKED, _in(ir.EACH, ir.LOOP)),
    Defect("unlocks another element of the map", rules.DIFFERENT_LOCK, _held_map(True)),
    Defect("unlocks an element of another map", rules.DIFFERENT_LOCK, _held_map(False)),
    Defect("unlocks another element in a callback", rules.DIFFERENT_LOCK, _in(ir.EACH, ir.LOOP)),
    Defect("locks twice", rules.SECOND_LOCK),
    Defect("locks twice in a static function", rules.SECOND_LOCK, _in(ir.STATIC)),
    Defect("calls a helper under the lock", rules.CALL_LOCKED, _word(ir.Helper.word)),
    Defect("calls one of the helpers under the lock", rules.CALL_LOCKED, _helper(8)),
    Defect("looks up under the lock", rules.CALL_LOCKED, _word(ir.Lookup.word)),
    Defect("looks up in an inner map under the lock", rules.CALL_LOCKED, _word(ir.Inner.word)),
    Defect("updates a map under the lock", rules.CALL_LOCKED, _word(ir.Pass.word)),
    Defect("calls a global function under the lock", rules.CALL_LOCKED, _word(ir.Call.word)),
    Defect(
        "bpf_for_each_map_elem under the lock",
        rules.CALL_LOCKED,
        _word(ir.ForEach.word),
        also=rules.CALLBACK_LOCKED,
    ),
    Defect(
        "bpf_loop under the lock",
        rules.CALL_LOCKED,
        _word(ir.BpfLoop.word),
        also=rules.CALLBACK_LOCKED,
    ),
    Defect("LD_ABS under the lock", rules.PACKET_LOCKED),
    Defect("reads the lock", rules.LOCK_ACCESSED, _word(ir.Load.word)),
    Defect("writes the lock", rules.LOCK_ACCESSED, _word(ir.Store.word)),
    Defect("adds to the lock", rules.LOCK_ACCESSED, _word(ir.Atomic.word)),
    Defect("touches one byte of the lock", rules.LOCK_ACCESSED, _size(1)),
    Defect("touches the lock by eight bytes", rules.LOCK_ACCESSED, _size(8)),
    Defect("touches the lock through a moved pointer", rules.LOCK_ACCESSED, _moved),
    Defect("hands the lock to a helper", rules.LOCK_PASSED),
    Defect("locks where no lock is", rules.NO_LOCK_THERE),
    Defect("locks at a place that is not known", rules.VARIABLE_LOCK),
    Defect("uses what may be NULL as a lock", rules.NULL, _word(ir.Lock.word, ir.Unlock.word)),
    Defect("socket filters lock", rules.PROGRAM_TYPE, _word("socket_filter")),
    Defect("kprobes lock", rules.PROGRAM_TYPE, _word("kprobe")),
    Defect("perf_event programs lock", rules.PROGRAM_TYPE, _word("perf_event")),
    Defect("raw tracepoints lock", rules.PROGRAM_TYPE, _word("raw_tracepoint")),
    Defect("tracing programs lock in inner maps", rules.INNER_TYPE),
    Defect("equal states may differ in which element a pointer means", forgets="identity"),
    Defect("equal states may differ in which lock is held", forgets="held"),
    Defect("a callback's value has no identity", nameless=True),
    Defect("a static function's return forgets the lock", loses=ir.Call.word),
    Defect("a loop's turn forgets the lock", loses=flow.TURN),
    Defect("a second way forgets the lock", loses=flow.GOTO),
    Defect("a check for NULL forgets the lock", loses=ir.IfSet.word),
)


def power(seed: int, kernel: rules.Kernel, most: int) -> Dict[str, Optional[int]]:
    """Return by defect after how many programs it is found; None: not within `most`."""
    made = generate.Generator(seed, kernel)
    found: Dict[str, Optional[int]] = {defect.name: None for defect in DEFECTS}
    for number in range(1, most + 1):
        left = [defect for defect in DEFECTS if found[defect.name] is None]
        if not left:
            break
        program = made.program()
        right = oracle.judge(program, kernel).answer
        if right == oracle.UNKNOWN:
            continue
        for defect in left:
            wrong = Defective(program, kernel, defect).verdict().answer
            if wrong not in (right, oracle.UNKNOWN):
                found[defect.name] = number
    return found


def rows(found: Dict[str, Optional[int]], most: int) -> List[Tuple[str, str, str]]:
    """Return (defect, rule, number of programs) for a table."""
    others = {rules.NULL: rules.OTHERS[rules.NULL], "": _OTHER}
    titles = {each.name: {**rules.BOOK, **others}[each.reason] for each in DEFECTS}
    return [(name, titles[name], str(after or f"> {most}")) for name, after in found.items()]


_OTHER = "State pruning does not forget which lock is held"
