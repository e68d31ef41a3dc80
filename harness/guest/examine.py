# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock check` in the guest: load each program of an object of unknown origin.

A child process with limits on time, memory and log opens and loads the file, and its pins are
removed afterwards. So a file that breaks libbpf or fills the memory does not harm the session. If the
child dies, its current program is reported, and another child continues with the next one.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import platform
import re
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
from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
)

from harness.guest import btf_cause, calls, facts, libbpf, loaders, system, uapi
from harness.guest.objects import Object
from harness.guest.prepared import alone_in_struct_ops

Json = Dict[str, Any]
Emit = Callable[[Json], None]

MEMORY_MIB = 400  # of the child, its maps and its programs; a guest has 1024
MOST_MAP_BYTES = 32 << 20  # of one map; a larger one gets fewer entries
MOST_ARENA_BYTES = 16 << 30  # of address space, of which hardly any is memory
TOLD_LOG_BYTES = 96 << 10  # of the end of a verifier log that may have megabytes
TOLD_MESSAGES = 40  # of libbpf's, which damaged files make it write without end
TOLD_BYTES = 2000  # of each
ASSUMED_ENTRIES = 1024  # of a map whose size its own loader would set
PROGRAMS_LOST = 3  # so many children may die at one object
ROUND_RUNS = 256  # of a test run between two looks at the clock

_CGROUP, _FILES = "/sys/fs/cgroup", "/sys/fs/bpf"
_NOTHING_DONE = b"processed 0 insns"  # all that the verifier says where it did not begin
_OF_FUNCTIONS = ("fentry", "fexit", "fmod_ret")
_OUT_OF_MEMORY = 3  # a status of the child


class _NoAttach(Exception):
    """The kernel loads a program and refuses to attach it."""

    def __init__(self, number: int) -> None:
        super().__init__(uapi.errno_name(number))
        self.number = number


def examine(wanted: calls.Examine, log: Callable[[], Any], emit: Emit) -> None:
    """Load each program of an object by itself, or those named; emit what became of each.

    Events: {"object": facts} or {"damaged": why}, then {"begin": name}, {"end": name, "seen": facts}.
    `log` returns the lines of the kernel log since its last call.
    """
    libbpf.log_buffer()  # allocated before the forks, so all children have it
    done: List[str] = []
    told = False
    for _ in range(PROGRAMS_LOST):
        at: Optional[str] = None
        finished = False
        child = _Child(lambda port: _examine(port, wanted, done))
        for event in child.events(wanted.seconds):
            if "object" in event:
                event["object"]["kernel_log"] = log()
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
    emit({"unfinished": True})


def drive(data: bytes, program: str, cpus: Sequence[int], seconds: float) -> Json:
    """Run a program in a loop, first on one CPU, then on all; return runs and seconds of both.

    Meanwhile the object's maps are read through their bpffs files, which show lock words.
    """
    child = _Child(lambda port: _drive(port, data, program, cpus, seconds))
    facts: Json = {}
    for event in child.events(30 + 8 * seconds):
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

    def events(self, seconds: float) -> Iterator[Json]:
        """Yield its lines until it ends; if there is none for so long it is killed."""
        rest = b""
        while True:
            if not select.select([self._port], [], [], seconds)[0]:
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
    _show_configuration()
    return frozenset(os.listdir(_FILES))


def _show_configuration() -> None:
    """Put the kernel's configuration where libbpf looks for `extern … __kconfig`."""
    release = platform.release()
    config, wanted = Path(f"/lib/modules/{release}/config"), Path(f"/boot/config-{release}")
    if wanted.exists() or Path("/proc/config.gz").exists() or not config.exists():
        return
    if wanted.parent.is_dir():
        system.mount("none", str(wanted.parent), "tmpfs", 0)
        wanted.symlink_to(config)


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
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit + MOST_ARENA_BYTES))
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
    elf.shrink(MOST_MAP_BYTES)
    if programs and not any(elf.is_of_struct_ops(name) for name in programs):
        elf.leave_struct_ops()
    return elf


