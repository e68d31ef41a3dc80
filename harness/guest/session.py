"""The calls a host can make in one session, which is one process of its own.

A call takes keyword arguments and returns JSON; OSError and Refused become answers, anything else
is a defect of the harness and is reported as such.
"""

from __future__ import annotations

import base64
import fcntl
import functools
import mmap
import os
import socket
import struct
import subprocess
import tempfile
import time
import zlib
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import (
    Any,
    BinaryIO,
    Callable,
    ContextManager,
    Dict,
    Iterator,
    List,
    Optional,
    Sequence,
    Union,
)

from harness.guest import copies, cpus, drivers, examine, facts, libbpf, terminal
from harness.guest.kmsg import KernelLog
from harness.guest.loaders import BccUnit, LibbpfUnit, Refused, Unit, Wanted, bare_program_loads

Json = Dict[str, Any]
SETTLE_SECONDS = 0.005  # after a case, for the kernel's workers to free what it closed
LATE_SECONDS = 0.1  # after the last one
RACES_AT_A_TIME = 500  # runs of a racing program, after which RCU may see its CPU at rest
SHORT_RUNS_AT_A_TIME = 100  # where something waits for RCU all the time
RACE_POLL_SECONDS = 0.02
LONGER = 53  # bytes, than other datagrams
BPF_FILES = "/sys/fs/bpf"
CGROUP_INGRESS, CGROUP_EGRESS = 0, 1  # BPF_CGROUP_INET_INGRESS, BPF_CGROUP_INET_EGRESS
PACKET = bytes(64)  # what BPF_PROG_TEST_RUN is given
_WITHOUT_PACKET = (
    libbpf.PROG_TYPE_RAW_TRACEPOINT,
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
        self._listener: Optional[socket.socket] = None
        self._group: Optional[Path] = None  # the cgroup that this process has joined
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

    def has(self, names: List[str]) -> Dict[str, bool]:
        """Say which names (of functions, types, enumerators) the kernel knows; see facts.py."""
        return facts.names(names)

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
        unit: Union[Unit, Refused, None] = None  # a refusal holds for every program of it
        for case in cases:
            self._emit({"begin": case["name"]})
            started = time.monotonic()
            seconds: Dict[str, float] = {}
            try:
                # Also when it is empty: with it the case before is over.
                self._emit({"late": self.begin(case["name"])})
                if unit is None:
                    unit = _opened(source, [case["name"] for case in cases])
                    seconds["open"] = round(time.monotonic() - started, 4)
                observation = _answer(unit, case, seconds)
            except OSError as error:
                observation = {"stage": "agent", "detail": str(error)}
            finally:
                _let_go(unit, for_good=case is cases[-1])
            ended = time.monotonic()
            observation.update(self._aftermath(SETTLE_SECONDS, _runs(case)))
            seconds["settle"] = round(time.monotonic() - ended, 4)
            seconds["case"] = round(time.monotonic() - started, 4)
            self._emit({"end": case["name"], "observation": {**observation, "seconds": seconds}})
            if observation["stuck"]:
                return  # the cases to come need another guest

    # -- objects of anybody's ------------------------------------------------------------------------

    def examine(self, object: str, **asked: Any) -> None:
        """Load each program of an object, which need not be sound; see examine.py for the events."""
        self.begin("examine")
        wanted = examine.Wanted(base64.b64decode(object), **asked)
        examine.examine(wanted, self._log_lines, self._emit)

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

    def attach(self, program: str) -> None:
        """Attach a loaded program to the trace point that it is for, as long as it is loaded."""
        link = libbpf.open_raw_tracepoint(self._loaded.program_fd(program))
        self._stack.callback(os.close, link)

    def test_run(self, program: str, repeat: int = 1, cpu: Optional[int] = None) -> Json:
        """Run a loaded program by BPF_PROG_TEST_RUN, once or often in one system call; on a CPU."""
        fd, before = self._loaded.program_fd(program), os.sched_getaffinity(0)
        os.sched_setaffinity(0, before if cpu is None else {cpu})
        try:
            return {"retval": libbpf.test_run(fd, PACKET, repeat)}
        finally:
            os.sched_setaffinity(0, before)

    def drive(self, orders: List[Json], counter: str = "") -> Json:
        """Run loaded programs at the same time, each so many times on each CPU; see drivers.py.

        An order is {"driver", "program", "source", "cpus", "operations"}, a "map" and an "fd" where
        the driver needs them, and "seconds" after which test runs end early. The first eight bytes
        of a value of the per-CPU map `counter`, that of the key `source`, tell how often the program
        ran; without one nobody waits for that.
        """
        runs = self._map(counter) if counter else None

        def order(number: int, wanted: Json) -> drivers.Order:
            program, key = wanted["program"], wanted["source"].to_bytes(4, "little")
            return drivers.Order(
                driver=wanted["driver"],
                program=self._loaded.program_fd(program) if program else -1,
                cpus=tuple(wanted["cpus"]),
                operations=wanted["operations"],
                seconds=wanted.get("seconds", 0.0),
                ran=functools.partial(runs.total, key) if runs is not None else None,
                number=number,
                map=self._map(wanted["map"]) if wanted.get("map") else None,
                fd=wanted.get("fd", -1),
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

    def map_update_each(self, map: str, keys: List[str], value: str, flags: int = 0) -> None:
        """Write the same value to many elements, one by one."""
        target, content = self._map(map), bytes.fromhex(value)
        for key in keys:
            target.update(bytes.fromhex(key), content, flags)

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
        self, map: str, program: str, cpus: Sequence[int], peek: str, held: int, seconds: float
    ) -> Json:
        """Pin a map in the BPF file system, and read that file over and over.

        Meanwhile `program` runs on some CPUs, over and over, until so many looks found the lock
        held, or for so long: after each reading, the program `peek` returns the lock word.
        Returns {"texts": what the file read as, "held": looks that found the lock held}.
        """
        path = f"{BPF_FILES}/spinlock-{os.getpid()}"
        libbpf.pin(self._map(map).fd, path)
        texts, found = set(), 0
        try:
            busy = {cpu: self._loaded.program_fd(program) for cpu in cpus}
            with copies.running(busy, PACKET):
                until = time.monotonic() + seconds
                while found < held and time.monotonic() < until:
                    texts.add(_read(path))
                    found += libbpf.test_run(self._loaded.program_fd(peek), PACKET) != 0
        finally:
            os.unlink(path)
        return {"texts": sorted(texts), "held": found}

    def map_iterate(self, map: str, program: str) -> None:
        """Run a loaded program of section iter/bpf_map_elem once for every element."""
        libbpf.iterate(self._loaded.program_fd(program), self._map(map).fd)

    def owner(self, kind: str, program: str = "", port: int = 0, join: bool = False) -> str:
        """Make what owns an element of a local storage; return the key that user space names it by.

        The kinds are socket, listener, file, process and cgroup, and ours for the cgroup that this
        process is in; and attached, for the older cgroup storage, which exists while `program` (of
        section cgroup_skb/egress) is attached to the cgroup. It goes when the session ends. A socket
        is bound to a UDP port of 127.0.0.1, a listener to a TCP port; a cgroup is joined by this
        process if told so.
        """
        if kind in ("socket", "listener"):
            transport = socket.SOCK_DGRAM if kind == "socket" else socket.SOCK_STREAM
            opened = socket.socket(socket.AF_INET, transport)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(("127.0.0.1", port))
            if kind == "listener":
                opened.listen()
                self._listener = opened
            return self._open_key(opened)
        if kind == "file":
            return self._open_key(tempfile.TemporaryFile())
        if kind == "process":
            return _fd_key(os.pidfd_open(os.getpid())).hex()
        if kind == "ours":
            return _fd_key(self._open_directory(drivers.own_cgroup())).hex()
        directory = self._stack.enter_context(drivers.cgroup())
        if join:
            self._group = directory
            self._stack.enter_context(drivers.member_of(directory))
        if kind == "cgroup":
            return _fd_key(self._open_directory(directory)).hex()
        return self._attach(program, directory)

    def channel(self, program: str) -> Json:
        """Attach a program of section cgroup_skb/egress to a cgroup with one socket in it.

        Returns the keys by which user space names the "socket"'s storage and that of the program
        being "attached", and the socket's "fd". They go when the session ends.
        """
        directory = self._stack.enter_context(drivers.cgroup())
        attached = self._attach(program, directory)
        with drivers.member_of(directory):
            sender = self._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receiver = self._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        fd = sender.fileno()
        return {"socket": _fd_key(fd).hex(), "attached": attached, "fd": fd}

    def _attach(self, program: str, directory: Path, attach_type: int = CGROUP_EGRESS) -> str:
        """Attach a program to a cgroup; return the key of the storage it has there."""
        group = self._open_directory(directory)
        libbpf.attach_to_cgroup(self._loaded.program_fd(program), group, attach_type)
        # struct bpf_cgroup_storage_key: the cgroup's number and the attach type
        return struct.pack("<QI4x", os.stat(directory).st_ino, attach_type).hex()

    def _open_directory(self, directory: Path) -> int:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self._stack.callback(os.close, fd)
        return fd

    def _open_key(self, file: Any) -> str:
        self._stack.enter_context(file)
        return _fd_key(file.fileno()).hex()

    def accept(
        self, times: int, looks: List[str], program: str, cpus: Sequence[int]
    ) -> List[List[int]]:
        """Accept connections while `program` runs on some CPUs; return what `looks` returned of each.

        These programs know the accepted socket by the port at its other end, in the map "peers".
        """
        seen: List[List[int]] = []
        with self._running("test_run", program, cpus, b"", short=True):
            for _ in range(times):
                with self._connection() as accepted:
                    port = socket.htons(accepted.getpeername()[1])
                    self._map("peers").update(bytes(4), struct.pack("<I", port))
                    fds = [self._loaded.program_fd(look) for look in looks]
                    seen.append([libbpf.test_run(fd, PACKET) for fd in fds])
        return seen

    def passage(self, programs: List[str], datagrams: int) -> List[str]:
        """Send datagrams within a cgroup; return the keys of the storages that programs have there.

        The first program, of section cgroup_skb/egress, sees them leave, and the second, of
        cgroup_skb/ingress, arrive. The storages go when the session ends.
        """
        directory = self._stack.enter_context(drivers.cgroup())
        types = (CGROUP_EGRESS, CGROUP_INGRESS)
        keys = [self._attach(name, directory, kind) for name, kind in zip(programs, types)]
        with drivers.member_of(directory):
            send = _datagrams()
            for _ in range(datagrams):
                send()
        return keys

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
        values: List[str],
        hidden: List[int],
        even: List[int],
        peek: str = "",
        flags: int = 0,
        key: str = "00000000",
        program: str = "",
        cpus: Sequence[int] = (),
        runs: str = "test_run",
        other: str = "",
        enough: int = 0,
        least: float = 0.0,
        renewed: str = "",
        before: str = "",
        here: Optional[int] = None,
    ) -> Json:
        """Copy one element in or out, many times, while a program runs on some CPUs.

        What runs it there is `runs`: test_run; or a system call, fcntl of the file that is the key or
        datagrams, by processes that are children of this one, in the same cgroup. The program `peek`
        returns the lock word. The way "other" runs the program `other`, by BPF_PROG_TEST_RUN, or by
        another system call or a longer datagram from here; "accept" is none, but copies a listening
        socket's storage to a new one's.
        It is done on the CPU `here`, or anywhere.
        See copies.py for the rest.
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
            values=tuple(bytes.fromhex(value) for value in values),
            hidden=(start, end),
            even=(first, last),
            enough=enough,
            least=least,
            renewed=bytes.fromhex(renewed),
            before=bytes.fromhex(before),
            other=self._other(runs, self._map(map), bytes.fromhex(key), other),
        )

        def look() -> int:
            return libbpf.test_run(self._loaded.program_fd(peek), PACKET) & 0xFFFFFFFF

        with ExitStack() as stack:
            if program:
                running = self._running(runs, program, cpus, bytes.fromhex(key), bool(renewed))
                stack.enter_context(running)
            stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
            if here is not None:
                os.sched_setaffinity(0, {here})
            return copies.copy(self._map(map), copying, look if peek else None)

    def sweep(
        self,
        map: str,
        before: str,
        value: str,
        writes: List[List[Any]],
        reads: List[List[Any]],
        key: str = "00000000",
        fill: int = 0xEE,
        program: str = "",
        number: int = 0,
        times: int = 1,
        holder: str = "",
        cpus: Sequence[int] = (),
    ) -> Dict[str, List[List[int]]]:
        """Write an element by every way and read it by every way; return what was seen, see copies.py.

        The program knows the map by its number, and so does `holder`, which holds the element's lock
        on some CPUs meanwhile.
        """

        def run(order: int) -> int:
            self._map("orders").update(bytes(4), struct.pack("<II", number, order))
            return libbpf.test_run(self._loaded.program_fd(program), PACKET)

        sweep = copies.Sweep(
            map=self._map(map),
            key=bytes.fromhex(key),
            before=bytes.fromhex(before),
            value=bytes.fromhex(value),
            fill=fill,
            writes=tuple((way, flags, is_new) for way, flags, is_new in writes),
            reads=tuple((way, flags) for way, flags in reads),
            program=run,
            image=self._map("image"),
            memory=self._map("memory"),
            times=times,
        )
        with ExitStack() as stack:
            if holder:
                self._map("holds").update(bytes(4), struct.pack("<II", number, 0))
                stack.enter_context(self._running("test_run", holder, cpus, b"", short=True))
            return copies.sweep(sweep)

    def _running(
        self, runs: str, program: str, cpus: Sequence[int], key: bytes, short: bool
    ) -> ContextManager[None]:
        if runs == "system_call":
            return copies.calling(cpus, lambda: os.getppid, self._group)
        if runs == "fcntl":
            return copies.calling(cpus, lambda: _asking(key, fcntl.F_GETFD))
        if runs == "datagram":
            return copies.calling(cpus, _datagrams, self._group)
        by_cpu = dict.fromkeys(cpus, self._loaded.program_fd(program))
        if short:
            return copies.running(by_cpu, PACKET, SHORT_RUNS_AT_A_TIME)
        return copies.running(by_cpu, PACKET)

    def _other(
        self, runs: str, map: libbpf.Map, key: bytes, name: str
    ) -> Optional[Callable[[], List[bytes]]]:
        """Return what the way "other" does."""
        if name == "accept":
            return lambda: [self._accepted(map)]
        if runs == "system_call":
            return lambda: _nothing(os.getpriority(os.PRIO_PROCESS, 0))
        if runs == "fcntl":
            ask = _asking(key, fcntl.F_GETFL)
            return lambda: _nothing(ask())
        if runs == "datagram":
            send = _datagrams(LONGER)
            return lambda: _nothing(send())
        if not name:
            return None
        fd = self._loaded.program_fd(name)
        return lambda: _nothing(libbpf.test_run(fd, PACKET))

    def _accepted(self, map: libbpf.Map) -> bytes:
        """Let the listening socket accept a connection; return the storage of the new one."""
        with self._connection() as accepted:
            return map.lookup(_fd_key(accepted.fileno()), 0, 0xFF)

    @contextmanager
    def _connection(self) -> Iterator[socket.socket]:
        """Let the listening socket accept a connection."""
        assert self._listener is not None
        with socket.create_connection(self._listener.getsockname()) as connected:
            # It leaves no trace, of which there would be thousands.
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("<ii", 1, 0))
            with self._listener.accept()[0] as accepted:
                yield accepted

    @property
    def _loaded(self) -> Unit:
        if self._unit is None:
            raise OSError(0, "nothing is loaded")
        return self._unit

    def _map(self, name: str) -> libbpf.Map:
        return libbpf.Map(self._loaded.map_fd(name))

    def _unload(self) -> None:
        self._stack.close()
        self._group = self._listener = None
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


def _nothing(done: object) -> List[bytes]:
    """Return what something read that read nothing."""
    return []


def _asking(key: bytes, question: int) -> Callable[[], object]:
    """Return what asks about the file by which a storage's element is known."""
    return functools.partial(fcntl.fcntl, int.from_bytes(key, "little"), question)


