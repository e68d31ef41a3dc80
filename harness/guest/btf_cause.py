# SPDX-License-Identifier: GPL-2.0-only
"""Why the kernel refuses a BTF: the members without which it would take it, found by trying.

A member is taken out by making it a plain byte, so that nothing moves and no type gets another
number. The BTF is somebody's own and may be damaged: what cannot be read has no cause.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import Callable, Dict, List, Sequence, Set, Tuple

MOST_SECONDS = 8.0  # of trying
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF = range(1, 9)
_VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO, _VAR, _DATASEC = range(9, 16)
_FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = range(16, 20)
# Bytes after the common twelve: of the type, and of each of its members.
_EXTRA = {
    **{_INT: (4, 0), _ARRAY: (12, 0), _VAR: (4, 0), _DECL_TAG: (4, 0), _STRUCT: (0, 12)},
    **{_UNION: (0, 12), _DATASEC: (0, 12), _ENUM64: (0, 12), _ENUM: (0, 8), _FUNC_PROTO: (0, 8)},
}
_HEADER = "<HBBIIIII"
_BYTE = struct.pack("<IIII", 0, _INT << 24, 1, 8)  # an INT of 8 bits without a name
_ORDER = (
    ("struct bpf_list_node", "struct bpf_rb_node", "struct bpf_refcount"),
    ("struct bpf_spin_lock", "struct bpf_res_spin_lock"),
    ("struct bpf_list_head", "struct bpf_rb_root"),
    ("struct bpf_",),
)
_WORDS = {
    _FLOAT: "a floating-point number",
    _ENUM64: "an enum of 64 bits",
    _FWD: "a type only named",
}

Cause = Dict[str, str]


@dataclass(frozen=True)
class _Part:
    """Something that can be taken out: where it is, and what it is called."""

    owner: int  # the number of the structure, tag or variable
    at: int  # where the 12 or 16 bytes start within the types
    name: str
    type: int
    bits: int = 0  # of a bitfield
    bitfields: bool = False  # the structure says the widths of its members
    kind: int = _STRUCT


class _Types:
    """The types of a BTF, and how to make it without some parts. Raises struct.error."""

    def __init__(self, data: bytes) -> None:
        _, _, _, size, at, length, strings, self._string_bytes = struct.unpack_from(_HEADER, data)
        self._head = data[:size]
        self._types = data[size + at : size + at + length]
        self._strings = data[size + strings : size + strings + self._string_bytes]
        self.kinds: List[Tuple[int, str, int]] = [(0, "void", 0)]  # kind, name, type or size
        self.parts: List[_Part] = []
        position = 0
        while position < len(self._types):
            position = self._read(position)

    def _read(self, at: int) -> int:
        name, info, ref = struct.unpack_from("<III", self._types, at)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        extra, each = _EXTRA.get(kind, (0, 0))
        number = len(self.kinds)
        self.kinds.append((kind, self._string(name), ref))
        if kind in (_STRUCT, _UNION):
            for index in range(count):
                place = at + 12 + 12 * index
                member, of, offset = struct.unpack_from("<III", self._types, place)
                wide = bool(info >> 31)
                bits = offset >> 24 if wide else 0
                called = self._string(member)
                self.parts.append(_Part(number, place, called, of, bits, wide))
        elif kind in (_DECL_TAG, _VAR):
            self.parts.append(_Part(number, at, self._string(name), ref, kind=kind))
        return int(at + 12 + extra + each * count)

    def _string(self, at: int) -> str:
        end = self._strings.find(b"\0", at)
        return self._strings[at:end].decode(errors="replace") if 0 <= at <= end else ""

    def without(self, parts: Set[_Part]) -> bytes:
        """Return the BTF with these parts made plain bytes."""
        types = bytearray(self._types)
        byte = len(self.kinds)
        for part in parts:
            if part.kind == _DECL_TAG:
                types[part.at : part.at + 16] = _BYTE
            elif part.kind == _VAR:
                struct.pack_into("<I", types, part.at + 8, byte)
            else:
                (offset,) = struct.unpack_from("<I", types, part.at + 8)
                start = offset & 0xFFFFFF if part.bitfields else offset
                struct.pack_into("<II", types, part.at + 4, byte, start & ~7)
        types += _BYTE
        magic, version, flags, size = struct.unpack_from("<HBBI", self._head)
        head = struct.pack(
            _HEADER, magic, version, flags, size, 0, len(types), len(types), len(self._strings)
        )
        return head + self._head[len(head) :] + bytes(types) + self._strings

    def word(self, part: _Part) -> str:
        """Say what a part is."""
        if part.kind == _DECL_TAG:
            return f"a tag on {self._named(part.type)}"
        if part.bits:
            return f"a bitfield of {part.bits} bits"
        return self._named(part.type)

    def _named(self, number: int) -> str:
        tags: List[str] = []
        for _ in range(32):
            if not 0 <= number < len(self.kinds):
                return "a type that is not there"
            kind, name, ref = self.kinds[number]
            if kind == _TYPE_TAG:
                tags.append(name)
            if kind not in (_PTR, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG):
                break
            if kind == _PTR and not tags:
                number = ref
                kind, name, ref = self.kinds[number] if number < len(self.kinds) else (0, "", 0)
                if kind != _TYPE_TAG:
                    return "a pointer"
                continue
            number = ref
        if tags:
            return f"a pointer with the type tag {tags[0]!r}"
        if kind in (_STRUCT, _UNION):
            return f"struct {name}" if name else "a structure without a name"
        if kind == _ARRAY:
            return "an array"
        return _WORDS.get(kind, name or "a number")

    def owner(self, part: _Part) -> str:
        """Return what a part is in."""
        if part.kind == _STRUCT:
            kind, name, _ = self.kinds[part.owner]
            return f"{'struct' if kind == _STRUCT else 'union'} {name}".rstrip()
        return "the global variables" if part.kind == _VAR else "the tags"

    def order(self, part: _Part) -> Tuple[int, int]:
        """Return when to put a part back: nodes, then locks, then lists and trees, which need them;
        what is beside the kernel's own fields comes last, so that it is blamed."""
        name = self._named(part.type) if part.kind == _STRUCT else ""
        for rank, words in enumerate(_ORDER):
            if name.startswith(words):
                return rank, part.at
        return len(_ORDER), part.at


