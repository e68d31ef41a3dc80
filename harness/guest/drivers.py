# SPDX-License-Identifier: GPL-2.0-only
"""Drivers: they make loaded programs run on several CPUs at once, by test runs, packets, system calls.

A driver attaches a program to its hook and has a sender, which triggers the program there. Any number
of drivers run together. Each driver has one sender process per CPU; all are pinned, then released at
once. Senders count the runs they request. Programs count the runs they see, in maps of their own.

Drivers with network interfaces run in a child process with a network namespace of its own, which goes
when the child ends. Programs must ignore foreign traffic. counter.bpf.c recognizes the frames and
datagrams by their markers; counter_hooks.bpf.c recognizes the sender's name or its request.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import gc
import itertools
import math
import mmap
import multiprocessing
import os
import signal
import socket
import struct
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import (
    Any,
    Callable,
    ContextManager,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from harness.guest import libbpf, system, uapi
from harness.guest.calls import Driven, Drove
from harness.guest.maps import Map

# From 02:…:01 to 02:…:02, with the ethertype for local experiments.
FRAME = bytes.fromhex("020000000002" "020000000001" "88b5") + bytes(50)
_ETHERTYPE = 0x88B5
UDP_PORT = 23312
DATAGRAM = bytes(18)

# Repeats per BPF_PROG_TEST_RUN. Without preemption a kernel handles signals and reports an RCU
# quiescent state only after the last repeat, so one system call must not last long.
_TEST_RUN_CHUNK, _SHORT_CHUNK = 500, 50

_BACKLOG = "/proc/sys/net/core/netdev_max_backlog"
_BACKLOG_PACKETS = 1_000_000  # large enough that no burst is dropped before an ingress hook
_STILL_SECONDS = 5.0  # without a further run in this time, missing runs are taken as lost
_LOOK_SECONDS = 0.005
_SIGN_SECONDS = 5.0  # between two signs of life of a drive
# Operations after which a sender tells how many it has sent; the latter if its time is limited.
_SENT_AT_A_TIME, _FEW_AT_A_TIME = 500, 50

_CLSACT_PARENT = {"ingress": "ffff:fff2", "egress": "ffff:fff3"}

_TCX = {"ingress": uapi.BPF_TCX_INGRESS, "egress": uapi.BPF_TCX_EGRESS}

# bpf_progs/driven/counter_hooks.bpf.c counts only requests of this process, device or sysctl.
_SENDER = "spinlock"  # the process name (comm)
_DEVICE = "/dev/full"
_SYSCTL = "/proc/sys/kernel/ostype"

_WORD = (1 << 64) - 1
_COPIES_PER_WRITE = 8

_fork = multiprocessing.get_context("fork")

_Call = Callable[[], object]  # triggers the program once


@dataclass(frozen=True)
class Order:
    """The work of one driver: run a program `operations` times on each of some CPUs."""

    driver: str
    program: int  # its fd
    cpus: Tuple[int, ...]
    operations: int  # per CPU
    seconds: float  # no test run is begun after this time; 0: no limit
    ran: Optional[Callable[[], int]]  # returns the runs so far on all CPUs; None: not counted
    number: int  # index among the orders of this drive
    map: Optional[Map] = None  # user space copies its first element
    fd: int = -1  # the session's fd of the socket or file that senders use
    members: Mapping[str, int] = field(default_factory=dict)  # name -> offset in a value


@dataclass(frozen=True)
class _Sender:
    """Triggers the program, on one CPU."""

    send: Callable[[int], int]  # triggers at most so many runs; returns their number
    log: List[Any] = field(default_factory=list)  # notes per operation, for drivers that keep them


@dataclass(frozen=True)
class _Attached:
    """A program attached to its hook."""

    sender: Callable[[int], _Sender]  # makes the sender of a CPU; called in the sending process
    group: Optional[Path] = None  # the cgroup that the sending process joins first


def drive(orders: Sequence[Order], alive: Callable[[int], None] = lambda sent: None) -> Drove:
    """Carry out orders at the same time.

    Every few seconds `alive` is given the operations sent so far, if there are more than before.
    Raises KeyError for an unknown driver, OSError from the kernel.
    """
    drivers = [_DRIVERS[order.driver] for order in orders]
    prepare()  # in this process, so later drives of the session inherit it
    # Creating and ending a network namespace takes 0.1 s when emulated, so avoid it if possible.
    if all(order.driver in _WITHOUT_NETWORK for order in orders):
        with ExitStack() as stack:
            attached = [stack.enter_context(driver(o, None)) for driver, o in zip(drivers, orders)]
            return _send(orders, attached, alive)
    ours, theirs = _fork.Pipe()
    with _long_backlog():
        process = _fork.Process(target=_apart, args=(theirs, drivers, orders))
        process.start()
        theirs.close()
        try:
            while isinstance(told := _receive(ours), int):
                alive(told)
            facts: Drove = told
        finally:
            process.join()
    return facts


@functools.lru_cache(maxsize=None)
def prepare() -> None:
    """Do slow imports, and trigger the kernel's one-time initialisations, before the guest is saved."""
    import psutil  # noqa: F401
    import pyroute2  # noqa: F401

    process = _fork.Process(target=_talk_to_oneself)
    process.start()
    process.join()


