"""The part of libbpf that is needed here, through ctypes.

Every call raises OSError with the kernel's errno on failure. Structures follow libbpf's public
headers; each starts with its own size, which is how libbpf tells the version a caller was built for.
"""

from __future__ import annotations

import ctypes as ct
import errno
import mmap
import os
import resource
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

PROG_TYPE_RAW_TRACEPOINT, PROG_TYPE_TRACING = 17, 26
PROG_TYPE_SK_LOOKUP, PROG_TYPE_SYSCALL = 30, 31
_PROG_TYPE_SOCKET_FILTER, _PROG_TYPE_STRUCT_OPS, _PROG_TYPE_LSM = 1, 27, 29
MAP_TYPE_PROG_ARRAY = 3
_MAP_TYPE_STACK_TRACE, _MAP_TYPE_STRUCT_OPS = 7, 26
_MAP_TYPES_WITHOUT_ENTRIES = (4, 19, 21, 24, 26, 28, 29, 32)  # storages; libbpf sizes the rest
# To these libbpf gives no BTF: perf event arrays, stacks, maps of maps, sockets, devices, CPUs, arenas.
_MAP_TYPES_WITHOUT_BTF = (4, 7, 8, 12, 13, 14, 15, 16, 17, 18, 22, 23, 25, 33)
_MAP_TYPE_PERF_EVENT_ARRAY, _MAP_TYPE_RINGBUF, _MAP_TYPE_ARENA = 4, 27, 33
_MAP_TYPES_PER_CPU = (5, 6, 10, 21)  # PERCPU_HASH, _ARRAY, LRU_PERCPU_HASH, PERCPU_CGROUP_STORAGE

_BPF_F_ALLOW_MULTI = 2
_BPF_F_SLEEPABLE, _BPF_F_XDP_HAS_FRAGS = 16, 32
_BPF_F_TEST_RUN_ON_CPU = 1
_BPF_F_MMAPABLE = 1 << 10  # an array, and one without a lock
_MANY = 1 << 12  # elements
_ELEMENT_BYTES = 64  # of an element beside its key and value, at most
_TRACE_RAW_TP, _LSM_MAC, _TRACE_ITER, _LSM_CGROUP = 23, 27, 28, 43  # of enum bpf_attach_type
_BTF_KIND_TYPEDEF, _BTF_KIND_FUNC = 8, 12
_CALL, _PSEUDO_KFUNC_CALL = 0x85, 2  # an instruction's code; its source register
_INSN_BYTES = 8
_RETURN_0 = bytes((0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0))
_STACK_BYTES = 127 * 8  # of the deepest stack that the kernel follows unless told otherwise
_PR_SET_KEEPCAPS, _LINUX_CAPABILITY_VERSION_3 = 8, 0x20080522

VERIFIER_LOG_BYTES = 16 << 20  # 1 MB makes long but good programs fail with ENOSPC

_lib = ct.CDLL("libbpf.so.1", use_errno=True)
_libc = ct.CDLL(None, use_errno=True)
_VOIDP, _INT, _U32, _U64, _CHARP = ct.c_void_p, ct.c_int, ct.c_uint32, ct.c_uint64, ct.c_char_p
_PRINT = ct.CFUNCTYPE(_INT, _INT, _CHARP, _VOIDP)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_lib, name)
    function.restype, function.argtypes = result, list(arguments)
    return function


def _structure(name: str, *fields: Tuple[str, Any]) -> Any:
    return type(name, (ct.Structure,), {"_fields_": list(fields)})


def _u32s(*names: str) -> List[Tuple[str, Any]]:
    return [(name, _U32) for name in names]


