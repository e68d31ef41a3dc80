# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock check` in the guest: load each program of an object of unknown origin.

A child process with limits on time, memory and log opens and loads the file, and its pins are
removed afterwards. So a file that breaks libbpf or fills the memory does not harm the session. If the
child dies, its current program is reported, and another child continues with the next one.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import shutil
import signal
import socket
import threading
import time
import traceback
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, Optional, Sequence

from harness.guest import facts, libbpf, loaders, system, uapi
from harness.guest.objects import Object

Json = Dict[str, Any]
Emit = Callable[[Json], None]

MEMORY_MIB = 400  # for the child, its maps and its programs; a guest has 1024
TOLD_LOG_BYTES = 96 << 10  # reported from the end of a verifier log, which may have megabytes
TOLD_MESSAGES = 40  # reported of libbpf's messages: a damaged file may cause any number
TOLD_BYTES = 2000  # reported of each message
ASSUMED_ENTRIES = 1024  # max_entries of a map that declares none
PROGRAMS_LOST = 3  # children that may die on one object
ROUND_RUNS = 256  # runs between two looks at the clock

_CGROUP, _FILES = "/sys/fs/cgroup", "/sys/fs/bpf"
_NOTHING_DONE = b"processed 0 insns"  # the whole verifier log of a load refused before verification
_OUT_OF_MEMORY = 3  # the child's exit status after a MemoryError


def examine(
    data: bytes, only: Sequence[str], seconds: float, log: Callable[[], Any], emit: Emit
) -> None:
    """Load the programs of an object one by one, all or those in `only`; emit the results.

    Events: {"object": facts} or {"damaged": why}, then {"begin": name}, {"end": name, "seen": facts}.
    `log` returns the lines of the kernel log since its last call.
    """
    libbpf.log_buffer()  # allocated before the forks, so all children have it
    deadline = time.monotonic() + seconds
    done: List[str] = []
    told = False
    for _ in range(PROGRAMS_LOST):
        at: Optional[str] = None
        finished = False
        child = _Child(lambda port: _examine(port, data, only, done))
        for event in child.events(deadline):
            if "begin" in event:
                at = event["begin"]
            elif "end" in event:
                at = None
                done.append(event["end"])
                event["seen"]["kernel_log"] = log()
            finished = finished or "damaged" in event or "finished" in event
            if "finished" not in event and not (told and "object" in event):
                emit(event)
            told = told or "object" in event
            child.go_on()
        how = child.end()
        if finished:
            return
        if at is None:
            emit({"damaged": "libbpf broke on it", "died": how})
            return
        done.append(at)
        emit({"end": at, "seen": {"stage": "limit", "died": how, "kernel_log": log()}})
        if time.monotonic() >= deadline:
            break
    emit({"unfinished": True})


def drive(data: bytes, program: str, cpus: Sequence[int], seconds: float) -> Json:
    """Run a program in a loop, first on one CPU, then on all; return runs and seconds of both.

    Meanwhile the object's maps are read through their bpffs files, which show lock words.
    """
    child = _Child(lambda port: _drive(port, data, program, cpus, seconds))
    facts: Json = {}
    for event in child.events(time.monotonic() + 30 + 8 * seconds):
        facts.update(event)
        child.go_on()
    how = child.end()
    return facts or {"problem": how}


class _Child:
    """A process that sends JSON lines, and waits after each for go_on()."""

    def __init__(self, work: Callable[[Emit], None]) -> None:
        ours, theirs = socket.socketpair()
        self._killed = False
        self._group = _memory_group()
        _own_files()
        self._killed_before = _killed_in(self._group)
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                ours.close()

                def send(event: Json) -> None:
                    theirs.sendall(json.dumps(event).encode() + b"\n")
                    theirs.recv(1)

                try:
                    _confine(self._group)
                    work(send)
                except MemoryError:
                    raise
                except Exception:  # a defect of this module, as opposed to one of libbpf
                    send({"defect": traceback.format_exc()})
                status = 0
            except MemoryError:
                status = _OUT_OF_MEMORY
            finally:
                os._exit(status)
        theirs.close()
        self._port = ours

    def events(self, deadline: float) -> Iterator[Json]:
        """Yield the child's events until it ends; at the deadline it is killed."""
        rest = b""
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._port], [], [], left)[0]:
                self._killed = True
                os.kill(self._pid, signal.SIGKILL)
                return
            try:
                data = self._port.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                return
            rest += data
            while b"\n" in rest:
                line, _, rest = rest.partition(b"\n")
                event = json.loads(line)
                if "defect" in event:
                    self.go_on()
                    raise AssertionError(event["defect"])
                yield event

    def go_on(self) -> None:
        """Let the child continue after a line."""
        try:
            self._port.sendall(b".")
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended; end() returns the reason

    def end(self) -> str:
        """Wait for the child; return why it ended: "time", "memory", "signal SIGSEGV", "status 0"."""
        self._port.close()
        _, waited = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(waited)
        _unpin()
        memory = _killed_in(self._group) > self._killed_before
        if self._killed:
            return "time"
        if memory or code == _OUT_OF_MEMORY:
            return "memory"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"


