"""What makes a loaded program run on several CPUs at once: test runs, and packets through hooks.

A driver says how often it asked for a run on each CPU, how long that took and what was dropped on
the way. How often the program did run, and what came of it, is in the program's own maps.

Packets are sent in a network namespace of a child process, which has no name and vanishes with it.
The frames and datagrams carry the marks by which bpf_progs/counter.bpf.c knows its own.
"""

from __future__ import annotations

import errno
import functools
import gc
import itertools
import multiprocessing
import os
import socket
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

from harness.guest import libbpf

Json = Dict[str, Any]

# From 02:…:01 to 02:…:02, of the ethertype for local experiments.
FRAME = bytes.fromhex("020000000002" "020000000001" "88b5") + bytes(50)
UDP_PORT = 23312
DATAGRAM = bytes(18)

# A test run is asked for in parts, because a signal ends one only after its last repeat on kernels
# that do not preempt.
_TEST_RUN_CHUNK = 10_000

_BACKLOG = "/proc/sys/net/core/netdev_max_backlog"
_BACKLOG_PACKETS = 1_000_000  # so that no burst is dropped on its way to an ingress hook
_STILL_SECONDS = 2.0  # without a run, whatever is still missing will not come
_LOOK_SECONDS = 0.005

_SOL_PACKET, _PACKET_QDISC_BYPASS = 263, 20
_CLONE_NEWNET = 0x40000000
_XDP_GENERIC, _XDP_NATIVE = 1 << 1, 1 << 2
_CGROUP_INET_INGRESS, _CGROUP_INET_EGRESS = 0, 1
_CLSACT_PARENT = {"ingress": "ffff:fff2", "egress": "ffff:fff3"}

_fork = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Order:
    """What to drive: a program, on each of some CPUs so many times."""

    program: int  # its fd
    cpus: Tuple[int, ...]
    operations: int  # per CPU
    ran: Callable[[], int]  # how often it has run so far, on all CPUs together


def names() -> List[str]:
    """Return the names of the drivers."""
    return sorted(_DRIVERS)


def drive(name: str, order: Order) -> Json:
    """Run one driver to its end. Raises KeyError for an unknown name, OSError from the kernel.

    Returns {"sent": {CPU: times}, "dropped": {where: packets}, "seconds": from release to the end}.
    """
    return _DRIVERS[name](order)


def prepare() -> None:
    """Import what takes seconds, before the guest is saved."""
    import psutil  # noqa: F401
    import pyroute2  # noqa: F401


# -- test runs -------------------------------------------------------------------------------------


def _test_run(order: Order) -> Json:
    """Run the program by BPF_PROG_TEST_RUN in threads; ctypes lets go of the GIL meanwhile."""
    barrier = threading.Barrier(len(order.cpus) + 1)
    sent: Dict[str, int] = {}
    errors: List[OSError] = []

    def run(cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})  # of the calling thread
        barrier.wait()
        done = 0
        try:
            while done < order.operations:
                repeat = min(_TEST_RUN_CHUNK, order.operations - done)
                libbpf.test_run(order.program, FRAME, repeat)
                done += repeat
        except OSError as error:
            errors.append(error)
        sent[str(cpu)] = done

    threads = [threading.Thread(target=run, args=(cpu,)) for cpu in order.cpus]
    for thread in threads:
        thread.start()
    barrier.wait()
    started = time.monotonic()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return {"sent": sent, "dropped": {}, "seconds": _since(started)}


# -- hooks that see frames -------------------------------------------------------------------------


def _xdp(order: Order, mode: int) -> Json:
    """Send from one end of a veth pair, let the program see it at the other."""
    with _veth_pair(len(order.cpus)) as (network, near, far):
        del network
        libbpf.attach_xdp(near, order.program, mode)
        return _send(order, functools.partial(_frame_sender, far, True), Path())


def _tc(order: Order, direction: str) -> Json:
    with _veth_pair(len(order.cpus)) as (network, near, far):
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
        # Egress comes before the queueing discipline: frames that go past that go past it as well.
        end, bypass = (far, True) if direction == "ingress" else (near, False)
        return _send(order, functools.partial(_frame_sender, end, bypass), Path())


@contextmanager
def _veth_pair(queues: int) -> Iterator[Tuple[Any, int, int]]:
    """Give a netlink socket and both ends' indices.

    With one queue, native XDP would run in one NAPI context and so never on two CPUs at once.
    """
    from pyroute2 import IPRoute

    several = {"num_tx_queues": queues, "num_rx_queues": queues}
    with IPRoute() as network:
        peer = {"ifname": "far", **several}
        network.link("add", ifname="near", kind="veth", peer=peer, **several)
        ends = [network.link_lookup(ifname=name)[0] for name in ("near", "far")]
        for index in ends:
            network.link("set", index=index, state="up")
        yield network, ends[0], ends[1]


def _frame_sender(index: int, bypass: bool, cpu: int) -> Callable[[], int]:
    """Return a function that sends one frame out of an interface."""
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sender.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, int(bypass))
    sender.bind((socket.if_indextoname(index), 0))
    return functools.partial(sender.send, FRAME)


# -- hooks that see a cgroup's datagrams -----------------------------------------------------------


