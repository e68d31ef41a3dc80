# SPDX-License-Identifier: GPL-2.0-only
"""bcc outside the guest, in a tree with the guest's userland: each bpf() call is made in the guest.

This is a program of its own there, `agent.pyz compile SHIM`. It answers a line {"text": …, "uname":
[…]} by the calls that bcc makes, one by one, {"bpf": …}, and each of them is answered by what the
guest's kernel said; see carried_calls.py. The last line is one of

  {"built": {"programs": …, "maps": …}}   bcc took the text
  {"refused": …, "stderr": …}             it did not
  {"beyond": …}                           bcc asked for something that is not carried
  {"failed": …}                           a defect of this program

and {"ended": status} of the process that did it. No call reaches this machine's kernel: seccomp ends
a process that tries.
"""

from __future__ import annotations

import base64
import ctypes as ct
import errno
import json
import os
import struct
import traceback
from typing import Any, BinaryIO, Dict, List, NoReturn, Tuple

from harness.guest import system, uapi
from harness.guest.bcc_module import BccFailed, BccModule

Json = Dict[str, Any]

FIRST_FD = (
    1 << 20
)  # no process has so many: what bcc holds for an fd is a name for one of the guest's
# What the shim asks beside commands of bpf().
_CLOSE, _LOOK, _MEMLOCK, _PERF_EVENT = -1, -2, -3, -4
_ATTR_BYTES = 256
# Where an fd stands in union bpf_attr, and how many bytes of it are understood here, by command.
_FDS: Dict[int, Tuple[int, ...]] = {
    uapi.BPF_MAP_CREATE: (20, 48),
    uapi.BPF_PROG_LOAD: (72, 112),
    uapi.BPF_BTF_LOAD: (),
    uapi.BPF_OBJ_GET_INFO_BY_FD: (0,),
}
_UNDERSTOOD = {
    uapi.BPF_MAP_CREATE: 72,
    uapi.BPF_PROG_LOAD: 116,  # what follows are CO-RE's relocations, fd_array, a token
    uapi.BPF_BTF_LOAD: 28,
    uapi.BPF_OBJ_GET_INFO_BY_FD: 16,
}
_LD_IMM64, _PSEUDO_MAP_FD, _PSEUDO_MAP_VALUE = 0x18, 1, 2

_Handler = ct.CFUNCTYPE(ct.c_long, ct.c_long, ct.c_void_p, ct.c_long)


class Beyond(Exception):
    """bcc asked for something that is not carried; the message says for what."""


class _Utsname(ct.Structure):
    _fields_ = [
        (name, ct.c_char * 65)
        for name in ("sysname", "nodename", "release", "version", "machine", "domainname")
    ]


def fds_in_code(code: bytes) -> List[int]:
    """Return where in a program's instructions the name of an fd stands."""
    found = []
    for at in range(0, len(code), uapi.INSN_BYTES):
        operation, registers, _, value = struct.unpack_from("<BBhi", code, at)
        is_map = registers >> 4 in (_PSEUDO_MAP_FD, _PSEUDO_MAP_VALUE)
        if operation == _LD_IMM64 and is_map and value >= FIRST_FD:
            found.append(at + 4)
    return found


class BpfCall:
    """One bpf() call, read out of this process's memory.

    `buffers` are the memory that its attributes point to: what the kernel is to read of it, or how
    many bytes it may write, and whether they come back. `fds` are the places of names of fds: in the
    attributes, -1, or in a buffer.
    """

    def __init__(self, command: int, address: int, size: int) -> None:
        """Raises Beyond for what is not understood here."""
        if command not in _FDS:
            raise Beyond(f"command {command} of bpf()")
        self.command, self._address, self._size = command, address, min(size, _ATTR_BYTES)
        self._attr = ct.string_at(address, self._size).ljust(_ATTR_BYTES, b"\0")
        if any(self._attr[_UNDERSTOOD[command] :]):
            raise Beyond(f"attributes of command {command} of bpf() that are not known here")
        self.buffers: List[Json] = []
        self._back: List[Tuple[int, int]] = []  # address and size of what comes back
        self.fds = [(-1, at) for at in _FDS[command] if self._u32(at) >= FIRST_FD]
        if command == uapi.BPF_PROG_LOAD:
            self._read_program()
        elif command == uapi.BPF_BTF_LOAD:
            self._gives(0, self._u32(16))
            self._takes(8, self._u32(20))
        elif command == uapi.BPF_OBJ_GET_INFO_BY_FD:
            self._gives(8, self._u32(4), back=True)

    def _read_program(self) -> None:
        code = self._gives(8, uapi.INSN_BYTES * self._u32(4))
        self.fds += [(0, at) for at in fds_in_code(code)]
        license = self._u64(16)
        self._gives(16, len(ct.string_at(license)) + 1 if license else 0)
        self._gives(80, self._u32(76) * self._u32(88))  # func_info
        self._gives(96, self._u32(92) * self._u32(104))  # line_info
        self._takes(32, self._u32(28))  # the log

    @property
    def asks_about(self) -> int:
        """The fd of BPF_OBJ_GET_INFO_BY_FD."""
        return self._u32(0)

    def to_json(self) -> Json:
        """Return what the guest needs to make it."""
        attr = base64.b64encode(self._attr[: self._size]).decode()
        return {
            "command": self.command,
            "attr": attr,
            "buffers": self.buffers,
            "fds": self.fds,
        }

    def take_back(self, answer: Json) -> None:
        """Write into this process's memory what the guest's kernel wrote there."""
        for (address, size), text in zip(self._back, answer["back"]):
            data = base64.b64decode(text)[:size]
            ct.memmove(address, data, len(data))
        if self.command == uapi.BPF_OBJ_GET_INFO_BY_FD:
            length = base64.b64decode(answer["attr"])[4:8]
            ct.memmove(self._address + 4, length, len(length))

    def _u32(self, at: int) -> int:
        return int.from_bytes(self._attr[at : at + 4], "little")

    def _u64(self, at: int) -> int:
        return int.from_bytes(self._attr[at : at + 8], "little")

    def _gives(self, at: int, size: int, back: bool = False) -> bytes:
        address = self._u64(at)
        if not address or not size:
            return b""
        data = ct.string_at(address, size)
        text = base64.b64encode(data).decode()
        self.buffers.append({"at": at, "data": text, "back": back})
        if back:
            self._back.append((address, size))
        return data

    def _takes(self, at: int, room: int) -> None:
        address = self._u64(at)
        if address and room:
            self.buffers.append({"at": at, "room": room, "back": True})
            self._back.append((address, room))