# -- limits ----------------------------------------------------------------------------------------


@lru_cache(maxsize=None)
def _memory_group() -> Optional[Path]:
    """Create a cgroup with a memory limit; kernels since v5.11 charge BPF maps to it as well.

    The children of a session run one after the other and share it.
    """
    try:
        Path(_CGROUP, "cgroup.subtree_control").write_text("+memory", encoding="ascii")
        group = Path(_CGROUP, f"spinlock-check-{os.getpid()}")
        group.mkdir()
        (group / "memory.max").write_text(f"{MEMORY_MIB}M", encoding="ascii")
        return group
    except OSError:
        return None  # without a cgroup, only rlimits apply


def _killed_in(group: Optional[Path]) -> int:
    """Return the number of OOM kills in the cgroup."""
    if group is None:
        return 0
    events = (group / "memory.events").read_text(encoding="ascii").split("\n")
    return sum(int(line.split()[1]) for line in events if line.startswith("oom_kill "))


@lru_cache(maxsize=None)
def _own_files() -> FrozenSet[str]:
    """Mount a private BPF file system for the session; return the names it starts with."""
    system.unshare(uapi.CLONE_NEWNS)
    system.mount("none", "/", "", uapi.MS_PRIVATE | uapi.MS_REC)
    system.mount("bpf", _FILES, "bpf", 0)
    return frozenset(os.listdir(_FILES))


