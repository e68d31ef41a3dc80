# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock check --run` in the guest: programs of an object run one after the other, or all at once.

The same work in another order: a lane per CPU, each with the same chunks of test runs. In the orders
of orders.py one chunk ends before the next one begins, so what they leave is what one CPU leaves. All at
once, each lane is a process, pinned to its CPU.
"""

from __future__ import annotations

import base64
import ctypes as ct
import mmap
import os
import struct
import time
from typing import Dict, Iterator, List, Sequence, Tuple, Union

from harness.guest import bindings, calls, libbpf, orders, system, uapi
from harness.guest.calls import Step
from harness.guest.confined import Child, Emit, Json
from harness.guest.examine import open_object
from harness.guest.maps import Map
from harness.guest.objects import Object

LIMIT_SECONDS = 100.0
MOST_READ = 4096  # elements of one map
MOST_TOLD = 64  # elements of one map that changed
MOST_VALUE = 1 << 16  # bytes of one
LOOKED_AT, MOST_LOOKED = 4, 1 << 17  # elements, and bytes of the different values of each

_WITHOUT_PACKET = (
    uapi.BPF_PROG_TYPE_RAW_TRACEPOINT,
    uapi.BPF_PROG_TYPE_TRACING,
    uapi.BPF_PROG_TYPE_SYSCALL,
    uapi.BPF_PROG_TYPE_SK_LOOKUP,
)
_ONE_BY_ONE = _WITHOUT_PACKET[:3]  # their test run has no repeat
_CONTEXT = {uapi.BPF_PROG_TYPE_SYSCALL: bytes(256), uapi.BPF_PROG_TYPE_RAW_TRACEPOINT: bytes(96)}
_ERRNO = struct.Struct("<q")  # of a lane

Values = Dict[bytes, bytes]


Wanted = Union[calls.TakeTurns, calls.RunTogether]


def take(wanted: Wanted) -> Json:
    """Carry out a call; return {"problem": why}, or what was seen.

    "stirred" has the steps that change a value, "refused" the programs that the kernel does not run so,
    "before", "halfway" and "after" the values by map and key (those that are other than at the start),
    "rounds" those after each round, "looks" the different values of some elements, "seconds" the time
    from the first run to the last.
    """
    libbpf.log_buffer()  # before the fork, so that it is made once
    child = Child(lambda send: _take(send, wanted))
    facts: Json = {}
    for event in child.events(LIMIT_SECONDS):
        facts.update(event)
        child.go_on()
    how = child.end()
    return facts or {"problem": f"the process that ran it ended: {how}"}


def _take(send: Emit, wanted: Wanted) -> None:
    libbpf.capture_messages()
    lanes = wanted.lanes
    elf = open_object(base64.b64decode(lanes.object), list(lanes.programs))
    try:
        elf.load()
    except OSError as error:
        send({"problem": f"it does not load: {uapi.errno_name(error.errno or 0)}"})
        return
    send(_Turns(elf, lanes).facts(wanted))


class _Run:
    """A program that is ready to be run with an input."""

    def __init__(self, elf: Object, step: Step) -> None:
        kind, _ = elf.program_kind(step.program)
        self._fd = elf.program_fd(step.program)
        self._one_by_one = kind in _ONE_BY_ONE
        self._packet = b"" if kind in _WITHOUT_PACKET else bytes.fromhex(step.packet)
        self._opts = bindings.TestRunOpts(sz=ct.sizeof(bindings.TestRunOpts))
        self._keep = []
        for data, place in ((self._packet, "data"), (_CONTEXT.get(kind, b""), "ctx")):
            if data:
                self._keep.append(ct.create_string_buffer(data, len(data)))
                setattr(self._opts, f"{place}_in", ct.cast(self._keep[-1], bindings.VOIDP))
                setattr(self._opts, f"{place}_size_in", len(data))

    def run(self, times: int) -> None:
        """Run it so often on this CPU. Raises OSError."""
        opts = ct.byref(self._opts)
        self._opts.repeat = 0 if self._one_by_one else times
        for _ in range(times if self._one_by_one else 1):
            bindings.check(bindings.bpf_prog_test_run_opts(self._fd, opts))


class _Turns:
    def __init__(self, elf: Object, lanes: calls.Lanes) -> None:
        self._lanes = lanes
        self._runs = [_Run(elf, step) for step in lanes.steps]
        self._maps = _found(elf, lanes.maps)
        self._all_maps = _found(elf, elf.all_maps())
        self._start: Dict[str, Values] = {}

    def facts(self, wanted: Wanted) -> Json:
        """Run everything; return what was seen."""
        self._start = self._all()
        stirred, refused = self._warm()
        facts: Json = {"stirred": stirred, "refused": refused, "before": self._told()}
        if self._lanes.chunks:
            if isinstance(wanted, calls.RunTogether):
                facts.update(self._rounds(wanted))
            else:
                facts.update(self._serially(wanted.order, wanted.pause))
                facts["after"] = self._told()
        return facts

    def _warm(self) -> Tuple[List[int], Dict[str, str]]:
        """Run each step twice; return those that change a value, and programs that cannot be run."""
        stirred: Dict[int, None] = {}
        refused: Dict[str, str] = {}
        before = self._all()
        for number, run in [*enumerate(self._runs)] * 2:
            try:
                run.run(1)
            except OSError as error:
                why = f"BPF_PROG_TEST_RUN does not run it: {uapi.errno_name(error.errno or 0)}"
                refused[self._lanes.steps[number].program] = why
            after = self._all()
            if after != before:
                stirred[number] = None
            before = after
        return sorted(stirred), refused

    # -- values ------------------------------------------------------------------------------------

    def _all(self) -> Dict[str, Values]:
        return {name: dict(_read(found)) for name, found in self._maps.items()}

    def _told(self) -> Json:
        """Return the values that are other than at the start."""
        told: Json = {}
        for name, values in self._all().items():
            start = self._start.get(name, {})
            changed = [key for key in sorted(values) if values[key] != start.get(key)]
            told[name] = {key.hex(): values[key].hex() for key in changed[:MOST_TOLD]}
        return told

    # -- orders ------------------------------------------------------------------------------------

    def _run_chunk(self, lane: int, chunk: int) -> None:
        step = orders.step_of(lane, chunk, len(self._runs))
        self._runs[step].run(self._lanes.repeat)

    def _serially(self, name: str, pause: float) -> Json:
        """Run the chunks of all lanes one after the other."""
        count = len(self._lanes.cpus)
        order = orders.serial(name, count, self._lanes.chunks, len(self._runs))
        pauses = orders.pauses(len(order), pause)
        halfway: Json = {}
        started = time.monotonic()
        for at, (cpu, lane, number) in enumerate(order):
            if at == len(order) // 2:
                halfway = self._told()
            os.sched_setaffinity(0, {self._lanes.cpus[cpu]})
            self._run_chunk(lane, number)
            if at in pauses:
                time.sleep(pauses[at])
        seconds = time.monotonic() - started
        return {"halfway": halfway, "seconds": round(seconds, 4)}

    def _rounds(self, wanted: calls.RunTogether) -> Json:
        """Run all lanes at once, so often from the same values on."""
        looks = _Looks(self._maps, self._places(wanted.looks))
        begin = {name: dict(_read(found)) for name, found in self._all_maps.items()}
        most = wanted.rounds if all(map(_is_read_whole, self._all_maps.values())) else 1
        rounds: List[Json] = []
        started = time.monotonic()
        for number in range(most):
            if number:
                self._restore(begin)
            wrong = [number for number in self._together(looks) if number]
            if wrong:
                return {"problem": f"BPF_PROG_TEST_RUN: {uapi.errno_name(wrong[0])}"}
            rounds.append(self._told())
        return {
            "rounds": rounds,
            "looks": looks.told(),
            "seconds": round(time.monotonic() - started, 4),
        }

    def _restore(self, begin: Dict[str, Values]) -> None:
        """Give the maps these values again."""
        for name, found in self._all_maps.items():
            values = dict(_read(found))
            for key in set(values) - set(begin[name]):
                found.delete(key)
            for key, value in begin[name].items():
                if values.get(key) != value:
                    found.update(key, value)

    def _together(self, looks: "_Looks") -> List[int]:
        """Run each lane in a process of its own, all at once; return an errno of each, or 0."""
        count = len(self._lanes.cpus)
        shared = mmap.mmap(-1, mmap.PAGESIZE + _ERRNO.size * count)  # a byte to begin, one per lane
        pids = [self._fork(lane, shared) for lane in range(count)]
        while not all(shared[1 : 1 + count]):
            os.sched_yield()
        shared[0] = 1
        looks.until(pids)
        places = range(mmap.PAGESIZE, mmap.PAGESIZE + _ERRNO.size * count, _ERRNO.size)
        return [_ERRNO.unpack_from(shared, place)[0] for place in places]

    def _fork(self, lane: int, shared: mmap.mmap) -> int:
        pid = os.fork()
        if pid:
            return pid
        number = -1  # as long as it did not end well
        try:
            system.die_with_parent()
            os.sched_setaffinity(0, {self._lanes.cpus[lane]})
            shared[1 + lane] = 1
            while not shared[0]:
                os.sched_yield()
            for chunk in range(self._lanes.chunks):
                self._run_chunk(lane, chunk)
            number = 0
        except OSError as error:
            number = error.errno or -1
        finally:
            _ERRNO.pack_into(shared, mmap.PAGESIZE + _ERRNO.size * lane, number)
            os._exit(0)

    def _places(self, names: Sequence[str]) -> List[Tuple[str, bytes]]:
        """Return the first elements of maps that have changed so far."""
        places = [
            (name, key)
            for name in names
            if name in self._maps
            for key, value in sorted(_read(self._maps[name]))
            if value != self._start[name].get(key)
        ]
        return places[:LOOKED_AT]


class _Looks:
    """Values that are read under their lock (BPF_F_LOCK) while programs run."""

    def __init__(self, maps: Dict[str, Map], places: List[Tuple[str, bytes]]) -> None:
        self._maps, self._places = maps, places
        self._seen: Dict[Tuple[str, bytes], Dict[bytes, None]] = {place: {} for place in places}

    def until(self, pids: List[int]) -> None:
        """Look until all these processes have ended."""
        left = set(pids)
        while left:
            for name, key in list(self._places):
                try:
                    value = self._maps[name].lookup(key, uapi.BPF_F_LOCK)
                except OSError:  # it has no such lock, or the element is gone
                    self._places.remove((name, key))
                    continue
                seen = self._seen[name, key]
                if len(seen) * len(value) < MOST_LOOKED:
                    seen[value] = None
            waiting = 0 if self._places else next(iter(left))
            pid, _ = os.waitpid(waiting or -1, os.WNOHANG if self._places else 0)
            left.discard(pid)

    def told(self) -> Json:
        """Return the values by map and key."""
        told: Json = {}
        for (name, key), seen in self._seen.items():
            told.setdefault(name, {})[key.hex()] = [value.hex() for value in seen]
        return told


def _found(elf: Object, names: Sequence[str]) -> Dict[str, Map]:
    """Return hashes and arrays by their names in the object: libbpf gives sections of data a prefix."""
    found: Dict[str, Map] = {}
    for name in names:
        for full in elf.all_maps():
            if full == name or (name[0] == "." and full.endswith(name)):
                try:
                    each = Map(elf.map_fd(full))
                except OSError:  # it was not created: a struct_ops without its programs
                    continue
                if each.type in (uapi.BPF_MAP_TYPE_HASH, uapi.BPF_MAP_TYPE_ARRAY):
                    found[name] = each
    return found


def _is_read_whole(found: Map) -> bool:
    return found.entries <= MOST_READ and found.value_size <= MOST_VALUE


def _read(found: Map) -> Iterator[Tuple[bytes, bytes]]:
    if found.value_size > MOST_VALUE:
        return
    for number, key in enumerate(found.keys()):
        if number >= MOST_READ:
            return
        try:
            yield key, found.lookup(key)
        except OSError:
            pass  # it went meanwhile