LoadOpts = _structure(
    "bpf_prog_load_opts",
    ("sz", ct.c_size_t),
    ("attempts", _INT),
    *_u32s("expected_attach_type", "prog_btf_fd", "prog_flags", "prog_ifindex", "kern_version"),
    *_u32s("attach_btf_id", "attach_prog_fd", "attach_btf_obj_fd"),
    ("fd_array", _VOIDP),
    ("func_info", _VOIDP),
    *_u32s("func_info_cnt", "func_info_rec_size"),
    ("line_info", _VOIDP),
    *_u32s("line_info_cnt", "line_info_rec_size", "log_level", "log_size"),
    ("log_buf", _VOIDP),
)
MapCreateOpts = _structure(
    "bpf_map_create_opts",
    ("sz", ct.c_size_t),
    *_u32s("btf_fd", "btf_key_type_id", "btf_value_type_id", "btf_vmlinux_value_type_id"),
    *_u32s("inner_map_fd", "map_flags"),
    ("map_extra", _U64),
    *_u32s("numa_node", "map_ifindex"),
)
BtfLoadOpts = _structure(
    "bpf_btf_load_opts", ("sz", ct.c_size_t), ("log_buf", _VOIDP), *_u32s("log_level", "log_size")
)
TestRunOpts = _structure(
    "bpf_test_run_opts",
    ("sz", ct.c_size_t),
    ("data_in", _VOIDP),
    ("data_out", _VOIDP),
    *_u32s("data_size_in", "data_size_out"),
    ("ctx_in", _VOIDP),
    ("ctx_out", _VOIDP),
    *_u32s("ctx_size_in", "ctx_size_out", "retval"),
    ("repeat", _INT),
    *_u32s("duration", "flags", "cpu", "batch_size"),
)
BatchOpts = _structure(
    "bpf_map_batch_opts", ("sz", ct.c_size_t), ("elem_flags", _U64), ("flags", _U64)
)
LinkCreateOpts = _structure(
    "bpf_link_create_opts",
    ("sz", ct.c_size_t),
    ("flags", _U32),
    ("iter_info", _VOIDP),
    ("iter_info_len", _U32),
)
HandlerOpts = _structure(
    "libbpf_prog_handler_opts",
    ("sz", ct.c_size_t),
    ("cookie", ct.c_long),
    ("prog_setup_fn", _VOIDP),
    ("prog_prepare_load_fn", _VOIDP),
    ("prog_attach_fn", _VOIDP),
)
_PREPARE_LOAD = ct.CFUNCTYPE(_INT, _VOIDP, ct.POINTER(LoadOpts), ct.c_long)
MapInfo = _structure(
    "bpf_map_info",
    *_u32s("type", "id", "key_size", "value_size", "max_entries", "map_flags"),
    ("name", ct.c_char * 16),
    *_u32s("ifindex", "btf_vmlinux_value_type_id"),
    ("netns_dev", _U64),
    ("netns_ino", _U64),
    *_u32s("btf_id", "btf_key_type_id", "btf_value_type_id"),
)

