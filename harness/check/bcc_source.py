# SPDX-License-Identifier: GPL-2.0-only
"""A C file as bcc takes it: which of its functions are programs, and of what kind. Pure.

Such a file names no program types: its loader chooses them when it attaches a program. What a program is
given tells most of it, and a user may tell the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Dict, Mapping, Tuple

from harness.errors import UsageError

# What a program is given -> the kind of program, as SEC() names it. Where several kinds are given
# the same, the one that people mean most often.
_CONTEXTS = {
    "xdp_md": "xdp",
    "__sk_buff": "tc",
    "pt_regs": "kprobe",
    "bpf_raw_tracepoint_args": "raw_tp",
    "bpf_perf_event_data": "perf_event",
    "bpf_sock_ops": "sockops",
    "bpf_sock_addr": "cgroup/connect4",
    "bpf_sock": "cgroup/sock_create",
    "bpf_cgroup_dev_ctx": "cgroup/dev",
    "bpf_sysctl": "cgroup/sysctl",
    "bpf_sockopt": "cgroup/setsockopt",
    "sk_msg_md": "sk_msg",
    "sk_reuseport_md": "sk_reuseport",
}
# bcc's macros that make a program: what it is called then, and its kind.
_MACROS = {
    "TRACEPOINT_PROBE": ("tracepoint__{}__{}", "tracepoint/{}/{}"),
    "RAW_TRACEPOINT_PROBE": ("raw_tracepoint__{}", "raw_tp/{}"),
    "KFUNC_PROBE": ("kfunc__vmlinux__{}", "fentry/{}"),
    "KRETFUNC_PROBE": ("kretfunc__vmlinux__{}", "fexit/{}"),
    "LSM_PROBE": ("lsm__{}", "lsm/{}"),
}

# bcc's words for types of maps -> those of enum bpf_map_type; the macros have the same in capitals.
_MAPS = {
    **{"hash": 1, "array": 2, "prog": 3, "percpu_hash": 5, "percpu_array": 6, "lru_hash": 9},
    **{"lru_percpu_hash": 10, "lpm_trie": 11, "devmap": 14, "xskmap": 17, "queue": 22, "stack": 23},
    **{"sk_storage": 24, "inode_storage": 28, "task_storage": 29},
}

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"", re.DOTALL)
_FUNCTION = re.compile(
    r"^(?P<before>[\w \t]*?)\bint\s+(?P<name>\w+)\s*\(\s*(?:const\s+)?struct\s+(?P<given>\w+)\s*\*[^)]*\)"
    r"\s*\{",
    re.MULTILINE,
)
_TABLE = re.compile(r"^\s*BPF_(\w+?)(?:_PINNED|_PUBLIC|_SHARED)?\s*\(([^()]*)", re.MULTILINE)
_MACRO = re.compile(r"^\s*(\w+_PROBE)\s*\(\s*(\w+)\s*(?:,\s*(\w+))?[^)]*\)\s*\{", re.MULTILINE)


@dataclass(frozen=True)
class Text:
    """A C file for bcc, and its programs by name with the kind of each, as SEC() names it."""

    name: str
    text: str
    sections: Mapping[str, str]
    maps: Mapping[str, int] = field(default_factory=dict)  # by name: enum bpf_map_type

    @property
    def programs(self) -> Tuple[str, ...]:
        """The names of its programs, as they stand in the file."""
        return tuple(self.sections)


def read(name: str, text: str, sections: Mapping[str, str]) -> Text:
    """Find the programs of a C file; `sections` are what the user says of their kinds.

    Raises UsageError when the user speaks of a function that is none of them.
    """
    code = _COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    places: Dict[str, Tuple[int, str]] = {}
    for found in _FUNCTION.finditer(code):
        inner = {"static", "inline", "__always_inline"} & set(found["before"].split())
        if found["given"] in _CONTEXTS and not inner:
            places[found["name"]] = found.start(), _CONTEXTS[found["given"]]
    for found in _MACRO.finditer(code):
        if found[1] in _MACROS:
            called, kind = (word.format(found[2], found[3]) for word in _MACROS[found[1]])
            places[called] = found.start(), kind
    for named, section in sections.items():
        if not re.search(rf"\b{re.escape(named)}\b\s*\(", code) and named not in places:
            there = ", ".join(places) or "none"
            raise UsageError(f"{name} has no function {named!r}; its programs are: {there}.")
        places[named] = places.get(named, (len(code), ""))[0], section
    ordered = sorted(places, key=lambda each: places[each][0])
    return Text(name, text, {each: places[each][1] for each in ordered}, _maps(text))


def _maps(text: str) -> Dict[str, int]:
    """Return the maps that a text declares by bcc's macros, and their types."""
    found: Dict[str, int] = {}
    for kind, arguments in _TABLE.findall(text):
        words = [word.strip() for word in arguments.split(",")]
        if kind in ("TABLE", "F_TABLE") and len(words) > 3:
            found[words[3]] = _MAPS.get(words[0].strip('"'), 0)
        elif kind.lower() in _MAPS:
            found[words[0]] = _MAPS[kind.lower()]
    return found