def _talk_to_oneself() -> None:
    """Make the kernel draw the random keys of its connection hashes, once, on a quiet guest.

    The kernel patches its code at that (static keys). Under emulation the guest is lost if another CPU
    runs that code meanwhile (splat.is_emulators).
    """
    from pyroute2 import IPRoute

    system.unshare(uapi.CLONE_NEWNET)
    with IPRoute() as network:
        network.link("set", index=network.link_lookup(ifname="lo")[0], state="up")
    with suppress(OSError):  # without IPv4 or TCP there is no such hash
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname()).close()
            with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
                datagrams.connect(server.getsockname())
                datagrams.send(b"")


def _apart(answer: Connection, drivers: Sequence["_Driver"], orders: Sequence[Order]) -> None:
    """Carry out orders in a new network namespace of this process."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        system.unshare(uapi.CLONE_NEWNET)
        with ExitStack() as stack:
            network = stack.enter_context(IPRoute())
            network.link("set", index=network.link_lookup(ifname="lo")[0], state="up")
            attached = [
                stack.enter_context(driver(order, network))
                for driver, order in zip(drivers, orders)
            ]
            answer.send(_send(orders, attached, answer.send))
    except OSError as error:
        answer.send(error)
    except NetlinkError as error:
        answer.send(OSError(error.code, f"netlink: {error}"))


# -- no hook ---------------------------------------------------------------------------------------


@contextmanager
def _test_run(order: Order, network: Any) -> Iterator[_Attached]:
    """Run the program by BPF_PROG_TEST_RUN."""

    def run(times: int) -> int:
        times = min(times, _SHORT_CHUNK if order.seconds else _TEST_RUN_CHUNK)
        libbpf.test_run(order.program, FRAME, times)
        return times

    yield _Attached(lambda cpu: _Sender(run))


@contextmanager
def _user_space(order: Order, network: Any) -> Iterator[_Attached]:
    """Copy an element's value out and, now and then, in, from user space with BPF_F_LOCK.

    The written values have the layout of struct shared in contended_counter.h, with a new epoch each.
    """
    assert order.map is not None
    key, values = bytes(order.map.key_size), order.map

    def sender(cpu: int) -> _Sender:
        log: List[Any] = []
        epoch = itertools.count(1)

        def copy(times: int) -> int:
            del times
            written = b""
            if len(log) % _COPIES_PER_WRITE == _COPIES_PER_WRITE - 1:
                count = next(epoch) << 32
                written = _with_count(count, order.members, values.value_size)
            arrive = time.monotonic_ns()
            if written:
                values.update(key, written, uapi.BPF_F_LOCK)
            else:
                read = values.lookup(key, uapi.BPF_F_LOCK)
            log.append([bool(written), arrive, time.monotonic_ns(), (written or read).hex()])
            return 1

        return _Sender(copy, log)

    yield _Attached(sender)


def _with_count(count: int, members: Mapping[str, int], size: int) -> bytes:
    """Return a value of `size` bytes in which count, inverse and doubled agree; the rest is zero."""
    value = bytearray(size)
    numbers = {"count": count, "inverse": ~count & _WORD, "doubled": 2 * count & _WORD}
    for name, number in numbers.items():
        struct.pack_into("<Q", value, members[name], number)
    return bytes(value)


# -- hooks that see frames -------------------------------------------------------------------------


@contextmanager
def _xdp(
    order: Order, network: Any, mode: int, receiver: Optional[int] = None
) -> Iterator[_Attached]:
    """Send frames from one end of a veth pair to the XDP program at the other.

    The program runs on the sending CPU, or on the CPU `receiver` if given.
    """
    near, far = _veth_pair(order, network, receiver)
    libbpf.attach_xdp(near, order.program, mode)
    yield _Attached(functools.partial(_frame_sender, far, True))


@contextmanager
def _tc(
    order: Order, network: Any, direction: str, receiver: Optional[int] = None
) -> Iterator[_Attached]:
    near, far = _veth_pair(order, network, receiver)
    network.tc("add", "clsact", near)
    network.tc(
        "add-filter",
        "bpf",
        near,
        ":1",
        fd=order.program,
        name="spinlock",
        parent=_CLSACT_PARENT[direction],
        classid=1,
        direct_action=True,
    )
    # Frames that bypass the queueing discipline bypass the egress hook as well.
    end, bypass = (far, True) if direction == "ingress" else (near, False)
    yield _Attached(functools.partial(_frame_sender, end, bypass))


@contextmanager
def _tcx(order: Order, network: Any, direction: str) -> Iterator[_Attached]:
    near, far = _veth_pair(order, network)
    link = libbpf.attach_tcx(order.program, near, _TCX[direction])
    # The egress program lets frames pass, as dropping them would be an error for the sender. The far
    # end needs a listener, else the kernel counts the frames as dropped.
    end, bypass = (far, True) if direction == "ingress" else (near, False)
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERTYPE))
    try:
        listener.bind((socket.if_indextoname(far), _ETHERTYPE))
        yield _Attached(functools.partial(_frame_sender, end, bypass))
    finally:
        listener.close()
        os.close(link)


def _veth_pair(order: Order, network: Any, receiver: Optional[int] = None) -> Tuple[int, int]:
    """Create a veth pair; return the indices of both ends. The CPU `receiver` serves the near one.

    Each CPU needs a queue: with a single one, native XDP would run in one NAPI context only.
    """
    several = dict.fromkeys(("num_tx_queues", "num_rx_queues"), len(order.cpus))
    near, far = f"near{order.number}", f"far{order.number}"
    peer = {"ifname": far, **several}
    network.link("add", ifname=near, kind="veth", peer=peer, **several)
    ends = [network.link_lookup(ifname=name)[0] for name in (near, far)]
    for index in ends:
        network.link("set", index=index, state="up")
    if receiver is not None:
        _steer(ends[0], receiver)
    return ends[0], ends[1]


def _steer(index: int, cpu: int) -> None:
    """Steer all packets that an interface receives to one CPU (RPS)."""
    name = socket.if_indextoname(index)
    with tempfile.TemporaryDirectory() as directory:
        system.mount("sysfs", directory, "sysfs", 0)  # as this network namespace sees it
        try:
            for queue in Path(directory, "class/net", name, "queues").glob("rx-*"):
                (queue / "rps_cpus").write_text(f"{1 << cpu:x}", encoding="ascii")
        finally:
            system.unmount(directory)


def _frame_sender(index: int, bypass: bool, cpu: int) -> _Sender:
    """Return a sender of frames out of an interface."""
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sender.setsockopt(uapi.SOL_PACKET, uapi.PACKET_QDISC_BYPASS, int(bypass))
    sender.bind((socket.if_indextoname(index), 0))
    return _repeated(functools.partial(sender.send, FRAME))


# -- hooks of a cgroup -----------------------------------------------------------------------------


@contextmanager
def _cgroup(
    order: Order, network: Any, attach_type: int, sender: Callable[[int, int], _Call]
) -> Iterator[_Attached]:
    """Attach the program to a new cgroup, whose processes then make the hooked request."""
    with cgroup() as directory:
        group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            libbpf.attach_to_cgroup(order.program, group, attach_type)
            yield _Attached(lambda cpu: _repeated(sender(order.number, cpu)), directory)
        finally:
            os.close(group)


@contextmanager
def cgroup() -> Iterator[Path]:
    """Create a cgroup; remove it afterwards, which also detaches its programs."""
    directory = Path(tempfile.mkdtemp(prefix="spinlock-", dir=_cgroup_root()))
    try:
        yield directory
    finally:
        directory.rmdir()


def datagram_sender(address: Tuple[str, int], data: bytes) -> Callable[[], object]:
    """Return a function that sends a datagram over loopback, from a connected socket.

    The receiver is a socket of this process at `address`, which never reads.
    """
    receiver = _bound(address)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(receiver.getsockname())

    def send(keep: socket.socket = receiver) -> int:  # keeps the receiver open: else ECONNREFUSED
        return sender.send(data)

    return send


def datagrams(longer: int = 0) -> Callable[[], object]:
    """Return a function that sends a datagram, padded by `longer` bytes, to a local socket."""
    return datagram_sender(("127.0.0.1", 0), DATAGRAM + bytes(longer))


def _bound(address: Tuple[str, int]) -> socket.socket:
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(address)
    return receiver


def _address(number: int, cpu: int) -> Tuple[str, int]:
    """Return a loopback address for one order and CPU."""
    return f"127.0.{number + 1}.{cpu % 250 + 1}", UDP_PORT


def _send_datagram(number: int, cpu: int) -> _Call:
    return datagram_sender(_address(number, cpu), DATAGRAM)


def _connect(number: int, cpu: int) -> _Call:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    return functools.partial(sender.connect, ("127.0.0.1", UDP_PORT))


def _send_message(number: int, cpu: int) -> _Call:
    """Send to a socket of the same process, with its address in each call."""
    address = _address(number, cpu)
    receiver = _bound(address)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send(keep: socket.socket = receiver) -> int:
        return sender.sendto(DATAGRAM, address)

    return send


def _create_socket(number: int, cpu: int) -> _Call:
    return lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()


def _set_option(number: int, cpu: int) -> _Call:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    return functools.partial(sender.setsockopt, socket.SOL_SOCKET, socket.SO_MARK, 1)


def _get_option(number: int, cpu: int) -> _Call:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    return functools.partial(sender.getsockopt, socket.SOL_SOCKET, socket.SO_MARK)


def _open_device(number: int, cpu: int) -> _Call:
    return lambda: os.close(os.open(_DEVICE, os.O_RDONLY))


def _read_sysctl(number: int, cpu: int) -> _Call:
    file = os.open(_SYSCTL, os.O_RDONLY)
    return functools.partial(os.pread, file, 64, 0)


# -- hooks in the kernel's own functions -----------------------------------------------------------


@contextmanager
def _linked(program: int) -> Iterator[None]:
    """Attach a program to its trace point, function or LSM hook, until the block ends."""
    link = libbpf.open_raw_tracepoint(program)
    try:
        yield
    finally:
        os.close(link)


@contextmanager
def _traced(order: Order, network: Any, call: _Call) -> Iterator[_Attached]:
    """Attach to a trace point, a function or an LSM hook, and make a system call that reaches it."""

    def sender(cpu: int) -> _Sender:
        Path("/proc/self/comm").write_text(_SENDER, encoding="ascii")
        return _repeated(call)

    with _linked(order.program):
        yield _Attached(sender)


@contextmanager
def _fentry(order: Order, network: Any) -> Iterator[_Attached]:
    """Trigger a fentry program: its test run calls the kernel's bpf_fentry_test functions."""
    with _traced(order, network, lambda: libbpf.test_run(order.program, b"")) as attached:
        yield attached


