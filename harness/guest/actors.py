# SPDX-License-Identifier: GPL-2.0-only
"""Actors: processes that each make the same system calls on one CPU for ever.

The host stops them by watchpoints, one of which is on the word that an actor reads before a call.
"""

from __future__ import annotations

import bisect
import ctypes as ct
import gc
import os
import re
import signal
import struct
from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, Sequence, Tuple

from harness.guest import uapi
from harness.guest.calls import (
    ACTOR_ATTR,
    ACTOR_GATE,
    ACTOR_KEYS,
    ACTOR_LONGEST,
    ACTOR_ORDER,
    ACTOR_RESULT,
    ACTOR_STRIDE,
    ACTOR_TURN,
    ACTOR_VALUES,
    ACTORS,
)

_libc = ct.CDLL(None, use_errno=True)
_libc.mmap.restype = ct.c_void_p
_libc.mmap.argtypes = [ct.c_void_p, ct.c_size_t, ct.c_int, ct.c_int, ct.c_int, ct.c_long]
_syscall = _libc.syscall
_syscall.restype = ct.c_long

_ATTR_BYTES = 128
_PR_SET_PDEATHSIG = 1
_PROTECTION = 3  # PROT_READ | PROT_WRITE
_MAPPING = 0x2 | 0x20 | 0x8000 | 0x100000  # PRIVATE, ANONYMOUS, POPULATE, FIXED_NOREPLACE


@dataclass(frozen=True)
class Operation:
    """A system call: its command, union bpf_attr, and what stands in the keys and values."""

    command: int
    attr: bytes
    key: bytes
    value: bytes


def place(number: int, offset: int) -> int:
    """Return the address of a part of operation `number`."""
    return ACTORS + number * ACTOR_STRIDE + offset


def run(number: int, fd: int, packet: bytes) -> Operation:
    """Return the operation that runs a program once, on a packet; b"" for types that take none."""
    data = place(number, ACTOR_VALUES) if packet else 0
    attr = struct.pack("<IIIIQQII", fd, 0, len(packet), 0, data, 0, 1 if packet else 0, 0)
    return Operation(uapi.BPF_PROG_TEST_RUN, attr, b"", packet)


_ELEMENT = {
    "lookup": uapi.BPF_MAP_LOOKUP_ELEM,
    "update": uapi.BPF_MAP_UPDATE_ELEM,
    "delete": uapi.BPF_MAP_DELETE_ELEM,
    "lookup_and_delete": uapi.BPF_MAP_LOOKUP_AND_DELETE_ELEM,
}
_BATCH = {
    "lookup_batch": uapi.BPF_MAP_LOOKUP_BATCH,
    "lookup_and_delete_batch": uapi.BPF_MAP_LOOKUP_AND_DELETE_BATCH,
    "update_batch": uapi.BPF_MAP_UPDATE_BATCH,
    "delete_batch": uapi.BPF_MAP_DELETE_BATCH,
}


def access(number: int, way: str, fd: int, element: Sequence[bytes], flags: int) -> Operation:
    """Return the operation that accesses an element (key, value). Raises KeyError for another way.

    A batch is of one element.
    """
    key, value = element
    keys, values = place(number, ACTOR_KEYS), place(number, ACTOR_VALUES)
    if way in _ELEMENT:
        attr = struct.pack("<IIQQQ", fd, 0, keys, values if way != "delete" else 0, flags)
        return Operation(_ELEMENT[way], attr, key, value)
    reads = way.startswith("lookup")
    next_batch = place(number, ACTOR_KEYS + 256) if reads else 0
    attr = struct.pack("<QQQQIIQQ", 0, next_batch, keys, values, 1, fd, flags, 0)
    return Operation(_BATCH[way], attr, key, value)


def start(cpu: int, operations: List[Operation]) -> Callable[[], None]:
    """Start an actor on a CPU; return what ends it. Raises OSError."""
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            os.sched_setaffinity(0, {cpu})
            gc.disable()
            _act(operations)
        finally:
            os._exit(1)

    def end() -> None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    return end


