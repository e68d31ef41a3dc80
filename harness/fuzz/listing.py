# SPDX-License-Identifier: GPL-2.0-only
"""A program's instructions as text, in the verifier's own notation. Pure."""

from __future__ import annotations

import struct
from typing import Iterator

from harness.fuzz.lower import Code

_SIZES = {0x00: "u32", 0x08: "u16", 0x10: "u8", 0x18: "u64"}
_JUMPS = {0x45: "&", 0x15: "==", 0xA5: "<"}
_ALU = {0xBF: "r{0} = r{1}", 0xB7: "r{0} = {2}", 0x07: "r{0} += {2}", 0x0F: "r{0} += r{1}"}
_ALU[0x57] = "r{0} &= {2}"


def listing(code: Code) -> str:
    """Return a line per instruction: its number, and what it does."""
    return "".join(f"{number:4}: {text}\n" for number, text in _lines(code.instructions))


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    rows = list(struct.iter_unpack("<BBhi", data))
    wide = False
    for number, (opcode, registers, off, imm) in enumerate(rows):
        if wide:
            wide = False
            continue
        wide = opcode == 0x18
        yield number, _text(number, opcode, (registers & 15, registers >> 4), off, imm)


def _text(number: int, opcode: int, registers: tuple[int, int], off: int, imm: int) -> str:
    dst, src = registers
    size, kind = _SIZES[opcode & 0x18], opcode & 0xE7
    if opcode in _ALU:
        return _ALU[opcode].format(dst, src, imm)
    if opcode == 0x18:
        what = {1: f"map[fd:{imm}]", 2: f"map[fd:{imm}][0]", 4: f"func[{number + 1 + imm}]"}
        return f"r{dst} = {what[src]}"
    if opcode == 0x85:
        return f"call pc{imm:+}" if src == 1 else f"call helper#{imm}"
    if opcode == 0x95:
        return "exit"
    if opcode == 0x05:
        return f"goto {number + 1 + off}"
    if opcode in _JUMPS:
        return f"if r{dst} {_JUMPS[opcode]} {imm} goto {number + 1 + off}"
    if opcode == 0x20:
        return f"r0 = *(u32 *)skb[{imm}]"
    if kind == 0x61:
        return f"r{dst} = *({size} *)(r{src} {off:+})"
    if kind == 0x62:
        return f"*({size} *)(r{dst} {off:+}) = {imm}"
    if kind == 0x63:
        return f"*({size} *)(r{dst} {off:+}) = r{src}"
    return f"lock *({size} *)(r{dst} {off:+}) += r{src}"