def _cgroup_skb(order: Order, attach_type: int) -> Json:
    """Send UDP over the loopback interface, from sockets of a cgroup to sockets of the same."""
    from pyroute2 import IPRoute

    with IPRoute() as network, cgroup() as directory:
        network.link("set", index=network.link_lookup(ifname="lo")[0], state="up")
        group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            libbpf.attach_to_cgroup(order.program, group, attach_type)
            return _send(order, _datagram_sender, directory)
        finally:
            os.close(group)


@contextmanager
def cgroup() -> Iterator[Path]:
    """Make a cgroup and remove it again, which also detaches what is attached to it."""
    with open("/proc/mounts", encoding="utf-8") as mounts:
        roots = [line.split()[1] for line in mounts if line.split()[2] == "cgroup2"]
    if not roots:
        raise OSError(errno.ENOENT, "no cgroup2 file system is mounted")
    directory = Path(tempfile.mkdtemp(prefix="spinlock-", dir=roots[0]))
    try:
        yield directory
    finally:
        directory.rmdir()


def _datagram_sender(cpu: int) -> Callable[[], int]:
    """Return a function that sends one datagram to an address of this CPU's own."""
    address = (f"127.0.1.{cpu % 250 + 1}", UDP_PORT)
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(address)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(address)

    def send(keep: socket.socket = receiver) -> int:  # without a receiver, errors would come back
        return sender.send(DATAGRAM)

    return send


# -- senders ---------------------------------------------------------------------------------------


def _send(order: Order, sender: Callable[[int], Callable[[], int]], group: Path) -> Json:
    """Let one pinned process per CPU send, all released together; wait until all has run."""
    before = _dropped()
    with ExitStack() as stack:
        gate, release = os.pipe()  # its end of file is the start signal
        answers = []
        for cpu in order.cpus:
            ours, theirs = _fork.Pipe()
            process = _fork.Process(
                target=_sender_process,
                args=(theirs, (gate, release), cpu, order.operations, sender, group),
            )
            process.start()
            theirs.close()
            stack.callback(process.join)
            answers.append(ours)
        os.close(gate)
        for answer in answers:
            _receive(answer)  # ready: pinned, joined, sockets open
        started = time.monotonic()
        os.close(release)
        sent = {str(cpu): int(_receive(answer)) for cpu, answer in zip(order.cpus, answers)}
    _wait_for(sum(sent.values()), order.ran)
    seconds = _since(started)
    return {"sent": sent, "dropped": _difference(before, _dropped()), "seconds": seconds}


def _sender_process(
    answer: Connection,
    gate: Tuple[int, int],
    cpu: int,
    operations: int,
    sender: Callable[[int], Callable[[], int]],
    group: Path,
) -> None:
    import psutil

    os.close(gate[1])
    try:
        psutil.Process().cpu_affinity([cpu])
        if group != Path():
            (group / "cgroup.procs").write_text(str(os.getpid()))
        send = sender(cpu)
        gc.disable()
        answer.send(0)
        os.read(gate[0], 1)
        for _ in itertools.repeat(None, operations):
            _insist(send)
        answer.send(operations)
    except OSError as error:
        answer.send(error)


def _insist(send: Callable[[], int]) -> None:
    """Send until it is sent: a full queue is no loss but a refusal."""
    while True:
        try:
            send()
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise


def _receive(answer: Connection) -> Any:
    """Return what a child sent, or raise the OSError it sent."""
    try:
        value = answer.recv()
    except EOFError:
        raise AssertionError("a driver's process died; the console shows its traceback") from None
    if isinstance(value, OSError):
        raise value
    return value


def _wait_for(sent: int, ran: Callable[[], int]) -> None:
    """Wait until so many runs were seen, or none came for two seconds."""
    last, since = ran(), time.monotonic()
    while last < sent and time.monotonic() - since < _STILL_SECONDS:
        time.sleep(_LOOK_SECONDS)  # the program cannot tell us when it has run
        now = ran()
        if now != last:
            last, since = now, time.monotonic()


# -- where packets get lost ------------------------------------------------------------------------


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


# -- a network of one's own ------------------------------------------------------------------------


def _in_own_network(driver: Callable[..., Json], *choice: Any) -> Callable[[Order], Json]:
    """Return a driver that runs in a child process, in a network namespace that ends with it."""

    def run(order: Order) -> Json:
        prepare()  # here, so that the next drive of this session need not do it again
        ours, theirs = _fork.Pipe()
        with _long_backlog():
            process = _fork.Process(target=_apart, args=(theirs, driver, order, choice))
            process.start()
            theirs.close()
            try:
                facts: Json = _receive(ours)
            finally:
                process.join()
        return facts

    return run


def _apart(
    answer: Connection, driver: Callable[..., Json], order: Order, choice: Sequence[Any]
) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        libbpf.unshare(_CLONE_NEWNET)
        answer.send(driver(order, *choice))
    except OSError as error:
        answer.send(error)
    except NetlinkError as error:
        answer.send(OSError(error.code, f"netlink: {error}"))


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


_DRIVERS: Dict[str, Callable[[Order], Json]] = {
    "test_run": _test_run,
    "xdp_native": _in_own_network(_xdp, _XDP_NATIVE),
    "xdp_generic": _in_own_network(_xdp, _XDP_GENERIC),
    "tc_ingress": _in_own_network(_tc, "ingress"),
    "tc_egress": _in_own_network(_tc, "egress"),
    "cgroup_skb_ingress": _in_own_network(_cgroup_skb, _CGROUP_INET_INGRESS),
    "cgroup_skb_egress": _in_own_network(_cgroup_skb, _CGROUP_INET_EGRESS),
}
