# SPDX-License-Identifier: GPL-2.0-only
"""Load, run, attach and pin through libbpf.

Every function raises OSError with the kernel's errno on failure.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import resource
from functools import lru_cache
from typing import Any, Dict, List, Optional, Tuple

from harness.guest import bindings, uapi

_libc = ct.CDLL(None, use_errno=True)

PACKET = bytes(64)  # the input of BPF_PROG_TEST_RUN
VERIFIER_LOG_BYTES = 16 << 20  # with 1 MB, long but correct programs fail with ENOSPC

messages: List[str] = []  # libbpf's warnings since the list was last cleared


def _collect(level: int, template: bytes, arguments: int) -> int:
    if level == 0:  # warnings; on x86-64 a va_list is passed as a pointer, so this may format it
        text = ct.create_string_buffer(2048)
        _libc.vsnprintf(text, ct.c_size_t(len(text)), template, bindings.VOIDP(arguments))
        messages.append(text.value.decode(errors="replace").strip())
    return 0


_handler = bindings.PRINT(_collect)  # must live as long as libbpf may call it


def capture_messages() -> None:
    """Collect libbpf's warnings in `messages`. Call it again after every BPF() of bcc, which undoes it."""
    bindings.libbpf_set_print(_handler)
    messages.clear()


def version() -> str:
    """Return libbpf's version, as in "v1.5"."""
    text: bytes = bindings.libbpf_version_string()
    return text.decode()


def attach_type_name(attach_type: int) -> str:
    """Return the name of an attach type in enum bpf_attach_type, "" if libbpf does not know it."""
    name: Optional[bytes] = bindings.libbpf_bpf_attach_type_str(attach_type)
    return f"BPF_{name.decode().upper()}" if name else ""


def program_type(section: str) -> Tuple[int, int]:
    """Return (program type, expected attach type) of a section name."""
    kind, attach = bindings.INT(), bindings.INT()
    bindings.check(
        bindings.libbpf_prog_type_by_name(section.encode(), ct.byref(kind), ct.byref(attach))
    )
    return kind.value, attach.value


@lru_cache(maxsize=None)
def _vmlinux_btf() -> int:
    return bindings.pointer_of(bindings.btf__load_vmlinux_btf())


@lru_cache(maxsize=None)
def vmlinux_btf_id(function: str, attach_type: int) -> int:
    """Return the BTF id of the kernel function that a tracing or LSM program attaches to.

    It equals the result of libbpf_find_vmlinux_btf_id(), which reads the kernel's BTF each time.
    """
    prefix, kind = {
        uapi.BPF_TRACE_RAW_TP: ("btf_trace_", uapi.BTF_KIND_TYPEDEF),
        uapi.BPF_LSM_MAC: ("bpf_lsm_", uapi.BTF_KIND_FUNC),
        uapi.BPF_LSM_CGROUP: ("bpf_lsm_", uapi.BTF_KIND_FUNC),
        uapi.BPF_TRACE_ITER: ("bpf_iter_", uapi.BTF_KIND_FUNC),
    }.get(attach_type, ("", uapi.BTF_KIND_FUNC))
    return bindings.check(
        bindings.btf__find_by_name_kind(_vmlinux_btf(), f"{prefix}{function}".encode(), kind)
    )


def load_options(section: str) -> Tuple[int, Dict[str, int]]:
    """Return (program type, load options) of a section, as libbpf would choose them."""
    kind, attach = program_type(section)
    options = {"expected_attach_type": attach}
    prefix, _, function = section.partition("/")
    if kind in (uapi.BPF_PROG_TYPE_TRACING, uapi.BPF_PROG_TYPE_LSM) and function:
        options["attach_btf_id"] = vmlinux_btf_id(function, attach)
    if prefix.endswith(".s") or kind == uapi.BPF_PROG_TYPE_SYSCALL:
        options["prog_flags"] = uapi.BPF_F_SLEEPABLE
    elif prefix.endswith(".frags"):
        options["prog_flags"] = uapi.BPF_F_XDP_HAS_FRAGS
    return kind, options


@lru_cache(maxsize=None)
def log_buffer() -> Any:
    """Return the buffer for verifier logs. All loads share it, because allocating it takes time."""
    return ct.create_string_buffer(VERIFIER_LOG_BYTES)