_set_print = _function("libbpf_set_print", _VOIDP, _PRINT)
_version = _function("libbpf_version_string", _CHARP)
_type_by_name = _function("libbpf_prog_type_by_name", _INT, _CHARP, _VOIDP, _VOIDP)
_load_vmlinux_btf = _function("btf__load_vmlinux_btf", _VOIDP)
_find_by_name_kind = _function("btf__find_by_name_kind", _INT, _VOIDP, _CHARP, _U32)
_register_handler = _function("libbpf_register_prog_handler", _INT, _CHARP, _INT, _INT, _VOIDP)
_unregister_handler = _function("libbpf_unregister_prog_handler", _INT, _INT)
_open_mem = _function("bpf_object__open_mem", _VOIDP, _CHARP, ct.c_size_t, _VOIDP)
_object_load = _function("bpf_object__load", _INT, _VOIDP)
_object_close = _function("bpf_object__close", None, _VOIDP)
_memlock = _function("libbpf_set_memlock_rlim", _INT, ct.c_size_t)
_object_btf = _function("bpf_object__btf", _VOIDP, _VOIDP)
_btf_raw_data = _function("btf__raw_data", _VOIDP, _VOIDP, _VOIDP)
_btf_fd = _function("btf__fd", _INT, _VOIDP)
_next_program = _function("bpf_object__next_program", _VOIDP, _VOIDP, _VOIDP)
_next_map = _function("bpf_object__next_map", _VOIDP, _VOIDP, _VOIDP)
_program_name = _function("bpf_program__name", _CHARP, _VOIDP)
_program_fd = _function("bpf_program__fd", _INT, _VOIDP)
_program_section = _function("bpf_program__section_name", _CHARP, _VOIDP)
_program_type = _function("bpf_program__type", _INT, _VOIDP)
_program_attach_type = _function("bpf_program__expected_attach_type", _INT, _VOIDP)
_attach_type_name = _function("libbpf_bpf_attach_type_str", _CHARP, _INT)
_program_insns = _function("bpf_program__insns", _VOIDP, _VOIDP)
_program_insn_cnt = _function("bpf_program__insn_cnt", ct.c_size_t, _VOIDP)
_set_insns = _function("bpf_program__set_insns", _INT, _VOIDP, _CHARP, ct.c_size_t)
_set_type = _function("bpf_program__set_type", _INT, _VOIDP, _INT)
_set_autoload = _function("bpf_program__set_autoload", _INT, _VOIDP, ct.c_bool)
_set_log_buf = _function("bpf_program__set_log_buf", _INT, _VOIDP, _VOIDP, ct.c_size_t)
_set_log_level = _function("bpf_program__set_log_level", _INT, _VOIDP, _U32)
_set_attach_target = _function("bpf_program__set_attach_target", _INT, _VOIDP, _INT, _CHARP)
_map_type = _function("bpf_map__type", _INT, _VOIDP)
_map_entries = _function("bpf_map__max_entries", _U32, _VOIDP)
_map_set_entries = _function("bpf_map__set_max_entries", _INT, _VOIDP, _U32)
_map_set_autocreate = _function("bpf_map__set_autocreate", _INT, _VOIDP, ct.c_bool)
_map_key_size = _function("bpf_map__key_size", _U32, _VOIDP)
_map_value_size = _function("bpf_map__value_size", _U32, _VOIDP)
_map_set_value_size = _function("bpf_map__set_value_size", _INT, _VOIDP, _U32)
_map_name = _function("bpf_map__name", _CHARP, _VOIDP)
_map_fd = _function("bpf_map__fd", _INT, _VOIDP)
_map_inner = _function("bpf_map__inner_map", _VOIDP, _VOIDP)
_map_is_internal = _function("bpf_map__is_internal", ct.c_bool, _VOIDP)
_map_create = _function("bpf_map_create", _INT, _INT, _CHARP, _U32, _U32, _U32, _VOIDP)
_btf_load = _function("bpf_btf_load", _INT, _VOIDP, ct.c_size_t, _VOIDP)
_prog_load = _function("bpf_prog_load", _INT, _INT, _CHARP, _CHARP, _VOIDP, ct.c_size_t, _VOIDP)
_test_run = _function("bpf_prog_test_run_opts", _INT, _INT, _VOIDP)
_raw_tracepoint_open = _function("bpf_raw_tracepoint_open", _INT, _CHARP, _INT)
_xdp_attach = _function("bpf_xdp_attach", _INT, _INT, _INT, _U32, _VOIDP)
_prog_attach = _function("bpf_prog_attach", _INT, _INT, _INT, _INT, ct.c_uint)
_info_by_fd = _function("bpf_obj_get_info_by_fd", _INT, _INT, _VOIDP, _VOIDP)
_update = _function("bpf_map_update_elem", _INT, _INT, _CHARP, _CHARP, _U64)
_lookup = _function("bpf_map_lookup_elem_flags", _INT, _INT, _CHARP, _VOIDP, _U64)
_delete = _function("bpf_map_delete_elem_flags", _INT, _INT, _CHARP, _U64)
_lookup_and_delete = _function(
    "bpf_map_lookup_and_delete_elem_flags", _INT, _INT, _CHARP, _VOIDP, _U64
)
_next_key = _function("bpf_map_get_next_key", _INT, _INT, _CHARP, _VOIDP)
_batch_functions = {
    name: _function(f"bpf_map_{name}", _INT, _INT, *[_VOIDP] * 6)
    for name in ("lookup_batch", "lookup_and_delete_batch")
}
_update_batch = _function("bpf_map_update_batch", _INT, _INT, _CHARP, _CHARP, _VOIDP, _VOIDP)
_delete_batch = _function("bpf_map_delete_batch", _INT, _INT, _CHARP, _VOIDP, _VOIDP)
_freeze = _function("bpf_map_freeze", _INT, _INT)
_pin = _function("bpf_obj_pin", _INT, _INT, _CHARP)
_link_create = _function("bpf_link_create", _INT, _INT, _INT, _INT, _VOIDP)
_iter_create = _function("bpf_iter_create", _INT, _INT)

messages: List[str] = []  # what libbpf had to say since the list was last cleared


def _collect(level: int, template: bytes, arguments: int) -> int:
    if level == 0:  # warnings; on x86-64 a va_list is passed as a pointer, so this may format it
        text = ct.create_string_buffer(2048)
        _libc.vsnprintf(text, ct.c_size_t(len(text)), template, _VOIDP(arguments))
        messages.append(text.value.decode(errors="replace").strip())
    return 0


_handler = _PRINT(_collect)  # must live as long as libbpf may call it


def capture_messages() -> None:
    """Collect libbpf's warnings in `messages`. Every BPF() of bcc undoes this: call it again."""
    _set_print(_handler)
    messages.clear()


def _check(result: int) -> int:
    if result < 0:  # libbpf 1.x returns -errno
        raise OSError(-result, os.strerror(-result))
    return result


def _pointer(pointer: Optional[int]) -> int:
    if not pointer:
        raise _last_error()
    return pointer


def _succeed(result: int) -> None:
    if result != 0:
        raise _last_error()


def _last_error() -> OSError:
    return OSError(ct.get_errno(), os.strerror(ct.get_errno()))


def errno_name(number: int) -> str:
    """Return the kernel's name of an errno, also of the one it leaks that user space lacks."""
    kernels = {95: "EOPNOTSUPP", 524: "ENOTSUPP"}  # Python calls 95 by its other name, ENOTSUP
    return kernels.get(number) or errno.errorcode.get(number, str(number))


def version() -> str:
    """Return libbpf's version, as in "v1.5"."""
    text: bytes = _version()
    return text.decode()


