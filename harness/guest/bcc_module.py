# SPDX-License-Identifier: GPL-2.0-only
"""A C text that bcc has compiled in this process: what a loader needs of it."""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from typing import Dict, Iterator, List, Optional, Tuple


class BccFailed(Exception):
    """bcc did not take a text; the message is its own, `stderr` is what it wrote."""

    def __init__(self, message: str, stderr: str) -> None:
        super().__init__(message)
        self.stderr = stderr


class BccModule:
    """A text that is compiled, and the maps that bcc created for it."""

    def __init__(self, text: str) -> None:
        """Raises ImportError where there is no bcc, BccFailed."""
        from bcc import BPF, lib

        class Module(BPF):  # type: ignore[misc]
            """bcc's, which would load and attach what its macros name, to tell of nothing but that."""

            def _trace_autoload(self) -> None:
                pass

        failure: Optional[str] = None
        with _captured_stderr() as stderr:
            try:
                self._bpf = Module(text=text)
            except Exception as error:  # bcc raises bare Exception for every failure
                failure = str(error)
        if failure is not None:
            raise BccFailed(failure, stderr[0])
        for name in (lib.bpf_function_name, lib.bpf_table_name):
            name.argtypes, name.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_char_p
        self._lib = lib
        self.maps = {self._map_name(n): self._map_fd(n) for n in range(self._count("tables"))}

    def instructions(self, name: str) -> Optional[Tuple[int, int]]:
        """Return where a program's instructions are and how many bytes they take, if it has it."""
        start = self._lib.bpf_function_start(self._bpf.module, name.encode())
        size = self._lib.bpf_function_size(self._bpf.module, name.encode())
        return (start, size) if start else None

    def code(self) -> Dict[str, bytes]:
        """Return the instructions of each program, by its name."""
        found = {}
        for index in range(self._count("functions")):
            name = self._lib.bpf_function_name(self._bpf.module, index).decode()
            place = self.instructions(name)
            assert place is not None
            found[name] = ctypes.string_at(*place)
        return found

    def close(self) -> None:
        """Keep it: bcc closes what it opened when its object goes."""

    def _count(self, what: str) -> int:
        count: int = getattr(self._lib, f"bpf_num_{what}")(self._bpf.module)
        return count

    def _map_name(self, index: int) -> str:
        name: bytes = self._lib.bpf_table_name(self._bpf.module, index)
        return name.decode()

    def _map_fd(self, index: int) -> int:
        fd: int = self._lib.bpf_table_fd_id(self._bpf.module, index)
        return fd


@contextmanager
def _captured_stderr() -> Iterator[List[str]]:
    """Collect what C code writes to fd 2; the list holds it once the block has ended."""
    result: List[str] = []
    with os.fdopen(os.memfd_create("stderr"), "w+b") as file:  # there is no place for files outside
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield result
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            result.append(file.read().decode(errors="replace"))
