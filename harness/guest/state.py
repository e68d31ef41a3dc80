# SPDX-License-Identifier: GPL-2.0-only
"""What a session holds between calls: the kernel log's position, the loaded unit, what it made."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterator, List, Optional

from harness.guest import cpus, libbpf, uapi
from harness.guest.calls import Aftermath
from harness.guest.kmsg import KernelLog
from harness.guest.loaders import BccUnit, Unit
from harness.guest.maps import Map

Json = Dict[str, Any]
SETTLE_SECONDS = 0.005  # after a case, for the kernel's workers to free what it closed
LATE_SECONDS = 0.1  # after the last one


class State:
    """The state of one session. `emit` sends an event, `source` is the stream from the host."""

    def __init__(self, emit: Callable[[Json], None], source: BinaryIO) -> None:
        self.emit, self.source = emit, source
        self.kernel_log: Optional[KernelLog] = None
        self.unit: Optional[Unit] = None
        self.stack = ExitStack()  # what lives as long as the loaded unit
        self.listener: Optional[socket.socket] = None
        self.group: Optional[Path] = None  # the cgroup that this process has joined
        self.modules: Dict[str, BccUnit] = {}  # by text: bcc takes seconds to compile one

    def ask(self, question: Json) -> Json:
        """Ask the host in the middle of a call; see carried_calls.py."""
        self.emit({"carry": question})
        answer: Json = json.loads(self.source.readline())
        return answer

    # -- the kernel log ---------------------------------------------------------------------------

    def begin(self, case: str) -> List[str]:
        """Mark the begin of a case in the kernel log; return what came late of the one before."""
        if self.kernel_log is None:
            self.kernel_log = KernelLog()
        return self.kernel_log.mark(case)

    def aftermath(self, settle: float, ran: bool) -> Aftermath:
        """Return how a case left the guest; `settle` seconds go by first, unless a CPU is stuck."""
        stuck = cpus.stuck() if ran else []  # 20 ms when emulated
        if self.kernel_log is None:
            return {"stuck": stuck, "kernel_log": None}
        try:
            if stuck:
                time.sleep(LATE_SECONDS)  # no RCU grace period will end any more
            else:
                self.kernel_log.settle(settle)
            return {"stuck": stuck, "kernel_log": self.kernel_log.read()}
        except OSError:
            return {"stuck": stuck, "kernel_log": None}

    def log_lines(self) -> Optional[List[str]]:
        """Return the kernel log since begin(); None says it could not be read."""
        return self.aftermath(SETTLE_SECONDS, ran=False)["kernel_log"]

    # -- what is loaded ---------------------------------------------------------------------------

    def program(self, name: str) -> int:
        """Return the fd of a loaded program. Raises OSError when nothing is loaded."""
        return self._loaded().program_fd(name)

    def map(self, name: str) -> Map:
        """Return a map of the loaded unit. Raises OSError when nothing is loaded, KeyError."""
        return Map(self._loaded().map_fd(name))

    def run(self, program: str) -> int:
        """Run a loaded program once; return what it returned."""
        return libbpf.test_run(self.program(program), libbpf.PACKET)

    def _loaded(self) -> Unit:
        if self.unit is None:
            raise OSError(0, "nothing is loaded")
        return self.unit

    def unload(self) -> None:
        """Undo all that was made since the last load, and that."""
        self.stack.close()
        self.group = self.listener = None
        if self.unit is not None:
            self.unit.unload()
            self.unit = None

    # -- what owns elements of local storages -----------------------------------------------------

    def open_directory(self, directory: Path) -> int:
        """Open a directory until the unit is unloaded; return the fd."""
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self.stack.callback(os.close, fd)
        return fd

    def attach_to(
        self, directory: Path, program: str, attach_type: int = uapi.BPF_CGROUP_INET_EGRESS
    ) -> str:
        """Attach a program to a cgroup; return the key of the storage it has there."""
        group = self.open_directory(directory)
        libbpf.attach_to_cgroup(self.program(program), group, attach_type)
        # struct bpf_cgroup_storage_key: the cgroup's number and the attach type
        return struct.pack("<QI4x", os.stat(directory).st_ino, attach_type).hex()

    @contextmanager
    def connection(self) -> Iterator[socket.socket]:
        """Let the listening socket accept a connection."""
        assert self.listener is not None
        with socket.create_connection(self.listener.getsockname()) as connected:
            # It leaves no trace, of which there would be thousands.
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("<ii", 1, 0))
            with self.listener.accept()[0] as accepted:
                yield accepted


def fd_key(fd: int) -> bytes:
    """Return an fd as a map's key or value."""
    return fd.to_bytes(4, "little")
