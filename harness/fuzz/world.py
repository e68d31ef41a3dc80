# SPDX-License-Identifier: GPL-2.0-only
"""The maps and program types that random programs use, and the BTF that describes them. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Dict, List, Mapping, Sequence, Tuple

from harness.guest import uapi
from harness.guest.calls import FuzzMap

FIRST_FD = 200  # the maps' fds in the guest: this and the following, so that programs can name them


@dataclass(frozen=True)
class Layout:
    """A value's size, and where its lock is (-1: it has none)."""

    size: int
    lock: int


@dataclass(frozen=True)
class MapKind:
    """A map: its type, number of elements and what its values are; of outer maps the inner one."""

    type: int
    entries: int
    layout: Layout
    inner: str = ""
    kernels: str = ""  # those that create it

    @property
    def is_array(self) -> bool:
        """Tell whether all elements exist always."""
        return self.type == uapi.BPF_MAP_TYPE_ARRAY


PLAIN, BEHIND, FRONT = Layout(8, -1), Layout(24, 8), Layout(16, 0)
_HASH, _ARRAY = uapi.BPF_MAP_TYPE_HASH, uapi.BPF_MAP_TYPE_ARRAY
# Order matters: an inner map stands before its outer one.
MAPS: Mapping[str, MapKind] = {
    "hash": MapKind(_HASH, 4, BEHIND),
    "front": MapKind(_HASH, 4, FRONT),
    "array": MapKind(_ARRAY, 2, BEHIND),
    "single": MapKind(_ARRAY, 1, BEHIND),
    "plain": MapKind(_HASH, 4, PLAIN),
    "outer": MapKind(uapi.BPF_MAP_TYPE_HASH_OF_MAPS, 2, BEHIND, inner="hash", kernels=">=6.2"),
}


@dataclass(frozen=True)
class ProgramType:
    """A program type: its number, attach type, and a field of its context that is a number."""

    number: int
    field: Tuple[int, int]  # offset and size
    attach: int = 0
    packets: bool = False  # LD_ABS is for those with packets


TYPES: Mapping[str, ProgramType] = {
    "sched_cls": ProgramType(3, (48, 4), packets=True),
    "sched_act": ProgramType(4, (48, 4), packets=True),
    "socket_filter": ProgramType(1, (0, 4), packets=True),
    "kprobe": ProgramType(2, (0, 8)),
    "tracepoint": ProgramType(5, (8, 8)),
    "xdp": ProgramType(6, (12, 4)),
    "perf_event": ProgramType(7, (0, 8)),
    "cgroup_skb": ProgramType(8, (0, 4)),
    "lwt_in": ProgramType(10, (0, 4)),
    "lwt_out": ProgramType(11, (0, 4)),
    "lwt_xmit": ProgramType(12, (0, 4)),
    "sock_ops": ProgramType(13, (0, 4)),
    "sk_skb": ProgramType(14, (0, 4)),
    "cgroup_device": ProgramType(15, (0, 4)),
    "raw_tracepoint": ProgramType(17, (0, 8)),
    "raw_tracepoint_writable": ProgramType(24, (0, 8)),
    "sk_reuseport": ProgramType(21, (16, 4)),
    "cgroup_sysctl": ProgramType(23, (0, 4)),
    "cgroup_sockopt": ProgramType(25, (24, 4), attach=uapi.BPF_CGROUP_GETSOCKOPT),
    "cgroup_sock_addr": ProgramType(18, (0, 4), attach=uapi.BPF_CGROUP_INET4_CONNECT),
}


class _Types:
    """A writer of BTF."""

    def __init__(self) -> None:
        self._types: List[bytes] = []
        self._strings = b"\0"

    def add(self, kind: int, name: str, size: int, extra: bytes = b"", count: int = 0) -> int:
        """Append a type; return its number."""
        return self._add(name, kind << 24 | count, size, extra)

    def _add(self, name: str, info: int, size: int, extra: bytes) -> int:
        self._types.append(struct.pack("<III", self.string(name), info, size) + extra)
        return len(self._types)

    def string(self, text: str) -> int:
        """Return where a string is."""
        if not text:
            return 0
        self._strings += text.encode() + b"\0"
        return len(self._strings) - len(text) - 1

    def struct(self, name: str, size: int, members: Sequence[Tuple[str, int, int]]) -> int:
        """Append a structure of (name, type, offset in bytes); return its number."""
        rows = [(self.string(member), kind, at * 8) for member, kind, at in members]
        extra = b"".join(struct.pack("<III", *row) for row in rows)
        return self.add(4, name, size, extra, len(members))

    def data(self) -> bytes:
        """Return the section."""
        types = b"".join(self._types)
        header = struct.pack(
            "<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self._strings)
        )
        return header + types + self._strings


@dataclass(frozen=True)
class Types:
    """The BTF of the world: its bytes, and the numbers of types by what they are for."""

    data: bytes
    key: int
    values: Mapping[Layout, int]
    functions: Mapping[str, int]  # "static" and "global"


def types() -> Types:
    """Return the BTF of maps and functions."""
    made = _Types()
    number = made.add(1, "int", 4, struct.pack("<I", 1 << 24 | 32))
    key = made.add(1, "unsigned int", 4, struct.pack("<I", 32))
    wide = made.add(1, "unsigned long", 8, struct.pack("<I", 64))
    lock = made.struct("bpf_spin_lock", 4, [("val", key, 0)])
    values: Dict[Layout, int] = {
        PLAIN: wide,
        BEHIND: made.struct(
            "behind", 24, [("a", wide, 0), ("lock", lock, 8), ("b", key, 12), ("c", wide, 16)]
        ),
        FRONT: made.struct("front", 16, [("lock", lock, 0), ("a", key, 4), ("b", wide, 8)]),
    }
    proto = made.add(13, "", number)  # int (void)
    # The count of a function is its linkage: static or global.
    functions = {
        "static": made.add(12, "part", proto, count=0),
        "global": made.add(12, "whole", proto, count=1),
    }
    return Types(made.data(), key, values, functions)


def map_calls(btf: Types, names: Sequence[str]) -> List[FuzzMap]:
    """Return how the guest creates the maps."""
    order = list(MAPS)
    made = []
    for name in names:
        kind = MAPS[name]
        made.append(
            FuzzMap(
                fd=map_fd(name),
                type=kind.type,
                value=4 if kind.inner else kind.layout.size,
                entries=kind.entries,
                key_type=0 if kind.inner else btf.key,
                value_type=0 if kind.inner else btf.values[kind.layout],
                inner=FIRST_FD + order.index(kind.inner) if kind.inner else 0,
            )
        )
    return made


def map_fd(name: str) -> int:
    """Return the fd of a map in the guest."""
    return FIRST_FD + list(MAPS).index(name)


BTF_FD = FIRST_FD - 1