def _datagrams(longer: int = 0) -> Callable[[], object]:
    """Return what sends a datagram, so much longer than others, to a socket that never reads."""
    return drivers.datagram_sender(("127.0.0.1", 0), drivers.DATAGRAM + bytes(longer))


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def _fd_key(fd: int) -> bytes:
    return fd.to_bytes(4, "little")


def _open(source: Json, programs: Sequence[str] = ()) -> Unit:
    if source["loader"] == "bcc":
        return BccUnit(source["text"])
    return LibbpfUnit(base64.b64decode(source["object"]), programs)


def _opened(source: Json, programs: Sequence[str]) -> Union[Unit, Refused]:
    try:
        return _open(source, programs)
    except Refused as refused:
        return refused


def _let_go(unit: Union[Unit, Refused, None], for_good: bool) -> None:
    """Unload the programs of a unit; close it in the last case, whose log tells what that leads to."""
    if unit is None or isinstance(unit, Refused):
        return
    if for_good:
        unit.close()
    else:
        unit.unload()


def _answer(unit: Union[Unit, Refused], case: Json, seconds: Dict[str, float]) -> Json:
    """Return what the kernel said to a program, also where it was refused; note how long that took."""
    try:
        if isinstance(unit, Refused):
            raise unit
        return _observe(unit, case, seconds)
    except Refused as refused:
        facts = refused.facts()
        if refused.stage == "prog_load":
            facts["bare"] = bare_program_loads(case["section"])
        return facts


def _runs(case: Json) -> bool:
    """Tell whether a case does more than load its program."""
    return bool(case.get("run") or case.get("attach"))


def _observe(unit: Unit, case: Json, seconds: Dict[str, float]) -> Json:
    """Load one program and run it where asked; note how long that took. Raises Refused."""
    user = (case.get("user", "root"), case.get("user_stage", "prog_load"))
    wanted = Wanted(case["name"], case["section"], *user, _runs(case))
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
