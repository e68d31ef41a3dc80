# SPDX-License-Identifier: GPL-2.0-only
"""Reads and writes values of maps by the member names in the C source. Pure.

The types come from the object's BTF, so no test repeats a C struct by hand. bcc compiles the same
structs in the guest, so clang's object of a file describes them for both loaders.
"""

from __future__ import annotations

import difflib
import struct
from functools import lru_cache
from operator import itemgetter
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Tuple

from harness.provision import elf
from harness.provision.btf import Btf, Malformed

ALIGNMENT = 8  # of the values in an array's memory, and of the values of several CPUs
_PER_CPU = (5, 6, 10, 21)  # BPF_MAP_TYPE_PERCPU_HASH, _PERCPU_ARRAY, _LRU_PERCPU_HASH, …
_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Misnamed(AttributeError):
    """A name that is not in an object's types. The message suggests similar names."""


class Misfit(ValueError):
    """Bytes or a value that do not fit a type. The message is a sentence."""


class Value:
    """A structure or union that was read. `value.torn` is a member, `dict(value)` has all."""

    def __init__(self, name: str, members: Dict[str, Any]) -> None:
        self._name, self._members = name, members

    def __getattr__(self, name: str) -> Any:
        members = self.__dict__.get("_members", {})
        if name not in members:
            raise _misnamed(self.__dict__.get("_name", "a value"), "member", name, members)
        return members[name]

    def __iter__(self) -> Iterator[Tuple[str, Any]]:
        return iter(self._members.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and (self._name, self._members) == (
            other._name,
            other._members,
        )

    def __repr__(self) -> str:
        members = ", ".join(f"{name}={value!r}" for name, value in self)
        return f"{self._name}({members})"

    @classmethod
    def total(cls, values: Iterable[Any]) -> Any:
        """Add numbers, or structures member by member. Raises Misfit for other values."""
        first, *others = values
        if isinstance(first, int):
            return sum(others, first)
        if isinstance(first, list):
            return [cls.total(each) for each in zip(first, *others)]
        if not isinstance(first, Value):
            raise Misfit(f"a {type(first).__name__} is nothing to add up.")
        members = {
            name: cls.total([member, *(getattr(other, name) for other in others)])
            for name, member in first
        }
        return cls(first._name, members)


class Member(NamedTuple):
    """The position and type of a member in its structure."""

    offset: int  # in bytes
    layout: "Layout"


class Layout:
    """A C type: how its bytes are read and written."""

    def __init__(self, types: Btf, number: int) -> None:
        """Raises Malformed."""
        self._bare = types.bare(number)
        self.name = types.spelled(number)
        self.size = types.size(number)
        self.members: Dict[str, Member] = {}
        self._of_members(types, number, 0)
        self._element = None
        if self._bare.is_array:
            self._element = Layout(types, self._bare.element)
        self._decode = self._decoder()
        self._rows: Dict[Tuple[str, ...], Callable[[bytes], Iterator[Tuple[int, ...]]]] = {}

    def _of_members(self, types: Btf, number: int, offset: int) -> None:
        bare = types.bare(number)
        for (name, kind, bits), width in zip(bare.members, bare.widths):
            if width:
                raise Malformed(f"{self.name}.{name} is a bit field, which is not read here.")
            if name:
                self.members[name] = Member(offset + bits // 8, Layout(types, kind))
            else:  # the members of an unnamed structure are those of the one it is in
                self._of_members(types, kind, offset + bits // 8)

    def member(self, path: str) -> Member:
        """Return a member, or a nested member such as "lock.val". Raises Misnamed."""
        offset, layout = 0, self
        for name in path.split("."):
            if name not in layout.members:
                raise _misnamed(layout.name, "member", name, layout.members)
            at, layout = layout.members[name]
            offset += at
        return Member(offset, layout)

    def span(self, path: str) -> Tuple[int, int]:
        """Return the offsets of a member's begin and end, in bytes. Raises Misnamed."""
        offset, layout = self.member(path)
        return offset, offset + layout.size

    # -- reading

    def decode(self, data: bytes) -> Any:
        """Return a number, a Value, or a list of either. An array of char is returned as bytes.

        Raises Misfit if the size is wrong.
        """
        if len(data) != self.size:
            raise Misfit(f"a value of {self.name} has {self.size} bytes, not {len(data)}.")
        return self._decode(data, 0)

    def decode_each(self, data: bytes) -> List[Any]:
        """Return consecutive values, such as those of all CPUs. Raises Misfit."""
        return [self._decode(data, at) for at in range(0, self._checked(data), self.stride)]

    def rows(self, data: bytes, *paths: str) -> Iterator[Tuple[int, ...]]:
        """Yield a tuple of these members of each of several consecutive values.

        The members must be numbers. It is some thirty times as fast as decode_each(). Raises
        Misnamed, Misfit.
        """
        self._checked(data)
        if paths not in self._rows:
            self._rows[paths] = self._row_reader(paths)
        return self._rows[paths](data)

    @property
    def stride(self) -> int:
        """The distance of consecutive values in bytes."""
        return -(-self.size // ALIGNMENT) * ALIGNMENT

    def _checked(self, data: bytes) -> int:
        if not self.size or len(data) % self.stride:
            raise Misfit(
                f"values of {self.name} lie {self.stride} bytes apart, and {len(data)} bytes are"
                " no whole number of them."
            )
        return len(data)

    def _row_reader(self, paths: Tuple[str, ...]) -> Callable[[bytes], Iterator[Tuple[int, ...]]]:
        members = [(*self.member(path), path) for path in paths]
        found = sorted(members, key=itemgetter(0))
        layout, at = "<", 0
        for offset, member, path in found:
            if offset < at or not member.format:
                raise Misfit(f"{path} of {self.name} is no number of its own.")
            layout += f"{offset - at}x{member.format}"
            at = offset + member.size
        read = struct.Struct(f"{layout}{self.stride - at}x").iter_unpack
        in_order = [path for _, _, path in found]
        if in_order == list(paths):
            return read
        wanted = itemgetter(*map(in_order.index, paths))
        return lambda data: map(wanted, read(data))

    @property
    def format(self) -> str:
        """The format of a number for the module struct; "" for other types."""
        code = _FORMATS.get(self.size, "") if self._bare.is_number else ""
        return code.lower() if self._bare.signed else code

    def _decoder(self) -> Callable[[bytes, int], Any]:
        if self.format:
            unpack = struct.Struct(f"<{self.format}").unpack_from
            return lambda data, at: unpack(data, at)[0]
        if self._element is not None and self._element.format and not self._is_text:
            many = struct.Struct(f"<{self._bare.length}{self._element.format}").unpack_from
            return lambda data, at: list(many(data, at))
        if self._element is not None and not self._is_text:
            each, size = self._element._decode, self._element.size
            places = range(0, self.size, size or 1)
            return lambda data, at: [each(data, at + place) for place in places]
        if self.members:
            name = self.name
            parts = [(key, offset, part._decode) for key, (offset, part) in self.members.items()]
            return lambda data, at: Value(
                name, {key: read(data, at + offset) for key, offset, read in parts}
            )
        return lambda data, at: bytes(data[at : at + self.size])

    @property
    def _is_text(self) -> bool:
        return self._element is not None and self._element.size == 1

    # -- writing

    def encode(self, value: Any = None) -> bytes:
        """Return the bytes of a number, of members by name, of a sequence, or of a Value.

        Members that are not named are zero. Bytes are not converted. Raises Misnamed, Misfit.
        """
        data = bytearray(self.size)
        self._encode(data, 0, value)
        return bytes(data)

    def _encode(self, data: bytearray, at: int, value: Any) -> None:
        if value is None:
            return
        if isinstance(value, (bytes, bytearray)):
            if len(value) != self.size:
                raise Misfit(f"a value of {self.name} has {self.size} bytes, not {len(value)}.")
            data[at : at + self.size] = value
        elif self.format:
            self._encode_number(data, at, value)
        elif self._element is not None and not isinstance(value, (int, Mapping, Value)):
            if len(value) > self._bare.length:
                raise Misfit(f"{self.name} has no room for {len(value)} elements.")
            for number, each in enumerate(value):
                self._element._encode(data, at + number * self._element.size, each)
        elif self.members and isinstance(value, (Mapping, Value)):
            for name, each in dict(value).items():
                offset, member = self.member(name)
                member._encode(data, at + offset, each)
        else:
            raise Misfit(f"{value!r} is no value of {self.name}.")

    def _encode_number(self, data: bytearray, at: int, value: Any) -> None:
        try:
            struct.pack_into(f"<{self.format}", data, at, value)
        except struct.error:
            raise Misfit(f"{value!r} is no value of {self.name}, of {self.size} bytes.") from None


class MapLayout(NamedTuple):
    """The types of a map's keys and values."""

    key: Layout
    value: Layout
    per_cpu: bool  # the map has one value per possible CPU


class Types:
    """The types in one object's BTF."""

    def __init__(self, data: bytes) -> None:
        """Raises Malformed."""
        self._object = elf.read(data)
        if self._object.types is None or self._object.problem:
            raise Malformed(self._object.problem or "the object has no BTF.")
        self._btf = self._object.types
        self._layouts: Dict[int, Layout] = {}

    def layout(self, name: str) -> Layout:
        """Return a type by its C name, such as "struct visits". Raises Misnamed, Malformed."""
        names = self._btf.names()
        if name not in names:
            raise _misnamed("the object", "type", name, names)
        return self._layout(names[name])

    def map(self, name: str, value: str = "") -> MapLayout:
        """Return the types of a map's keys and values in its definition.

        `value` overrides the C type of the values, since a section of variables has none.
        Raises Misnamed, Malformed.
        """
        if name not in self._object.maps:
            raise _misnamed("the object", "map", name, self._object.maps)
        found = self._object.maps[name]
        if found.value_type is None and not value:
            raise Malformed(f"the map {name} does not name the type of its values.")
        return MapLayout(
            self.layout("unsigned int") if found.key_type is None else self._layout(found.key_type),
            self.layout(value) if value else self._layout(found.value_type or 0),
            found.type in _PER_CPU,
        )

    def _layout(self, number: int) -> Layout:
        if number not in self._layouts:
            self._layouts[number] = Layout(self._btf, number)
        return self._layouts[number]


@lru_cache(maxsize=64)
def types(data: bytes) -> Types:
    """Return the types of an object. They are cached. Raises Malformed."""
    return Types(data)


def _misnamed(owner: str, what: str, name: str, known: Iterable[str]) -> Misnamed:
    names = [each for each in known if each]
    near = difflib.get_close_matches(name, names, n=3) or names[:12]
    listed = ", ".join(near) if near else "none"
    return Misnamed(f"{owner} has no {what} {name!r}; the nearest are: {listed}.")
