# SPDX-License-Identifier: GPL-2.0-only
"""Two ways to bring one C source into the kernel: bcc and libbpf. Both end in the same fds."""

from __future__ import annotations

import base64
import ctypes
import errno
import json
import os
import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Callable, Dict, List, Optional, Protocol, Sequence, Union

from harness.guest import libbpf, system, uapi
from harness.guest.bcc_module import BccFailed, BccModule
from harness.guest.calls import Source
from harness.guest.carried_calls import Ask, CarriedBeyond, CarriedModule
from harness.guest.maps import Map
from harness.guest.objects import Object
from harness.guest.prepared import Prepared, PreparedObject

BUILT_OUTSIDE = "by bcc outside the guest, in its userland; its bpf() calls were made in the guest"
_NOBODY = 65534
_EXTENSION = "freplace/"  # in a SEC(), before the name of a program of the same object
_CAPABILITIES = {
    "cap_net_admin": uapi.CAP_NET_ADMIN,
    "cap_sys_admin": uapi.CAP_SYS_ADMIN,
    "cap_perfmon": uapi.CAP_PERFMON,
    "cap_bpf": uapi.CAP_BPF,
}


class Refused(Exception):
    """Something said no: at which stage, with which errno, and what the log held."""

    def __init__(
        self, stage: str, number: int, log: str = "", detail: str = "", built: str = ""
    ) -> None:
        super().__init__(f"{stage}: {uapi.errno_name(number)} {detail or log}".strip())
        self.stage, self.number, self.log, self.detail = stage, number, log, detail
        self.built = built  # see Unit, of one that came to nothing

    def facts(self) -> Dict[str, Any]:
        """Return it as the fields of an observation."""
        return {
            "stage": self.stage,
            "errno": uapi.errno_name(self.number) if self.number else None,
            "log": self.log,
            "detail": self.detail,
        }


@dataclass(frozen=True)
class Wanted:
    """A program to load: its name, its SEC(), and as whom.

    Root makes what the program needs, up to the stage that is the user's: "prog_load", "map_create"
    or "btf_load". What runs gets maps of its own.
    """

    name: str
    section: str
    user: str = "root"
    user_stage: str = "prog_load"
    runs: bool = True


class Unit(Protocol):
    """The programs and maps of one object or module, on their way into the kernel."""

    built: str  # where bcc has built it, in words; "" for what the host's compiler has

    def load(self, programs: List[Wanted]) -> None:
        """Bring programs into the kernel, with maps as at creation. Raises Refused."""

    def program_fd(self, name: str) -> int:
        """Return the fd of a loaded program."""

    def map_fd(self, name: str) -> int:
        """Return the fd of a map; raises KeyError."""

    def unload(self) -> None:
        """Close what load() opened."""

    def close(self) -> None:
        """Close everything; it is of no use then."""


def _text(log: Any) -> str:
    value: bytes = log.value
    return value.decode(errors="replace")


