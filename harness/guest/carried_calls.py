# SPDX-License-Identifier: GPL-2.0-only
"""bcc's work that is done outside the guest, as the guest sees it: the bpf() calls come here.

The agent asks the host, {"carry": …}, and does what each answer tells it, until the last one. What
lies outside is carried_bcc.py.
"""

from __future__ import annotations

import base64
import ctypes
import os
import resource
import struct
import zlib
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

from harness.guest import system
from harness.guest.bcc_module import BccFailed

Json = Dict[str, Any]
Ask = Callable[[Json], Json]


class CarriedBeyond(Exception):
    """This text, or this machine, needs bcc in the guest; the message says why."""


class CarryFailed(Exception):
    """bcc outside the guest failed in a way that says nothing about the text."""


class _Buffer:
    """Memory of a bpf() call."""

    def __init__(self, asked: Json) -> None:
        self.at: int = asked["at"]
        self._is_log = "room" in asked
        self.memory = (
            bytearray(asked["room"]) if self._is_log else bytearray(base64.b64decode(asked["data"]))
        )
        self.comes_back: bool = asked["back"]
        self._place = (ctypes.c_char * len(self.memory)).from_buffer(self.memory)

    @property
    def address(self) -> int:
        """Where the kernel finds it."""
        return ctypes.addressof(self._place)

    def text(self) -> str:
        """Return what it holds; of a log no more than was written."""
        end = self.memory.find(b"\0") + 1 if self._is_log else 0
        return base64.b64encode(self.memory[: end or len(self.memory)]).decode()


class CarriedModule:
    """A text that bcc has compiled outside the guest, and the maps it created in it."""

    def __init__(self, text: str, ask: Ask) -> None:
        """Raises BccFailed, CarriedBeyond, CarryFailed."""
        self._fds: Dict[int, int] = {}  # by the names that bcc has for them
        try:
            built = self._compile({"text": text, "uname": [*os.uname(), "(none)"]}, ask)
            self.maps = {name: self._fds[fd] for name, fd in built["maps"].items()}
            self._programs = {
                name: self._program(base64.b64decode(code), places)
                for name, (code, places) in built["programs"].items()
            }
        except BaseException:
            self.close()
            raise

    def instructions(self, name: str) -> Optional[Tuple[int, int]]:
        """Return where a program's instructions are and how many bytes they take, if it has it."""
        code = self._programs.get(name)
        return (ctypes.addressof(code), len(code)) if code is not None else None

    def close(self) -> None:
        """Close its maps, and what else bcc had opened."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def _compile(self, begin: Json, ask: Ask) -> Json:
        answer = ask({"begin": begin})
        while True:
            if "bpf" in answer:
                answer = ask({"bpf": self._call(answer["bpf"])})
            elif "read" in answer:
                with open(answer["read"], "rb") as file:
                    content = zlib.compress(file.read(), 1)
                answer = ask({"read": base64.b64encode(content).decode()})
            elif "built" in answer:
                built: Json = answer["built"]
                return built
            elif "refused" in answer:
                raise BccFailed(answer["refused"], answer["stderr"])
            elif "beyond" in answer:
                raise CarriedBeyond(answer["beyond"])
            else:
                raise CarryFailed(answer["failed"])

    def _call(self, call: Json) -> Json:
        """Do for bcc what it asks of the kernel."""
        for name in call["closed"]:
            os.close(self._fds.pop(name))
        if "memlock" in call:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, call["memlock"])
            return {"result": 0}
        attr = bytearray(base64.b64decode(call["attr"]))
        buffers = [_Buffer(asked) for asked in call["buffers"]]
        for where, at in call["fds"]:
            self._put_fds(attr if where < 0 else buffers[where].memory, [at])
        for buffer in buffers:
            struct.pack_into("<Q", attr, buffer.at, buffer.address)
        result = system.bpf(call["command"], attr)
        if result >= 0 and call["name"] is not None:
            self._fds[call["name"]] = result
        return {
            "result": result,
            "attr": base64.b64encode(attr).decode(),
            "back": [buffer.text() for buffer in buffers if buffer.comes_back],
        }

    def _program(self, code: bytes, places: Sequence[int]) -> Any:
        data = bytearray(code)
        self._put_fds(data, places)
        return ctypes.create_string_buffer(bytes(data), len(data))

    def _put_fds(self, memory: bytearray, places: Sequence[int]) -> None:
        """Put fds in the place of their names."""
        for at in places:
            name = int.from_bytes(memory[at : at + 4], "little")
            struct.pack_into("<i", memory, at, self._fds[name])