def _unpin() -> None:
    """Remove the child's pins."""
    for name in set(os.listdir(_FILES)) - _own_files():
        path = os.path.join(_FILES, name)
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _confine(group: Optional[Path]) -> None:
    """Apply the limits to this process."""
    if group is not None:
        (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    mapped = pages * resource.getpagesize()
    limit = mapped + (MEMORY_MIB << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libbpf.limit_locked_memory(MEMORY_MIB << 20)  # v5.10 charges maps to this limit


# -- in the child ----------------------------------------------------------------------------------


def _messages() -> List[str]:
    told = [message[:TOLD_BYTES] for message in libbpf.messages[-TOLD_MESSAGES:]]
    libbpf.messages.clear()
    return told


def _open(data: bytes, programs: Optional[List[str]] = None) -> Object:
    elf = Object(data, programs)
    elf.assume_sizes(ASSUMED_ENTRIES)
    return elf


def _examine(send: Emit, data: bytes, only: Sequence[str], done: Sequence[str]) -> None:
    libbpf.capture_messages()
    try:
        elf = Object(data)
    except OSError as error:
        send({"damaged": "libbpf refuses it", "errno": _name(error), "messages": _messages()})
        return
    assumed = elf.assume_sizes(ASSUMED_ENTRIES)
    programs = elf.program_facts()
    refusals = _probe(elf, data)
    elf.close()
    send({"object": {"programs": programs, "assumed": assumed, **refusals}})
    for program in programs:
        name = program["name"]
        if name in done or (only and name not in only):
            continue
        send({"begin": name})
        seen = _load(data, program)
        if seen["stage"] is None and not _can_attach(program):
            told = f"this kernel has no attach type {program['attach_type']}"
            seen.update(stage="attach", errno="", messages=[told])
        send({"end": name, "seen": seen})
    send({"finished": True})


def _can_attach(program: Json) -> bool:
    """Tell whether the kernel has a program's attach type; True if it has no BTF to look in.

    Not every kernel checks the type at load: v5.10 loads a tcx program as any other for tc.
    """
    kind = program["attach_type"]
    if not os.path.exists(facts.VMLINUX_BTF):
        return True
    # A socket option attaches sk_reuseport programs, also before v5.14, which added the attach type.
    return kind in ("", "BPF_SK_REUSEPORT_SELECT") or facts.names([kind])[kind]


def _probe(elf: Object, data: bytes) -> Json:
    """Load the BTF and create each map by plain bpf() calls; return the errnos, which libbpf hides.

    The BTF is as libbpf sanitizes it for this kernel.
    """
    answer: Json = {"btf": None, "maps": {}}
    loaded = Object(data, [])
    try:
        btf = loaded.load_btf()
        for name in elf.own_maps():
            if elf.is_struct_ops(name):
                continue
            try:
                os.close(elf.create_map(name, btf))
            except OSError as error:
                answer["maps"][name] = _name(error)
    except OSError as error:
        answer["btf"] = _name(error)
    finally:
        libbpf.messages.clear()
        loaded.close()
    return answer


def _load(data: bytes, program: Json) -> Json:
    """Load one program through libbpf; return the result as a "seen" object."""
    libbpf.messages.clear()
    log = libbpf.log_buffer()
    started = time.monotonic()
    level = None
    while True:
        log[0] = b"\0"
        elf = _open(data, [program["name"]])
        try:
            elf.set_log(program["name"], log, level)
            elf.load()
            return {"stage": None, "log": "", "seconds": round(time.monotonic() - started, 3)}
        except OSError as error:
            if error.errno == errno.ENOSPC and level is None:  # the log is longer than the buffer
                level = uapi.BPF_LOG_STATS
                continue
            text: bytes = log.value
            seen = {
                "stage": "load",
                "errno": _name(error),
                "log": text[-TOLD_LOG_BYTES:].decode(errors="replace"),
                "log_bytes": len(text),
                "messages": _messages(),
                "seconds": round(time.monotonic() - started, 3),
            }
            if (not text or text.startswith(_NOTHING_DONE)) and program["section"]:
                seen["bare"] = loaders.load_errno(program["section"]) == 0
            return seen
        finally:
            elf.close()


def _name(error: OSError) -> str:
    return libbpf.errno_name(error.errno or 0)


def _drive(send: Emit, data: bytes, program: str, cpus: Sequence[int], seconds: float) -> None:
    libbpf.capture_messages()
    try:
        elf = _open(data, [program])
        elf.load()
        fd = elf.program_fd(program)
        libbpf.test_run(fd, libbpf.PACKET, 1)  # fails if the program type has no test run
    except OSError as error:
        send({"problem": f"BPF_PROG_TEST_RUN: {_name(error)}"})
        return
    one = _run(fd, cpus[:1], seconds)
    paths: Dict[str, str] = {}
    for name in elf.own_maps():
        path = f"{_FILES}/spinlock-look-{len(paths)}"
        try:
            libbpf.pin(elf.map_fd(name), path)
            paths[name] = path
        except OSError:
            pass  # a map that cannot be pinned is not read
    looks: Dict[str, List[str]] = {}
    every = _run(fd, cpus, seconds, paths, looks)
    retval = libbpf.test_run(fd, libbpf.PACKET, 1)
    send({"one_cpu": one, "all_cpus": every, "cpus": len(cpus), "retval": retval, "looks": looks})


def _run(
    fd: int,
    cpus: Sequence[int],
    seconds: float,
    paths: Optional[Dict[str, str]] = None,
    looks: Optional[Dict[str, List[str]]] = None,
) -> Json:
    """Run the program on these CPUs at once; return runs per CPU, and the seconds all ran together."""
    barrier = threading.Barrier(len(cpus) + 1)
    spans: List[Any] = []
    until = [0.0]

    def run(cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})
        barrier.wait()
        begun, runs = time.monotonic(), 0
        while time.monotonic() < until[0]:
            libbpf.test_run(fd, libbpf.PACKET, ROUND_RUNS)
            runs += ROUND_RUNS
        spans.append((begun, time.monotonic(), runs))

    threads = [threading.Thread(target=run, args=(cpu,)) for cpu in cpus]
    for thread in threads:
        thread.start()
    until[0] = time.monotonic() + seconds
    barrier.wait()
    while paths and looks is not None and time.monotonic() < until[0]:
        for name, path in paths.items():
            try:
                with open(path, encoding="ascii", errors="replace") as file:
                    looks.setdefault(name, []).append(file.read(4096))
            except OSError:
                paths = {key: value for key, value in paths.items() if key != name}
    for thread in threads:
        thread.join()
    begun, ended = max(span[0] for span in spans), min(span[1] for span in spans)
    whole = max(span[1] for span in spans) - min(span[0] for span in spans)
    return {
        "runs": [span[2] for span in spans],
        "seconds": round(whole, 4),
        "together": round(max(0.0, ended - begun), 4),
    }
