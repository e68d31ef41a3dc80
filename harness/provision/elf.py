# SPDX-License-Identifier: GPL-2.0-only
"""Reads a BPF object from a compiler: programs, instructions, maps, source lines.

Pure, and safe for untrusted files: each error is a sentence (Malformed). It does not predict the
verdict of the kernel. It serves to point at source lines, and lockset.py.
"""

from __future__ import annotations

import bisect
import struct
from dataclasses import dataclass, field, replace
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple

from harness.guest import uapi
from harness.provision.btf import Btf, Field, Malformed, Parameter

MOST_BYTES = 32 << 20
MOST_INSTRUCTIONS = 1 << 20
_EM_BPF, _SHT_SYMTAB, _SHT_NOBITS, _SHT_REL, _EXECUTABLE = 247, 2, 8, 9, 4
_FUNC, _SECTION = 2, 3  # of symbols
_LOCAL, _DEFAULT = 0, 0  # binding and visibility of a symbol
_PSEUDO_CALL = 1


class Insn(NamedTuple):
    """One instruction of 8 bytes. The second half of a 64-bit constant has code 0."""

    code: int
    dst: int
    src: int
    off: int
    imm: int


@dataclass(frozen=True)
class Target:
    """The target of a relocation: a map, a place in data, or a function."""

    kind: str  # "map", "data", "function" or "extern"
    name: str
    offset: int = 0


@dataclass(frozen=True)
class Map:
    """A map that the source declares, or a data section, which libbpf makes a map."""

    name: str
    type: int  # of enum bpf_map_type; 2 (ARRAY) for data
    has_btf: bool
    fields: Tuple[Field, ...] = ()
    inner: Optional["Map"] = None
    key_type: Optional[int] = None  # numbers in the object's BTF
    value_type: Optional[int] = None
    key_size: int = 0  # in bytes; 0: not known
    value_size: int = 0
    holds: Tuple[str, ...] = ()  # the initial inner maps of a map of maps

    @property
    def locks(self) -> Tuple[Field, ...]:
        """The locks in the map's value."""
        return tuple(field for field in self.fields if field.lock)


@dataclass
class Function:
    """A program or subprogram."""

    name: str
    section: str
    insns: List[Insn]
    targets: Dict[int, Target] = field(default_factory=dict)  # by index of the instruction
    lines: Dict[int, Tuple[str, int]] = field(default_factory=dict)  # index -> (file, line)
    is_global: bool = False  # verified separately; static and hidden functions are not
    _starts: List[int] = field(default_factory=list, repr=False, compare=False)  # of lines, sorted

    def line(self, index: int) -> Optional[Tuple[str, int]]:
        """Return the (file, line) of an instruction in the source, or None."""
        if len(self._starts) != len(self.lines):
            self._starts = sorted(self.lines)
        before = bisect.bisect_right(self._starts, index)
        return self.lines[self._starts[before - 1]] if before else None


@dataclass(frozen=True)
class Object:
    """The contents of one object file."""

    functions: Dict[str, Function]
    programs: Tuple[str, ...]
    maps: Dict[str, Map]
    problem: str = ""  # the error in its types or line information; "": none
    types: Optional[Btf] = None
    externs: Mapping[str, Tuple[Parameter, ...]] = field(default_factory=dict)  # kernel functions


class _Section(NamedTuple):
    name: str
    kind: int
    flags: int
    data: bytes
    link: int
    info: int


class _Symbol(NamedTuple):
    name: str
    kind: int
    section: int
    value: int
    size: int
    is_global: bool


def read(data: bytes) -> Object:
    """Read an object. Raises Malformed."""
    try:
        return _Reader(data).object()
    except (struct.error, IndexError, OverflowError):
        raise Malformed("The file is cut off or damaged: an ELF table leads out of it.") from None


