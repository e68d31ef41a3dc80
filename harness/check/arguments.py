# SPDX-License-Identifier: GPL-2.0-only
"""What memory helpers read and write: facts of the kernel, from their prototypes. Pure.

A size is a number of bytes, or a word: "key" and "value" are those of the map in the first argument,
"2" … "5" is the register that holds it. A helper that is not here, and is given a pointer into a
map's value, may have touched any of it.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Tuple, Union

LOOKUP, UPDATE, LOCK, UNLOCK, PERCPU_LOOKUP = 1, 2, 93, 94, 195
CGROUP_STORAGE = 81  # bpf_get_local_storage()
STORAGES = (CGROUP_STORAGE, 107, 145, 156, 210)  # and the _storage_get family
FOR_EACH, TIMER_SET, FIND_VMA, LOOP, DRAIN = 164, 170, 180, 181, 209
DYNPTR_FROM_MEM = 197
SYS_BPF = 166


class Memory(NamedTuple):
    """One argument that points to memory."""

    register: int
    writes: bool
    size: Union[int, str]


def _of(name: str, *memory: Tuple[int, str, Union[int, str]]) -> Tuple[str, Tuple[Memory, ...]]:
    return name, tuple(Memory(at, how == "w", size) for at, how, size in memory)


# Number -> (name, its memory). That of a pair (pointer, size) is in the order of the prototype.
HELPERS: Dict[int, Tuple[str, Tuple[Memory, ...]]] = {
    1: _of("bpf_map_lookup_elem", (2, "r", "key")),
    2: _of("bpf_map_update_elem", (2, "r", "key"), (3, "r", "value")),
    3: _of("bpf_map_delete_elem", (2, "r", "key")),
    4: _of("bpf_probe_read", (1, "w", "2"), (3, "r", "2")),
    6: _of("bpf_trace_printk", (1, "r", "2")),
    9: _of("bpf_skb_store_bytes", (3, "r", "4")),
    16: _of("bpf_get_current_comm", (1, "w", "2")),
    20: _of("bpf_skb_get_tunnel_key", (2, "w", "3")),
    21: _of("bpf_skb_set_tunnel_key", (2, "r", "3")),
    25: _of("bpf_perf_event_output", (4, "r", "5")),
    26: _of("bpf_skb_load_bytes", (3, "w", "4")),
    28: _of("bpf_csum_diff", (1, "r", "2"), (3, "r", "4")),
    29: _of("bpf_skb_get_tunnel_opt", (2, "w", "3")),
    30: _of("bpf_skb_set_tunnel_opt", (2, "r", "3")),
    36: _of("bpf_probe_write_user", (2, "r", "3")),
    45: _of("bpf_probe_read_str", (1, "w", "2"), (3, "r", "2")),
    49: _of("bpf_setsockopt", (4, "r", "5")),
    53: _of("bpf_sock_map_update", (3, "r", 4)),
    55: _of("bpf_perf_event_read_value", (3, "w", "4")),
    56: _of("bpf_perf_prog_read_value", (2, "w", "3")),
    57: _of("bpf_getsockopt", (4, "w", "5")),
    64: _of("bpf_bind", (2, "r", "3")),
    66: _of("bpf_skb_get_xfrm_state", (3, "w", "4")),
    67: _of("bpf_get_stack", (2, "w", "3")),
    68: _of("bpf_skb_load_bytes_relative", (3, "w", "4")),
    69: _of("bpf_fib_lookup", (2, "w", "3")),
    73: _of("bpf_lwt_push_encap", (3, "r", "4")),
    74: _of("bpf_lwt_seg6_store_bytes", (3, "r", "4")),
    76: _of("bpf_lwt_seg6_action", (3, "r", "4")),
    84: _of("bpf_sk_lookup_tcp", (2, "r", "3")),
    85: _of("bpf_sk_lookup_udp", (2, "r", "3")),
    87: _of("bpf_map_push_elem", (2, "r", "value")),
    88: _of("bpf_map_pop_elem", (2, "w", "value")),
    89: _of("bpf_map_peek_elem", (2, "w", "value")),
    99: _of("bpf_skc_lookup_tcp", (2, "r", "3")),
    100: _of("bpf_tcp_check_syncookie", (2, "r", "3"), (4, "r", "5")),
    101: _of("bpf_sysctl_get_name", (2, "w", "3")),
    102: _of("bpf_sysctl_get_current_value", (2, "w", "3")),
    103: _of("bpf_sysctl_get_new_value", (2, "w", "3")),
    104: _of("bpf_sysctl_set_new_value", (2, "r", "3")),
    105: _of("bpf_strtol", (1, "r", "2"), (4, "w", 8)),
    106: _of("bpf_strtoul", (1, "r", "2"), (4, "w", 8)),
    107: _of("bpf_sk_storage_get", (3, "r", "value")),
    110: _of("bpf_tcp_gen_syncookie", (2, "r", "3"), (4, "r", "5")),
    111: _of("bpf_skb_output", (4, "r", "5")),
    112: _of("bpf_probe_read_user", (1, "w", "2")),
    113: _of("bpf_probe_read_kernel", (1, "w", "2"), (3, "r", "2")),
    114: _of("bpf_probe_read_user_str", (1, "w", "2")),
    115: _of("bpf_probe_read_kernel_str", (1, "w", "2"), (3, "r", "2")),
    119: _of("bpf_read_branch_records", (2, "w", "3")),
    120: _of("bpf_get_ns_current_pid_tgid", (3, "w", "4")),
    121: _of("bpf_xdp_output", (4, "r", "5")),
    126: _of("bpf_seq_printf", (2, "r", "3"), (4, "r", "5")),
    127: _of("bpf_seq_write", (2, "r", "3")),
    130: _of("bpf_ringbuf_output", (2, "r", "3")),
    141: _of("bpf_get_task_stack", (2, "w", "3")),
    142: _of("bpf_load_hdr_opt", (2, "w", "3")),
    143: _of("bpf_store_hdr_opt", (2, "r", "3")),
    145: _of("bpf_inode_storage_get", (3, "r", "value")),
    147: _of("bpf_d_path", (2, "w", "3")),
    148: _of("bpf_copy_from_user", (1, "w", "2")),
    149: _of("bpf_snprintf_btf", (1, "w", "2"), (3, "r", "4")),
    150: _of("bpf_seq_printf_btf", (2, "r", "3")),
    152: _of("bpf_redirect_neigh", (2, "r", "3")),
    156: _of("bpf_task_storage_get", (3, "r", "value")),
    161: _of("bpf_ima_inode_hash", (2, "w", "3")),
    163: _of("bpf_check_mtu", (3, "w", 4)),
    165: _of("bpf_snprintf", (1, "w", "2"), (4, "r", "5")),
    166: _of("bpf_sys_bpf", (2, "w", "3")),
    167: _of("bpf_btf_find_by_name_kind", (1, "r", "2")),
    176: _of("bpf_get_branch_snapshot", (1, "w", "2")),
    177: _of("bpf_trace_vprintk", (1, "r", "2"), (3, "r", "4")),
    179: _of("bpf_kallsyms_lookup_name", (1, "r", "2"), (4, "w", 8)),
    182: _of("bpf_strncmp", (1, "r", "2")),
    183: _of("bpf_get_func_arg", (3, "w", 8)),
    184: _of("bpf_get_func_ret", (2, "w", 8)),
    189: _of("bpf_xdp_load_bytes", (3, "w", "4")),
    190: _of("bpf_xdp_store_bytes", (3, "r", "4")),
    191: _of("bpf_copy_from_user_task", (1, "w", "2")),
    193: _of("bpf_ima_file_hash", (2, "w", "3")),
    195: _of("bpf_map_lookup_percpu_elem", (2, "r", "key")),
    201: _of("bpf_dynptr_read", (1, "w", "2")),
    202: _of("bpf_dynptr_write", (3, "r", "4")),
    204: _of("bpf_tcp_raw_gen_syncookie_ipv4", (1, "r", 20), (2, "r", "3")),
    205: _of("bpf_tcp_raw_gen_syncookie_ipv6", (1, "r", 40), (2, "r", "3")),
    206: _of("bpf_tcp_raw_check_syncookie_ipv4", (1, "r", 20), (2, "r", 20)),
    207: _of("bpf_tcp_raw_check_syncookie_ipv6", (1, "r", 40), (2, "r", 20)),
    210: _of("bpf_cgrp_storage_get", (3, "r", "value")),
}
# Helpers whose pointer into a value is one to the kernel's own field or to the lock.
OF_FIELDS = (93, 94, 169, 170, 171, 172, 194)
# Helpers that read and write what is in one argument, or read up to a NUL: other registers than
# those above may point into a value as well, and what is touched then is not known.
TEXTS = {182: 3, 165: 3}


def argument_count(number: int) -> int:
    """Return how many registers a helper looks at; 5 of those of which nothing is known.

    Registers beyond hold what was there before; it must not be taken for an argument.
    """
    return _COUNTS.get(number, 5)


# How many arguments helpers have; those with five or unknown ones are left out.
_COUNTS: Dict[int, int] = {
    **{n: 0 for n in (5, 7, 8, 14, 15, 35, 42, 80, 118, 125, 158, 160, 186, 208)},
    **{n: 1 for n in (17, 19, 24, 34, 41, 46, 47, 77, 79, 86, 93, 94, 95, 96, 97, 98, 109, 117)},
    **{n: 1 for n in (122, 123, 128, 136, 137, 138, 139, 140, 151, 154, 162, 168, 172, 173)},
    **{n: 1 for n in (174, 175, 178, 185, 187, 188, 196)},
    **{n: 2 for n in (1, 3, 16, 22, 23, 32, 37, 39, 40, 44, 48, 54, 58, 59, 61, 62, 65, 81, 83)},
    **{
        n: 2
        for n in (88, 89, 108, 116, 129, 132, 133, 134, 135, 146, 153, 155, 157, 159, 170, 184, 194)
    },
    **{n: 2 for n in (199, 200, 206, 207, 211)},
    **{n: 3 for n in (4, 12, 13, 18, 27, 29, 30, 31, 33, 36, 38, 43, 45, 51, 56, 64, 75, 87)},
    **{n: 3 for n in (92, 144, 102, 103, 104, 112, 113, 114, 115, 124, 127, 131, 147, 148, 161)},
    **{n: 3 for n in (166, 169, 171, 176, 182, 183, 192, 193, 195, 203, 204, 205)},
    **{
        n: 4
        for n in (2, 20, 21, 26, 50, 52, 53, 55, 60, 63, 67, 69, 70, 71, 72, 73, 74, 76, 78, 82)
    },
    **{n: 4 for n in (90, 91, 101, 105, 106, 107, 119, 120, 130, 141, 142, 143, 145, 150, 152)},
    **{n: 4 for n in (156, 164, 167, 177, 179, 181, 189, 190, 197, 198, 209, 210)},
}

# Helpers of which the number of arguments is known: what they return is no pointer they were given.
KNOWN = frozenset(_COUNTS) | frozenset(
    (6, 9, 10, 11, 25, 28, 49, 57, 66, 68, 84, 85, 99, 100, 110, 111)
)
KNOWN |= frozenset((121, 126, 149, 163, 165, 180, 191, 201, 202))
