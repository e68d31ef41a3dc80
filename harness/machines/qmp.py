# SPDX-License-Identifier: GPL-2.0-only
"""QMP, the protocol that controls a running QEMU: commands, saving, restoring."""

from __future__ import annotations

import json
import select
import shlex
import socket
import time
from pathlib import Path
from typing import Any

from harness import paths
from harness.errors import SetupError

ANSWER_LIMIT_S = 60.0  # on a busy machine; normal is under 1


class Qmp:
    """The control socket of one QEMU. Its methods raise EOFError if QEMU has ended."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = b""

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def greet(self) -> None:
        """Wait until QEMU is up."""
        self._receive(time.monotonic() + ANSWER_LIMIT_S)
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run one command and return its result. Raises SetupError if QEMU refuses it."""
        deadline = time.monotonic() + ANSWER_LIMIT_S
        request = {"execute": command, "arguments": arguments}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            message = self._receive(deadline)
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise SetupError(f"QEMU refused {command}: {message['error']['desc']}.")

    def human(self, command: str, cpu: int = 0) -> str:
        """Run one command of QEMU's human monitor, as seen by a CPU, and return its output.

        The monitor's own command `cpu` would not do: each call gets a monitor of its own.
        """
        question = {"command-line": command, "cpu-index": cpu}
        text: str = self.execute("human-monitor-command", **question)
        return text

    def save(self, state: Path) -> None:
        """Stop the guest and write its device state. Its memory is already in a file."""
        self.execute("stop")
        self._migration_settings()
        self.execute("migrate", uri=f"exec:cat > {shlex.quote(str(state))}")
        self._migrated("save")

    def load(self, state: Path) -> None:
        """Restore a device state and run the guest."""
        self._migration_settings()
        self.execute("migrate-incoming", uri=f"exec:cat {shlex.quote(str(state))}")
        self._migrated("restore")
        self.execute("cont")

    def _migration_settings(self) -> None:
        on = [{"capability": name, "state": True} for name in ("events", "x-ignore-shared")]
        self.execute("migrate-set-capabilities", capabilities=on)
        self.execute("migrate-set-parameters", **{"max-bandwidth": 1 << 40})

    def _migrated(self, what: str) -> None:
        deadline = time.monotonic() + ANSWER_LIMIT_S
        while True:
            message = self._receive(deadline)
            if message.get("event") != "MIGRATION":
                continue
            status = message["data"]["status"]
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                raise SetupError(f"QEMU could not {what} a guest: is {paths.cache()} full?")

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._socket], [], [], left)[0]:
                raise SetupError("QEMU does not answer its control socket: is the machine hung?")
            try:
                got = self._socket.recv(65536)
            except ConnectionResetError:
                got = b""
            if not got:
                raise EOFError("QEMU has ended")
            self._buffer += got
        line, self._buffer = self._buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message
