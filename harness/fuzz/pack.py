# SPDX-License-Identifier: GPL-2.0-only
"""Batches of programs as the guest takes them, and its answers. Pure."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import List, Sequence

from harness.fuzz import world
from harness.fuzz.lower import Code


def pack(codes: Sequence[Code], functions: world.Types) -> str:
    """Return programs in the form of calls.FuzzLoad."""
    parts = []
    for code in codes:
        infos = b"".join(
            struct.pack("<II", first, functions.functions[kind]) for first, kind in code.functions
        )
        count = len(code.instructions) // 8
        head = struct.pack("<IIIII", code.type, code.attach, code.flags, count, len(code.functions))
        parts.append(head + code.instructions + infos)
    return base64.b64encode(zlib.compress(b"".join(parts), 1)).decode()


def errnos(answer: str) -> List[int]:
    """Return the errno of each program of a batch, 0 for those that were loaded."""
    data = base64.b64decode(answer)
    return [pair[0] for pair in struct.iter_unpack("<h", data)]
