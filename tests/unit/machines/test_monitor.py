# SPDX-License-Identifier: GPL-2.0-only
"""What QEMU's control socket is asked for; the test plays QEMU."""

import json
import socket

from harness.machines.qmp import Qmp


def test_registers_are_those_of_the_cpu_that_is_asked_for():
    """Each call has a monitor of its own, so that a command `cpu 3` before it would be forgotten."""
    ours, qemu = socket.socketpair()
    with ours, qemu:
        qemu.sendall(json.dumps({"return": "RAX=3\r\n"}).encode() + b"\n")
        assert Qmp(ours).human("info registers", 3) == "RAX=3\r\n"
        asked = json.loads(qemu.recv(4096))
    assert asked["execute"] == "human-monitor-command"
    assert asked["arguments"] == {"command-line": "info registers", "cpu-index": 3}