class _Search:
    """What is taken out of a BTF, and which parts may be put back."""

    def __init__(self, types: _Types, loads: Callable[[bytes], bool]) -> None:
        self._types, self._loads = types, loads
        self._out: Set[_Part] = set(types.parts)
        self._until = time.monotonic() + MOST_SECONDS

    def taken(self) -> bool:
        """Tell whether the kernel takes it as it is now."""
        return self._loads(self._types.without(self._out))

    def restore(self, parts: Sequence[_Part]) -> List[_Part]:
        """Put parts back, but for those for which it is refused; return these.

        Raises TimeoutError when that takes too long.
        """
        if time.monotonic() > self._until:
            raise TimeoutError
        self._out.difference_update(parts)
        if self.taken():
            return []
        self._out.update(parts)
        if len(parts) == 1:
            return list(parts)
        half = len(parts) // 2
        return self.restore(parts[:half]) + self.restore(parts[half:])


def find(data: bytes, loads: Callable[[bytes], bool]) -> List[Cause]:
    """Return the parts of a BTF for which the kernel refuses it, none if they are not found.

    `loads` tells whether the kernel takes a BTF. Each cause has "in", "member" and "type", in words.
    """
    try:
        types = _Types(data)
    except struct.error:
        return []
    search = _Search(types, loads)
    if not types.parts or not search.taken():
        return []
    # With everything else taken out no tag is wrong; a list's head is, without the tag that it needs.
    tags = [part for part in types.parts if part.kind == _DECL_TAG]
    others = sorted((part for part in types.parts if part.kind != _DECL_TAG), key=types.order)
    try:
        found = [part for parts in (tags, others) if parts for part in search.restore(parts)]
    except TimeoutError:
        return []
    return [{"in": types.owner(p), "member": p.name, "type": types.word(p)} for p in found]