def _act(operations: List[Operation]) -> None:
    size = (1 + len(operations)) * ACTOR_STRIDE
    if _libc.mmap(ACTOR_TURN, size, _PROTECTION, _MAPPING, -1, 0) != ACTOR_TURN:
        raise OSError(ct.get_errno(), "the place of an actor's operations is taken")
    calls = []
    for number, operation in enumerate(operations):
        ct.memmove(place(number, ACTOR_KEYS), operation.key, len(operation.key))
        ct.memmove(place(number, ACTOR_VALUES), operation.value, len(operation.value))
        attr = ct.create_string_buffer(operation.attr, _ATTR_BYTES)
        gate = ct.c_uint64.from_address(place(number, ACTOR_GATE))
        result = ct.c_int64.from_address(place(number, ACTOR_RESULT))
        at = ct.c_void_p(place(number, ACTOR_ATTR))
        calls.append((gate, operation.command, at, attr, len(operation.attr), result))
    turn = ct.c_uint64.from_address(ACTOR_TURN)
    order = (ct.c_uint8 * (1 + ACTOR_LONGEST)).from_address(ACTOR_ORDER)
    while True:
        turn.value  # the host stops the actor here
        for number in order[1 : 1 + order[0]]:
            gate, command, at, attr, length, result = calls[number]
            ct.memmove(at, attr, _ATTR_BYTES)  # the kernel writes to it
            gate.value  # or here
            done = _syscall(uapi.NR_BPF, command, at, length)
            result.value = done if done >= 0 else -ct.get_errno()


_PROGRAM = re.compile(r"bpf_prog_[0-9a-f]{16}_(.+)")


def _kallsyms() -> Iterator[Tuple[int, str]]:
    with open("/proc/kallsyms", encoding="ascii") as file:
        for line in file:
            words = line.split(None, 3)
            yield int(words[0], 16), words[2]


def symbols(addresses: Sequence[int]) -> List[str]:
    """Return "function+0xoffset" for each address. Raises OSError."""
    if not addresses:
        return []
    known = sorted(_kallsyms())
    starts = [start for start, _ in known]

    def spelled(address: int) -> str:
        at = bisect.bisect_right(starts, address) - 1
        if at < 0 or not starts[at]:
            return f"{address:#x}"
        program = _PROGRAM.fullmatch(known[at][1])
        name = f"bpf_prog_{program[1]}" if program else known[at][1]
        return f"{name}+{address - starts[at]:#x}"

    return [spelled(address) for address in addresses]


def addresses(names: Sequence[str]) -> Dict[str, int]:
    """Return the addresses of kernel symbols and programs by these names. Raises OSError."""
    wanted = set(names)
    found = {}
    for address, name in _kallsyms():
        program = _PROGRAM.fullmatch(name)
        short = program[1] if program else name
        if short in wanted:
            found[short] = address
    return found


# struct bpf_prog_info of linux/bpf.h, up to what is needed here; all members but these are skipped.
_INFO = struct.Struct("<16xI128xI Q Q I I I 52x")
_LINE_BYTES, _COLUMN_BITS = 16, 10


def lines(program: int) -> List[List[int]]:
    """Return [address, file's name, line] for the machine code of a program, by its fd.

    The last one is its end, without a name and line. Raises OSError.
    """
    size, _, _, _, count, line_bytes, _ = _INFO.unpack(_info(program, 0, 0, 0))
    if not count:
        return []
    table = ct.create_string_buffer(count * line_bytes)
    places = ct.create_string_buffer(count * 8)
    _info(program, count, ct.addressof(table), ct.addressof(places))
    found = []
    for number in range(count):
        (address,) = struct.unpack_from("<Q", places, number * 8)
        _, name, _, column = struct.unpack_from("<IIII", table, number * line_bytes)
        found.append([address, name, column >> _COLUMN_BITS])
    found.sort()
    return [*found, [found[0][0] + size, 0, 0]]


def _info(program: int, count: int, table: int, places: int) -> bytes:
    """Return struct bpf_prog_info; the kernel fills `count` lines and their addresses."""
    info = ct.create_string_buffer(
        _INFO.pack(0, count, table, places, count, _LINE_BYTES, 8), _INFO.size
    )
    attr = struct.pack("<IIQ", program, _INFO.size, ct.addressof(info))
    buffer = ct.create_string_buffer(attr, _ATTR_BYTES)
    if _syscall(uapi.NR_BPF, uapi.BPF_OBJ_GET_INFO_BY_FD, buffer, len(attr)) < 0:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    return info.raw
