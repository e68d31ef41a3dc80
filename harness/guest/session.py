"""The calls a host can make in one session, which is one process of its own.

A call takes keyword arguments and returns JSON; OSError and Refused become answers, anything else
is a defect of the harness and is reported as such.
"""

from __future__ import annotations

import base64
import mmap
import os
import socket
import struct
import subprocess
import tempfile
import time
import zlib
from contextlib import ExitStack
from typing import Any, BinaryIO, Callable, Dict, List, Optional, Sequence

from harness.guest import copies, cpus, drivers, examine, facts, libbpf, terminal
from harness.guest.kmsg import KernelLog
from harness.guest.loaders import BccUnit, LibbpfUnit, Refused, Unit, Wanted, bare_program_loads

Json = Dict[str, Any]
SETTLE_SECONDS = 0.005  # after a case, for the kernel's workers to free what it closed
LATE_SECONDS = 0.1  # after the last one
RACES_AT_A_TIME = 500  # runs of a racing program, after which RCU may see its CPU at rest
RACE_POLL_SECONDS = 0.02
BPF_FILES = "/sys/fs/bpf"
CGROUP_EGRESS = 1  # BPF_CGROUP_INET_EGRESS
PACKET = bytes(64)  # what BPF_PROG_TEST_RUN is given
_WITHOUT_PACKET = (
    17,
    libbpf.PROG_TYPE_TRACING,
    libbpf.PROG_TYPE_SYSCALL,
    libbpf.PROG_TYPE_SK_LOOKUP,
)


