# SPDX-License-Identifier: GPL-2.0-only
"""Reads BTF, the types of a BPF object, for maps and locks. Pure; safe for untrusted input."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

_MAGIC = 0xEB9F
MOST_TYPES = 1 << 20
DEEPEST = 32  # levels of nested structures or typedefs; more means a cycle
MOST_PARTS = 1 << 16  # parts of one value

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF = range(1, 9)
_VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO, _VAR, _DATASEC = range(9, 16)
_FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = range(16, 20)
_QUALIFIERS = (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG)
# Bytes after the common 12 bytes of struct btf_type: per type, and per member.
_EXTRA = {_INT: (4, 0), _ARRAY: (12, 0), _VAR: (4, 0), _DECL_TAG: (4, 0)}
_EXTRA.update({_STRUCT: (0, 12), _UNION: (0, 12), _DATASEC: (0, 12), _ENUM64: (0, 12)})
_EXTRA.update({_ENUM: (0, 8), _FUNC_PROTO: (0, 8)})
_SIGNED = 1  # BTF_INT_SIGNED
_TAGS = {_STRUCT: "struct ", _UNION: "union ", _ENUM: "enum ", _ENUM64: "enum "}
LOCKS = ("bpf_spin_lock", "bpf_res_spin_lock")
# Structures that the kernel protects itself: programs change them only by helpers and kfuncs.
KERNEL = (
    "bpf_timer",
    "bpf_wq",
    "bpf_task_work",
    "bpf_list_head",
    "bpf_list_node",
    "bpf_rb_root",
    "bpf_rb_node",
    "bpf_refcount",
    "bpf_dynptr",
)
# BTF type tags of pointers that the kernel manages.
KPTRS = ("kptr", "kptr_untrusted", "kptr_ref", "percpu_kptr", "uptr")


class Malformed(Exception):
    """The bytes are invalid. The message is a sentence."""


@dataclass(frozen=True)
class Field:
    """A part of a map's value without parts of its own. An array counts as one part."""

    name: str  # with the names of its outer members: "a.b"
    offset: int
    size: int
    lock: str = ""  # one of LOCKS, if it is a lock
    kernel: str = ""  # one of KERNEL, or "kptr", if the kernel protects it itself

    def overlaps(self, offset: int, size: int) -> bool:
        """Tell whether the field shares a byte with an access."""
        return offset < self.offset + self.size and self.offset < offset + max(size, 1)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function. For a pointer: the size of its target, and whether it is const."""

    name: str
    pointer: bool = False
    size: int = 0  # of the pointer's target, in bytes; 0: not known
    const: bool = False  # the function only reads the pointer's target
    target: str = ""  # the name of the target's type, without "struct"


@dataclass(frozen=True)
class Type:
    """One type. `ref` is a type or a size, by kind. Members are (name, type, offset in bits)."""

    kind: int
    name: str
    ref: int
    members: Tuple[Tuple[str, int, int], ...] = ()
    element: int = 0  # of an array
    length: int = 0
    widths: Tuple[int, ...] = ()  # of members that are bit-fields, in bits; 0 for others
    signed: bool = False  # of a number

    @property
    def is_number(self) -> bool:
        """Tell whether the type is an integer, an enumeration or a pointer."""
        return self.kind in (_INT, _ENUM, _ENUM64, _PTR)

    @property
    def is_array(self) -> bool:
        """Tell whether the type is an array."""
        return self.kind == _ARRAY


class Btf:
    """The types of one object. Raises Malformed."""

    def __init__(self, data: bytes) -> None:
        try:
            magic, _, _, header, at, size, strings, length = struct.unpack_from("<HBBIIIII", data)
        except struct.error:
            raise Malformed("its BTF is shorter than a header.") from None
        if magic != _MAGIC:
            raise Malformed("its BTF has another magic number: the section is damaged.")
        self._strings = data[header + strings : header + strings + length]
        self.types: List[Type] = [Type(0, "void", 0)]
        body = data[header + at : header + at + size]
        try:
            self._read(body)
        except struct.error:
            raise Malformed("its BTF ends within a type: the section is damaged.") from None

    def _read(self, body: bytes) -> None:
        at = 0
        while at < len(body):
            if len(self.types) > MOST_TYPES:
                raise Malformed(f"its BTF has more than {MOST_TYPES} types.")
            name, info, ref = struct.unpack_from("<III", body, at)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            if not 1 <= kind <= _ENUM64:
                raise Malformed(f"its BTF has a type of kind {kind}, which is none.")
            extra, each = _EXTRA.get(kind, (0, 0))
            at += 12
            members: List[Tuple[str, int, int]] = []
            widths: List[int] = []
            element = length = 0
            signed = kind in (_ENUM, _ENUM64) and bool(info >> 31)
            if kind == _INT:
                signed = bool(struct.unpack_from("<I", body, at)[0] >> 24 & _SIGNED)
            if kind == _ARRAY:
                element, _, length = struct.unpack_from("<III", body, at)
            if kind in (_STRUCT, _UNION, _DATASEC):
                for index in range(count):
                    first, second, third = struct.unpack_from("<III", body, at + 12 * index)
                    if kind == _DATASEC:
                        members.append(("", first, second * 8))
                    else:
                        bits = third & 0xFFFFFF if info >> 31 else third
                        members.append((self.string(first), second, bits))
                        widths.append(third >> 24 if info >> 31 else 0)
            if kind == _FUNC_PROTO:
                for index in range(count):
                    first, second = struct.unpack_from("<II", body, at + 8 * index)
                    members.append((self.string(first), second, 0))
            at += extra + each * count
            called = self.string(name)
            self.types.append(
                Type(kind, called, ref, tuple(members), element, length, tuple(widths), signed)
            )

    def string(self, at: int) -> str:
        """Return a string of the string section; "" outside it."""
        end = self._strings.find(b"\0", at)
        return self._strings[at:end].decode(errors="replace") if 0 <= at <= end else ""

    def bare(self, number: int) -> Type:
        """Return a type without typedefs and qualifiers. Raises Malformed."""
        for _ in range(DEEPEST):
            if not 0 <= number < len(self.types):
                raise Malformed(f"its BTF names type {number}, which it has not.")
            found = self.types[number]
            if found.kind not in _QUALIFIERS:
                return found
            number = found.ref
        raise Malformed("its BTF has a typedef that leads to itself.")

    def names(self) -> Dict[str, int]:
        """Return the numbers of all named types by C name, such as "struct visits" or "__u32"."""
        kinds = (_INT, _TYPEDEF, _FLOAT, *_TAGS)
        return {
            _TAGS.get(found.kind, "") + found.name: number
            for number, found in enumerate(self.types)
            if found.name and found.kind in kinds
        }

    def spelled(self, number: int) -> str:
        """Return a type in C syntax. Raises Malformed."""
        if 0 <= number < len(self.types) and self.types[number].kind == _TYPEDEF:
            return self.types[number].name
        found = self.bare(number)
        if found.kind == _PTR:
            return "a pointer"
        if found.kind == _ARRAY:
            return f"{self.spelled(found.element)}[{found.length}]"
        return _TAGS.get(found.kind, "") + (found.name or "(unnamed)")

    def size(self, number: int, depth: int = 0) -> int:
        """Return a type's size in bytes, 0 for a type without size. Raises Malformed."""
        found = self.bare(number)
        if depth > DEEPEST:
            raise Malformed("its BTF has an array of itself.")
        if found.kind == _PTR:
            return 8
        if found.kind == _ARRAY:
            return self.size(found.element, depth + 1) * found.length
        sized = (_INT, _STRUCT, _UNION, _ENUM, _FLOAT, _ENUM64, _DATASEC)
        return found.ref if found.kind in sized else 0

    def is_only_named(self, number: int) -> bool:
        """Tell whether a type is a struct or union of which the members are not told."""
        return self.bare(number).kind == _FWD

    def struct_members(self, number: int) -> Dict[str, int]:
        """Return the members' types of a structure by name; {} for other types."""
        found = self.bare(number)
        return {name: kind for name, kind, _ in found.members} if found.kind == _STRUCT else {}

    def pointed(self, number: int) -> Optional[int]:
        """Return the type of a pointer's target; None for other types."""
        found = self.bare(number)
        return found.ref if found.kind == _PTR else None

    def array_length(self, number: int) -> int:
        """Return an array's length; 0 for other types. libbpf's __uint() stores numbers so."""
        found = self.bare(number)
        return found.length if found.kind == _ARRAY else 0

    def element(self, number: int) -> Optional[int]:
        """Return the type of an array's elements; None for other types."""
        found = self.bare(number)
        return found.element if found.kind == _ARRAY else None

    def section(self, name: str) -> Optional[Type]:
        """Return the variables of a data section."""
        return next((t for t in self.types if t.kind == _DATASEC and t.name == name), None)

    def variable(self, number: int) -> Tuple[str, int]:
        """Return (name, type) of a variable. Raises Malformed."""
        if not 0 <= number < len(self.types) or self.types[number].kind != _VAR:
            raise Malformed(f"its BTF names type {number} as a variable, which it is not.")
        return self.types[number].name, self.types[number].ref

    def parameters(self, name: str) -> Optional[Tuple[Parameter, ...]]:
        """Return the parameters of a function; None if BTF does not have it. Raises Malformed."""
        function = next((t for t in self.types if t.kind == _FUNC and t.name == name), None)
        if function is None:
            return None
        proto = self.bare(function.ref)
        if proto.kind != _FUNC_PROTO:
            return None
        return tuple(self._parameter(called, kind) for called, kind, _ in proto.members)

    def _parameter(self, name: str, kind: int) -> Parameter:
        pointed = self.pointed(kind) if kind else None
        if pointed is None:
            return Parameter(name)
        const = _CONST in self._qualifiers(pointed)
        return Parameter(name, True, self.size(pointed), const, self.bare(pointed).name)

    def _qualifiers(self, number: int) -> List[int]:
        """Return the kinds of the typedefs and qualifiers of a type. Raises as bare() does."""
        return [self.types[each].kind for each in self._wrapped(number)]

    def _wrapped(self, number: int) -> List[int]:
        self.bare(number)
        around: List[int] = []
        while self.types[number].kind in _QUALIFIERS:
            around.append(number)
            number = self.types[number].ref
        return around

    def fields(self, number: int, name: str = "", offset: int = 0) -> List[Field]:
        """Return the fields of a value of this type. Raises Malformed."""
        found: List[Field] = []
        self._parts = 0
        self._fields(number, name, offset, 0, found)
        return found

    def _fields(self, number: int, name: str, offset: int, depth: int, out: List[Field]) -> None:
        self._parts += 1  # counts empty structures, too: they can be nested without end
        if depth > DEEPEST or self._parts > MOST_PARTS:
            raise Malformed("its BTF has a value of too many parts.")
        bare = self.bare(number)
        if bare.kind == _ARRAY and self._special(bare.element, depth + 1):
            step = self.size(bare.element)
            for index in range(bare.length):
                self._fields(
                    bare.element, f"{name}[{index}]", offset + index * step, depth + 1, out
                )
            return
        lock = bare.name if bare.kind == _STRUCT and bare.name in LOCKS else ""
        kernel = self._kernel(number)
        if lock or kernel or bare.kind != _STRUCT:
            out.append(Field(name or "value", offset, self.size(number), lock, kernel))
            return
        for (member, kind, bits), width in zip(bare.members, bare.widths):
            whole = f"{name}.{member}" if name and member else name or member
            if not member and self.bare(kind).kind == _UNION:
                parts = "|".join(part for part, _, _ in self.bare(kind).members)
                whole = f"{name}.{parts}" if name else parts
            if width:
                first, last = bits // 8, (bits + width + 7) // 8
                out.append(Field(whole or "value", offset + first, last - first))
            else:
                self._fields(kind, whole, offset + bits // 8, depth + 1, out)

    def _kernel(self, number: int) -> str:
        """Return the name of a type that the kernel protects itself; "" for other types."""
        bare = self.bare(number)
        if bare.kind == _STRUCT:
            return bare.name if bare.name in KERNEL else ""
        if bare.kind != _PTR:
            return ""
        around = self._wrapped(number) + (self._wrapped(bare.ref) if bare.ref else [])
        tags = [self.types[each].name for each in around if self.types[each].kind == _TYPE_TAG]
        return next((tag for tag in tags if tag in KPTRS), "")

    def _special(self, number: int, depth: int) -> bool:
        """Tell whether a type contains a lock or a field in KERNEL. Arrays of such are split."""
        self._parts += 1
        if depth > DEEPEST or self._parts > MOST_PARTS:
            raise Malformed("its BTF has a value of too many parts.")
        bare = self.bare(number)
        if bare.kind == _ARRAY:
            return self._special(bare.element, depth + 1)
        if bare.kind == _STRUCT and bare.name in LOCKS + KERNEL:
            return True
        if bare.kind == _STRUCT:
            return any(self._special(kind, depth + 1) for _, kind, _ in bare.members)
        return bool(self._kernel(number))