@contextmanager
def _by_itself(order: Order, network: Any) -> Iterator[_Attached]:
    """Attach to events that happen anyway, such as timer interrupts; nothing is sent."""
    with _linked(order.program):
        yield _Attached(lambda cpu: _Sender(lambda times: times))


@contextmanager
def _interrupt(order: Order, network: Any, target: int) -> Iterator[_Attached]:
    """Run a raw tracepoint program on the CPU `target`, which the kernel interrupts by an IPI."""
    run = functools.partial(libbpf.test_run, order.program, b"", cpu=target)
    yield _Attached(lambda cpu: _repeated(run))


@contextmanager
def member_of(group: Path) -> Iterator[None]:
    """Move this process into a cgroup until the block ends; sockets it creates there stay in it."""
    before = own_cgroup()
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (before / "cgroup.procs").write_text(str(os.getpid()))


def own_cgroup() -> Path:
    """Return the directory of the cgroup that this process is in."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        path = next(line.strip()[4:] for line in file if line.startswith("0::/"))
    return Path(_cgroup_root()) / path


def _cgroup_root() -> str:
    with open("/proc/mounts", encoding="utf-8") as mounts:
        roots = [line.split()[1] for line in mounts if line.split()[2] == "cgroup2"]
    if not roots:
        raise OSError(errno.ENOENT, "no cgroup2 file system is mounted")
    return roots[0]


# -- sockets and files of the session --------------------------------------------------------------


@contextmanager
def _socket(order: Order, network: Any) -> Iterator[_Attached]:
    """Send datagrams from one socket on all CPUs. The program is attached to the socket's cgroup."""
    sender = socket.socket(fileno=os.dup(order.fd))
    yield _Attached(lambda cpu: _repeated(functools.partial(sender.send, DATAGRAM)))