class Session:
    """The state between calls: the kernel log's position and the loaded unit."""

    def __init__(self, emit: Callable[[Json], None], source: BinaryIO) -> None:
        self._emit = emit
        self._source = source
        self._kernel_log: Optional[KernelLog] = None
        self._unit: Optional[Unit] = None
        self._stack = ExitStack()  # what lives as long as the loaded unit
        self._modules: Dict[str, BccUnit] = {}  # by text: bcc takes seconds to compile one

    def call(self, name: str, arguments: Json) -> Any:
        """Make one call. Raises KeyError for a name that is none."""
        if name.startswith("_") or name == "call" or not hasattr(self, name):
            raise KeyError(name)
        return getattr(self, name)(**arguments)

    # -- facts and the kernel log -----------------------------------------------------------------

    def facts(self) -> Json:
        """Return which kernel this is."""
        return facts.collect()

    def btf_names(self, names: List[str]) -> Dict[str, bool]:
        """Say which names (of functions, types, enumerators) the kernel's own BTF holds."""
        return facts.btf_names(names)

    def options(self, names: List[str]) -> Dict[str, str]:
        """Return options of the kernel's configuration; see facts.py."""
        return facts.options(names)

    def begin(self, name: str) -> List[str]:
        """Mark the begin of a case in the kernel log; return what came late of the one before."""
        if self._kernel_log is None:
            self._kernel_log = KernelLog()
        return self._kernel_log.mark(name)

    def late(self) -> List[str]:
        """Wait a little; return what the kernel log holds since the last case ended."""
        if self._kernel_log is None:
            return []
        self._kernel_log.settle(LATE_SECONDS)
        return self._kernel_log.read()

    def end(self) -> Json:
        """Return the CPUs that are stuck, and the kernel log since begin(): None is unreadable."""
        self._unload()
        return self._aftermath(LATE_SECONDS, ran=True)

    def _aftermath(self, settle: float, ran: bool) -> Json:
        stuck = cpus.stuck() if ran else []  # 20 ms when emulated
        if self._kernel_log is None:
            return {"stuck": stuck, "kernel_log": None}
        try:
            if stuck:
                time.sleep(LATE_SECONDS)  # no RCU grace period will end any more
            else:
                self._kernel_log.settle(settle)
            return {"stuck": stuck, "kernel_log": self._kernel_log.read()}
        except OSError:
            return {"stuck": stuck, "kernel_log": None}

    def _log_lines(self) -> Optional[List[str]]:
        """Return the kernel log since begin(); None says it could not be read."""
        lines: Optional[List[str]] = self._aftermath(SETTLE_SECONDS, ran=False)["kernel_log"]
        return lines

    # -- verdicts of the verifier and the map code ------------------------------------------------

    def verify(self, source: Json, cases: List[Json]) -> None:
        """Load each program of one unit, run it where asked; emit one observation per case.

        It ends early when a CPU is stuck after a case.
        """
        unit: Optional[Unit] = None
        refusal: Optional[Refused] = None
        for index, case in enumerate(cases):
            self._emit({"begin": case["name"]})
            started = time.monotonic()
            observation: Json = {"seconds": {}}
            try:
                late = self.begin(case["name"])
                if late:
                    self._emit({"late": late})
                if index == 0:
                    try:
                        unit = _open(source, [case["name"] for case in cases])
                    except Refused as refused:
                        refusal = refused  # holds for every program of the unit
                    observation["seconds"]["open"] = round(time.monotonic() - started, 4)
                if refusal is not None:
                    raise refusal
                assert unit is not None
                observation.update(_observe(unit, case, observation["seconds"]))
            except Refused as refused:
                observation.update(refused.facts())
                if refused.stage == "prog_load":
                    observation["bare"] = bare_program_loads(case["section"])
            except OSError as error:
                observation.update({"stage": "agent", "detail": str(error)})
            finally:
                if unit is not None and index == len(cases) - 1:
                    unit.close()  # in the last case, whose log tells what that leads to
                elif unit is not None:
                    unit.unload()
            ended = time.monotonic()
            observation.update(self._aftermath(SETTLE_SECONDS, _runs(case)))
            observation["seconds"]["settle"] = round(time.monotonic() - ended, 4)
            observation["seconds"]["case"] = round(time.monotonic() - started, 4)
            self._emit({"end": case["name"], "observation": observation})
            if observation["stuck"]:
                return  # the cases to come need another guest

    # -- objects of anybody's ------------------------------------------------------------------------

    def examine(self, object: str, only: Sequence[str] = (), seconds: float = 60.0) -> None:
        """Load each program of an object, which need not be sound; see examine.py for the events."""
        self.begin("examine")
        examine.examine(base64.b64decode(object), only, seconds, self._log_lines, self._emit)

    def drive_object(self, object: str, program: str, cpus: List[int], seconds: float) -> Json:
        """Run one program of an object on CPUs at once; see examine.py."""
        self.begin(program)
        facts = examine.drive(base64.b64decode(object), program, cpus, seconds)
        return {**facts, "kernel_log": self._log_lines()}

    # -- programs and maps that stay ----------------------------------------------------------------

    def load(self, source: Json, programs: List[Json]) -> None:
        """Load programs and keep them and their maps until the end. Raises Refused."""
        self._unload()
        if source["loader"] == "bcc":
            if source["text"] not in self._modules:
                self._modules[source["text"]] = BccUnit(source["text"])
            self._unit = self._modules[source["text"]]
        else:
            self._unit = _open(source)
        self._unit.load([Wanted(p["name"], p["section"]) for p in programs])

    def test_run(self, program: str, repeat: int = 1) -> Json:
        """Run a loaded program by BPF_PROG_TEST_RUN."""
        return {"retval": libbpf.test_run(self._loaded.program_fd(program), PACKET, repeat)}

    def drive(self, orders: List[Json], counter: str) -> Json:
        """Run loaded programs at the same time, each so many times on each CPU; see drivers.py.

        An order is {"driver", "program", "source", "cpus", "operations"} and may have a "map". The
        first eight bytes of a value of the per-CPU map `counter`, that of the key `source`, tell how
        often the program ran.
        """
        runs = self._map(counter)

        def order(number: int, wanted: Json) -> drivers.Order:
            program, key = wanted["program"], wanted["source"].to_bytes(4, "little")
            return drivers.Order(
                driver=wanted["driver"],
                program=self._loaded.program_fd(program) if program else -1,
                cpus=tuple(wanted["cpus"]),
                operations=wanted["operations"],
                ran=lambda: runs.total(key),
                number=number,
                map=self._map(wanted["map"]) if wanted.get("map") else None,
            )

        return drivers.drive([order(*pair) for pair in enumerate(orders)])

    def map_memory(self, map: str, pieces: List[List[int]]) -> List[str]:
        """Return pieces, [begin, length] each, of a map's memory, compressed and in base64."""
        size = max((begin + length for begin, length in pieces), default=0)
        if not size:
            return ["" for _ in pieces]
        with mmap.mmap(self._map(map).fd, size, mmap.MAP_SHARED, mmap.PROT_READ) as memory:
            return [
                base64.b64encode(zlib.compress(memory[begin : begin + length], 1)).decode()
                for begin, length in pieces
            ]

    def map_reset(self, map: str) -> None:
        """Bring a map back to its state at creation."""
        self._map(map).reset()

    def map_update(self, map: str, key: str, value: str, flags: int = 0) -> None:
        """Write one element; bytes are given in hexadecimal."""
        self._map(map).update(bytes.fromhex(key), bytes.fromhex(value), flags)

    def map_lookup(self, map: str, key: str, flags: int = 0, fill: int = 0) -> str:
        """Read one element into a buffer filled with `fill`."""
        return self._map(map).lookup(bytes.fromhex(key), flags, fill).hex()

    def map_lookup_and_delete(self, map: str, key: str, flags: int = 0, fill: int = 0) -> str:
        """Read and remove one element."""
        return self._map(map).lookup_and_delete(bytes.fromhex(key), flags, fill).hex()

    def map_delete(self, map: str, key: str, flags: int = 0) -> None:
        """Remove one element."""
        self._map(map).delete(bytes.fromhex(key), flags)

    def map_delete_batch(self, map: str, keys: List[str], flags: int = 0) -> None:
        """Remove elements by one call."""
        self._map(map).delete_batch([bytes.fromhex(key) for key in keys], flags)

    def map_mmap(self, map: str, length: int) -> None:
        """Map the begin of its memory for reading, and unmap it."""
        with mmap.mmap(self._map(map).fd, length, mmap.MAP_SHARED, mmap.PROT_READ):
            pass

    def map_freeze(self, map: str) -> None:
        """Let user space write to it no more."""
        self._map(map).freeze()

    def map_put_map(self, map: str, key: str, inner: str) -> None:
        """Put a map into a map of maps."""
        self._map(map).update(bytes.fromhex(key), _fd_key(self._map(inner).fd))

    def map_text(
        self, map: str, times: int = 1, program: str = "", cpus: Sequence[int] = ()
    ) -> List[str]:
        """Pin a map in the BPF file system, and return what that file reads as, so many times.

        Meanwhile `program` runs on some CPUs, over and over.
        """
        path = f"{BPF_FILES}/spinlock-{os.getpid()}"
        libbpf.pin(self._map(map).fd, path)
        try:
            busy = {cpu: self._loaded.program_fd(program) for cpu in cpus}
            with copies.running(busy, PACKET):
                return [_read(path) for _ in range(times)]
        finally:
            os.unlink(path)

    def map_iterate(self, map: str, program: str) -> None:
        """Run a loaded program of section iter/bpf_map_elem once for every element."""
        libbpf.iterate(self._loaded.program_fd(program), self._map(map).fd)

    def owner(self, kind: str, program: str = "") -> str:
        """Make what owns an element of a local storage; return the key that user space names it by.

        The kinds are socket, file, process and cgroup; and attached, for the older cgroup storage,
        which exists while `program` (of section cgroup_skb/egress) is attached to the cgroup.
        It goes when the session ends.
        """
        if kind == "socket":
            return self._open_key(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        if kind == "file":
            return self._open_key(tempfile.TemporaryFile())
        if kind == "process":
            return _fd_key(os.pidfd_open(os.getpid())).hex()
        directory = self._stack.enter_context(drivers.cgroup())
        group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        if kind == "cgroup":
            return _fd_key(group).hex()
        libbpf.attach_to_cgroup(self._loaded.program_fd(program), group, CGROUP_EGRESS)
        # struct bpf_cgroup_storage_key: the cgroup's number and the attach type
        return struct.pack("<QI4x", os.stat(directory).st_ino, CGROUP_EGRESS).hex()

    def _open_key(self, file: Any) -> str:
        self._stack.enter_context(file)
        return _fd_key(file.fileno()).hex()

    def race(self, programs: List[str], until: Dict[str, int], seconds: float) -> float:
        """Run programs[n] on CPU n, over and over; return for how many seconds.

        It ends when a per-CPU map has counted as much as `until` says, or after `seconds`.
        """
        fds = [self._loaded.program_fd(name) for name in programs]
        counters = [(self._map(name), enough) for name, enough in until.items()]
        started = time.monotonic()
        with copies.running(dict(enumerate(fds)), PACKET, RACES_AT_A_TIME):
            while time.monotonic() < started + seconds:
                if any(counter.total() >= enough for counter, enough in counters):
                    break
                time.sleep(RACE_POLL_SECONDS)
            return round(time.monotonic() - started, 3)

    def map_read_batch(self, map: str, name: str, flags: int = 0, fill: int = 0) -> List[List[str]]:
        """Read all elements by lookup_batch or lookup_and_delete_batch."""
        return [[k.hex(), v.hex()] for k, v in self._map(map).read_batch(name, flags, fill)]

    def map_update_batch(self, map: str, elements: List[List[str]], flags: int = 0) -> None:
        """Write elements by one call."""
        pairs = [(bytes.fromhex(k), bytes.fromhex(v)) for k, v in elements]
        self._map(map).update_batch(pairs, flags)

    def copy(
        self,
        map: str,
        way: str,
        times: int,
        held: int,
        seconds: float,
        value: str,
        hidden: List[int],
        even: List[int],
        peek: str,
        flags: int = 0,
        key: str = "00000000",
        program: str = "",
        cpus: Sequence[int] = (),
    ) -> Json:
        """Copy one element in or out, many times, while a program runs on some CPUs.

        The program `peek` returns the lock word; see copies.py for the rest.
        """
        start, end = hidden
        first, last = even
        copying = copies.Copying(
            way=way,
            key=bytes.fromhex(key),
            flags=flags,
            times=times,
            held=held,
            seconds=seconds,
            value=bytes.fromhex(value),
            hidden=(start, end),
            even=(first, last),
        )
        peek_fd = self._loaded.program_fd(peek)

        def look() -> int:
            return libbpf.test_run(peek_fd, PACKET) & 0xFFFFFFFF

        with ExitStack() as stack:
            if program:
                fd = self._loaded.program_fd(program)
                stack.enter_context(copies.running(dict.fromkeys(cpus, fd), PACKET))
            return copies.copy(self._map(map), copying, look)

    @property
    def _loaded(self) -> Unit:
        if self._unit is None:
            raise OSError(0, "nothing is loaded")
        return self._unit

    def _map(self, name: str) -> libbpf.Map:
        return libbpf.Map(self._loaded.map_fd(name))

    def _unload(self) -> None:
        self._stack.close()
        if self._unit is not None:
            self._unit.unload()
            self._unit = None

    # -- anything else -------------------------------------------------------------------------------

    def command(self, arguments: List[str], input: str = "") -> Json:
        """Run a program in the guest and return what came of it."""
        done = subprocess.run(arguments, input=input, capture_output=True, text=True, check=False)
        return {"status": done.returncode, "stdout": done.stdout, "stderr": done.stderr}

    def terminal(self, arguments: List[str], rows: int, columns: int) -> int:
        """Run an interactive program; see terminal.py for what goes to and fro meanwhile."""
        return terminal.run(arguments, rows, columns, self._source, self._emit)

    def write(self, path: str, text: str) -> None:
        """Write to a file, of /proc or /sys say."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def _fd_key(fd: int) -> bytes:
    return fd.to_bytes(4, "little")


def _open(source: Json, programs: Sequence[str] = ()) -> Unit:
    if source["loader"] == "bcc":
        return BccUnit(source["text"])
    return LibbpfUnit(base64.b64decode(source["object"]), programs)


def _runs(case: Json) -> bool:
    return bool(case.get("run") or case.get("attach"))


def _observe(unit: Unit, case: Json, seconds: Json) -> Json:
    """Load one program and run it where asked; note how long that took. Raises Refused."""
    user = (case.get("user", "root"), case.get("user_stage", "prog_load"))
    runs = bool(case.get("run") or case.get("attach"))
    wanted = Wanted(case["name"], case["section"], *user, runs)
    started = time.monotonic()
    try:
        unit.load([wanted])
    finally:
        seconds["load"] = round(time.monotonic() - started, 4)
    fd = unit.program_fd(wanted.name)
    observation: Json = {"stage": None, "errno": None, "log": ""}
    if case.get("attach"):
        try:
            os.close(libbpf.open_raw_tracepoint(fd))
        except OSError as error:
            raise Refused("attach", error.errno or 0) from None
    if case.get("run"):
        kind, _ = libbpf.program_type(wanted.section)
        try:
            packet = b"" if kind in _WITHOUT_PACKET else PACKET
            observation["retval"] = libbpf.test_run(fd, packet)
        except OSError as error:
            raise Refused("run", error.errno or 0) from None
    return observation
