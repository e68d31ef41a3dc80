# SPDX-License-Identifier: GPL-2.0-only
"""An ELF object on its way into the kernel."""

from __future__ import annotations

import ctypes as ct
import mmap
import os
from contextlib import suppress
from typing import Any, Dict, Iterator, List, Optional, Tuple

from harness.guest import bindings, libbpf, system, uapi
from harness.guest.maps import PER_CPU

# Storages, and maps whose entries libbpf counts itself.
_WITHOUT_ENTRIES = (
    uapi.BPF_MAP_TYPE_PERF_EVENT_ARRAY,
    uapi.BPF_MAP_TYPE_CGROUP_STORAGE,
    uapi.BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE,
    uapi.BPF_MAP_TYPE_SK_STORAGE,
    uapi.BPF_MAP_TYPE_STRUCT_OPS,
    uapi.BPF_MAP_TYPE_INODE_STORAGE,
    uapi.BPF_MAP_TYPE_TASK_STORAGE,
    uapi.BPF_MAP_TYPE_CGRP_STORAGE,
)
# To these libbpf gives no BTF: perf event arrays, stacks, maps of maps, sockets, devices, CPUs, arenas.
_WITHOUT_BTF = (4, 7, 8, 12, 13, 14, 15, 16, 17, 18, 22, 23, 25, 33)
_SIZED_BY_ENTRIES = (uapi.BPF_MAP_TYPE_RINGBUF, uapi.BPF_MAP_TYPE_ARENA)  # in bytes, or pages
_ELEMENT_BYTES = 64  # of an element beside its key and value, at most
_STACK_BYTES = 127 * 8  # of the deepest stack that the kernel follows unless told otherwise


def _corrected(kind: int, entries: int) -> int:
    """Return a map's entries as libbpf corrects them."""
    if kind == uapi.BPF_MAP_TYPE_PERF_EVENT_ARRAY and not entries:
        return system.possible_cpus()
    if kind == uapi.BPF_MAP_TYPE_RINGBUF:  # bytes: pages, and a power of two
        return max(mmap.PAGESIZE, 1 << (entries - 1).bit_length())
    return entries