def load_program(kind: int, name: str, insns: int, count: int, log: Any, **options: int) -> int:
    """Load `count` instructions at address `insns`; return the fd.

    libbpf loads without a log first. After a refusal it loads again to get the verifier's log.
    """
    opts = bindings.LoadOpts(sz=ct.sizeof(bindings.LoadOpts), attempts=1, **options)
    opts.log_buf, opts.log_size = ct.cast(log, bindings.VOIDP), len(log)
    return bindings.check(
        bindings.bpf_prog_load(kind, name[:15].encode(), b"GPL", insns, count, ct.byref(opts))
    )


def load_btf(data: bytes) -> int:
    """Load BTF by a plain bpf() call; return its fd."""
    opts = bindings.BtfLoadOpts(sz=ct.sizeof(bindings.BtfLoadOpts))
    return bindings.check(bindings.bpf_btf_load(data, len(data), ct.byref(opts)))


def test_run(fd: int, data: bytes, repeat: int = 0, cpu: Optional[int] = None) -> int:
    """Run a program by BPF_PROG_TEST_RUN; return its last return value.

    `repeat` = 0 runs it once; syscall programs allow nothing else. `cpu` is for raw tracepoint programs
    only: the kernel sends an IPI to that CPU if it is another one.
    """
    buffer = ct.create_string_buffer(data, len(data)) if data else None
    opts = bindings.TestRunOpts(sz=ct.sizeof(bindings.TestRunOpts), repeat=repeat)
    if buffer is not None:
        opts.data_in, opts.data_size_in = ct.cast(buffer, bindings.VOIDP), len(data)
    if cpu is not None:
        opts.flags, opts.cpu = uapi.BPF_F_TEST_RUN_ON_CPU, cpu
    bindings.check(bindings.bpf_prog_test_run_opts(fd, ct.byref(opts)))
    return ct.c_int32(opts.retval).value


def open_raw_tracepoint(fd: int) -> int:
    """Attach a raw tracepoint, tp_btf, fentry or LSM program; return the link's fd."""
    return bindings.check(bindings.bpf_raw_tracepoint_open(None, fd))


def attach_xdp(interface: int, fd: int, flags: int) -> None:
    """Attach an XDP program to an interface by its index; flags select native or generic mode."""
    bindings.check(bindings.bpf_xdp_attach(interface, fd, flags, None))


def attach_to_cgroup(fd: int, cgroup: int, attach_type: int) -> None:
    """Attach a program to a cgroup (an fd of its directory), until the directory is removed."""
    bindings.check(bindings.bpf_prog_attach(fd, cgroup, attach_type, uapi.BPF_F_ALLOW_MULTI))


def attach_tcx(fd: int, interface: int, attach_type: int) -> int:
    """Attach a program to an interface's tcx hook by the interface's index; return the link's fd."""
    return bindings.check(bindings.bpf_link_create(fd, interface, attach_type, None))


def pin(fd: int, path: str) -> None:
    """Pin a map or program in a BPF file system."""
    bindings.check(bindings.bpf_obj_pin(fd, path.encode()))


def iterate(program: int, map_fd: int) -> None:
    """Run a program of section iter/bpf_map_elem once per element of a map."""
    opts = bindings.LinkCreateOpts(sz=ct.sizeof(bindings.LinkCreateOpts), iter_info_len=4)
    target = bindings.U32(map_fd)  # union bpf_iter_link_info
    opts.iter_info = ct.cast(ct.byref(target), bindings.VOIDP)
    link = bindings.check(bindings.bpf_link_create(program, 0, uapi.BPF_TRACE_ITER, ct.byref(opts)))
    try:
        reader = bindings.check(bindings.bpf_iter_create(link))
        try:
            while os.read(reader, 4096):
                pass
        finally:
            os.close(reader)
    finally:
        os.close(link)


def limit_locked_memory(size: int) -> None:
    """Set RLIMIT_MEMLOCK to `size` bytes; kernels before v5.11 charge maps and programs to it.

    libbpf would remove the limit, and may have done so already.
    """
    result = bindings.libbpf_set_memlock_rlim(size)
    if result != -errno.EBUSY:
        bindings.check(result)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (size, size))