class _Carrier:
    """What the shim asks instead of the kernel."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source, self._sink = source, sink
        self._next = FIRST_FD
        self._maps: List[int] = []  # their names
        self._closed: List[int] = []  # which the guest is yet to be told
        self.beyond = ""  # what bcc asked for first that is not carried
        self.callback = _Handler(self._answer)

    def _answer(self, question: int, argument: int, size: int) -> int:
        """Answer as a system call does. What is raised here, ctypes would ignore."""
        try:
            return self._carry(question, argument, size)
        except Beyond as beyond:
            self.beyond = self.beyond or str(beyond)
            return -errno.ENOSYS
        except BaseException:
            _fail(self._sink)

    def _carry(self, question: int, argument: int, size: int) -> int:
        if question == _CLOSE:
            self._closed.append(size)
            return 0
        if question == _LOOK:
            raise Beyond(ct.string_at(argument).decode(errors="replace"))
        if question == _PERF_EVENT:
            raise Beyond("perf_event_open()")
        if question == _MEMLOCK:
            limits = struct.unpack("<qq", ct.string_at(argument, 16))
            return int(self._ask({"memlock": limits})["result"])
        return self._call(BpfCall(question, argument, size))

    def _call(self, call: BpfCall) -> int:
        asks = call.command == uapi.BPF_OBJ_GET_INFO_BY_FD
        if asks and call.asks_about not in self._maps:
            raise Beyond("information on what is no map")  # which may hold pointers
        name = None if asks else self._next
        answer = self._ask({**call.to_json(), "name": name})
        call.take_back(answer)
        result = int(answer["result"])
        if name is None or result < 0:
            return result
        if call.command == uapi.BPF_MAP_CREATE:
            self._maps.append(name)
        self._next += 1
        return name

    def _ask(self, call: Json) -> Json:
        _send(self._sink, {"bpf": {**call, "closed": self._closed}})
        self._closed = []
        line = self._source.readline()
        if not line:
            os._exit(1)  # nobody is there any more
        answer: Json = json.loads(line)["bpf"]
        return answer


def _send(sink: BinaryIO, line: Json) -> None:
    sink.write(json.dumps(line).encode() + b"\n")
    sink.flush()


def _fail(sink: BinaryIO) -> NoReturn:
    _send(sink, {"failed": traceback.format_exc()})
    os._exit(1)


def _forbid_bpf() -> None:
    """Let the kernel end this process should it call bpf() or perf_event_open() for real."""

    def line(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("<HBBI", code, then, otherwise, value)

    load, equals, at_least, ends = 0x20, 0x15, 0x35, 0x06
    system.filter_system_calls(
        b"".join(
            (
                line(load, 4),  # struct seccomp_data: the architecture
                line(equals, uapi.AUDIT_ARCH_X86_64, otherwise=4),
                line(load, 0),  # the call's number
                line(at_least, uapi.X32_SYSCALL_BIT, then=2),
                line(equals, uapi.NR_BPF, then=1),
                line(equals, uapi.NR_PERF_EVENT_OPEN, otherwise=1),
                line(ends, uapi.SECCOMP_RET_KILL_PROCESS),
                line(ends, uapi.SECCOMP_RET_ALLOW),
            )
        )
    )


def _built(carrier: _Carrier, text: str) -> Json:
    """Let bcc compile a text; return the last line about it."""
    try:
        module = BccModule(text)
        done: Json = {
            "built": {
                "programs": {
                    name: [base64.b64encode(code).decode(), fds_in_code(code)]
                    for name, code in module.code().items()
                },
                "maps": module.maps,
            }
        }
    except BccFailed as failed:
        done = {"refused": str(failed), "stderr": failed.stderr}
    return {"beyond": f"it needs {carrier.beyond}"} if carrier.beyond else done


def _work(shim: Any, order: Json, source: BinaryIO, sink: BinaryIO) -> None:
    """Compile one text in this process, which is of no use afterwards."""
    carrier = _Carrier(source, sink)
    names = _Utsname(*(name.encode() for name in order["uname"]))
    shim.shim_begin(carrier.callback, ct.byref(names))
    _send(sink, _built(carrier, order["text"]))


def serve(shim_path: str, source: BinaryIO, sink: BinaryIO) -> int:
    """Compile texts until the source ends. The first line says which bcc this is."""
    shim = ct.CDLL(shim_path)  # the same that is preloaded
    _forbid_bpf()
    import bcc  # here, once for all texts; no handler is asked yet

    _send(sink, {"ready": bcc.__version__})
    while True:
        line = source.readline()
        if not line:
            return 0
        child = os.fork()
        if child == 0:
            try:
                _work(shim, json.loads(line), source, sink)
            except BaseException:
                _fail(sink)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        _send(sink, {"ended": os.waitstatus_to_exitcode(status)})
