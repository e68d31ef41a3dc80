# SPDX-License-Identifier: GPL-2.0-only
"""A client of QEMU's gdb stub: registers, memory and watchpoints of a guest, and which vCPUs run.

The protocol is that of gdb's manual, "Remote Serial Protocol". Thread n of it is vCPU n - 1.
"""

from __future__ import annotations

import re
import select
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, Optional, Tuple

from harness.errors import SetupError

ANSWER_SECONDS = 60.0  # for an answer of the stub itself, on a busy machine; normal is 1 ms
_PIECE = 1024  # bytes of memory per packet
_INTERRUPT = b"\x03"
REGISTERS = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *(f"r{number}" for number in range(8, 16)),
    *("rip", "eflags"),
)
_REGISTERS = struct.Struct("<17QI")

# Kinds of watchpoints.
WRITE, READ, ACCESS = 2, 3, 4


class NoStop(Exception):
    """No vCPU stopped in time; all are stopped now."""


class Unreadable(Exception):
    """Memory has no mapping at an address, on the chosen vCPU."""


@dataclass(frozen=True)
class Region:
    """A piece of the guest's virtual memory."""

    address: int
    length: int

    def __str__(self) -> str:
        return f"{self.address:#x}+{self.length}"


@dataclass(frozen=True)
class Stop:
    """A stopped vCPU: its number, and the watchpoint's address if it stopped at one."""

    cpu: int
    watched: Optional[int]


def packet(text: str) -> bytes:
    """Return a packet with its checksum."""
    data = text.encode("latin-1")
    return b"$" + data + b"#%02x" % (sum(data) & 255)


def unpacked(stream: bytes) -> Tuple[Optional[str], bytes]:
    """Return the first packet's text in a stream, None if it is not complete, and the rest."""
    begin = stream.find(b"$")
    end = stream.find(b"#", begin)
    if begin < 0 or end < 0 or len(stream) < end + 3:
        return None, stream
    data = stream[begin + 1 : end]
    data = re.sub(rb"\}(.)", lambda escaped: bytes([escaped[1][0] ^ 0x20]), data, flags=re.S)
    # A character, an asterisk and a count: the character, repeated.
    data = re.sub(rb"(.)\*(.)", lambda run: run[1] * (run[2][0] - 28), data, flags=re.S)
    return data.decode("latin-1"), stream[end + 3 :]


def stopped(answer: str) -> Stop:
    """Return what a stop reply says. Raises SetupError for another answer."""
    thread = re.search(r"thread:p0*1\.([0-9a-f]+)", answer)
    if not answer.startswith("T") or thread is None:
        raise SetupError(f"QEMU's gdb stub answered {answer[:60]!r} where a stop was expected.")
    watched = re.search(r"[ra]?watch:([0-9a-f]+)", answer)
    return Stop(int(thread[1], 16) - 1, int(watched[1], 16) if watched else None)