def _enumerator(attach_type: int) -> str:
    """Return the name of an attach type in enum bpf_attach_type, "" if libbpf does not know it."""
    name: Optional[bytes] = _attach_type_name(attach_type)
    return f"BPF_{name.decode().upper()}" if name else ""


def program_type(section: str) -> Tuple[int, int]:
    """Return (program type, expected attach type) that a section name stands for."""
    kind, attach = _INT(), _INT()
    _check(_type_by_name(section.encode(), ct.byref(kind), ct.byref(attach)))
    return kind.value, attach.value


@lru_cache(maxsize=None)
def _vmlinux_btf() -> int:
    return _pointer(_load_vmlinux_btf())


@lru_cache(maxsize=None)
def vmlinux_btf_id(function: str, attach_type: int) -> int:
    """Return the BTF id of the kernel function a tracing or LSM program is for.

    It is named as libbpf's own call for it names it, which reads the kernel's BTF each time.
    """
    prefix, kind = {
        _TRACE_RAW_TP: ("btf_trace_", _BTF_KIND_TYPEDEF),
        _LSM_MAC: ("bpf_lsm_", _BTF_KIND_FUNC),
        _LSM_CGROUP: ("bpf_lsm_", _BTF_KIND_FUNC),
        _TRACE_ITER: ("bpf_iter_", _BTF_KIND_FUNC),
    }.get(attach_type, ("", _BTF_KIND_FUNC))
    return _check(_find_by_name_kind(_vmlinux_btf(), f"{prefix}{function}".encode(), kind))


def load_options(section: str) -> Tuple[int, Dict[str, int]]:
    """Return (program type, load options) of a section, as libbpf would choose them."""
    kind, attach = program_type(section)
    options = {"expected_attach_type": attach}
    prefix, _, function = section.partition("/")
    if kind in (PROG_TYPE_TRACING, _PROG_TYPE_LSM) and function:
        options["attach_btf_id"] = vmlinux_btf_id(function, attach)
    if prefix.endswith(".s") or kind == PROG_TYPE_SYSCALL:
        options["prog_flags"] = _BPF_F_SLEEPABLE
    elif prefix.endswith(".frags"):
        options["prog_flags"] = _BPF_F_XDP_HAS_FRAGS
    return kind, options


@lru_cache(maxsize=None)
def log_buffer() -> Any:
    """Return the buffer for a verifier log: one for all, since even empty ones take time to make."""
    return ct.create_string_buffer(VERIFIER_LOG_BYTES)


def load_program(kind: int, name: str, insns: int, count: int, log: Any, **options: int) -> int:
    """Load `count` instructions from address `insns` by one system call per log level.

    A program that loads needs no log; one that does not is loaded again to get it. Returns the fd.
    """
    opts = LoadOpts(sz=ct.sizeof(LoadOpts), attempts=1, **options)
    opts.log_buf, opts.log_size = ct.cast(log, _VOIDP), len(log)
    return _check(_prog_load(kind, name[:15].encode(), b"GPL", insns, count, ct.byref(opts)))


def load_btf(data: bytes) -> int:
    """Load BTF by one plain system call; return its fd."""
    opts = BtfLoadOpts(sz=ct.sizeof(BtfLoadOpts))
    return _check(_btf_load(data, len(data), ct.byref(opts)))


def test_run(fd: int, data: bytes, repeat: int = 0, cpu: Optional[int] = None) -> int:
    """Run a program by BPF_PROG_TEST_RUN; return its last return value.

    No repetition means once, too, and is all that syscall programs allow. On which CPU can be said
    for raw tracepoints only; another than this one is interrupted for it.
    """
    buffer = ct.create_string_buffer(data, len(data)) if data else None
    opts = TestRunOpts(sz=ct.sizeof(TestRunOpts), repeat=repeat)
    if buffer is not None:
        opts.data_in, opts.data_size_in = ct.cast(buffer, _VOIDP), len(data)
    if cpu is not None:
        opts.flags, opts.cpu = _BPF_F_TEST_RUN_ON_CPU, cpu
    _check(_test_run(fd, ct.byref(opts)))
    return ct.c_int32(opts.retval).value


def open_raw_tracepoint(fd: int) -> int:
    """Attach a raw tracepoint, tp_btf, fentry or LSM program; return the link's fd."""
    return _check(_raw_tracepoint_open(None, fd))


def attach_xdp(interface: int, fd: int, flags: int) -> None:
    """Attach an XDP program to an interface, by its index; the flags choose native or generic."""
    _check(_xdp_attach(interface, fd, flags, None))


def attach_to_cgroup(fd: int, cgroup: int, attach_type: int) -> None:
    """Attach a program to a cgroup, by an fd of its directory, until that is removed."""
    _check(_prog_attach(fd, cgroup, attach_type, _BPF_F_ALLOW_MULTI))


