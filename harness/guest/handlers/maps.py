# SPDX-License-Identifier: GPL-2.0-only
"""Maps of the loaded programs, element by element, in batches and as a whole."""

from __future__ import annotations

import base64
import mmap
import os
import time
import zlib
from typing import List, Tuple

from harness.guest import calls, copies, libbpf
from harness.guest.dispatch import answers
from harness.guest.state import State, fd_key

BPF_FILES = "/sys/fs/bpf"


@answers(calls.MapMemory)
def memory(state: State, call: calls.MapMemory) -> List[str]:
    size = max((begin + length for begin, length in call.pieces), default=0)
    if not size:
        return ["" for _ in call.pieces]
    with mmap.mmap(state.map(call.map).fd, size, mmap.MAP_SHARED, mmap.PROT_READ) as content:
        return [
            base64.b64encode(zlib.compress(content[begin : begin + length], 1)).decode()
            for begin, length in call.pieces
        ]


@answers(calls.MapReset)
def reset(state: State, call: calls.MapReset) -> None:
    state.map(call.map).reset()


@answers(calls.MapUpdate)
def update(state: State, call: calls.MapUpdate) -> None:
    state.map(call.map).update(bytes.fromhex(call.key), bytes.fromhex(call.value), call.flags)


@answers(calls.MapUpdateEach)
def update_each(state: State, call: calls.MapUpdateEach) -> None:
    target, content = state.map(call.map), bytes.fromhex(call.value)
    for key in call.keys:
        target.update(bytes.fromhex(key), content, call.flags)


@answers(calls.MapUpdateBatch)
def update_batch(state: State, call: calls.MapUpdateBatch) -> None:
    pairs = [(bytes.fromhex(key), bytes.fromhex(value)) for key, value in call.elements]
    state.map(call.map).update_batch(pairs, call.flags)


@answers(calls.MapLookup)
def lookup(state: State, call: calls.MapLookup) -> str:
    return state.map(call.map).lookup(bytes.fromhex(call.key), call.flags, call.fill).hex()


@answers(calls.MapLookupAndDelete)
def lookup_and_delete(state: State, call: calls.MapLookupAndDelete) -> str:
    key = bytes.fromhex(call.key)
    return state.map(call.map).lookup_and_delete(key, call.flags, call.fill).hex()


@answers(calls.MapReadBatch)
def read_batch(state: State, call: calls.MapReadBatch) -> List[Tuple[str, str]]:
    elements = state.map(call.map).read_batch(call.way, call.flags, call.fill)
    return [(key.hex(), value.hex()) for key, value in elements]


@answers(calls.MapDelete)
def delete(state: State, call: calls.MapDelete) -> None:
    state.map(call.map).delete(bytes.fromhex(call.key), call.flags)


@answers(calls.MapDeleteBatch)
def delete_batch(state: State, call: calls.MapDeleteBatch) -> None:
    state.map(call.map).delete_batch([bytes.fromhex(key) for key in call.keys], call.flags)


@answers(calls.MapMmap)
def map_into_memory(state: State, call: calls.MapMmap) -> None:
    with mmap.mmap(state.map(call.map).fd, call.length, mmap.MAP_SHARED, mmap.PROT_READ):
        pass


@answers(calls.MapFreeze)
def freeze(state: State, call: calls.MapFreeze) -> None:
    state.map(call.map).freeze()


@answers(calls.MapPutMap)
def put_map(state: State, call: calls.MapPutMap) -> None:
    state.map(call.map).update(bytes.fromhex(call.key), fd_key(state.map(call.inner).fd))


@answers(calls.MapIterate)
def iterate(state: State, call: calls.MapIterate) -> None:
    libbpf.iterate(state.program(call.program), state.map(call.map).fd)


@answers(calls.MapText)
def text(state: State, call: calls.MapText) -> calls.Texts:
    path = f"{BPF_FILES}/spinlock-{os.getpid()}"
    libbpf.pin(state.map(call.map).fd, path)
    texts, found = set(), 0
    try:
        with copies.running(dict.fromkeys(call.cpus, state.program(call.program))):
            until = time.monotonic() + call.seconds
            while found < call.held and time.monotonic() < until:
                texts.add(_read(path))
                found += state.run(call.peek) != 0
    finally:
        os.unlink(path)
    return {"texts": sorted(texts), "held": found}


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()
