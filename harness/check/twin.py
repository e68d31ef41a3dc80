# SPDX-License-Identifier: GPL-2.0-only
"""The twin of an object: the same bytes, but its locks and unlocks do nothing. Pure.

Each call becomes `r0 = 0`, which is as long, so that jumps, types and source lines stay right. For a
bpf_res_spin_lock 0 means that it is held.
"""

from __future__ import annotations

import struct
from typing import List, NamedTuple, Set, Tuple

from harness.guest import uapi

_NOTHING = struct.pack("<BBhi", 0xB7, 0, 0, 0)  # r0 = 0
_WIDE = 0x18  # an instruction of two slots
_EXECUTABLE, _SHT_SYMTAB, _SHT_REL = 4, 2, 9
_HELPERS = (uapi.BPF_FUNC_SPIN_LOCK, uapi.BPF_FUNC_SPIN_UNLOCK)
RES_LOCKS = ("bpf_res_spin_lock", "bpf_res_spin_lock_irqsave")
RES_UNLOCKS = ("bpf_res_spin_unlock", "bpf_res_spin_unlock_irqrestore")
_REL, _SYMBOL = struct.Struct("<QQ"), struct.Struct("<IBBHQQ")


class _Header(NamedTuple):
    """An ELF section header."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry: int


_HEADER = struct.Struct("<IIQQQQIIQQ")


def without_locks(data: bytes) -> bytes:
    """Return the twin of an object that elf.read() takes; the same bytes if it takes no lock."""
    twin = bytearray(data)
    (table,) = struct.unpack_from("<Q", data, 40)
    _, count, _ = struct.unpack_from("<HHH", data, 58)
    headers = [_Header(*_HEADER.unpack_from(data, table + 64 * i)) for i in range(count)]
    functions = _res_functions(data, headers)
    for number, header in enumerate(headers):
        if header.kind == _SHT_REL and header.info < count:
            calls = _drop_relocations(twin, header, functions)
            for at in calls:
                _silence(twin, headers[header.info].offset + at)
            size = header.size - _REL.size * len(calls)
            struct.pack_into("<Q", twin, table + 64 * number + 32, size)
        if header.kind == 1 and header.flags & _EXECUTABLE:
            _silence_helpers(twin, header)
    return bytes(twin)


def _res_functions(data: bytes, headers: List[_Header]) -> Set[int]:
    """Return the numbers of the symbols that are functions of a bpf_res_spin_lock."""
    found = set()
    for header in headers:
        if header.kind != _SHT_SYMTAB or header.link >= len(headers):
            continue
        names = headers[header.link].offset
        for number in range(header.size // _SYMBOL.size):
            name = names + _SYMBOL.unpack_from(data, header.offset + _SYMBOL.size * number)[0]
            if data[name : data.index(b"\0", name)].decode("latin-1") in RES_LOCKS + RES_UNLOCKS:
                found.add(number)
    return found


def _drop_relocations(twin: bytearray, header: _Header, functions: Set[int]) -> List[int]:
    """Take the relocations to these symbols out of a section; return which offsets they are for."""
    rows: List[Tuple[int, int]] = [
        _REL.unpack_from(twin, header.offset + _REL.size * i)
        for i in range(header.size // _REL.size)
    ]
    kept = [row for row in rows if row[1] >> 32 not in functions]
    for number, row in enumerate(kept):
        _REL.pack_into(twin, header.offset + _REL.size * number, *row)
    return [offset for offset, info in rows if info >> 32 in functions]


def _silence(twin: bytearray, at: int) -> None:
    twin[at : at + len(_NOTHING)] = _NOTHING


def _silence_helpers(twin: bytearray, header: _Header) -> None:
    at, end = header.offset, header.offset + header.size
    while at + uapi.INSN_BYTES <= end:
        code, registers, _, number = struct.unpack_from("<BBhi", twin, at)
        if code == uapi.BPF_JMP_CALL and registers >> 4 == 0 and number in _HELPERS:
            _silence(twin, at)
        at += uapi.INSN_BYTES * (2 if code == _WIDE else 1)