class LibbpfUnit:
    """An ELF object through libbpf.

    Of the programs that are named beforehand, those that are only to be loaded, not to run, share
    maps; else an object is loaded anew each time.
    """

    built = ""

    def __init__(self, data: bytes, programs: Sequence[str] = ()) -> None:
        libbpf.capture_messages()
        self._data = data
        self._log = libbpf.log_buffer()
        self._object: Optional[Object] = None
        self._fds: Dict[str, int] = {}
        self._sharing = list(programs)
        self._shared: Optional[PreparedObject] = None
        self._probe()

    def _probe(self, btf: Optional[int] = None) -> None:
        """Ask the kernel by plain system calls for the BTF and the maps. Raises Refused.

        With an fd of the BTF, which stays the caller's, only for the maps.
        """
        try:
            elf = Object(self._data)
        except OSError as error:
            raise Refused("open", error.errno or 0, detail="; ".join(libbpf.messages)) from None
        fds: List[int] = []
        stage, what = "btf_load", "the object's BTF"
        try:
            if btf is None:
                btf = libbpf.load_btf(elf.btf())
                fds.append(btf)
            stage = "map_create"
            for name in elf.own_maps():
                what = f"map '{name}'"
                fds.append(elf.create_map(name, btf))
            if elf.has_map_of_type(uapi.BPF_MAP_TYPE_PROG_ARRAY):
                self._sharing = []  # the first program that uses it decides which others may
        except OSError as error:
            raise Refused(stage, error.errno or 0, detail=what) from None
        finally:
            for fd in fds:
                os.close(fd)
            elf.close()

    def load(self, programs: List[Wanted]) -> None:
        """See Unit."""
        libbpf.messages.clear()
        self._log[0] = b"\0"
        extensions = [p for p in programs if p.section.startswith(_EXTENSION)]
        alone = len(programs) == 1 and not programs[0].runs and programs[0].user == "root"
        if alone and not extensions:
            prepared = self._prepared(programs[0].name)
            if prepared is not None:
                self._fds[programs[0].name] = self._load_prepared(prepared)
                return
        self._object = Object(self._data, [p.name for p in programs])
        for program in programs:
            self._object.set_log(program.name, self._log)
        targets = [self._extended(self._object, program) for program in extensions]
        try:
            self._object.load()
        except OSError as error:
            detail = "; ".join(libbpf.messages)
            raise Refused("prog_load", error.errno or 0, _text(self._log), detail) from None
        finally:
            for target in targets:
                target.close()
        for program in programs:
            if program.user != "root":
                self._load_as_user(self._object, program)

    def _extended(self, unit: Object, program: Wanted) -> Object:
        """Load the program whose main function another of the unit is to replace. Raises Refused."""
        name = program.section[len(_EXTENSION) :]
        target = Object(self._data, [name])
        try:
            target.load()
            unit.extend(program.name, target.program_fd(name), name)
        except OSError as error:
            target.close()
            detail = f"'{name}', which '{program.name}' replaces: {'; '.join(libbpf.messages)}"
            raise Refused("open", error.errno or 0, detail=detail) from None
        return target

    def _prepared(self, name: str) -> Optional[Prepared]:
        """Return a program that is ready to be loaded by itself, if it can be."""
        if self._shared is None and self._sharing:
            try:
                self._shared = PreparedObject(self._data, self._sharing)
            except OSError:
                self._sharing = []
            libbpf.messages.clear()
        return self._shared.programs.get(name) if self._shared is not None else None

    def _load_prepared(self, prepared: Prepared) -> int:
        try:
            return prepared.load(self._log)
        except OSError as error:
            raise Refused("prog_load", error.errno or 0, _text(self._log)) from None

    def _load_as_user(self, loaded: Object, program: Wanted) -> None:
        """Load a program once more, as its user and with root's maps. Raises Refused.

        Maps and BTF that the user makes first are like root's, and for nothing else.
        """
        kind, attach = loaded.program_kind(program.name)
        insns, count = loaded.instructions(program.name)
        btf: Optional[int] = None
        if program.user_stage == "map_create":
            elf = Object(self._data)
            btf = libbpf.load_btf(elf.btf())
            elf.close()

        def work() -> None:
            if program.user_stage != "prog_load":
                self._probe(btf)
            options = {"expected_attach_type": attach}
            os.close(_load(kind, program.name, insns, count, self._log, options))

        try:
            as_user(program.user, work)
        finally:
            if btf is not None:
                os.close(btf)

    def program_fd(self, name: str) -> int:
        """See Unit."""
        if name in self._fds:
            return self._fds[name]
        assert self._object is not None
        return self._object.program_fd(name)

    def map_fd(self, name: str) -> int:
        """See Unit."""
        assert self._object is not None
        return self._object.map_fd(name)

    def unload(self) -> None:
        """See Unit."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        if self._object is not None:
            self._object.close()
            self._object = None

    def close(self) -> None:
        """See Unit."""
        self.unload()
        if self._shared is not None:
            self._shared.close()
            self._shared = None


class BccUnit:
    """A C text through bcc: it compiles and creates the maps once, programs are loaded at will.

    bcc's own load function repeats a refused PROG_LOAD up to four times, drops the BTF on the way
    and prints the log; its instructions are loaded by libbpf's plain call instead, once.
    """

    def __init__(self, text: str, ask: Ask) -> None:
        """`ask` asks the host, which may have bcc outside the guest. Raises Refused, CarryFailed."""
        self._fds: Dict[str, int] = {}
        self.built = BUILT_OUTSIDE
        try:
            self._module = self._compiled(text, ask)
        except ImportError as error:
            why = f"this target has no bcc, Debian's python3-bpfcc ({error})"
            raise Refused("open", 0, detail=why) from None
        except BccFailed as failed:
            raise _bcc_refusal(failed, self.built) from None
        finally:
            libbpf.capture_messages()  # BPF() takes the handler away
        self._log = libbpf.log_buffer()

    def _compiled(self, text: str, ask: Ask) -> Union[BccModule, CarriedModule]:
        try:
            return CarriedModule(text, ask)
        except CarriedBeyond as beyond:
            self.built = f"by bcc in the guest, as {beyond}"
            return BccModule(text)

    def load(self, programs: List[Wanted]) -> None:
        """See Unit."""
        for fd in self._module.maps.values():
            Map(fd).reset()
        for program in programs:
            self._log[0] = b"\0"
            place = self._module.instructions(program.name)
            if place is None:
                raise Refused("open", 0, detail=f"bcc's module has no function '{program.name}'")
            insns, count = place[0], place[1] // uapi.INSN_BYTES
            kind, options = libbpf.load_options(program.section)
            arguments = (kind, program.name, insns, count, self._log, options)
            if program.user != "root":
                as_user(program.user, lambda: os.close(_load(*arguments)))
            self._fds[program.name] = _load(*arguments)

    def program_fd(self, name: str) -> int:
        """See Unit."""
        return self._fds[name]

    def map_fd(self, name: str) -> int:
        """See Unit."""
        return self._module.maps[name]

    def unload(self) -> None:
        """See Unit."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def close(self) -> None:
        """See Unit."""
        self.unload()
        self._module.close()


