# SPDX-License-Identifier: GPL-2.0-only
"""System calls that Python has no name for, through the C library."""

from __future__ import annotations

import ctypes as ct
import os
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
    """Leave the namespaces that CLONE_NEW… flags name for new ones; os has it from 3.12 on."""
    _succeed(_libc.unshare(flags))


def become(user: int, capabilities: Sequence[int]) -> None:
    """Become a user and group for good, with these capabilities, by number, and no other."""
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


def filter_system_calls(program: bytes) -> None:
    """Let a seccomp program judge each system call of this process from now on, and its children's."""
    code = ct.create_string_buffer(program, len(program))
    # struct sock_fprog: how many instructions, and where
    filter = struct.pack("<H6xQ", len(program) // 8, ct.addressof(code))
    _succeed(_libc.prctl(uapi.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _succeed(_libc.prctl(uapi.PR_SET_SECCOMP, uapi.SECCOMP_MODE_FILTER, filter, 0, 0))


def mount(source: str, place: str, kind: str, flags: int) -> None:
    """Mount a file system, or change how one is mounted."""
    _succeed(_libc.mount(source.encode(), place.encode(), kind.encode(), ct.c_ulong(flags), None))


def unmount(place: str) -> None:
    """Unmount what is mounted there."""
    _succeed(_libc.umount(place.encode()))


def bpf(command: int, attr: bytearray) -> int:
    """Make one bpf() call, which may write to its attributes; return its result, or -errno."""
    place = (ct.c_char * len(attr)).from_buffer(attr)
    number, size = ct.c_long(uapi.NR_BPF), ct.c_long(len(attr))
    result: int = _libc.syscall(number, ct.c_long(command), place, size)
    return result if result >= 0 else -ct.get_errno()


def system_call(number: int, *arguments: int) -> int:
    """Make a system call that neither Python nor the C library has a name for."""
    result: int = _libc.syscall(*map(ct.c_long, (number, *arguments)))
    if result < 0:
        raise _last_error()
    return result


def possible_cpus() -> int:
    """Return how many values a per-CPU map holds for one key."""
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
        return int(file.read().strip().split("-")[-1]) + 1
