# SPDX-License-Identifier: GPL-2.0-only
"""Carries out schedules on a stopped guest: one actor runs at a time, from access to access.

An actor's gate is the word that it reads before each turn of its operations. Between two schedules every
actor stands at its gate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Set, Tuple

from harness.explore.schedule import END, NEXT, Move, Schedule, Step, What
from harness.guest.calls import (
    ACTOR_GATE,
    ACTOR_ORDER,
    ACTOR_RESULT,
    ACTOR_STRIDE,
    ACTOR_TURN,
    ACTORS,
)
from harness.machines.gdb_stub import READ, NoStop, Region, Stub

# A move that takes longer is given up as unknown. A frozen CPU must stay below the guest's limit for
# a soft lockup, which is 16 s (see qemu_command.py).
PATIENCE_SECONDS = 5.0
_TO_GATE_SECONDS = 1.0  # after which all run for a moment: an actor may wait for a frozen one
_TOGETHER_SECONDS = 0.02
_TO_GATE_TRIES = 60
_STACK_BYTES, _STACK_SIZE = 512, 16384  # compared, and the alignment of the kernel's stacks
_ROUNDS = 6  # in which those left over are finished
_CALLS = 4  # of a turn at which an actor can be stopped
_MOST_ACCESSES = 20_000  # of one move
_MOST_INSTRUCTIONS = 3_000  # of a function
_IF = 1 << 9  # in eflags: interrupts are on


@dataclass(frozen=True)
class Memory:
    """The memory under test: what is watched, its lock words, and all that an actor may wait for."""

    elements: Tuple[Region, ...]
    locks: Tuple[Region, ...]
    waits: Tuple[Region, ...]


@dataclass(frozen=True)
class Instruction:
    """The state of an actor's CPU before an instruction."""

    address: int
    interrupts: bool  # they are on
    held: bool  # the lock word is not 0


class Failed(Exception):
    """An actor's system call failed, or an actor did not come to its gate."""


