# SPDX-License-Identifier: GPL-2.0-only
"""A child process with limits on time and memory, for objects of unknown origin.

Its pins are removed afterwards. So a file that breaks libbpf or fills the memory does not harm the
session.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import select
import shutil
import signal
import socket
import traceback
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, Iterator, Optional

from harness.guest import libbpf, system, uapi

Json = Dict[str, Any]
Emit = Callable[[Json], None]

MEMORY_MIB = 400  # of the child, its maps and its programs; a guest has 1024
MOST_ARENA_BYTES = 16 << 30  # of address space, of which hardly any is memory

_CGROUP, _FILES = "/sys/fs/cgroup", "/sys/fs/bpf"
_OUT_OF_MEMORY = 3  # a status of the child


class Child:
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