@contextmanager
def _system_call(order: Order, network: Any, call: Callable[[int], Any]) -> Iterator[_Attached]:
    """Attach to a kernel function, and make a system call that reaches it."""
    with _linked(order.program):
        yield _Attached(lambda cpu: _repeated(functools.partial(call, order.fd)))


def _ask_file(fd: int) -> None:
    fcntl.fcntl(fd, fcntl.F_GETFD)


def _ask_process(pidfd: int) -> None:
    signal.pidfd_send_signal(pidfd, 0)


# -- senders ---------------------------------------------------------------------------------------


class _Sent:
    """The operations that each sender has sent, in memory that all processes share."""

    def __init__(self, senders: int) -> None:
        self._memory = mmap.mmap(-1, max(senders, 1) * 8)
        self._told = 0

    def note(self, sender: int, done: int) -> None:
        """Note how many operations a sender has sent."""
        struct.pack_into("<Q", self._memory, sender * 8, done)

    def more(self) -> int:
        """Return the sum if it has grown since it was returned last, else 0."""
        total = sum(value for (value,) in struct.iter_unpack("<Q", self._memory[:]))
        grown, self._told = total > self._told, total
        return total if grown else 0


def _send(
    orders: Sequence[Order], attached: Sequence[_Attached], alive: Callable[[int], None]
) -> Drove:
    """Release one pinned sender per order and CPU at once; wait until all requested runs happened."""
    before = _dropped()
    sent = _Sent(sum(len(order.cpus) for order in orders))
    with ExitStack() as stack:
        gate, release = os.pipe()  # its end of file is the start signal
        answers: List[Tuple[int, int, Connection]] = []
        for order, place in zip(orders, attached):
            for cpu in order.cpus:
                ours, theirs = _fork.Pipe()
                note = functools.partial(sent.note, len(answers))
                process = _fork.Process(
                    target=_sender_process,
                    args=(theirs, (gate, release), cpu, order, place, note),
                )
                process.start()
                theirs.close()
                stack.callback(process.join)
                answers.append((order.number, cpu, ours))
        os.close(gate)
        for _, _, answer in answers:
            _receive(answer)  # ready: pinned, joined, sockets open
        started = time.monotonic()
        os.close(release)
        facts: List[Driven] = [{"sent": {}, "log": {}} for _ in orders]
        for number, cpu, answer in answers:
            while not answer.poll(_SIGN_SECONDS):
                if total := sent.more():
                    alive(total)
            done, log = _receive(answer)
            facts[number]["sent"][str(cpu)] = done
            if log:
                facts[number]["log"][str(cpu)] = log
    for order, fact in zip(orders, facts):
        if order.map is None and order.ran is not None:  # else it copies, or does not count
            _wait_for(sum(fact["sent"].values()), order.ran)
    seconds = _since(started)
    return {"orders": facts, "dropped": _difference(before, _dropped()), "seconds": seconds}