class Stepper:
    """The actors of a stopped guest. Methods raise EOFError, SetupError and Failed."""

    def __init__(
        self,
        stub: Stub,
        actors: Mapping[str, int],
        cpus: int,
        memory: Memory,
    ) -> None:
        """`actors` gives the CPU of each."""
        self._stub, self._actors, self.memory = stub, dict(actors), memory
        # CPUs without an actor run along: they answer IPIs and end RCU's grace periods.
        self._others = [cpu for cpu in range(cpus) if cpu not in actors.values()]
        self._gate = Region(ACTOR_TURN, 8)
        self._calls = tuple(
            Region(ACTORS + number * ACTOR_STRIDE + ACTOR_GATE, 8) for number in range(_CALLS)
        )
        self._watched: Tuple[Region, ...] = ()
        self.at_gate: Set[str] = set()
        self.entries: Dict[str, int] = {}  # of the functions of moves
        stub.watch(self._gate, READ)

    def close(self) -> None:
        """Stop watching, since a watchpoint would stop the guest with nobody there to let it go on."""
        self._watch(())
        self._stub.unwatch(self._gate, READ)

    def read(self, region: Region) -> bytes:
        """Return a piece of the kernel's memory."""
        return self._stub.read(next(iter(self._actors.values())), region)

    def write(self, address: int, data: bytes) -> None:
        """Write to the kernel's memory."""
        self._stub.write(next(iter(self._actors.values())), address, data)

    def result(self, actor: str, operation: int) -> int:
        """Return what the last system call of that number returned: 0 or more, or -errno."""
        place = Region(ACTORS + operation * ACTOR_STRIDE + ACTOR_RESULT, 8)
        return int.from_bytes(self._stub.read(self._actors[actor], place), "little", signed=True)

    def order(self, actor: str, operations: Sequence[int]) -> None:
        """Say which of an actor's operations its next turns have. It must stand at its gate."""
        self._stub.write(self._actors[actor], ACTOR_ORDER, bytes([len(operations), *operations]))

    def private(self, actor: str, operation: int, offset: int, length: int) -> bytes:
        """Return a part of an actor's own memory, for example what a lookup wrote there."""
        place = Region(ACTORS + operation * ACTOR_STRIDE + offset, length)
        return self._stub.read(self._actors[actor], place)

    def _watch(self, wanted: Sequence[Region]) -> None:
        for region in self._watched:
            if region not in wanted:
                self._stub.unwatch(region)
        for region in wanted:
            if region not in self._watched:
                self._stub.watch(region)
        self._watched = tuple(wanted)

    def _run(self, actor: str, seconds: float) -> bool:
        """Run one actor to its next access or gate; tell whether it is the gate. Raises NoStop."""
        cpu = self._actors[actor]
        while True:
            stop = self._stub.run([cpu, *self._others], seconds)
            if stop.cpu == cpu and stop.watched is not None:
                if stop.watched == self._gate.address:
                    self.at_gate.add(actor)
                    return True
                self.at_gate.discard(actor)
                return False

    def to_gates(self) -> None:
        """Let each actor that is not there run to its gate."""
        self._watch(())
        for _ in range(_TO_GATE_TRIES):
            left = [actor for actor in self._actors if actor not in self.at_gate]
            if not left:
                return
            try:
                self._run(left[0], _TO_GATE_SECONDS)
            except NoStop:
                self._together()
        raise Failed(f"actor {left[0]} does not come to the begin of its operations")

    def _together(self) -> None:
        """Let all run for a moment. They pass their gates."""
        self._stub.unwatch(self._gate, READ)
        self.at_gate.clear()
        try:
            self._stub.run([*self._actors.values(), *self._others], _TOGETHER_SECONDS)
        except NoStop:
            pass
        self._stub.watch(self._gate, READ)

    def carry_out(self, schedule: Schedule) -> Tuple[Step, ...]:
        """Carry out a schedule from the gates; finish all actors; return all steps."""
        steps = [self.move(move) for move in schedule.moves]
        for _ in range(_ROUNDS):
            left = [actor for actor in self._actors if actor not in self.at_gate]
            if not left or any(step.what is What.UNKNOWN for step in steps):
                break
            steps += [self.move(Move(actor, END)) for actor in left]
        return tuple(steps)

    def move(self, move: Move) -> Step:
        """Carry out one move."""
        if move.function:
            return self._instructions(move)
        begins = move.actor in self.at_gate
        self.at_gate.discard(move.actor)
        if move.points == NEXT:
            return self._next(move, begins)
        ends = move.points == END
        self._watch(self.memory.waits if ends else self.memory.elements)
        seen: Dict[Tuple[int, ...], Optional[bytes]] = {}
        made, place = 0, 0
        while ends or made < move.points:
            try:
                if self._run(move.actor, PATIENCE_SECONDS):
                    return Step(move, What.DONE, made)
            except NoStop:
                place = self._stub.registers(self._actors[move.actor])["rip"]
                return Step(move, What.UNKNOWN, made, hex(place))
            made += 1
            if made > _MOST_ACCESSES:
                return Step(move, What.UNKNOWN, made, hex(place))
            if ends and self._repeats(move.actor, seen):
                place = self._stub.registers(self._actors[move.actor])["rip"]
                return Step(move, What.BLOCKED, made, hex(place))
        place = self._stub.registers(self._actors[move.actor])["rip"]
        held = self._held()
        return Step(move, What.POINT, made, hex(place), held)

    def _to_function(self, actor: str, entry: int) -> Dict[str, int]:
        """Run an actor from its gate to a function; return its registers. Raises Failed."""
        self._watch(())
        self.at_gate.discard(actor)
        cpu = self._actors[actor]
        self._stub.break_at(entry)
        try:
            self._stub.run([cpu, *self._others], PATIENCE_SECONDS)
        except NoStop:
            raise Failed(f"actor {actor} does not come to the function at {entry:#x}") from None
        finally:
            self._stub.unbreak(entry)
        begin = self._stub.registers(cpu)
        if begin["rip"] != entry:
            raise Failed(f"actor {actor} does not come to the function at {entry:#x}")
        return begin

    def _instructions(self, move: Move) -> Step:
        """Carry out a move into a function."""
        self._to_function(move.actor, self.entries[move.function])
        for _ in range(move.points):
            self._stub.step(self._actors[move.actor])
        place = self._stub.registers(self._actors[move.actor])["rip"]
        return Step(move, What.POINT, 0, hex(place), self._held())

    def trace(self, actor: str, entry: int) -> Tuple[Instruction, ...]:
        """Run an actor from its gate to a function, then through it, instruction by instruction.

        Raises Failed if it does not come there, or does not return.
        """
        begin = self._to_function(actor, entry)
        cpu = self._actors[actor]
        found: List[Instruction] = []
        registers = begin
        while registers["rsp"] <= begin["rsp"]:
            if len(found) > _MOST_INSTRUCTIONS:
                raise Failed(f"the function at {entry:#x} does not return")
            held = self._held()
            found.append(Instruction(registers["rip"], bool(registers["eflags"] & _IF), held))
            self._stub.step(cpu)
            registers = self._stub.registers(cpu)
        held = self._held()
        found.append(Instruction(registers["rip"], bool(registers["eflags"] & _IF), held))
        return tuple(found)

    def _next(self, move: Move, begins: bool) -> Step:
        """Let an actor run to where it makes its next call; one that has none ends."""
        self._watch(self._calls)
        try:
            at_gate = self._run(move.actor, PATIENCE_SECONDS)
            if begins and not at_gate:  # from its gate it has come to its first call
                at_gate = self._run(move.actor, PATIENCE_SECONDS)
        except NoStop:
            place = self._stub.registers(self._actors[move.actor])["rip"]
            return Step(move, What.UNKNOWN, 0, hex(place))
        return Step(move, What.DONE if at_gate else What.CALL, 0)

    def _held(self) -> bool:
        return any(any(self.read(lock)) for lock in self.memory.locks)

    def _repeats(self, actor: str, seen: Dict[Tuple[int, ...], Optional[bytes]]) -> bool:
        """Tell whether an actor has come back to registers and stack that it had at an access.

        Nobody else runs, so it will come back for ever. The stack is read from the second time on
        that the registers are the same.
        """
        registers = self._stub.registers(self._actors[actor])
        state = tuple(registers.values())
        if state not in seen:
            seen[state] = None
            return False
        pointer = registers["rsp"]
        size = min(_STACK_BYTES, _STACK_SIZE - pointer % _STACK_SIZE)
        stack = self._stub.read(self._actors[actor], Region(pointer, size))
        if seen[state] == stack:
            return True
        seen[state] = stack
        return False
