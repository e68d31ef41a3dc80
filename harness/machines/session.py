# SPDX-License-Identifier: GPL-2.0-only
"""A session: one process of the agent that answers calls over a stream of JSON lines."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import termios
import time
import tty
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import (
    Any,
    Callable,
    ContextManager,
    Dict,
    Generator,
    Iterator,
    Mapping,
    Optional,
    Sequence,
)

from harness.guest import calls
from harness.guest.calls import Answer, Call
from harness.machines import gdb_stub, host_cpus, pulse
from harness.machines.loss import GuestLost, Silent
from harness.machines.pulse import Look, Patience, Pulse

Json = Dict[str, Any]

CALL_SECONDS = 120.0  # a longer call counts as hung; the slowest, a bcc module, takes ~15 s


class KernelRefusal(Exception):
    """The kernel refused a call with an errno, or a load at a stage. Carries the guest's facts."""

    def __init__(self, facts: Json) -> None:
        super().__init__(facts["message"])
        self.errno: Optional[str] = facts["errno"]
        self.stage: Optional[str] = facts.get("stage")
        self.log: str = facts.get("log", "")


class AgentError(Exception):
    """The agent itself failed, which is a bug of the harness. The message is its traceback.

    `kernel_log` is None, unless the agent's process ended unexpectedly. The kernel may be at fault
    then, so `kernel_log` holds its messages in that session.
    """

    def __init__(self, message: str, kernel_log: Optional[Sequence[str]] = None) -> None:
        super().__init__(message)
        self.kernel_log = kernel_log


class NotStepped(Exception):
    """The target cannot run one CPU at a time. The message says why, as a phrase."""


class Gone(Exception):
    """Internal to this module: the stream ended, or no line came in time (`timed_out`)."""

    def __init__(
        self,
        timed_out: bool,
        stuck: Mapping[int, str] = MappingProxyType({}),
        progress: str = "",
    ) -> None:
        super().__init__("no answer in time" if timed_out else "the stream ended")
        self.timed_out = timed_out
        self.stuck = stuck  # CPU -> evidence that it took no timer interrupt
        self.progress = progress  # evidence that the guest was slow, not hung