def attach_tcx(fd: int, interface: int, attach_type: int) -> int:
    """Attach a program to an interface's traffic, by its index; return the link's fd."""
    return _check(_link_create(fd, interface, attach_type, None))


def pin(fd: int, path: str) -> None:
    """Give a map or program a name in a BPF file system."""
    _check(_pin(fd, path.encode()))


def iterate(program: int, map_fd: int) -> None:
    """Run a program of section iter/bpf_map_elem once for every element of a map."""
    opts = LinkCreateOpts(sz=ct.sizeof(LinkCreateOpts), iter_info_len=4)
    target = _U32(map_fd)  # union bpf_iter_link_info
    opts.iter_info = ct.cast(ct.byref(target), _VOIDP)
    link = _check(_link_create(program, 0, _TRACE_ITER, ct.byref(opts)))
    try:
        reader = _check(_iter_create(link))
        try:
            while os.read(reader, 4096):
                pass
        finally:
            os.close(reader)
    finally:
        os.close(link)


def unshare(flags: int) -> None:
    """Leave the namespaces that CLONE_NEW… flags name for new ones; os has it from 3.12 on."""
    _succeed(_libc.unshare(flags))


def become(user: int, capabilities: Sequence[int]) -> None:
    """Become a user and group for good, with these capabilities, by number, and no other."""
    os.setgroups([])
    os.setresgid(user, user, user)
    _succeed(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setresuid(user, user, user)
    mask = sum(1 << number for number in capabilities)
    words = [word for half in (mask & 0xFFFFFFFF, mask >> 32) for word in (half, half, 0)]
    header = (_U32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)  # of this process
    _succeed(_libc.capset(header, (_U32 * 6)(*words)))  # effective, permitted, inheritable; twice


def mount(source: str, place: str, kind: str, flags: int) -> None:
    """Mount a file system, or change how one is mounted."""
    _succeed(_libc.mount(source.encode(), place.encode(), kind.encode(), ct.c_ulong(flags), None))


def unmount(place: str) -> None:
    """Unmount what is mounted there."""
    _succeed(_libc.umount(place.encode()))


def limit_locked_memory(size: int) -> None:
    """Let this process lock so many bytes, to which kernels before v5.11 charge maps and programs.

    libbpf would lift the limit altogether, and may have done so already.
    """
    result = _memlock(size)
    if result != -errno.EBUSY:
        _check(result)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (size, size))


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


