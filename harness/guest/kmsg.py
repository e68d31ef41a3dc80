# SPDX-License-Identifier: GPL-2.0-only
"""The kernel log: a marker before each case, and every record after it."""

from __future__ import annotations

import errno
import os
import re
import time
from typing import List

from harness.guest import system, uapi

_MARKER = "spinlock: begin "
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def lines_of(record: bytes) -> List[str]:
    """Return the printed lines of a /dev/kmsg record, without its header fields.

    The kernel escapes bytes as \\xNN there: unprintable ones, those outside of ASCII, and newlines
    within a message (some of lockdep's begin with one).
    """
    header, _, text = record.partition(b";")
    # "level,sequence,time,flags;text", then continuation lines with the device's keys
    if not header.split(b",")[0].isdigit():
        return []
    printed = text.split(b"\n", 1)[0]
    if printed.startswith(_MARKER.encode()):
        return []
    whole = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), printed)
    return whole.decode(errors="replace").split("\n")


class KernelLog:
    """The records of /dev/kmsg from the moment it is opened. Raises OSError if unreadable."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_RDWR | os.O_NONBLOCK)
        os.lseek(self._fd, 0, os.SEEK_END)

    def mark(self, name: str) -> List[str]:
        """Write a line that names the case that begins; return late lines of the case before.

        Raises OSError like read().
        """
        late = self.read()
        os.write(self._fd, f"{_MARKER}{name}\n".encode())
        return late

    def read(self) -> List[str]:
        """Return the lines that were printed since the last call.

        Raises OSError (EPIPE) when the kernel overwrote records before they were read.
        """
        lines: List[str] = []
        while True:
            try:
                record = os.read(self._fd, 8192)
            except BlockingIOError:
                return lines
            lines += lines_of(record)

    def settle(self, seconds: float) -> None:
        """Wait until the last case's maps and programs are freed, so a splat there is blamed on it.

        A kernel worker frees a map after an RCU grace period. membarrier(GLOBAL) waits for the grace
        period; the worker gets `seconds`.
        """
        try:
            system.system_call(uapi.NR_MEMBARRIER, uapi.MEMBARRIER_CMD_GLOBAL, 0, 0)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EINVAL):  # nohz_full kernels refuse it
                raise
        time.sleep(seconds)