class _Reader:
    def __init__(self, data: bytes) -> None:
        if data[:4] != b"\x7fELF":
            raise Malformed("This is not an ELF file; a BPF object is (`clang -target bpf -c`).")
        if len(data) > MOST_BYTES:
            raise Malformed(
                f"The file is larger than {MOST_BYTES >> 20} MiB, the most for an object."
            )
        if data[4:5] != b"\x02":
            raise Malformed("This is a 32-bit ELF file; BPF objects have 64 bits.")
        if data[5:6] == b"\x02":
            raise Malformed(
                "This object is big-endian (`-target bpfeb`), and the kernels here are little-endian:"
                " compile it with `-target bpf` or `bpfel`."
            )
        self._data = data
        kind, machine = struct.unpack_from("<HH", data, 16)
        if machine not in (0, _EM_BPF):
            raise Malformed(
                f"This ELF file is for machine {machine}, not for BPF ({_EM_BPF}): compile the"
                " program with `clang -target bpf -c`, without linking it into anything."
            )
        if kind != 1:
            raise Malformed("This ELF file is not an object (it was linked); a BPF object is one.")
        (at,) = struct.unpack_from("<Q", data, 40)
        size, count, names = struct.unpack_from("<HHH", data, 58)
        if size != 64:
            raise Malformed("The file is damaged: its section headers have an impossible size.")
        self.sections: List[_Section] = []
        headers = [struct.unpack_from("<IIQQQQIIQQ", data, at + 64 * i) for i in range(count)]
        strings = self._bytes(headers[names]) if names < len(headers) else b""
        for header in headers:
            name = _string(strings, header[0])
            self.sections.append(
                _Section(name, header[1], header[2], self._bytes(header), header[6], header[7])
            )
        self.symbols = self._symbols()
        self._btf: Optional[Btf] = None
        self._problem = ""

    def _bytes(self, header: Tuple[int, ...]) -> bytes:
        kind, start, size = header[1], header[4], header[5]
        if kind in (0, _SHT_NOBITS):
            return b""
        if start + size > len(self._data):
            raise Malformed("The file is cut off or damaged: a section reaches beyond its end.")
        return self._data[start : start + size]

    def _symbols(self) -> List[_Symbol]:
        table = next((s for s in self.sections if s.kind == _SHT_SYMTAB), None)
        if table is None:
            raise Malformed("The object has no symbols, so no programs: it was stripped.")
        strings = self.sections[table.link].data
        symbols = []
        for name, info, other, section, value, size in struct.iter_unpack(
            "<IBBHQQ", table.data[: len(table.data) // 24 * 24]
        ):
            outside = (
                info >> 4 != _LOCAL and other & 3 == _DEFAULT
            )  # libbpf: a hidden one is static
            symbols.append(
                _Symbol(_string(strings, name), info & 15, section, value, size, outside)
            )
        return symbols

    def object(self) -> Object:
        """Return the contents of the file. Raises Malformed."""
        functions = self._functions()
        maps: Dict[str, Map] = {}
        externs: Dict[str, Tuple[Parameter, ...]] = {}
        try:
            found = next((s for s in self.sections if s.name == ".BTF"), None)
            if found is not None:
                self._btf = Btf(found.data)
                maps = self._maps()
                externs = self._externs()
                self._lines(functions)
        except (Malformed, struct.error, OverflowError) as error:
            self._problem = str(error)
        self._relocate(functions, maps)
        if not functions and any(s.flags & _EXECUTABLE and s.data for s in self.sections):
            raise Malformed(
                "The object has code, but no symbol that is a function, so libbpf finds no program"
                " in it: compile it with clang 9 or later."
            )
        programs = tuple(
            f.name for f in functions.values() if f.section != ".text" or len(functions) == 1
        )
        return Object(functions, programs, maps, self._problem, types=self._btf, externs=externs)

    # -- code ------------------------------------------------------------------------------------

    def _functions(self) -> Dict[str, Function]:
        functions: Dict[str, Function] = {}
        self._place: Dict[Tuple[int, int], str] = {}  # (section, offset) -> function
        self._start: Dict[str, Tuple[int, int]] = {}  # (section, offset); aliases share it
        total = 0
        for symbol in self.symbols:
            if symbol.kind != _FUNC or not 0 < symbol.section < len(self.sections):
                continue
            section = self.sections[symbol.section]
            if not section.flags & _EXECUTABLE or symbol.name in functions:
                continue
            code = section.data[symbol.value : symbol.value + symbol.size]
            insns = [
                Insn(code, registers & 15, registers >> 4, off, imm)
                for code, registers, off, imm in struct.iter_unpack(
                    "<BBhi", code[: len(code) // 8 * 8]
                )
            ]
            total += len(insns)
            if total > MOST_INSTRUCTIONS:
                raise Malformed(f"The object has more than {MOST_INSTRUCTIONS} instructions.")
            functions[symbol.name] = Function(
                symbol.name, section.name, insns, is_global=symbol.is_global
            )
            self._place[symbol.section, symbol.value] = symbol.name
            self._start[symbol.name] = symbol.section, symbol.value
        return functions

    def _relocate(self, functions: Dict[str, Function], maps: Dict[str, Map]) -> None:
        by_section: Dict[int, Dict[int, _Symbol]] = {}
        for section in self.sections:
            if section.kind == _SHT_REL and section.info < len(self.sections):
                table = by_section.setdefault(section.info, {})
                usable = section.data[: len(section.data) // 16 * 16]
                for offset, info in struct.iter_unpack("<QQ", usable):
                    if info >> 32 < len(self.symbols):
                        table[offset] = self.symbols[info >> 32]
        for function in functions.values():
            index, start = self._start[function.name]
            table = by_section.get(index, {})
            for at, insn in enumerate(function.insns):
                symbol = table.get(start + 8 * at)
                target = self._target(insn, symbol, index, start + 8 * at, maps)
                if target is not None:
                    function.targets[at] = target

    def _target(
        self, insn: Insn, symbol: Optional[_Symbol], section: int, at: int, maps: Dict[str, Map]
    ) -> Optional[Target]:
        if insn.code == uapi.BPF_JMP_CALL and insn.src == _PSEUDO_CALL:
            if symbol is not None and symbol.section == 0:
                return Target("extern", symbol.name)
            place = (section, at + 8 * (insn.imm + 1))
            if symbol is not None:
                place = (symbol.section, symbol.value + 8 * (insn.imm + 1))
            return Target("function", self._place[place]) if place in self._place else None
        if insn.code != 0x18 or symbol is None:
            return None
        if symbol.section == 0:
            return Target("extern", symbol.name)
        if not 0 < symbol.section < len(self.sections):
            return None
        name = self.sections[symbol.section].name
        if name == ".maps":
            offset = symbol.value + (insn.imm if symbol.kind == _SECTION else 0)
            named = self._map_at(symbol.section, offset)
            return Target("map", named) if named else None
        if self.sections[symbol.section].flags & _EXECUTABLE:
            offset = symbol.value + (insn.imm if symbol.kind == _SECTION else 0)
            function = self._place.get((symbol.section, offset))
            return Target("function", function) if function else None
        return Target("data", name, symbol.value + insn.imm)

    def _map_at(self, section: int, offset: int) -> Optional[str]:
        return next(
            (
                s.name
                for s in self.symbols
                if s.section == section and s.value == offset and s.name and s.kind != _SECTION
            ),
            None,
        )

    # -- types -----------------------------------------------------------------------------------

    def _maps(self) -> Dict[str, Map]:
        assert self._btf is not None
        maps: Dict[str, Map] = {}
        declared = self._btf.section(".maps")
        held = self._held()
        for _, variable, _ in declared.members if declared else ():
            name, kind = self._btf.variable(variable)
            maps[name] = replace(self._map(name, kind, 0), holds=tuple(held.get(name, ())))
        for index, section in enumerate(self.sections):
            if section.name.split(".")[1:2] in (["bss"], ["data"], ["rodata"]):
                maps[section.name] = self._data_map(index, section.name)
        return maps

    def _map(self, name: str, kind: int, depth: int) -> Map:
        assert self._btf is not None
        members = self._btf.struct_members(kind)
        number = self._btf.pointed(members["type"]) if "type" in members else None
        value = self._btf.pointed(members["value"]) if "value" in members else None
        inner: Optional[Map] = None
        if "values" in members and depth == 0:
            pointer = self._btf.element(members["values"])
            of = self._btf.pointed(pointer) if pointer is not None else None
            if of is not None and self._btf.struct_members(of):
                inner = self._map(f"{name}[]", of, 1)
        return Map(
            name,
            self._btf.array_length(number) if number is not None else 0,
            value is not None,
            tuple(self._btf.fields(value)) if value is not None else (),
            inner,
            key_type=self._btf.pointed(members["key"]) if "key" in members else None,
            value_type=value,
            key_size=self._size(members, "key"),
            value_size=self._size(members, "value"),
        )

    def _size(self, members: Dict[str, int], part: str) -> int:
        """Return the size of a map's key or value, from its declared type or size."""
        assert self._btf is not None
        kind = self._btf.pointed(members[part]) if part in members else None
        if kind is not None:
            return self._btf.size(kind)
        number = self._btf.pointed(members[f"{part}_size"]) if f"{part}_size" in members else None
        return self._btf.array_length(number) if number is not None else 0

    def _held(self) -> Dict[str, List[str]]:
        """Return the initial inner maps of maps of maps, from relocations of their definitions."""
        held: Dict[str, List[str]] = {}
        for section in self.sections:
            if section.kind != _SHT_REL or section.info >= len(self.sections):
                continue
            if self.sections[section.info].name != ".maps":
                continue
            outer = [
                s
                for s in self.symbols
                if s.section == section.info and s.name and s.kind != _SECTION
            ]
            usable = section.data[: len(section.data) // 16 * 16]
            for offset, info in struct.iter_unpack("<QQ", usable):
                if info >> 32 < len(self.symbols):
                    inner = self.symbols[info >> 32]
                    for each in outer:
                        if each.value <= offset < each.value + each.size:
                            held.setdefault(each.name, []).append(inner.name)
        return held

    def _externs(self) -> Dict[str, Tuple[Parameter, ...]]:
        """Return the parameters of functions outside the object, by name."""
        assert self._btf is not None
        found: Dict[str, Tuple[Parameter, ...]] = {}
        for symbol in self.symbols:
            if symbol.section == 0 and symbol.name:
                known = self._btf.parameters(symbol.name)
                if known is not None:
                    found[symbol.name] = known
        return found

    def _data_map(self, index: int, name: str) -> Map:
        """Return a data section as a map. Offsets of its variables are those of the symbols."""
        assert self._btf is not None
        section = self._btf.section(name)
        places = {s.name: s.value for s in self.symbols if s.section == index}
        fields: List[Field] = []
        for _, number, _ in section.members if section else ():
            variable, kind = self._btf.variable(number)
            fields += self._btf.fields(kind, variable, places.get(variable, 0))
        end = max([f.offset + f.size for f in fields] or [0])
        return Map(name, 2, section is not None, tuple(fields), key_size=4, value_size=end)

    def _lines(self, functions: Dict[str, Function]) -> None:
        """Read the source lines of .BTF.ext; see struct btf_ext_header and struct bpf_line_info."""
        assert self._btf is not None
        section = next((s for s in self.sections if s.name == ".BTF.ext"), None)
        if section is None:
            return
        header, _, _, start, length = struct.unpack_from("<IIIII", section.data, 4)
        at, end = header + start, header + start + length
        (size,) = struct.unpack_from("<I", section.data, at)
        at += 4
        if size < 16:
            raise Malformed("its line information is damaged.")
        of_section: Dict[str, List[Tuple[int, str, int]]] = {}
        while at + 8 <= end:
            name, count = struct.unpack_from("<II", section.data, at)
            at += 8
            rows = of_section.setdefault(self._btf.string(name), [])
            for _ in range(count):
                offset, file, _, line = struct.unpack_from("<IIII", section.data, at)
                rows.append((offset, self._btf.string(file), line >> 10))
                at += size
        for function in functions.values():
            _, first = self._start[function.name]
            last = first + 8 * len(function.insns)
            for offset, name, line in of_section.get(function.section, ()):
                if first <= offset < last and line:
                    function.lines[(offset - first) // 8] = (name, line)


def _string(strings: bytes, at: int) -> str:
    end = strings.find(b"\0", at)
    return strings[at:end].decode(errors="replace") if at <= end else ""