class Map:
    """A map by its fd: element access with every flag, values as the kernel copies them."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        info = MapInfo()
        size = _U32(ct.sizeof(info))
        _check(_info_by_fd(fd, ct.byref(info), ct.byref(size)))
        self.type: int = info.type
        self.key_size: int = info.key_size
        self.entries: int = info.max_entries
        self.flags: int = info.map_flags
        self.value_size: int = info.value_size
        if self.type in _MAP_TYPES_PER_CPU:
            self.value_size = (info.value_size + 7) // 8 * 8 * possible_cpus()

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Write one element."""
        _check(_update(self.fd, key, value, flags))

    def lookup(self, key: bytes, flags: int = 0, fill: int = 0) -> bytes:
        """Read one element into a buffer that was filled with the byte `fill`."""
        return self._read(_lookup, key, flags, fill)

    def lookup_and_delete(self, key: bytes, flags: int = 0, fill: int = 0) -> bytes:
        """Read and remove one element."""
        return self._read(_lookup_and_delete, key, flags, fill)

    def _read(self, function: Any, key: bytes, flags: int, fill: int) -> bytes:
        buffer = ct.create_string_buffer(bytes([fill]) * self.value_size, self.value_size)
        _check(function(self.fd, key, buffer, flags))
        return buffer.raw

    def delete(self, key: bytes, flags: int = 0) -> None:
        """Remove one element."""
        _check(_delete(self.fd, key, flags))

    def freeze(self) -> None:
        """Let user space write to it no more."""
        _check(_freeze(self.fd))

    def keys(self) -> Iterator[bytes]:
        """Yield the keys."""
        key: Optional[bytes] = None
        while True:
            buffer = ct.create_string_buffer(self.key_size)
            result = _next_key(self.fd, key, buffer)
            if result == -errno.ENOENT:
                return
            _check(result)
            key = buffer.raw
            yield key

    def read_batch(self, name: str, flags: int = 0, fill: int = 0) -> List[Tuple[bytes, bytes]]:
        """Read all elements by "lookup_batch" or "lookup_and_delete_batch"."""
        count = _U32(self.entries)
        keys = ct.create_string_buffer(self.key_size * self.entries)
        size = self.value_size * self.entries
        values = ct.create_string_buffer(bytes([fill]) * size, size)
        cursor = ct.create_string_buffer(max(self.key_size, 8))
        opts = BatchOpts(sz=ct.sizeof(BatchOpts), elem_flags=flags)
        function = _batch_functions[name]
        result = function(
            self.fd, None, cursor, keys, values, ct.byref(count), ct.cast(ct.byref(opts), _VOIDP)
        )
        if result != -errno.ENOENT:  # ENOENT: the end of the map was reached
            _check(result)
        return [
            (
                keys.raw[i * self.key_size : (i + 1) * self.key_size],
                values.raw[i * self.value_size : (i + 1) * self.value_size],
            )
            for i in range(count.value)
        ]

    def update_batch(self, elements: List[Tuple[bytes, bytes]], flags: int = 0) -> None:
        """Write elements by one call."""
        count = _U32(len(elements))
        opts = BatchOpts(sz=ct.sizeof(BatchOpts), elem_flags=flags)
        keys, values = b"".join(k for k, _ in elements), b"".join(v for _, v in elements)
        _check(_update_batch(self.fd, keys, values, ct.byref(count), ct.byref(opts)))

    def delete_batch(self, keys: List[bytes], flags: int = 0) -> None:
        """Remove elements by one call."""
        count = _U32(len(keys))
        opts = BatchOpts(sz=ct.sizeof(BatchOpts), elem_flags=flags)
        _check(_delete_batch(self.fd, b"".join(keys), ct.byref(count), ct.byref(opts)))

    def total(self, key: bytes = b"\0\0\0\0") -> int:
        """Return the sum, over all CPUs, of the first eight bytes of a per-CPU array's element."""
        value = self.lookup(key)
        size = self.value_size // possible_cpus()
        return sum(
            int.from_bytes(value[at : at + 8], "little") for at in range(0, self.value_size, size)
        )

    def reset(self) -> None:
        """Bring a hash or an array back to its state at creation."""
        if self.flags & _BPF_F_MMAPABLE and self.entries >= _MANY:  # one by one takes minutes
            size = self.entries * ((self.value_size + 7) // 8 * 8)
            with mmap.mmap(self.fd, size) as memory:
                memory.write(bytes(size))
            return
        for key in list(self.keys()):
            try:
                self.delete(key)
            except OSError as error:
                if error.errno == errno.ENOENT:  # an array of programs names its empty slots, too
                    continue
                if error.errno != errno.EINVAL:  # elements of an array cannot be deleted
                    raise
                self.update(key, bytes(self.value_size))


def _corrected(kind: int, entries: int) -> int:
    """Return a map's entries as libbpf corrects them."""
    if kind == _MAP_TYPE_PERF_EVENT_ARRAY and not entries:
        return possible_cpus()
    if kind == _MAP_TYPE_RINGBUF:  # bytes: pages, and a power of two
        return max(mmap.PAGESIZE, 1 << (entries - 1).bit_length())
    return entries


class Object:
    """An ELF object that libbpf opened, to be loaded with just the named programs.

    Raises OSError when libbpf refuses the file; `messages` tells why.
    """

    def __init__(self, data: bytes, programs: Optional[List[str]] = None) -> None:
        self._data = data  # libbpf reads from it
        self._object = _pointer(_open_mem(data, len(data), None))
        self._programs = {
            _program_name(p).decode(errors="replace"): p for p in self._each(_next_program)
        }
        self._maps = {_map_name(m).decode(errors="replace"): m for m in self._each(_next_map)}
        for name, pointer in self._programs.items():
            _check(_set_autoload(pointer, programs is None or name in programs))

    def _each(self, following: Any) -> Iterator[int]:
        pointer = following(self._object, None)
        while pointer:
            yield pointer
            pointer = following(self._object, pointer)

    def close(self) -> None:
        """Free it and close its fds."""
        _object_close(self._object)

    def btf(self) -> bytes:
        """Return the object's BTF as libbpf would load it: with section sizes filled in."""
        size = _U32()
        data = _pointer(_btf_raw_data(_pointer(_object_btf(self._object)), ct.byref(size)))
        return ct.string_at(data, size.value)

    def load_btf(self) -> int:
        """Load nothing but the BTF, less what this kernel does not know of it; return its fd.

        libbpf goes on without a BTF that the kernel refuses: then that is loaded whole, by a plain
        system call, for its errno. The fd is closed with the object, which is of no other use then.
        """
        for pointer in self._maps.values():
            _check(_map_set_autocreate(pointer, False))
        with suppress(OSError):
            self.load()
        fd: int = _btf_fd(_pointer(_object_btf(self._object)))
        return fd if fd >= 0 else load_btf(self.btf())

    def create_map(self, name: str, btf_fd: int, like_libbpf: bool = False) -> int:
        """Create one of its maps by a plain system call, BTF included; return the fd.

        libbpf itself creates the map again without BTF when the kernel refuses it, and so hides
        the kernel's answer. Like libbpf: with the sizes that it corrects, and without BTF for those
        types to which it gives none.
        """
        return self._create(self._maps[name], name, btf_fd, like_libbpf)

    def _create(self, pointer: int, name: str, btf_fd: int, like_libbpf: bool) -> int:
        kind, key_size, value_size, entries, flags, key_type, value_type = (
            _function(f"bpf_map__{field}", _U32, _VOIDP)(pointer)
            for field in (
                "type",
                "key_size",
                "value_size",
                "max_entries",
                "map_flags",
                "btf_key_type_id",
                "btf_value_type_id",
            )
        )
        opts = MapCreateOpts(sz=ct.sizeof(MapCreateOpts), map_flags=flags)
        inner = _map_inner(pointer)
        if like_libbpf:
            entries = _corrected(kind, entries)
            value_type = 0 if kind in _MAP_TYPES_WITHOUT_BTF else value_type
        if value_type:  # a key's alone, as a map of maps has it, is refused
            opts.btf_fd, opts.btf_key_type_id, opts.btf_value_type_id = btf_fd, key_type, value_type
        try:
            if inner:
                opts.inner_map_fd = self._create(inner, "inner", btf_fd, like_libbpf)
            return _check(
                _map_create(kind, name[:15].encode(), key_size, value_size, entries, ct.byref(opts))
            )
        finally:
            if opts.inner_map_fd:
                os.close(opts.inner_map_fd)

    def sections(self, programs: List[str]) -> List[str]:
        """Return the section names of some programs, each once."""
        names = (_program_section(self._programs[name]).decode() for name in programs)
        return list(dict.fromkeys(names))

    def has_map_of_type(self, kind: int) -> bool:
        """Tell whether one of its maps is of a type."""
        return any(_map_type(pointer) == kind for pointer in self._maps.values())

    def own_maps(self) -> List[str]:
        """Return the names of the maps that the source declares; .rodata and such are not."""
        return [name for name, m in self._maps.items() if not _map_is_internal(m)]

    def is_of_struct_ops(self, program: str) -> bool:
        """Tell whether a program is a function of a struct_ops."""
        return bool(_program_type(self._programs[program]) == _PROG_TYPE_STRUCT_OPS)

    def leave_struct_ops(self) -> None:
        """Make no struct_ops: for one libbpf loads its programs, whichever were asked for."""
        if not any(self.is_of_struct_ops(name) for name in self._programs):
            return
        for name, pointer in self._maps.items():
            if self.is_struct_ops(name):
                _check(_map_set_autocreate(pointer, False))

    def all_maps(self) -> List[str]:
        """Return the names of all maps, sections of data among them."""
        return list(self._maps)

    def shrink(self, most: int) -> List[str]:
        """Give fewer entries to the maps that would take more bytes than this; return which."""
        shrunk = []
        for name, pointer in self._maps.items():
            kind, entries = _map_type(pointer), _map_entries(pointer)
            if _map_is_internal(pointer) or kind in (_MAP_TYPE_RINGBUF, _MAP_TYPE_ARENA):
                continue  # of these it is the size in bytes, or pages
            values = possible_cpus() if kind in _MAP_TYPES_PER_CPU else 1
            each = _ELEMENT_BYTES + _map_key_size(pointer) + values * _map_value_size(pointer)
            if entries * each > most:
                _check(_map_set_entries(pointer, max(1, most // each)))
                shrunk.append(name)
        return shrunk

    def arena_bytes(self) -> int:
        """Return how much address space its arenas take, of which libbpf maps all."""
        arenas = [m for m in self._maps.values() if _map_type(m) == _MAP_TYPE_ARENA]
        return sum(_map_entries(m) * mmap.PAGESIZE for m in arenas)

    def is_struct_ops(self, name: str) -> bool:
        """Tell whether a map is a struct_ops, of which libbpf makes one of the kernel's types."""
        return bool(_map_type(self._maps[name]) == _MAP_TYPE_STRUCT_OPS)

    def programs(self) -> List[str]:
        """Return the names of its programs, in the order of the file."""
        return list(self._programs)

    def program_facts(self) -> List[Dict[str, Any]]:
        """Return name, section, type and, as the kernel names it, expected attach type of each
        program, in the order of the file."""
        return [
            {
                "name": name,
                "section": _program_section(pointer).decode(errors="replace"),
                "type": _program_type(pointer),
                "attach_type": _enumerator(_program_attach_type(pointer)),
            }
            for name, pointer in self._programs.items()
        ]

    def assume_sizes(self, entries: int) -> List[str]:
        """Give a size to the maps that have none, as a loader of their own would; return which.

        What that leaves open is nearly always how many entries; of a map of stacks, how deep too.
        """
        assumed = []
        for name, pointer in self._maps.items():
            if _map_type(pointer) == _MAP_TYPE_STACK_TRACE and _map_value_size(pointer) == 0:
                _check(_map_set_value_size(pointer, _STACK_BYTES))
            if _map_entries(pointer) == 0 and _map_type(pointer) not in _MAP_TYPES_WITHOUT_ENTRIES:
                _check(_map_set_entries(pointer, entries))
                assumed.append(name)
        return assumed

    def set_log(self, program: str, log: Any, level: Optional[int] = None) -> None:
        """Let the verifier's log of a program go to a buffer; without a level, if it is refused."""
        _check(_set_log_buf(self._programs[program], log, len(log)))
        if level is not None:
            _check(_set_log_level(self._programs[program], level))

    def extend(self, program: str, target: int, function: str) -> None:
        """Let a program replace a function of a loaded program, whose fd is the target."""
        _check(_set_attach_target(self._programs[program], target, function.encode()))

    def load(self) -> None:
        """Create the maps and load the programs."""
        _check(_object_load(self._object))

    def program_fd(self, name: str) -> int:
        """Return the fd of a loaded program."""
        return _check(_program_fd(self._programs[name]))

    def program_kind(self, name: str) -> Tuple[int, int]:
        """Return (program type, expected attach type) of a program."""
        pointer = self._programs[name]
        return _program_type(pointer), _program_attach_type(pointer)

    def instructions(self, name: str) -> Tuple[int, int]:
        """Return (address, count) of a program's instructions, with map fds in once loaded."""
        pointer = self._programs[name]
        return _pointer(_program_insns(pointer)), _program_insn_cnt(pointer)

    def map_fd(self, name: str) -> int:
        """Return the fd of a created map; raises KeyError for an unknown one."""
        return _check(_map_fd(self._maps[name]))


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
        self.options.log_buf, self.options.log_size = ct.cast(log, _VOIDP), len(log)
        count = len(self.insns) // _INSN_BYTES
        options = ct.byref(self.options)
        return _check(_prog_load(self.kind, self.name, b"GPL", self.insns, count, options))


def _prepared(program: int, given: Any) -> Optional[Prepared]:
    """Copy what libbpf is about to load; None for what is valid only until it has."""
    insns = ct.string_at(_program_insns(program), _program_insn_cnt(program) * _INSN_BYTES)
    for at in range(0, len(insns), _INSN_BYTES):
        if insns[at] == _CALL and insns[at + 1] >> 4 == _PSEUDO_KFUNC_CALL:
            if insns[at + 2 : at + 4] != b"\0\0":  # a module's, whose BTF libbpf closes
                return None
    options = LoadOpts()
    ct.memmove(ct.byref(options), ct.byref(given), ct.sizeof(options))
    options.sz, options.fd_array = ct.sizeof(options), None
    kept = []
    for name in ("func_info", "line_info"):
        size = getattr(given, f"{name}_cnt") * getattr(given, f"{name}_rec_size")
        if size:
            kept.append(ct.create_string_buffer(ct.string_at(getattr(given, name), size), size))
            setattr(options, name, ct.cast(kept[-1], _VOIDP))
    return Prepared(
        _program_type(program),
        _program_name(program)[:15],
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
        _, chosen = load_options(section)
        for name, value in chosen.items():
            setattr(options, name, value)
        prepared = _prepared(program, options)
        if prepared is not None:
            self.programs[_program_name(program).decode()] = prepared
        for name in ("expected_attach_type", "attach_btf_id", "prog_flags", "prog_btf_fd"):
            setattr(options, name, 0)
        options.func_info_cnt = options.line_info_cnt = 0
        _check(_set_type(program, _PROG_TYPE_SOCKET_FILTER))
        _check(_set_insns(program, _RETURN_0, len(_RETURN_0) // _INSN_BYTES))

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
        if _program_name(pointer).decode(errors="replace") == program:
            if section.startswith("struct_ops.s"):
                options.prog_flags |= _BPF_F_SLEEPABLE
            return
        options.func_info_cnt = options.line_info_cnt = 0
        _check(_set_insns(pointer, _RETURN_0, len(_RETURN_0) // _INSN_BYTES))

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

        self._call = _PREPARE_LOAD(call)  # must live as long as libbpf may call it
        function = ct.cast(self._call, _VOIDP)
        opts = HandlerOpts(sz=ct.sizeof(HandlerOpts), prog_prepare_load_fn=function)
        kind, attach = program_type(section)
        self._number = _check(_register_handler(section.encode(), kind, attach, ct.byref(opts)))

    def remove(self) -> None:
        """Leave programs of the section to libbpf again."""
        _check(_unregister_handler(self._number))
