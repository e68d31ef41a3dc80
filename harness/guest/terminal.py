# SPDX-License-Identifier: GPL-2.0-only
"""An interactive command on a pseudo-terminal in the guest, for `spinlock shell`."""

from __future__ import annotations

import base64
import errno
import fcntl
import json
import os
import pty
import select
import struct
import termios
from typing import Any, BinaryIO, Callable, Dict, List


def run(
    arguments: List[str],
    rows: int,
    columns: int,
    source: BinaryIO,
    emit: Callable[[Dict[str, Any]], None],
) -> int:
    """Run a command on a new terminal until it ends; return its exit status.

    Its output is emitted as {"output": base64}. Lines {"input": base64} from the host are its input.
    """
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "linux"
        os.execvp(arguments[0], arguments)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    typed = b""
    while True:
        ready, _, _ = select.select([terminal, source.fileno()], [], [])
        if source.fileno() in ready:
            received = os.read(source.fileno(), 65536)  # unbuffered: select() sees no Python buffer
            if not received:
                break
            *lines, typed = (typed + received).split(b"\n")
            for line in lines:
                os.write(terminal, base64.b64decode(json.loads(line)["input"]))
        if terminal in ready:
            try:
                output = os.read(terminal, 65536)
            except OSError as error:
                if error.errno != errno.EIO:  # EIO: the last process on the terminal has ended
                    raise
                break
            emit({"output": base64.b64encode(output).decode()})
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
