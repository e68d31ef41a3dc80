# SPDX-License-Identifier: GPL-2.0-only
"""mmap() and BPF_MAP_FREEZE of maps with a lock, and of their twins without."""

import pytest
from packaging.version import Version

from harness.guest import calls
from harness.machines.session import KernelRefusal

RULE = "A map with a lock is neither mapped nor frozen"
LOADERS = ("libbpf",)  # these calls do not depend on who made the map

PAGE = 4096
KINDS = {
    # kind of map that not every kernel has -> what it needs
    "rhash": ("BPF_MAP_TYPE_RHASH", "7.2"),
    "socket": None,
    "file": ("bpf_lsm_file_open", "5.7", "CONFIG_BPF_LSM"),
    "process": ("BPF_MAP_TYPE_TASK_STORAGE", "5.11"),
    "cgroup": ("BPF_MAP_TYPE_CGRP_STORAGE", "6.2"),
    "attached": None,
}


def answer(guest, call):
    """Return the errno of a call, or "accepted"."""
    try:
        guest.call(call)
    except KernelRefusal as refusal:
        return refusal.errno
    return "accepted"


def test_map_with_lock_is_not_mapped(guest):
    guest.load("map_syscalls.bpf.c", [])
    for name, errno in (("plain_mappable", "accepted"), ("locked_mappable", "ENOTSUPP")):
        seen = answer(guest, calls.MapMmap(name, PAGE))
        guest.check(seen == errno, f"mmap() of {name}: {errno}", seen)


def check_freeze(guest, kind):
    """commit db559117828d ("bpf: Consolidate spin_lock, timer management into btf_record") (in v6.2)"""
    since = guest.release >= Version("6.2")
    for name, errno in (
        (f"plain_{kind}", "accepted"),
        (f"locked_{kind}", "ENOTSUPP" if since else "accepted"),
    ):
        seen = answer(guest, calls.MapFreeze(name))
        guest.check(seen == errno, f"BPF_MAP_FREEZE of {name}: {errno}", seen)


def test_map_with_lock_is_not_frozen(guest):
    guest.load("map_syscalls.bpf.c", [])
    for kind in ("array", "hash", "lazy"):
        check_freeze(guest, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_other_map_with_lock_is_not_frozen(guest, kind):
    if KINDS[kind]:
        guest.needs(*KINDS[kind])
    guest.load("map_syscalls.bpf.c", [], kind)
    check_freeze(guest, kind)
