# SPDX-License-Identifier: GPL-2.0-only
"""Programs that are ready to be loaded one by one, with the maps of their object."""

from __future__ import annotations

import ctypes as ct
import errno
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from harness.guest import bindings, libbpf, uapi
from harness.guest.objects import Object

_RETURN_0 = bytes((0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0))


@dataclass(frozen=True)
class Prepared:
    """A program as libbpf was about to load it: relocated, with all that it would pass on."""

    kind: int
    name: bytes
    insns: Any
    options: Any
    _kept: Tuple[Any, ...]  # what the options point to

    def load(self, log: Any) -> int:
        """Load it as libbpf does, which asks for a log only when refused; return the fd."""
        self.options.log_buf, self.options.log_size = ct.cast(log, bindings.VOIDP), len(log)
        count = len(self.insns) // uapi.INSN_BYTES
        options = ct.byref(self.options)
        return bindings.check(
            bindings.bpf_prog_load(self.kind, self.name, b"GPL", self.insns, count, options)
        )


def _prepared(program: int, given: Any) -> Optional[Prepared]:
    """Copy what libbpf is about to load; None for what is valid only until it has."""
    insns = ct.string_at(
        bindings.bpf_program__insns(program),
        bindings.bpf_program__insn_cnt(program) * uapi.INSN_BYTES,
    )
    for at in range(0, len(insns), uapi.INSN_BYTES):
        if insns[at] == uapi.BPF_JMP_CALL and insns[at + 1] >> 4 == uapi.BPF_PSEUDO_KFUNC_CALL:
            if insns[at + 2 : at + 4] != b"\0\0":  # a module's, whose BTF libbpf closes
                return None
    options = bindings.LoadOpts()
    ct.memmove(ct.byref(options), ct.byref(given), ct.sizeof(options))
    options.sz, options.fd_array = ct.sizeof(options), None
    kept = []
    for name in ("func_info", "line_info"):
        size = getattr(given, f"{name}_cnt") * getattr(given, f"{name}_rec_size")
        if size:
            kept.append(ct.create_string_buffer(ct.string_at(getattr(given, name), size), size))
            setattr(options, name, ct.cast(kept[-1], bindings.VOIDP))
    return Prepared(
        bindings.bpf_program__type(program),
        bindings.bpf_program__name(program)[:15],
        ct.create_string_buffer(insns, len(insns)),
        options,
        tuple(kept),
    )


class PreparedObject:
    """An object's maps, and those of its programs that can be loaded one by one with them.

    For every object that it loads, libbpf reads the kernel's BTF anew, which takes longer than all
    else. So it loads this one once, with an empty program in the place of each, after what it was
    about to load was copied. Raises OSError when it refuses.
    """

    def __init__(self, data: bytes, programs: List[str]) -> None:
        self.programs: Dict[str, Prepared] = {}
        sections = Object(data, programs)
        handlers = [_Handler(section, self._prepare) for section in sections.sections(programs)]
        sections.close()
        try:
            self._object = Object(data, programs)
            try:
                self._object.load()
            except OSError:
                self._object.close()
                raise
        finally:
            for handler in handlers:
                handler.remove()

    def _prepare(self, section: str, program: int, options: Any) -> None:
        """Keep a program and put an empty one in its place; the options are libbpf's own."""
        _, chosen = libbpf.load_options(section)
        for name, value in chosen.items():
            setattr(options, name, value)
        prepared = _prepared(program, options)
        if prepared is not None:
            self.programs[bindings.bpf_program__name(program).decode()] = prepared
        for name in ("expected_attach_type", "attach_btf_id", "prog_flags", "prog_btf_fd"):
            setattr(options, name, 0)
        options.func_info_cnt = options.line_info_cnt = 0
        bindings.check(bindings.bpf_program__set_type(program, uapi.BPF_PROG_TYPE_SOCKET_FILTER))
        bindings.check(
            bindings.bpf_program__set_insns(program, _RETURN_0, len(_RETURN_0) // uapi.INSN_BYTES)
        )

    def close(self) -> None:
        """Free it and close its fds."""
        self._object.close()


@contextmanager
def alone_in_struct_ops(data: bytes, program: str) -> Iterator[None]:
    """Let libbpf load, of a struct_ops with this program, nothing but empty ones beside it."""
    elf = Object(data)
    try:
        others = [name for name in elf.programs() if elf.is_of_struct_ops(name)]
        sections = elf.sections(others) if program in others else []
    finally:
        elf.close()

    def prepare(section: str, pointer: int, options: Any) -> None:
        if bindings.bpf_program__name(pointer).decode(errors="replace") == program:
            if section.startswith("struct_ops.s"):
                options.prog_flags |= uapi.BPF_F_SLEEPABLE
            return
        options.func_info_cnt = options.line_info_cnt = 0
        count = len(_RETURN_0) // uapi.INSN_BYTES
        bindings.check(bindings.bpf_program__set_insns(pointer, _RETURN_0, count))

    handlers = [_Handler(section, prepare) for section in sections]
    try:
        yield
    finally:
        for handler in handlers:
            handler.remove()


class _Handler:
    """What libbpf calls before it loads a program of a section, in place of its own preparation."""

    def __init__(self, section: str, prepare: Callable[[str, int, Any], None]) -> None:
        def call(program: int, options: Any, _: int) -> int:
            try:
                prepare(section, program, options.contents)
            except OSError as error:
                return -(error.errno or errno.EINVAL)
            return 0

        self._call = bindings.PREPARE_LOAD(call)  # must live as long as libbpf may call it
        function = ct.cast(self._call, bindings.VOIDP)
        opts = bindings.HandlerOpts(
            sz=ct.sizeof(bindings.HandlerOpts), prog_prepare_load_fn=function
        )
        kind, attach = libbpf.program_type(section)
        self._number = bindings.check(
            bindings.libbpf_register_prog_handler(section.encode(), kind, attach, ct.byref(opts))
        )

    def remove(self) -> None:
        """Leave programs of the section to libbpf again."""
        bindings.check(bindings.libbpf_unregister_prog_handler(self._number))