def open_unit(source: Source, ask: Ask, programs: Sequence[str] = ()) -> Unit:
    """Bring what the host built to a loader; see BccUnit and LibbpfUnit for the others.

    Raises Refused, CarryFailed.
    """
    if source.loader == "bcc":
        return BccUnit(source.text, ask)
    return LibbpfUnit(base64.b64decode(source.object), programs)


def _load(kind: int, name: str, insns: int, count: int, log: Any, options: Dict[str, int]) -> int:
    """Load a program by one plain call; return its fd. Raises Refused."""
    try:
        return libbpf.load_program(kind, name, insns, count, log, **options)
    except OSError as error:
        raise Refused("prog_load", error.errno or 0, _text(log)) from None


@lru_cache(maxsize=None)
def bare_program_loads(section: str) -> bool:
    """Tell whether the kernel takes a program of this kind that does nothing but return 0 or 1."""
    return load_errno(section) == 0


@lru_cache(maxsize=None)
def load_errno(section: str) -> int:
    """Return the errno with which the kernel refuses such a program, 0 when it takes it."""
    try:
        kind, options = libbpf.load_options(section)
    except OSError as error:
        return error.errno or errno.EINVAL
    number = 0
    for value in (0, 1):  # no value is right for all kinds
        # r0 = value; exit
        code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, value, 0x95, 0, 0, 0)
        insns = ctypes.create_string_buffer(code)
        log, address = libbpf.log_buffer(), ctypes.addressof(insns)
        try:
            os.close(libbpf.load_program(kind, "bare", address, 2, log, **options))
        except OSError as error:
            number = error.errno or errno.EINVAL
            continue
        return 0
    return number


def _bcc_refusal(failed: BccFailed, built: str) -> Refused:
    """Tell a map that the kernel refused from a text that does not compile."""
    refused = re.search(r"could not open bpf map: (\S+), error: (.+)", failed.stderr)
    if not refused:
        return Refused("compile", 0, detail=failed.stderr.strip() or str(failed), built=built)
    name, reason = refused.groups()
    number = next((n for n in range(1, 600) if os.strerror(n) == reason.strip()), 0)
    return Refused("map_create", number, detail=f"map '{name}'", built=built)


_UNPRIVILEGED = "/proc/sys/kernel/unprivileged_bpf_disabled"


def as_user(user: str, work: Callable[[], None]) -> None:
    """Work in a child process as uid 65534 with the capabilities that `user` names, and no other.

    User "nobody" has none. What is made by the work is gone when it ends. Raises Refused, as the
    work does.
    """
    capabilities = [] if user == "nobody" else [_CAPABILITIES[name] for name in user.split("+")]
    with open(_UNPRIVILEGED, "r+", encoding="ascii") as sysctl:
        before = sysctl.read()
        sysctl.seek(0)  # a number written anywhere else is ignored
        sysctl.write("0")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            system.become(_NOBODY, capabilities)
            answer: Optional[List[Any]] = None
            try:
                work()
            except Refused as refused:
                answer = [refused.stage, refused.number, refused.log, refused.detail]
            with os.fdopen(writer, "w", encoding="utf-8") as pipe:
                json.dump(answer, pipe)
        finally:
            os._exit(0)  # also after an error: it must not go on as a second session
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    with open(_UNPRIVILEGED, "w", encoding="ascii") as sysctl:
        sysctl.write(before.strip())
    if not text:
        raise Refused("open", 0, detail=f"the process of user {user} died")
    refusal = json.loads(text)
    if refusal is not None:
        raise Refused(*refusal)
