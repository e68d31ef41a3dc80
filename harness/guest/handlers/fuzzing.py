# SPDX-License-Identifier: GPL-2.0-only
"""Many random programs: maps at fixed fds, and loads without a word but the errno."""

from __future__ import annotations

import base64
import ctypes as ct
import os
import resource
import struct
import zlib
from typing import Iterator, List, Tuple

from harness.guest import calls, libbpf, system, uapi
from harness.guest.dispatch import answers
from harness.guest.state import SETTLE_SECONDS, State

_HEAD = struct.Struct("<IIIII")  # program type, attach type, flags, instructions, functions
_ATTR_BYTES = 120
_FUNC_INFO_BYTES = 8
_MOST_FDS = 4096
_LOG_BYTES = 1 << 20


@answers(calls.FuzzWorld)
def world(state: State, call: calls.FuzzWorld) -> List[int]:
    """Create the maps; see calls.FuzzWorld. Raises OSError."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_FDS, _MOST_FDS))
    libbpf.limit_locked_memory(resource.RLIM_INFINITY)
    _place(libbpf.load_btf(base64.b64decode(call.btf)), call.btf_fd)
    refused = []
    for wanted in call.maps:
        attr = bytearray(_ATTR_BYTES)
        # map_type, key_size, value_size, max_entries, map_flags, inner_map_fd
        sizes = (wanted.type, 4, wanted.value, wanted.entries, wanted.flags, wanted.inner)
        struct.pack_into("<IIIIII", attr, 0, *sizes)
        if wanted.key_type:  # btf_fd, btf_key_type_id, btf_value_type_id
            types = (call.btf_fd, wanted.key_type, wanted.value_type)
            struct.pack_into("<III", attr, 48, *types)
        fd = system.bpf(uapi.BPF_MAP_CREATE, attr)
        refused.append(max(0, -fd))
        if fd >= 0:
            _place(fd, wanted.fd)
    return refused


def _place(fd: int, wanted: int) -> None:
    """Give an fd its number."""
    os.dup2(fd, wanted)
    os.close(fd)


@answers(calls.FuzzLoad)
def load(state: State, call: calls.FuzzLoad) -> calls.FuzzLoaded:
    """Load programs one after the other, and close each at once."""
    late = state.begin("fuzz")
    data = bytearray(zlib.decompress(base64.b64decode(call.programs)))
    memory = (ct.c_char * len(data)).from_buffer(data)
    base = ct.addressof(memory)
    license = ct.create_string_buffer(b"GPL")
    log = ct.create_string_buffer(_LOG_BYTES) if call.log_level else None
    attr = bytearray(_ATTR_BYTES)
    struct.pack_into("<I", attr, 72, call.btf_fd)
    errnos: List[int] = []
    logs: List[str] = []
    for head, at in _programs(data):
        kind, attach, flags, count, functions = head
        struct.pack_into("<IIQQ", attr, 0, kind, count, base + at, ct.addressof(license))
        if log is not None:
            log[0] = b"\0"
            struct.pack_into("<IIQ", attr, 24, call.log_level, _LOG_BYTES, ct.addressof(log))
        struct.pack_into("<I", attr, 44, flags)
        struct.pack_into("<I", attr, 68, attach)
        infos = base + at + count * uapi.INSN_BYTES if functions else 0
        size = _FUNC_INFO_BYTES if functions else 0
        struct.pack_into("<IQI", attr, 76, size, infos, functions)
        fd = system.bpf(uapi.BPF_PROG_LOAD, attr)
        if fd >= 0:
            os.close(fd)
        errnos.append(max(0, -fd))
        if log is not None:
            logs.append(log.value.decode(errors="replace"))
    answer = struct.pack(f"<{len(errnos)}h", *errnos)
    lines = state.aftermath(SETTLE_SECONDS, ran=False)["kernel_log"]
    return {
        "errnos": base64.b64encode(answer).decode(),
        "logs": logs,
        "late": late,
        "kernel_log": lines,
    }


def _programs(data: bytearray) -> Iterator[Tuple[Tuple[int, int, int, int, int], int]]:
    """Yield the head of each program, and where its instructions are."""
    at = 0
    while at < len(data):
        kind, attach, flags, count, functions = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        yield (kind, attach, flags, count, functions), at
        at += count * uapi.INSN_BYTES + functions * _FUNC_INFO_BYTES
