# SPDX-License-Identifier: GPL-2.0-only
"""Copies of a map's elements by user space, in a loop, while programs on other CPUs use them."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import struct
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from harness.guest import libbpf, system, uapi
from harness.guest.calls import Copied, Shape, Until
from harness.guest.maps import Map

_RUNS_AT_A_TIME = 10_000  # per system call: many, so that gaps are rare; few, so that it ends soon
SHORT_RUNS_AT_A_TIME = 100  # where another task often waits for an RCU grace period
_CALLS_AT_A_TIME = 1_000
_COPIES_PER_PEEK = 10  # a peek costs ten times as much as a copy


@dataclass(frozen=True)
class Copying:
    """The parameters of copy(): one way of access, and when to end; see calls.Copy."""

    map: Map
    way: str
    key: bytes
    flags: int
    values: Tuple[bytes, ...]
    shape: Shape
    until: Until
    renewed: bytes
    before: bytes
    other: Optional[Callable[[], List[bytes]]]  # the way "other": returns what it read


def copy(copying: Copying, peek: Optional[Callable[[], int]]) -> Copied:
    """Copy as told, and peek at the lock word now and then and at the end.

    Raises OSError, except ENOENT: a missing element is counted.
    """
    until, tally = copying.until, _Tally(copying.shape)
    peeked: "Counter[str]" = Counter()
    done, missing = 0, 0
    act = _action(copying)
    held, begin = 0, time.monotonic()
    for number in itertools.count():
        passed = time.monotonic() - begin
        enough = tally.uneven >= until.uneven and held >= until.held and passed >= until.least
        if number >= until.times and (enough or passed > until.seconds):
            break
        if peek is not None and number % _COPIES_PER_PEEK == 0:
            word = peek()
            peeked[f"{word:#x}"] += 1
            held += word != 0
        try:
            tally.add(act())
            done += 1
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            missing += 1
        if copying.renewed:
            _renew(copying, begin + until.seconds)
    if peek is not None:
        peeked[f"{peek():#x}"] += 1
    return {
        "done": done,
        "missing": missing,
        "hidden": dict(tally.hidden),
        "uneven": tally.uneven,
        "witness": tally.witness,
        "peeked": dict(peeked),
    }


class _Tally:
    """Counts of the values that were read."""

    def __init__(self, shape: Shape) -> None:
        self._lock, (self._begin, end) = slice(*shape.hidden), shape.even
        self._words = struct.Struct(f"<{(end - self._begin) // 8}Q")
        self.hidden: "Counter[str]" = Counter()  # the lock's bytes
        self.uneven = 0  # number of torn values: their words differ
        self.witness: Optional[str] = None  # the first torn value

    def add(self, values: Sequence[bytes]) -> None:
        for value in values:
            self.hidden[value[self._lock].hex()] += 1
            if len(set(self._words.unpack_from(value, self._begin))) > 1:
                self.uneven += 1
                self.witness = self.witness or value.hex()


def _action(copying: Copying) -> Callable[[], List[bytes]]:
    """Return a function that makes one copy and returns the values it read."""
    map, way, key, flags = copying.map, copying.way, copying.key, copying.flags
    values = copying.values
    fill = values[0][0] if values[0] else 0
    following = itertools.cycle(values)

    def update() -> List[bytes]:
        map.update(key, next(following), flags)
        return []

    def update_batch() -> List[bytes]:
        value = next(following)
        map.update_batch([(at, value) for at in (copying.before, key) if at], flags)
        return []

    def read_batch() -> List[bytes]:
        return [found for at, found in map.read_batch(way, flags, fill) if at == key]

    if way == "other":
        assert copying.other is not None
        return copying.other
    return {
        "lookup": lambda: [map.lookup(key, flags, fill)],
        "lookup_and_delete": lambda: [map.lookup_and_delete(key, flags, fill)],
        "lookup_batch": read_batch,
        "lookup_and_delete_batch": read_batch,
        "update": update,
        "update_batch": update_batch,
    }[way]


def _renew(copying: Copying, end: float) -> None:
    """Add the removed elements again, and wait until programs write to them, but not beyond `end`.

    The new element may get the old one's memory, so no program may use that any more. A running
    program is an RCU reader; membarrier() waits for those.
    """
    system.system_call(uapi.NR_MEMBARRIER, uapi.MEMBARRIER_CMD_GLOBAL, 0, 0)
    map = copying.map
    for key in (copying.before, copying.key):
        if key:
            map.update(key, copying.renewed, copying.flags)
    begin = copying.shape.even[0]
    while map.lookup(copying.key)[begin:] == copying.renewed[begin:] and time.monotonic() < end:
        pass


@dataclass(frozen=True)
class Sweep:
    """The parameters of sweep(): one element, written in every way and then read in every way."""

    map: Map
    key: bytes
    before: bytes  # the old value, where the element is not new
    value: bytes  # the written value
    fill: int  # fills the buffers of reads
    writes: Tuple[Tuple[str, int, bool], ...]  # update, update_batch, program; flags; whether new
    reads: Tuple[Tuple[str, int], ...]  # a way of Copying, neighbour or memory; flags
    program: Callable[[int], int]  # runs the program with an order; see copy_layouts.bpf.c
    image: Map  # the value that the program stores
    memory: Map  # the value that the program has read
    times: int = 1


_SHOW, _STORE, _STORE_LOCKED, _REMOVE = range(4)  # orders


def sweep(sweep: Sweep) -> Dict[str, List[List[int]]]:
    """Return each result, a value in hexadecimal or the name of an errno, with the [write, read]
    pairs (indices) that gave it."""
    seen: Dict[str, List[List[int]]] = {}
    pairs = itertools.product(enumerate(sweep.writes), enumerate(sweep.reads))
    for (at, write), (by, read) in list(pairs) * sweep.times:
        try:
            result = _written_and_read(sweep, write, read).hex()
        except OSError as error:
            result = uapi.errno_name(error.errno or 0)
        seen.setdefault(result, []).append([at, by])
    return seen


def _written_and_read(sweep: Sweep, write: Tuple[str, int, bool], read: Tuple[str, int]) -> bytes:
    map, key = sweep.map, sweep.key
    way, flags, is_new = write
    if is_new:
        _delete(map, key)
    else:
        map.update(key, sweep.before)
    if way == "program":
        sweep.image.update(bytes(4), sweep.value.ljust(sweep.image.value_size, b"\0"))
        _run(sweep, _STORE_LOCKED if flags & uapi.BPF_F_LOCK else _STORE)
    elif way == "update_batch":
        map.update_batch([(key, sweep.value)], flags)
    else:
        map.update(key, sweep.value, flags)
    way, flags = read
    if way == "memory":
        sweep.memory.update(bytes(4), bytes([sweep.fill]) * sweep.memory.value_size)
        _run(sweep, _SHOW)
        return sweep.memory.lookup(bytes(4))[: map.value_size]
    if way == "neighbour":
        return map.lookup((int.from_bytes(key, "little") + 1).to_bytes(4, "little"))
    if way == "lookup":
        return map.lookup(key, flags, sweep.fill)
    if way == "lookup_and_delete":
        return map.lookup_and_delete(key, flags, sweep.fill)
    return next(found for at, found in map.read_batch(way, flags, sweep.fill) if at == key)


def _delete(map: Map, key: bytes) -> None:
    try:
        map.delete(key)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def _run(sweep: Sweep, order: int) -> None:
    result = sweep.program(order)
    if result:
        raise OSError(abs(result), os.strerror(abs(result)))


@contextmanager
def running(programs: Dict[int, int], at_a_time: int = _RUNS_AT_A_TIME) -> Iterator[None]:
    """Run a program in a loop on each CPU of {CPU: program's fd}, until the block ends."""
    stop = threading.Event()
    started = threading.Barrier(len(programs) + 1)
    errors: List[OSError] = []

    def run(cpu: int, program: int) -> None:
        os.sched_setaffinity(0, {cpu})  # of the calling thread
        started.wait()
        try:
            while not stop.is_set():
                libbpf.test_run(program, libbpf.PACKET, at_a_time)
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


@contextmanager
def calling(
    cpus: Sequence[int], make: Callable[[], Callable[[], object]], group: Optional[Path] = None
) -> Iterator[None]:
    """Make a call in a loop, in one process per CPU, until the block ends.

    Each process joins the cgroup `group`, then gets its call from `make`.
    """
    ready, tell = os.pipe()
    children: List[int] = []
    try:
        for cpu in cpus:
            children.append(_fork_caller(cpu, make, group, tell))
        os.close(tell)
        told = 0
        while told < len(children) and os.read(ready, 1):
            told += 1
        if told < len(children):
            raise OSError(errno.ECHILD, "a process that makes calls did not start")
        yield
    finally:
        os.close(ready)
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _fork_caller(
    cpu: int, make: Callable[[], Callable[[], object]], group: Optional[Path], tell: int
) -> int:
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.sched_setaffinity(0, {cpu})
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))
        call = make()
        os.write(tell, b"!")
        os.close(tell)
        while os.getppid() == parent:
            for _ in range(_CALLS_AT_A_TIME):
                call()
    finally:
        os._exit(1)