def _sender_process(
    answer: Connection,
    gate: Tuple[int, int],
    cpu: int,
    order: Order,
    place: _Attached,
    note: Callable[[int], None],
) -> None:
    import psutil

    os.close(gate[1])
    try:
        psutil.Process().cpu_affinity([cpu])
        if place.group is not None:
            (place.group / "cgroup.procs").write_text(str(os.getpid()))
        sender = place.sender(cpu)
        gc.disable()
        answer.send(None)
        os.read(gate[0], 1)
        end = time.monotonic() + (order.seconds or math.inf)
        done, most = 0, _FEW_AT_A_TIME if order.seconds else _SENT_AT_A_TIME
        while done < order.operations and time.monotonic() < end:
            done += sender.send(min(order.operations - done, most))
            note(done)
        answer.send((done, sender.log))
    except OSError as error:
        answer.send(error)


def _repeated(call: _Call) -> _Sender:
    return _Sender(functools.partial(_repeat, call))


def _repeat(send: _Call, times: int) -> int:
    """Send `times` times. ENOBUFS, a full queue, means that nothing was sent: try again."""
    for _ in itertools.repeat(None, times):
        while True:
            try:
                send()
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
    return times


def _receive(answer: Connection) -> Any:
    """Return the object that a child sent; raise it if it is an OSError."""
    try:
        value = answer.recv()
    except EOFError:
        raise AssertionError("a driver's process died; the console shows its traceback") from None
    if isinstance(value, OSError):
        raise value
    return value


