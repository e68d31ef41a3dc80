# SPDX-License-Identifier: GPL-2.0-only
"""System calls that Python's os module lacks, through the C library. All raise OSError."""

from __future__ import annotations

import ctypes as ct
import os
import signal
import struct
from typing import Sequence

from harness.guest import uapi

_libc = ct.CDLL(None, use_errno=True)


def _succeed(result: int) -> None:
    if result != 0:
        raise _last_error()


def _last_error() -> OSError:
    return OSError(ct.get_errno(), os.strerror(ct.get_errno()))


def unshare(flags: int) -> None:
    """Move this process to new namespaces, by CLONE_NEW… flags. os.unshare() exists since 3.12."""
    _succeed(_libc.unshare(flags))


def become(user: int, capabilities: Sequence[int]) -> None:
    """Change user and group id to `user` for good, keeping only these capabilities (numbers)."""
    os.setgroups([])
    os.setresgid(user, user, user)
    _succeed(_libc.prctl(uapi.PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setresuid(user, user, user)
    mask = sum(1 << number for number in capabilities)
    words = [word for half in (mask & 0xFFFFFFFF, mask >> 32) for word in (half, half, 0)]
    header = (ct.c_uint32 * 2)(uapi.LINUX_CAPABILITY_VERSION_3, 0)  # of this process
    _succeed(
        _libc.capset(header, (ct.c_uint32 * 6)(*words))
    )  # effective, permitted, inheritable; twice


def die_with_parent() -> None:
    """Have this process killed when its parent ends."""
    _succeed(_libc.prctl(uapi.PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0))


def filter_system_calls(program: bytes) -> None:
    """Let a seccomp program judge each system call of this process from now on, and its children's."""
    code = ct.create_string_buffer(program, len(program))
    # struct sock_fprog: how many instructions, and where
    filter = struct.pack("<H6xQ", len(program) // 8, ct.addressof(code))
    _succeed(_libc.prctl(uapi.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _succeed(_libc.prctl(uapi.PR_SET_SECCOMP, uapi.SECCOMP_MODE_FILTER, filter, 0, 0))


def mount(source: str, place: str, kind: str, flags: int) -> None:
    """Mount a file system, or change a mount's flags."""
    _succeed(_libc.mount(source.encode(), place.encode(), kind.encode(), ct.c_ulong(flags), None))


def unmount(place: str) -> None:
    """Unmount a file system."""
    _succeed(_libc.umount(place.encode()))


def bpf(command: int, attr: bytearray) -> int:
    """Make one bpf() call, which may write to its attributes; return its result, or -errno."""
    place = (ct.c_char * len(attr)).from_buffer(attr)
    number, size = ct.c_long(uapi.NR_BPF), ct.c_long(len(attr))
    result: int = _libc.syscall(number, ct.c_long(command), place, size)
    return result if result >= 0 else -ct.get_errno()


def system_call(number: int, *arguments: int) -> int:
    """Make a system call by number, for those without a wrapper in the C library."""
    result: int = _libc.syscall(*map(ct.c_long, (number, *arguments)))
    if result < 0:
        raise _last_error()
    return result


def possible_cpus() -> int:
    """Return the number of possible CPUs, which is that of a per-CPU map's values per key."""
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
        return int(file.read().strip().split("-")[-1]) + 1
