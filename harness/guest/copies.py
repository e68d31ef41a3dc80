"""User space copies a map's elements, many times over, while programs on other CPUs use them."""

from __future__ import annotations

import errno
import itertools
import os
import struct
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from harness.guest import libbpf

Json = Dict[str, Any]

_RUNS_AT_A_TIME = 10_000  # long enough to be at it nearly always, short enough to end soon
_COPIES_PER_PEEK = 10  # a peek costs ten times as much as a copy


@dataclass(frozen=True)
class Copying:
    """What user space does: one way of access, until there was enough of it."""

    way: str  # lookup, lookup_and_delete, either with _batch, update, update_batch
    key: bytes
    flags: int
    times: int  # at least
    held: int  # go on until so many peeks found the lock word other than 0,
    seconds: float  # but no longer than this
    value: bytes  # what an update writes; else what the buffer holds before a read
    hidden: Tuple[int, int]  # where in the value the lock is: these bytes are tallied
    even: Tuple[int, int]  # where the 64-bit words are of which is told whether they are equal


def copy(map: libbpf.Map, copying: Copying, peek: Callable[[], int]) -> Json:
    """Do it, and peek at the lock word now and then, and at the end.

    Raises OSError but for ENOENT.

    Returns {"done": times, "missing": times there was no element, "hidden": {bytes: times},
    "uneven": times words differed, "witness": the first such value, "peeked": {word: times}}.
    """
    hidden: "Counter[str]" = Counter()
    peeked: "Counter[str]" = Counter()
    done, missing, uneven = 0, 0, 0
    witness: Optional[str] = None
    words = struct.Struct(f"<{(copying.even[1] - copying.even[0]) // 8}Q")
    act = _action(map, copying)
    held, end = 0, time.monotonic() + copying.seconds
    for number in itertools.count():
        if number >= copying.times and (held >= copying.held or time.monotonic() > end):
            break
        if number % _COPIES_PER_PEEK == 0:
            word = peek()
            peeked[f"{word:#x}"] += 1
            held += word != 0
        try:
            values = act()
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            missing += 1
            values = []
        else:
            done += 1
        for value in values:
            hidden[value[slice(*copying.hidden)].hex()] += 1
            if len(set(words.unpack_from(value, copying.even[0]))) > 1:
                uneven += 1
                witness = witness or value.hex()
    peeked[f"{peek():#x}"] += 1
    return {
        "done": done,
        "missing": missing,
        "hidden": dict(hidden),
        "uneven": uneven,
        "witness": witness,
        "peeked": dict(peeked),
    }


def _action(map: libbpf.Map, copying: Copying) -> Callable[[], List[bytes]]:
    """Return a function that copies once and returns the values read."""
    key, flags, value, way = copying.key, copying.flags, copying.value, copying.way
    fill = value[0] if value else 0

    def update() -> List[bytes]:
        map.update(key, value, flags)
        return []

    def update_batch() -> List[bytes]:
        map.update_batch([(key, value)], flags)
        return []

    def read_batch() -> List[bytes]:
        return [found for at, found in map.read_batch(way, flags, fill) if at == key]

    return {
        "lookup": lambda: [map.lookup(key, flags, fill)],
        "lookup_and_delete": lambda: [map.lookup_and_delete(key, flags, fill)],
        "lookup_batch": read_batch,
        "lookup_and_delete_batch": read_batch,
        "update": update,
        "update_batch": update_batch,
    }[way]


@contextmanager
def running(
    programs: Dict[int, int], packet: bytes, at_a_time: int = _RUNS_AT_A_TIME
) -> Iterator[None]:
    """Run a program over and over on each of some CPUs, {CPU: program}, until the block ends."""
    stop = threading.Event()
    started = threading.Barrier(len(programs) + 1)
    errors: List[OSError] = []

    def run(cpu: int, program: int) -> None:
        os.sched_setaffinity(0, {cpu})  # of the calling thread
        started.wait()
        try:
            while not stop.is_set():
                libbpf.test_run(program, packet, at_a_time)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in programs.items()]
    for thread in threads:
        thread.start()
    started.wait()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