class Stub:
    """A connection. While it exists, vCPUs run only as told.

    Methods raise EOFError if QEMU has ended, SetupError for an answer that was not expected.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket, self._buffer = connection, b""
        self._chosen: Optional[int] = None
        # To be connected to stops all vCPUs, of which the stub tells at once.
        self._receive(ANSWER_SECONDS)
        self._ask("qSupported:multiprocess+;vContSupported+")
        self._ask("qXfer:features:read:target.xml:0,800")  # else registers have no gdb layout

    def close(self) -> None:
        """Close the connection. QEMU keeps the vCPUs stopped."""
        self._socket.close()

    # -- packets ------------------------------------------------------------------------------------

    def _send(self, text: str) -> None:
        try:
            self._socket.sendall(packet(text))
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError("QEMU has ended") from None

    def _receive(self, seconds: float) -> str:
        deadline = time.monotonic() + seconds
        while True:
            text, self._buffer = unpacked(self._buffer)
            if text is not None:
                self._acknowledge()
                return text
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._socket], [], [], left)[0]:
                raise NoStop
            try:
                got = self._socket.recv(65536)
            except ConnectionResetError:
                got = b""
            if not got:
                raise EOFError("QEMU has ended")
            self._buffer += got

    def _acknowledge(self) -> None:
        try:
            self._socket.sendall(b"+")  # QEMU 7.2 has no mode without, and sends again
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError("QEMU has ended") from None

    def _ask(self, text: str) -> str:
        self._send(text)
        try:
            return self._receive(ANSWER_SECONDS)
        except NoStop:
            raise SetupError("QEMU's gdb stub does not answer: is the machine hung?") from None

    def _command(self, text: str) -> None:
        answer = self._ask(text)
        if answer != "OK":
            raise SetupError(f"QEMU's gdb stub answered {answer[:60]!r} to {text}.")

    # -- registers and memory -----------------------------------------------------------------------

    def _choose(self, cpu: int) -> None:
        if self._chosen != cpu:
            self._command(f"Hgp1.{cpu + 1:x}")
            self._chosen = cpu

    def registers(self, cpu: int) -> Dict[str, int]:
        """Return the general registers, rip and eflags of a vCPU."""
        self._choose(cpu)
        data = bytes.fromhex(self._ask("g")[: 2 * _REGISTERS.size])
        return dict(zip(REGISTERS, _REGISTERS.unpack(data)))

    def read(self, cpu: int, region: Region) -> bytes:
        """Return memory, as a vCPU's page tables map it. Raises Unreadable."""
        self._choose(cpu)
        data = b""
        while len(data) < region.length:
            size = min(_PIECE, region.length - len(data))
            answer = self._ask(f"m{region.address + len(data):x},{size:x}")
            if answer.startswith("E"):
                raise Unreadable(f"{region}: {answer}")
            data += bytes.fromhex(answer)
        return data

    def write(self, cpu: int, address: int, data: bytes) -> None:
        """Write memory, as a vCPU's page tables map it."""
        self._choose(cpu)
        for at in range(0, len(data), _PIECE):
            piece = data[at : at + _PIECE]
            self._command(f"M{address + at:x},{len(piece):x}:{piece.hex()}")

    # -- where vCPUs stop ---------------------------------------------------------------------------

    # A vCPU stops after an access to what is watched, and QEMU keeps what it has translated. At a
    # breakpoint it throws that away.

    def watch(self, region: Region, kind: int = ACCESS) -> None:
        """Stop each vCPU after an access to a region."""
        self._command(f"Z{kind},{region.address:x},{region.length:x}")

    def unwatch(self, region: Region, kind: int = ACCESS) -> None:
        """Undo `watch`."""
        self._command(f"z{kind},{region.address:x},{region.length:x}")

    def break_at(self, address: int) -> None:
        """Stop each vCPU before the instruction at an address."""
        self._command(f"Z1,{address:x},1")

    def unbreak(self, address: int) -> None:
        """Undo `break_at`."""
        self._command(f"z1,{address:x},1")

    # -- running ------------------------------------------------------------------------------------

    def step(self, cpu: int) -> Stop:
        """Run one instruction of one vCPU; all others stay frozen."""
        self._chosen = None
        stop = stopped(self._ask(f"vCont;s:p1.{cpu + 1:x}"))
        return stop

    def run(self, cpus: Iterable[int], seconds: float) -> Stop:
        """Run these vCPUs until one stops; the others stay frozen.

        Raises NoStop after `seconds`. All vCPUs are stopped then.
        """
        self._chosen = None  # the one that stops becomes the chosen one
        self._send("vCont" + "".join(f";c:p1.{cpu + 1:x}" for cpu in cpus))
        try:
            return stopped(self._receive(seconds))
        except NoStop:
            self._socket.sendall(_INTERRUPT)
            try:
                answer = self._receive(ANSWER_SECONDS)
            except NoStop:
                raise SetupError("QEMU's gdb stub does not stop the guest.") from None
            if answer.startswith("T02"):  # stopped by the interrupt
                raise
            return stopped(answer)  # it stopped by itself just then


def connect(path: Path) -> Stub:
    """Connect to a stub that listens on a Unix socket. Raises EOFError, SetupError."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(path))
        return Stub(connection)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        raise SetupError(f"QEMU opened no gdb stub at {path}.") from None
    except BaseException:
        connection.close()
        raise
