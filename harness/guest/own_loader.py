# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock check --command` in the guest: run the user's own loader, and see what it has loaded.

The files are put into a directory of their own, in which the command runs, with a BPF file system and
a process group of its own. What it loads is counted by the numbers that the kernel gives to programs.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import zlib
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from harness.guest import calls, libbpf, system, uapi

TOLD_OUTPUT_BYTES = 96 << 10  # of its end
_PATIENCE = 2.0  # seconds from SIGTERM to SIGKILL
_NEXT_ID, _FD_BY_ID, _INFO_BY_FD = 11, 13, 15  # commands of bpf()
_NAME_AT = 64  # in struct bpf_prog_info
_SOCKET_FILTER = 1


def run(call: calls.RunLoader) -> calls.LoaderRan:
    """Run the command; return how it ended, what it printed and what it has loaded."""
    directory = Path(tempfile.mkdtemp(prefix="spinlock-loader-"))
    try:
        for name, data in call.files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(zlib.decompress(base64.b64decode(data)))
            path.chmod(0o755 if name in call.executable else 0o644)
        missing = _missing(directory, call.executable)
        if missing:
            return _nothing(missing)
        return _run(call, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _nothing(missing: List[str]) -> calls.LoaderRan:
    return {
        "status": None,
        "output": "",
        "missing": missing,
        "loaded": 0,
        "left": [],
        "seconds": 0.0,
        "kernel_log": [],
    }


def _run(call: calls.RunLoader, directory: Path) -> calls.LoaderRan:
    before = _new_id()
    begun = time.monotonic()
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            ["/bin/sh", "-c", call.command],
            cwd=directory,
            env=_environment(directory),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_confine,
        )
        status: Optional[int] = None
        try:
            status = child.wait(call.seconds)
        except subprocess.TimeoutExpired:
            pass
        seconds = time.monotonic() - begun
        left = _programs_after(before)
        loaded = _new_id() - before - 1
        _end(child)
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - TOLD_OUTPUT_BYTES))
        text = output.read().decode(errors="replace")
    return {
        "status": status,
        "output": text,
        "missing": [],
        "loaded": loaded,
        "left": left,
        "seconds": round(seconds, 3),
        "kernel_log": [],
    }


def _environment(directory: Path) -> Dict[str, str]:
    return {**os.environ, "LD_LIBRARY_PATH": str(directory), "HOME": str(directory)}


def _confine() -> None:
    """Give this process a session and a BPF file system of its own."""
    os.setsid()
    system.unshare(uapi.CLONE_NEWNS)
    system.mount("none", "/", "", uapi.MS_PRIVATE | uapi.MS_REC)
    system.mount("bpf", "/sys/fs/bpf", "bpf", 0)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End what is left of the command and of its children."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            pass
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            continue


def _missing(directory: Path, programs: Sequence[str]) -> List[str]:
    """Return what the guest lacks for a program to start, in the words of ldd."""
    found = []
    for name in programs:
        try:
            done = subprocess.run(
                ["ldd", str(directory / name)],
                env=_environment(directory),
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:  # no ldd: the loader's own words must do
            return []
        lines = (done.stdout + done.stderr).splitlines()
        found += [line.strip() for line in lines if "not found" in line]
    return [line.replace(f"{directory}/", "./") for line in found]


# -- programs of the kernel ------------------------------------------------------------------------


def _new_id() -> int:
    """Return the number that the kernel gives to a program that is loaded now."""
    code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)  # r0 = 0; exit
    insns = ctypes.create_string_buffer(code)
    log = libbpf.log_buffer()
    fd = libbpf.load_program(_SOCKET_FILTER, "mark", ctypes.addressof(insns), 2, log)
    try:
        (number,) = struct.unpack_from("<I", _info(fd), 4)
        return int(number)
    finally:
        os.close(fd)


def _info(fd: int) -> bytes:
    """Return the beginning of a program's struct bpf_prog_info."""
    info = bytearray(128)
    place = (ctypes.c_char * len(info)).from_buffer(info)
    attr = bytearray(struct.pack("<IIQ", fd, len(info), ctypes.addressof(place)))
    result = system.bpf(_INFO_BY_FD, attr)
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return bytes(info)


def _programs_after(number: int) -> List[str]:
    """Return the names of all programs with higher numbers, which are newer."""
    names: List[str] = []
    while True:
        attr = bytearray(struct.pack("<III4x", number, 0, 0))
        result = system.bpf(_NEXT_ID, attr)
        if result == -errno.ENOENT:
            return names
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        (number,) = struct.unpack_from("<I", attr, 4)
        fd = system.bpf(_FD_BY_ID, bytearray(struct.pack("<III4x", number, 0, 0)))
        if fd < 0:
            continue  # it has gone meanwhile
        try:
            name = _info(fd)[_NAME_AT : _NAME_AT + 16]
        finally:
            os.close(fd)
        names.append(name.partition(b"\0")[0].decode(errors="replace") or f"number {number}")
