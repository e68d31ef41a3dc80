# SPDX-License-Identifier: GPL-2.0-only
"""libbpf's functions and structures as its public headers declare them, and checks of their results.

Each structure starts with its own size: libbpf accepts those of older and newer callers by it.
"""

from __future__ import annotations

import ctypes as ct
import os
from typing import Any, List, Optional, Tuple

_lib = ct.CDLL("libbpf.so.1", use_errno=True)
VOIDP, INT, U32, U64, CHARP = ct.c_void_p, ct.c_int, ct.c_uint32, ct.c_uint64, ct.c_char_p
PRINT = ct.CFUNCTYPE(INT, INT, CHARP, VOIDP)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_lib, name)
    function.restype, function.argtypes = result, list(arguments)
    return function


def _structure(name: str, *fields: Tuple[str, Any]) -> Any:
    return type(name, (ct.Structure,), {"_fields_": list(fields)})


def _u32s(*names: str) -> List[Tuple[str, Any]]:
    return [(name, U32) for name in names]


LoadOpts = _structure(
    "bpf_prog_load_opts",
    ("sz", ct.c_size_t),
    ("attempts", INT),
    *_u32s("expected_attach_type", "prog_btf_fd", "prog_flags", "prog_ifindex", "kern_version"),
    *_u32s("attach_btf_id", "attach_prog_fd", "attach_btf_obj_fd"),
    ("fd_array", VOIDP),
    ("func_info", VOIDP),
    *_u32s("func_info_cnt", "func_info_rec_size"),
    ("line_info", VOIDP),
    *_u32s("line_info_cnt", "line_info_rec_size", "log_level", "log_size"),
    ("log_buf", VOIDP),
)
MapCreateOpts = _structure(
    "bpf_map_create_opts",
    ("sz", ct.c_size_t),
    *_u32s("btf_fd", "btf_key_type_id", "btf_value_type_id", "btf_vmlinux_value_type_id"),
    *_u32s("inner_map_fd", "map_flags"),
    ("map_extra", U64),
    *_u32s("numa_node", "map_ifindex"),
)
BtfLoadOpts = _structure(
    "bpf_btf_load_opts", ("sz", ct.c_size_t), ("log_buf", VOIDP), *_u32s("log_level", "log_size")
)
TestRunOpts = _structure(
    "bpf_test_run_opts",
    ("sz", ct.c_size_t),
    ("data_in", VOIDP),
    ("data_out", VOIDP),
    *_u32s("data_size_in", "data_size_out"),
    ("ctx_in", VOIDP),
    ("ctx_out", VOIDP),
    *_u32s("ctx_size_in", "ctx_size_out", "retval"),
    ("repeat", INT),
    *_u32s("duration", "flags", "cpu", "batch_size"),
)
BatchOpts = _structure(
    "bpf_map_batch_opts", ("sz", ct.c_size_t), ("elem_flags", U64), ("flags", U64)
)
LinkCreateOpts = _structure(
    "bpf_link_create_opts",
    ("sz", ct.c_size_t),
    ("flags", U32),
    ("iter_info", VOIDP),
    ("iter_info_len", U32),
)
HandlerOpts = _structure(
    "libbpf_prog_handler_opts",
    ("sz", ct.c_size_t),
    ("cookie", ct.c_long),
    ("prog_setup_fn", VOIDP),
    ("prog_prepare_load_fn", VOIDP),
    ("prog_attach_fn", VOIDP),
)
PREPARE_LOAD = ct.CFUNCTYPE(INT, VOIDP, ct.POINTER(LoadOpts), ct.c_long)
MapInfo = _structure(
    "bpf_map_info",
    *_u32s("type", "id", "key_size", "value_size", "max_entries", "map_flags"),
    ("name", ct.c_char * 16),
    *_u32s("ifindex", "btf_vmlinux_value_type_id"),
    ("netns_dev", U64),
    ("netns_ino", U64),
    *_u32s("btf_id", "btf_key_type_id", "btf_value_type_id"),
)