class Stream:
    """JSON lines over a pair of file descriptors, with a time limit on each line."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self._writer = reader, writer
        self._rest = b""

    def send(self, line: Json) -> None:
        """Send one line. Raises Gone if the other side has closed the stream."""
        data = memoryview(json.dumps(line).encode() + b"\n")
        try:
            while data:
                data = data[os.write(self._writer, data) :]
        except (BrokenPipeError, ConnectionResetError):
            raise Gone(timed_out=False) from None

    def receive(self, seconds: float) -> Json:
        """Return the next line. Raises Gone after `seconds` without one, or at the end."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.reader], [], [], left)[0]:
                raise Gone(timed_out=True)
            self._read()
        return self._next()

    def arrived(self) -> Iterator[Json]:
        """Read once and yield the complete lines. Raises Gone at the end."""
        self._read()
        while b"\n" in self._rest:
            yield self._next()

    def _read(self) -> None:
        try:
            data = os.read(self.reader, 1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Gone(timed_out=False)
        self._rest += data

    def _next(self) -> Json:
        line, _, self._rest = self._rest.partition(b"\n")
        answer: Json = json.loads(line)
        return answer


Carry = Callable[[Json], Json]  # answers what the agent asks of bcc outside the guest


def no_bcc(question: Json) -> Json:
    """Answer, where bcc is in the guest only."""
    return {"beyond": "this target has it nowhere else"}


class Session:
    """One process of the agent."""

    def __init__(
        self,
        stream: Stream,
        lost: Callable[[bool], GuestLost],
        boot: Json,
        look: Callable[[], Mapping[int, Look]] = dict,
        waited: Callable[[], Mapping[int, float]] = dict,
        carry: Carry = no_bcc,
    ) -> None:
        """Open a session on a stream to the agent.

        `lost` returns the error of a lost guest, given whether a call timed out. `look` looks at
        each CPU. `waited` returns the seconds that each vCPU has waited for the host.
        Raises GuestLost, AgentError.
        """
        self._stream, self._lost, self._look, self._waited = stream, lost, look, waited
        self.carry = carry  # see guest/carried_calls.py
        self.boot = boot  # how the guest started: {"kind": "cold"|"restored"|…, "seconds": …}
        self.waited = 0.0  # seconds not counted against a limit, because the host was busy
        self.queued = 0.0  # seconds before calls, in which others had the CPUs; see host_cpus.py
        self.disturbed = False  # a case disturbed the guest, which must not be used again
        # Lets a debugger stop the guest's CPUs; None: the target cannot.
        self.debugged: Optional[Callable[[], ContextManager[Path]]] = None
        self._ended: Optional[AgentError] = None  # set once the agent's process has ended
        try:
            stream.send({"session": {"now": time.time()}})
            answer = stream.receive(CALL_SECONDS)
        except Gone as gone:
            raise lost(gone.timed_out) from None
        if answer != {"session": "open"}:
            raise AgentError(f"the agent answered {answer} when asked for a session")

    def call(
        self,
        request: Call[Answer],
        on_event: Callable[[Json], None] = lambda event: None,
        limit: float = CALL_SECONDS,
    ) -> Answer:
        """Make one call of harness/guest/calls.py and return its answer.

        `limit` seconds may pass between two events. Raises KernelRefusal, AgentError, GuestLost.
        """
        answers = self.events(request, limit)
        while True:
            try:
                on_event(next(answers))
            except StopIteration as ended:
                answer: Answer = ended.value
                return answer

    def events(
        self, request: Call[Answer], limit: float = CALL_SECONDS
    ) -> Generator[Json, None, Answer]:
        """Make one call and yield its events as they come. The generator returns the answer.

        The guest does not wait for the consumer of events. Raises as `call` does.
        """
        if self._ended is not None:
            raise self._ended
        pulses = Pulse()
        with host_cpus.alone() if request.alone else host_cpus.together() as queued:
            self.queued += queued
            try:
                self._stream.send(request.to_json())
                while True:
                    answer = self._receive(limit, pulses)
                    if "carry" in answer:  # bcc's time here is none of the guest's limit
                        self._stream.send(self.carry(answer["carry"]))
                        continue
                    if "return" in answer:
                        value: Answer = answer["return"]
                        return value
                    if "raise" in answer:
                        if answer["raise"]["kind"] == "agent":
                            raise AgentError(answer["raise"]["message"])
                        raise KernelRefusal(answer["raise"])
                    if "closed" in answer:
                        self._ended = AgentError(
                            f"the agent's process in the guest ended: {answer['closed']}",
                            answer["kernel_log"],
                        )
                        raise self._ended
                    yield answer
            except Gone as gone:
                raise named(self._lost(gone.timed_out), gone, limit) from None

    @contextmanager
    def stepped(self) -> Iterator[gdb_stub.Stub]:
        """Stop all CPUs of the guest meanwhile, and yield the stub that runs them one by one.

        No call may be made then. Raises NotStepped, GuestLost, SetupError.
        """
        if self.debugged is None:
            raise NotStepped("a schedule needs a guest under QEMU's emulation, not KVM")
        try:
            with host_cpus.together(), self.debugged() as place:
                with closing(gdb_stub.connect(place)) as stub:
                    yield stub
        except EOFError:
            raise self._lost(False) from None

    def _receive(self, limit: float, pulses: Pulse) -> Json:
        """Return the next line. Raises Gone as Stream.receive does, or if a CPU is stuck."""
        patience = Patience(limit, self._waited)
        left = limit
        while True:
            try:
                return self._stream.receive(min(left, pulse.PULSE_SECONDS))
            except Gone as gone:
                before, left = patience.more, patience.left()
                self.waited += patience.more - before
                if not gone.timed_out:
                    raise
                if left <= 0:
                    raise Gone(timed_out=True, progress=pulses.progress()) from None
            stuck = pulses.stuck(self._look())
            if stuck:
                raise Gone(timed_out=True, stuck=stuck)
            if pulses.asleep():
                raise Gone(timed_out=True)

    def interact(self, arguments: Sequence[str]) -> int:
        """Connect this process's terminal to a program in the guest. Return its exit status."""
        size = shutil.get_terminal_size()
        keyboard, screen = sys.stdin.fileno(), sys.stdout.fileno()
        raw = os.isatty(keyboard)
        before = termios.tcgetattr(keyboard) if raw else None
        sources = [keyboard, self._stream.reader]
        try:
            self._stream.send(calls.Terminal(arguments, size.lines, size.columns).to_json())
            if raw:
                tty.setraw(keyboard)
            while True:
                ready, _, _ = select.select(sources, [], [])
                if keyboard in ready:
                    typed = os.read(keyboard, 4096)
                    if not typed:
                        sources.remove(keyboard)
                        typed = b"\x04"  # Ctrl-D, which is end of input on a terminal
                    self._stream.send({"input": base64.b64encode(typed).decode()})
                if self._stream.reader in ready:
                    for answer in self._stream.arrived():
                        if "return" in answer:
                            status: int = answer["return"]
                            return status
                        os.write(screen, base64.b64decode(answer["output"]))
        except Gone as gone:
            raise self._lost(gone.timed_out) from None
        finally:
            if before is not None:
                termios.tcsetattr(keyboard, termios.TCSADRAIN, before)

    def close(self) -> None:
        """End the process. Its programs, maps and links go with it; the agent stays."""
        try:
            if self._ended is None:
                self._stream.send({"close": True})
                while "closed" not in self._stream.receive(CALL_SECONDS):
                    pass
                self._ended = AgentError("the session was closed")
        except Gone as gone:
            raise self._lost(gone.timed_out) from None

    def again(self) -> "Session":
        """Return a new session with the same agent. This one must be closed."""
        kept = {"kind": "kept", "seconds": 0.0}
        after = Session(self._stream, self._lost, kept, self._look, self._waited, self.carry)
        after.debugged = self.debugged
        return after


def named(lost: GuestLost, gone: Gone, limit: float) -> GuestLost:
    """Name what was seen of a lost guest's CPUs as the reason: stuck, or only slow."""
    if gone.stuck:
        numbers = ", ".join(map(str, sorted(gone.stuck)))
        looks = "; ".join(f"CPU {cpu} was {gone.stuck[cpu]}" for cpu in sorted(gone.stuck))
        return GuestLost(
            f"hard lockup: CPU {numbers} took no timer interrupt for"
            f" {pulse.STUCK_PULSES * pulse.PULSE_SECONDS:.0f} s ({looks}; {lost})",
            crashed=True,
            console=lost.console,
        )
    if gone.progress and isinstance(lost, Silent):
        return GuestLost(
            f"too slow, not hung: no answer within {limit:.0f} s, but the guest was at work"
            f" ({gone.progress}; {lost}): run it again on a less busy machine",
            crashed=False,
            console=lost.console,
        )
    return lost


@contextmanager
def piped(
    command: Sequence[str], describe_loss: Optional[Callable[[bool], GuestLost]] = None
) -> Iterator[Session]:
    """Start an agent with a command and open a session on its standard input and output."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as messages:
        agent = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages
        )
        assert agent.stdin is not None and agent.stdout is not None

        def lost(timed_out: bool) -> GuestLost:
            if describe_loss is not None:
                return describe_loss(timed_out)
            messages.seek(0)
            text = messages.read().decode(errors="replace")
            how = "does not answer" if timed_out else "ended"
            return GuestLost(f"the agent {how}: {text.strip()[-300:]}", crashed=False, console=text)

        try:
            stream = Stream(agent.stdout.fileno(), agent.stdin.fileno())
            try:
                stream.receive(CALL_SECONDS)  # its hello
            except Gone as gone:
                raise lost(gone.timed_out) from None
            boot = {"kind": "running", "seconds": round(time.monotonic() - started, 3)}
            yield Session(stream, lost, boot)
        finally:
            agent.kill()
            agent.wait()
            agent.stdin.close()
            agent.stdout.close()
