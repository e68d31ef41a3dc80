"""The kernel log: a marker before each case, and every record after it."""

from __future__ import annotations

import ctypes
import errno
import os
import time
from typing import List

_SYS_MEMBARRIER = 324  # x86-64
_MEMBARRIER_GLOBAL = 1
_MARKER = "spinlock: begin "


class KernelLog:
    """The records of /dev/kmsg from the moment it is opened. Raises OSError if unreadable."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_RDWR | os.O_NONBLOCK)
        os.lseek(self._fd, 0, os.SEEK_END)

    def mark(self, name: str) -> List[str]:
        """Write a line that says which case begins; return what came late of the one before.

        Raises OSError like read().
        """
        late = self.read()
        os.write(self._fd, f"{_MARKER}{name}\n".encode())
        return late

    def read(self) -> List[str]:
        """Return the records since the last call, one line each, without the header fields.

        Raises OSError (EPIPE) when the kernel overwrote records before they were read.
        """
        lines: List[str] = []
        while True:
            try:
                record = os.read(self._fd, 8192)
            except BlockingIOError:
                return lines
            header, _, text = record.decode(errors="replace").partition(";")
            # "level,sequence,time,flags;text", then continuation lines with the device's keys
            if header.split(",")[0].isdigit():
                lines.append(text.split("\n", 1)[0])
                if lines[-1].startswith(_MARKER):
                    lines.pop()

    def settle(self, seconds: float) -> None:
        """Wait until what the last case closed is freed, so that a splat in it is still its own.

        A map is freed by a kernel worker after an RCU grace period: membarrier(GLOBAL) waits for
        the latter, and the worker is given `seconds`.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(_SYS_MEMBARRIER, _MEMBARRIER_GLOBAL, 0, 0) != 0:
            number = ctypes.get_errno()
            if number not in (errno.ENOSYS, errno.EINVAL):  # nohz_full kernels refuse it
                raise OSError(number, os.strerror(number))
        time.sleep(seconds)