def _wait_for(sent: int, ran: Callable[[], int]) -> None:
    """Wait until `sent` runs were counted, or none came for _STILL_SECONDS."""
    last, since = ran(), time.monotonic()
    while last < sent and time.monotonic() - since < _STILL_SECONDS:
        time.sleep(_LOOK_SECONDS)  # poll: the program cannot notify user space
        now = ran()
        if now != last:
            last, since = now, time.monotonic()


# -- drop counters ---------------------------------------------------------------------------------


def _dropped() -> Dict[str, int]:
    """Return the drop counters of this network namespace's interfaces and of all CPUs' backlogs."""
    counters = {"backlog": 0}
    with open("/proc/net/softnet_stat", encoding="ascii") as file:
        for line in file:
            counters["backlog"] += int(line.split()[1], 16)
    with open("/proc/net/dev", encoding="ascii") as file:
        for line in itertools.islice(file, 2, None):
            name, _, numbers = line.partition(":")
            columns = [int(word) for word in numbers.split()]
            counters[f"{name.strip()} receive"] = columns[3]
            counters[f"{name.strip()} transmit"] = columns[11]
    return counters


def _difference(before: Dict[str, int], after: Dict[str, int]) -> Dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in after.items()}


@contextmanager
def _long_backlog() -> Iterator[None]:
    path = Path(_BACKLOG)
    before = path.read_text(encoding="ascii")
    path.write_text(str(_BACKLOG_PACKETS), encoding="ascii")
    try:
        yield
    finally:
        path.write_text(before, encoding="ascii")


def _since(started: float) -> float:
    return round(time.monotonic() - started, 4)


# The second argument is an IPRoute in the driver's network namespace, or None.
_Driver = Callable[[Order, Any], ContextManager[_Attached]]


def _on_cgroup(*hooks: Tuple[str, int, Callable[[int, int], _Call]]) -> Dict[str, _Driver]:
    return {
        f"cgroup_{name}": functools.partial(_cgroup, attach_type=attach_type, sender=sender)
        for name, attach_type, sender in hooks
    }


_WITH_NETWORK: Dict[str, _Driver] = {
    "xdp_native": functools.partial(_xdp, mode=uapi.XDP_FLAGS_DRV_MODE),
    "xdp_generic": functools.partial(_xdp, mode=uapi.XDP_FLAGS_SKB_MODE),
    "tc_ingress": functools.partial(_tc, direction="ingress"),
    "tc_egress": functools.partial(_tc, direction="egress"),
    "xdp_generic_to_cpu_0": functools.partial(_xdp, mode=uapi.XDP_FLAGS_SKB_MODE, receiver=0),
    "tc_ingress_to_cpu_0": functools.partial(_tc, direction="ingress", receiver=0),
    "tcx_ingress": functools.partial(_tcx, direction="ingress"),
    "tcx_egress": functools.partial(_tcx, direction="egress"),
    **_on_cgroup(
        ("skb_ingress", uapi.BPF_CGROUP_INET_INGRESS, _send_datagram),
        ("skb_egress", uapi.BPF_CGROUP_INET_EGRESS, _send_datagram),
        ("connect4", uapi.BPF_CGROUP_INET4_CONNECT, _connect),
        ("sendmsg4", uapi.BPF_CGROUP_UDP4_SENDMSG, _send_message),
    ),
}
_WITHOUT_NETWORK: Dict[str, _Driver] = {
    "test_run": _test_run,
    "user_space": _user_space,
    "socket": _socket,
    "fcntl": functools.partial(_system_call, call=_ask_file),
    "signal": functools.partial(_system_call, call=_ask_process),
    **_on_cgroup(
        ("sock_create", uapi.BPF_CGROUP_INET_SOCK_CREATE, _create_socket),
        ("setsockopt", uapi.BPF_CGROUP_SETSOCKOPT, _set_option),
        ("getsockopt", uapi.BPF_CGROUP_GETSOCKOPT, _get_option),
        ("device", uapi.BPF_CGROUP_DEVICE, _open_device),
        ("sysctl", uapi.BPF_CGROUP_SYSCTL, _read_sysctl),
    ),
    "tp_btf_sys_enter": functools.partial(_traced, call=os.getppid),
    "lsm_file_open": functools.partial(_traced, call=_open_device(0, 0)),
    "fentry": _fentry,
    "local_timer": _by_itself,
    "interrupt_cpu_0": functools.partial(_interrupt, target=0),
}
_DRIVERS = {**_WITH_NETWORK, **_WITHOUT_NETWORK}