libbpf_set_print = _function("libbpf_set_print", VOIDP, PRINT)
libbpf_version_string = _function("libbpf_version_string", CHARP)
libbpf_prog_type_by_name = _function("libbpf_prog_type_by_name", INT, CHARP, VOIDP, VOIDP)
btf__load_vmlinux_btf = _function("btf__load_vmlinux_btf", VOIDP)
btf__find_by_name_kind = _function("btf__find_by_name_kind", INT, VOIDP, CHARP, U32)
libbpf_register_prog_handler = _function(
    "libbpf_register_prog_handler", INT, CHARP, INT, INT, VOIDP
)
libbpf_unregister_prog_handler = _function("libbpf_unregister_prog_handler", INT, INT)
bpf_object__open_mem = _function("bpf_object__open_mem", VOIDP, CHARP, ct.c_size_t, VOIDP)
bpf_object__load = _function("bpf_object__load", INT, VOIDP)
bpf_object__close = _function("bpf_object__close", None, VOIDP)
libbpf_set_memlock_rlim = _function("libbpf_set_memlock_rlim", INT, ct.c_size_t)
bpf_object__btf = _function("bpf_object__btf", VOIDP, VOIDP)
btf__raw_data = _function("btf__raw_data", VOIDP, VOIDP, VOIDP)
btf__fd = _function("btf__fd", INT, VOIDP)
bpf_object__next_program = _function("bpf_object__next_program", VOIDP, VOIDP, VOIDP)
bpf_object__next_map = _function("bpf_object__next_map", VOIDP, VOIDP, VOIDP)
bpf_program__name = _function("bpf_program__name", CHARP, VOIDP)
bpf_program__fd = _function("bpf_program__fd", INT, VOIDP)
bpf_program__section_name = _function("bpf_program__section_name", CHARP, VOIDP)
bpf_program__type = _function("bpf_program__type", INT, VOIDP)
bpf_program__expected_attach_type = _function("bpf_program__expected_attach_type", INT, VOIDP)
libbpf_bpf_attach_type_str = _function("libbpf_bpf_attach_type_str", CHARP, INT)
bpf_program__insns = _function("bpf_program__insns", VOIDP, VOIDP)
bpf_program__insn_cnt = _function("bpf_program__insn_cnt", ct.c_size_t, VOIDP)
bpf_program__set_insns = _function("bpf_program__set_insns", INT, VOIDP, CHARP, ct.c_size_t)
bpf_program__set_type = _function("bpf_program__set_type", INT, VOIDP, INT)
bpf_program__set_autoload = _function("bpf_program__set_autoload", INT, VOIDP, ct.c_bool)
bpf_program__set_log_buf = _function("bpf_program__set_log_buf", INT, VOIDP, VOIDP, ct.c_size_t)
bpf_program__set_log_level = _function("bpf_program__set_log_level", INT, VOIDP, U32)
bpf_program__set_attach_target = _function("bpf_program__set_attach_target", INT, VOIDP, INT, CHARP)
bpf_map__set_max_entries = _function("bpf_map__set_max_entries", INT, VOIDP, U32)
bpf_map__set_autocreate = _function("bpf_map__set_autocreate", INT, VOIDP, ct.c_bool)
bpf_map__set_value_size = _function("bpf_map__set_value_size", INT, VOIDP, U32)
bpf_map__name = _function("bpf_map__name", CHARP, VOIDP)
bpf_map__fd = _function("bpf_map__fd", INT, VOIDP)
bpf_map__inner_map = _function("bpf_map__inner_map", VOIDP, VOIDP)
bpf_map__is_internal = _function("bpf_map__is_internal", ct.c_bool, VOIDP)
MAP_FIELDS = {
    field: _function(f"bpf_map__{field}", U32, VOIDP)
    for field in (
        "type",
        "key_size",
        "value_size",
        "max_entries",
        "map_flags",
        "btf_key_type_id",
        "btf_value_type_id",
    )
}
bpf_map_create = _function("bpf_map_create", INT, INT, CHARP, U32, U32, U32, VOIDP)
bpf_btf_load = _function("bpf_btf_load", INT, VOIDP, ct.c_size_t, VOIDP)
bpf_prog_load = _function("bpf_prog_load", INT, INT, CHARP, CHARP, VOIDP, ct.c_size_t, VOIDP)
bpf_prog_test_run_opts = _function("bpf_prog_test_run_opts", INT, INT, VOIDP)
bpf_raw_tracepoint_open = _function("bpf_raw_tracepoint_open", INT, CHARP, INT)
bpf_xdp_attach = _function("bpf_xdp_attach", INT, INT, INT, U32, VOIDP)
bpf_prog_attach = _function("bpf_prog_attach", INT, INT, INT, INT, ct.c_uint)
bpf_obj_get_info_by_fd = _function("bpf_obj_get_info_by_fd", INT, INT, VOIDP, VOIDP)
bpf_map_update_elem = _function("bpf_map_update_elem", INT, INT, CHARP, CHARP, U64)
bpf_map_lookup_elem_flags = _function("bpf_map_lookup_elem_flags", INT, INT, CHARP, VOIDP, U64)
bpf_map_delete_elem_flags = _function("bpf_map_delete_elem_flags", INT, INT, CHARP, U64)
bpf_map_lookup_and_delete_elem_flags = _function(
    "bpf_map_lookup_and_delete_elem_flags", INT, INT, CHARP, VOIDP, U64
)
bpf_map_get_next_key = _function("bpf_map_get_next_key", INT, INT, CHARP, VOIDP)
BATCH_READS = {
    name: _function(f"bpf_map_{name}", INT, INT, *[VOIDP] * 6)
    for name in ("lookup_batch", "lookup_and_delete_batch")
}
bpf_map_update_batch = _function("bpf_map_update_batch", INT, INT, CHARP, CHARP, VOIDP, VOIDP)
bpf_map_delete_batch = _function("bpf_map_delete_batch", INT, INT, CHARP, VOIDP, VOIDP)
bpf_map_freeze = _function("bpf_map_freeze", INT, INT)
bpf_obj_pin = _function("bpf_obj_pin", INT, INT, CHARP)
bpf_link_create = _function("bpf_link_create", INT, INT, INT, INT, VOIDP)
bpf_iter_create = _function("bpf_iter_create", INT, INT)


def check(result: int) -> int:
    """Return the result of a libbpf 1.x function. Raises OSError if it is a -errno."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def pointer_of(pointer: Optional[int]) -> int:
    """Return the pointer that a libbpf function returned. Raises OSError from errno if it is NULL."""
    if not pointer:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    return pointer