def _make_room(elf: Object) -> None:
    """Let this process map the object's arenas."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    soft = most - MOST_ARENA_BYTES + min(elf.arena_bytes(), MOST_ARENA_BYTES)
    resource.setrlimit(resource.RLIMIT_AS, (soft, most))


def _examine(send: Emit, wanted: calls.Examine, done: Sequence[str]) -> None:
    libbpf.capture_messages()
    data = base64.b64decode(wanted.object)
    try:
        elf = Object(data)
    except OSError as error:
        send({"damaged": "libbpf refuses it", "errno": _name(error), "messages": _messages()})
        return
    assumed = elf.assume_sizes(ASSUMED_ENTRIES)
    shrunk = elf.shrink(MOST_MAP_BYTES)
    _make_room(elf)
    programs = elf.program_facts()
    known = facts.names(list(wanted.names)) if wanted.names else {}
    refusals = _probe(elf, data)
    elf.close()
    about = {"programs": programs, "assumed": assumed, "shrunk": shrunk, "names": known}
    send({"object": {**about, **refusals}})
    for program in programs:
        name = program["name"]
        if name in done or (wanted.only and name not in wanted.only):
            continue
        send({"begin": name})
        seen = _load(data, program, wanted.extends.get(name, ()))
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
    answer: Json = {"btf": None, "causes": [], "maps": {}}
    loaded = Object(data, [])
    try:
        btf = loaded.load_btf()
        for name in elf.all_maps():
            if elf.is_struct_ops(name):
                continue
            try:
                os.close(elf.create_map(name, btf, like_libbpf=True))
            except OSError as error:
                answer["maps"][name] = _name(error)
    except OSError as error:
        answer["btf"] = _name(error)
        answer["causes"] = btf_cause.find(loaded.btf(), _takes_btf)
    finally:
        libbpf.messages.clear()
        loaded.close()
    return answer


def _takes_btf(data: bytes) -> bool:
    try:
        os.close(libbpf.load_btf(data))
    except OSError:
        return False
    return True


def _load(data: bytes, program: Json, extends: Sequence[str]) -> Json:
    """Load one program as libbpf does; return what was seen.

    One that replaces a function of another program of the object is loaded on that.
    """
    if not extends:
        return _load_on(data, program, None)
    name, function = extends
    target = _open(data, [name])
    try:
        target.load()
        return _load_on(data, program, (target.program_fd(name), function))
    except OSError as error:
        told = f"its target '{name}' is refused itself"
        return {"stage": "target", "errno": _name(error), "log": "", "messages": [told]}
    finally:
        target.close()


def _load_on(data: bytes, program: Json, target: Optional[Tuple[int, str]]) -> Json:
    """Load one program, others of its struct_ops being empty; return what was seen."""
    if not program["section"].startswith("struct_ops"):
        return _load_once(data, program, target)
    with alone_in_struct_ops(data, program["name"]):
        return _load_once(data, program, target)


def _load_once(data: bytes, program: Json, target: Optional[Tuple[int, str]]) -> Json:
    libbpf.messages.clear()
    log = libbpf.log_buffer()
    started = time.monotonic()
    level = None
    while True:
        log[0] = b"\0"
        elf = _open(data, [program["name"]])
        try:
            elf.set_log(program["name"], log, level)
            if target is not None:
                elf.extend(program["name"], *target)
            elf.load()
            _attach_to_lock(elf, program)
            return {"stage": None, "log": "", "seconds": round(time.monotonic() - started, 3)}
        except _NoAttach as refused:
            number = uapi.errno_name(refused.number)
            told = f"the lock's own functions cannot be attached to: {number}"
            return {"stage": "attach", "errno": number, "log": "", "messages": [told]}
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
            if (not text or text.startswith(_NOTHING_DONE)) and _has_bare_twin(program):
                seen["bare"] = loaders.load_errno(program["section"]) == 0
            return seen
        finally:
            elf.close()


def _has_bare_twin(program: Json) -> bool:
    """Tell whether its section says all that a program of its kind which does nothing needs."""
    section = program["section"]
    return bool(section) and not section.startswith(("struct_ops", "freplace"))


def _attach_to_lock(elf: Object, program: Json) -> None:
    """Attach what is for one of the lock's own functions. Raises _NoAttach where it cannot be."""
    kind, _, function = program["section"].partition("/")
    if kind not in _OF_FUNCTIONS or not re.fullmatch(r"bpf_(res_)?spin_(un)?lock\w*", function):
        return
    try:
        os.close(libbpf.open_raw_tracepoint(elf.program_fd(program["name"])))
    except OSError as error:
        raise _NoAttach(error.errno or 0) from None


def _name(error: OSError) -> str:
    return uapi.errno_name(error.errno or 0)


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