class Object:
    """An ELF object that libbpf opened, to be loaded with just the named programs.

    Raises OSError when libbpf refuses the file; `messages` tells why.
    """

    def __init__(self, data: bytes, programs: Optional[List[str]] = None) -> None:
        self._data = data  # libbpf reads from it
        self._object = bindings.pointer_of(bindings.bpf_object__open_mem(data, len(data), None))
        self._programs = {
            bindings.bpf_program__name(p).decode(errors="replace"): p
            for p in self._each(bindings.bpf_object__next_program)
        }
        self._maps = {
            bindings.bpf_map__name(m).decode(errors="replace"): m
            for m in self._each(bindings.bpf_object__next_map)
        }
        for name, pointer in self._programs.items():
            bindings.check(
                bindings.bpf_program__set_autoload(pointer, programs is None or name in programs)
            )

    def _each(self, following: Any) -> Iterator[int]:
        pointer = following(self._object, None)
        while pointer:
            yield pointer
            pointer = following(self._object, pointer)

    def close(self) -> None:
        """Free it and close its fds."""
        bindings.bpf_object__close(self._object)

    def btf(self) -> bytes:
        """Return the object's BTF as libbpf would load it: with section sizes filled in."""
        size = bindings.U32()
        data = bindings.pointer_of(
            bindings.btf__raw_data(
                bindings.pointer_of(bindings.bpf_object__btf(self._object)), ct.byref(size)
            )
        )
        return ct.string_at(data, size.value)

    def load_btf(self) -> int:
        """Load nothing but the BTF, less what this kernel does not know of it; return its fd.

        libbpf goes on without a BTF that the kernel refuses: then that is loaded whole, by a plain
        system call, for its errno. The fd is closed with the object, which is of no other use then.
        """
        for pointer in self._maps.values():
            bindings.check(bindings.bpf_map__set_autocreate(pointer, False))
        with suppress(OSError):
            self.load()
        fd: int = bindings.btf__fd(bindings.pointer_of(bindings.bpf_object__btf(self._object)))
        return fd if fd >= 0 else libbpf.load_btf(self.btf())

    def create_map(self, name: str, btf_fd: int, like_libbpf: bool = False) -> int:
        """Create one of its maps by a plain system call, BTF included; return the fd.

        libbpf itself creates the map again without BTF when the kernel refuses it, and so hides
        the kernel's answer. Like libbpf: with the sizes that it corrects, and without BTF for those
        types to which it gives none.
        """
        return self._create(self._maps[name], name, btf_fd, like_libbpf)

    def _create(self, pointer: int, name: str, btf_fd: int, like_libbpf: bool) -> int:
        kind, key_size, value_size, entries, flags, key_type, value_type = (
            read(pointer) for read in bindings.MAP_FIELDS.values()
        )
        opts = bindings.MapCreateOpts(sz=ct.sizeof(bindings.MapCreateOpts), map_flags=flags)
        inner = bindings.bpf_map__inner_map(pointer)
        if like_libbpf:
            entries = _corrected(kind, entries)
            value_type = 0 if kind in _WITHOUT_BTF else value_type
        if value_type:  # a key's alone, as a map of maps has it, is refused
            opts.btf_fd, opts.btf_key_type_id, opts.btf_value_type_id = btf_fd, key_type, value_type
        try:
            if inner:
                opts.inner_map_fd = self._create(inner, "inner", btf_fd, like_libbpf)
            return bindings.check(
                bindings.bpf_map_create(
                    kind, name[:15].encode(), key_size, value_size, entries, ct.byref(opts)
                )
            )
        finally:
            if opts.inner_map_fd:
                os.close(opts.inner_map_fd)

    def sections(self, programs: List[str]) -> List[str]:
        """Return the section names of some programs, each once."""
        names = (
            bindings.bpf_program__section_name(self._programs[name]).decode() for name in programs
        )
        return list(dict.fromkeys(names))

    def has_map_of_type(self, kind: int) -> bool:
        """Tell whether one of its maps is of a type."""
        return any(bindings.MAP_FIELDS["type"](pointer) == kind for pointer in self._maps.values())

    def own_maps(self) -> List[str]:
        """Return the names of the maps that the source declares; .rodata and such are not."""
        return [name for name, m in self._maps.items() if not bindings.bpf_map__is_internal(m)]

    def is_of_struct_ops(self, program: str) -> bool:
        """Tell whether a program is a function of a struct_ops."""
        kind = bindings.bpf_program__type(self._programs[program])
        return bool(kind == uapi.BPF_PROG_TYPE_STRUCT_OPS)

    def leave_struct_ops(self) -> None:
        """Make no struct_ops: for one libbpf loads its programs, whichever were asked for."""
        if not any(self.is_of_struct_ops(name) for name in self._programs):
            return
        for name, pointer in self._maps.items():
            if self.is_struct_ops(name):
                bindings.check(bindings.bpf_map__set_autocreate(pointer, False))

    def all_maps(self) -> List[str]:
        """Return the names of all maps, sections of data among them."""
        return list(self._maps)

    def shrink(self, most: int) -> List[str]:
        """Give fewer entries to the maps that would take more bytes than this; return which."""
        shrunk = []
        for name, pointer in self._maps.items():
            kind, key, value, entries, *_ = (read(pointer) for read in bindings.MAP_FIELDS.values())
            if bindings.bpf_map__is_internal(pointer) or kind in _SIZED_BY_ENTRIES:
                continue
            values = system.possible_cpus() if kind in PER_CPU else 1
            each = _ELEMENT_BYTES + key + values * value
            if entries * each > most:
                bindings.check(bindings.bpf_map__set_max_entries(pointer, max(1, most // each)))
                shrunk.append(name)
        return shrunk

    def arena_bytes(self) -> int:
        """Return how much address space its arenas take, of which libbpf maps all."""
        read = bindings.MAP_FIELDS
        arenas = [m for m in self._maps.values() if read["type"](m) == uapi.BPF_MAP_TYPE_ARENA]
        return sum(read["max_entries"](m) * mmap.PAGESIZE for m in arenas)

    def is_struct_ops(self, name: str) -> bool:
        """Tell whether a map is a struct_ops, of which libbpf makes one of the kernel's types."""
        return bool(bindings.MAP_FIELDS["type"](self._maps[name]) == uapi.BPF_MAP_TYPE_STRUCT_OPS)

    def programs(self) -> List[str]:
        """Return the names of its programs, in the order of the file."""
        return list(self._programs)

    def program_facts(self) -> List[Dict[str, Any]]:
        """Return name, section, type and, as the kernel names it, expected attach type of each
        program, in the order of the file."""
        return [
            {
                "name": name,
                "section": bindings.bpf_program__section_name(pointer).decode(errors="replace"),
                "type": bindings.bpf_program__type(pointer),
                "attach_type": libbpf.attach_type_name(
                    bindings.bpf_program__expected_attach_type(pointer)
                ),
            }
            for name, pointer in self._programs.items()
        ]

    def assume_sizes(self, entries: int) -> List[str]:
        """Give a size to the maps that have none, as a loader of their own would; return which.

        What that leaves open is nearly always how many entries; of a map of stacks, how deep too.
        """
        assumed = []
        for name, pointer in self._maps.items():
            if (
                bindings.MAP_FIELDS["type"](pointer) == uapi.BPF_MAP_TYPE_STACK_TRACE
                and bindings.MAP_FIELDS["value_size"](pointer) == 0
            ):
                bindings.check(bindings.bpf_map__set_value_size(pointer, _STACK_BYTES))
            if (
                bindings.MAP_FIELDS["max_entries"](pointer) == 0
                and bindings.MAP_FIELDS["type"](pointer) not in _WITHOUT_ENTRIES
            ):
                bindings.check(bindings.bpf_map__set_max_entries(pointer, entries))
                assumed.append(name)
        return assumed

    def set_log(self, program: str, log: Any, level: Optional[int] = None) -> None:
        """Let the verifier's log of a program go to a buffer; without a level, if it is refused."""
        bindings.check(bindings.bpf_program__set_log_buf(self._programs[program], log, len(log)))
        if level is not None:
            bindings.check(bindings.bpf_program__set_log_level(self._programs[program], level))

    def extend(self, program: str, target: int, function: str) -> None:
        """Let a program replace a function of a loaded program, whose fd is the target."""
        bindings.check(
            bindings.bpf_program__set_attach_target(
                self._programs[program], target, function.encode()
            )
        )

    def load(self) -> None:
        """Create the maps and load the programs."""
        bindings.check(bindings.bpf_object__load(self._object))

    def program_fd(self, name: str) -> int:
        """Return the fd of a loaded program."""
        return bindings.check(bindings.bpf_program__fd(self._programs[name]))

    def program_kind(self, name: str) -> Tuple[int, int]:
        """Return (program type, expected attach type) of a program."""
        pointer = self._programs[name]
        return bindings.bpf_program__type(pointer), bindings.bpf_program__expected_attach_type(
            pointer
        )

    def instructions(self, name: str) -> Tuple[int, int]:
        """Return (address, count) of a program's instructions, with map fds in once loaded."""
        pointer = self._programs[name]
        return bindings.pointer_of(
            bindings.bpf_program__insns(pointer)
        ), bindings.bpf_program__insn_cnt(pointer)

    def map_fd(self, name: str) -> int:
        """Return the fd of a created map; raises KeyError for an unknown one."""
        return bindings.check(bindings.bpf_map__fd(self._maps[name]))
