# SPDX-License-Identifier: GPL-2.0-only
"""State of a session between calls: position in the kernel log, the loaded unit, open resources."""

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
SETTLE_SECONDS = 0.005  # after a case: the kernel's workers free its maps and programs
LATE_SECONDS = 0.1  # after the last case


class State:
    """The state of one session. `emit` sends an event, `source` is the stream from the host."""

    def __init__(self, emit: Callable[[Json], None], source: BinaryIO) -> None:
        self.emit, self.source = emit, source
        self.kernel_log: Optional[KernelLog] = None
        self.unit: Optional[Unit] = None
        self.stack = ExitStack()  # resources that live as long as the loaded unit
        self.actors = ExitStack()  # what ends the processes of calls.Act
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
        """Mark the begin of a case in the kernel log; return late lines of the case before."""
        if self.kernel_log is None:
            self.kernel_log = KernelLog()
        return self.kernel_log.mark(case)

    def aftermath(self, settle: float, ran: bool) -> Aftermath:
        """Return the state of the guest after a case, `settle` seconds later unless a CPU is stuck.

        Stuck CPUs are looked for only after a case that `ran`.
        """
        stuck = cpus.stuck() if ran else []  # 20 ms when emulated
        if self.kernel_log is None:
            return {"stuck": stuck, "kernel_log": None}
        try:
            if stuck:
                time.sleep(LATE_SECONDS)  # with a stuck CPU no RCU grace period ends
            else:
                self.kernel_log.settle(settle)
            return {"stuck": stuck, "kernel_log": self.kernel_log.read()}
        except OSError:
            return {"stuck": stuck, "kernel_log": None}

    def log_lines(self) -> Optional[List[str]]:
        """Return the kernel log since begin(); None if it could not be read."""
        return self.aftermath(SETTLE_SECONDS, ran=False)["kernel_log"]

    # -- what is loaded ---------------------------------------------------------------------------

    def program(self, name: str) -> int:
        """Return the fd of a loaded program. Raises OSError when nothing is loaded."""
        return self._loaded().program_fd(name)

    def map(self, name: str) -> Map:
        """Return a map of the loaded unit. Raises KeyError, or OSError when nothing is loaded."""
        return Map(self._loaded().map_fd(name))

    def run(self, program: str) -> int:
        """Run a loaded program once; return its return value."""
        return libbpf.test_run(self.program(program), libbpf.PACKET)

    def _loaded(self) -> Unit:
        if self.unit is None:
            raise OSError(0, "nothing is loaded")
        return self.unit

    def unload(self) -> None:
        """Release all resources since the last load, and unload its programs."""
        self.actors.close()
        self.stack.close()
        self.group = self.listener = None
        if self.unit is not None:
            self.unit.unload()
            self.unit = None

    # -- owners of local storage elements ---------------------------------------------------------

    def open_directory(self, directory: Path) -> int:
        """Open a directory until the unit is unloaded; return the fd."""
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self.stack.callback(os.close, fd)
        return fd

    def attach_to(
        self, directory: Path, program: str, attach_type: int = uapi.BPF_CGROUP_INET_EGRESS
    ) -> str:
        """Attach a program to a cgroup; return the key of its cgroup storage."""
        group = self.open_directory(directory)
        libbpf.attach_to_cgroup(self.program(program), group, attach_type)
        # struct bpf_cgroup_storage_key: cgroup id and attach type
        return struct.pack("<QI4x", os.stat(directory).st_ino, attach_type).hex()

    @contextmanager
    def connection(self) -> Iterator[socket.socket]:
        """Connect to the listening socket; yield the accepted socket."""
        assert self.listener is not None
        with socket.create_connection(self.listener.getsockname()) as connected:
            # Close by RST, else thousands of connections would stay in TIME_WAIT.
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("<ii", 1, 0))
            with self.listener.accept()[0] as accepted:
                yield accepted


def fd_key(fd: int) -> bytes:
    """Return an fd as a map's key or value."""
    return fd.to_bytes(4, "little")
