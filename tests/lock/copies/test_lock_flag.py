# SPDX-License-Identifier: GPL-2.0-only
"""BPF_F_LOCK in every call that copies or deletes elements, on every kind of map with a lock.

The maps are those of bpf_progs/driven/map_syscalls.bpf.c: each kind with a lock, and its twin without.
"""

from dataclasses import dataclass
from typing import Optional, Tuple

import pytest
from packaging.version import Version

from harness.guest import calls
from harness.guest.calls import FIRST
from harness.guest.uapi import BPF_EXIST as EXIST, BPF_F_LOCK as LOCK, BPF_NOEXIST as NOEXIST
from harness.machines.session import KernelRefusal

RULE = "BPF_F_LOCK is for maps with a lock"
LOADERS = ("libbpf",)  # bcc has no local storages; test_map_copy.py asks through both

UNKNOWN = 8  # a flag that no kernel has for these map types
ACCEPTED = "accepted"
SECONDS = 10.0  # for a call

ONE = ("lookup", "update")
BATCH = ("lookup_batch", "update_batch")
TAKE = ("lookup_and_delete", "lookup_and_delete_batch", "delete_batch")


@dataclass(frozen=True)
class Maps:
    """A kind of map: its requirements and its calls."""

    calls: Tuple[str, ...] = ONE
    deletes: bool = True  # its elements can be deleted
    unit: str = ""  # of the C file
    needs: Optional[Tuple[str, ...]] = None
    owner: str = ""  # the owner of a local storage's elements


TABLE = (*ONE, *BATCH, *TAKE)
KINDS = {
    "array": Maps((*ONE, *BATCH), deletes=False),
    "hash": Maps(TABLE),
    "lazy": Maps(TABLE),
    "rhash": Maps(TABLE, unit="rhash", needs=("BPF_MAP_TYPE_RHASH", "7.2")),
    "socket": Maps(unit="socket", owner="socket"),
    "file": Maps(unit="file", owner="file", needs=("bpf_lsm_file_open", "5.7", "CONFIG_BPF_LSM")),
    "process": Maps(unit="process", owner="process", needs=("BPF_MAP_TYPE_TASK_STORAGE", "5.11")),
    "cgroup": Maps(unit="cgroup", owner="cgroup", needs=("BPF_MAP_TYPE_CGRP_STORAGE", "6.2")),
    "attached": Maps(unit="attached", owner="attached", deletes=False),
}


def answer(guest, call, name, key, flags, value):
    """Make a call; return the errno by name, or "accepted"."""
    try:
        guest.call(calls.element_call(call, name, (key, value), flags), limit=SECONDS)
    except KernelRefusal as refusal:
        return refusal.errno
    return ACCEPTED


class Asked:
    """One map with one element, to make calls on."""

    def __init__(self, guest, name, key):
        self.guest, self.name, self.key = guest, name, key
        self.value = "ab" * guest.map(name).value.size

    def put(self):
        return answer(self.guest, "update", self.name, self.key, 0, self.value)

    def expect(self, errno, call, flags):
        """Check the errno of a call on the element; add the element again afterwards."""
        seen = answer(self.guest, call, self.name, self.key, flags, self.value)
        self.guest.check(seen == errno, f"{call} of {self.name}, flags {flags:#x}: {errno}", seen)
        self.put()


def known_calls(guest, kind):
    """Return the calls that this kernel has for a kind of map."""
    calls = KINDS[kind].calls
    # commit 3e87f192b405 ("bpf: Add lookup_and_delete_elem support to hashtab") (in v5.14)
    if guest.release < Version("5.14"):
        return [call for call in calls if call != "lookup_and_delete"]
    return calls


@pytest.mark.parametrize("kind", KINDS)
def test_lock_flag_in_calls(guest, kind):
    maps = KINDS[kind]
    if maps.needs:
        guest.needs(*maps.needs)
    programs = {"locked": "use_locked_storage", "plain": "use_plain_storage"}
    attached = maps.owner == "attached"
    guest.load("map_syscalls.bpf.c", list(programs.values()) if attached else [], maps.unit)

    def ask(which):
        if not maps.owner:
            return Asked(guest, f"{which}_{kind}", FIRST)
        key = guest.call(calls.Owner(maps.owner, program=programs[which] if attached else ""))
        return Asked(guest, f"{which}_{kind}", key)

    locked, plain = ask("locked"), ask("plain")
    plain.put()
    locked.put()
    for call in known_calls(guest, kind):
        locked.expect(ACCEPTED, call, LOCK)
        locked.expect("EINVAL", call, LOCK | UNKNOWN)
        plain.expect(ACCEPTED, call, 0)
        plain.expect("EINVAL", call, LOCK)
        if call.startswith("lookup"):
            locked.expect("EINVAL", call, LOCK | NOEXIST)
    locked.expect("EINVAL", "update", LOCK | NOEXIST | EXIST)
    locked.expect("EINVAL" if attached else "EEXIST", "update", LOCK | NOEXIST)
    locked.expect(ACCEPTED, "update", LOCK | EXIST)
    for asked in (locked, plain):  # deleting copies nothing
        asked.expect("EINVAL", "delete", LOCK)
    if maps.deletes:
        guest.call(calls.MapDelete(locked.name, locked.key))
        locked.expect("ENOENT", "update", LOCK | EXIST)
        guest.call(calls.MapDelete(locked.name, locked.key))
        locked.expect(ACCEPTED, "update", LOCK)


@pytest.mark.parametrize("kind", ("array", "hash"))
def test_lock_flag_and_res_spin_lock(guest, kind):
    """BPF_F_LOCK is refused for a map with a bpf_res_spin_lock."""
    guest.needs("bpf_res_spin_lock", "6.15")
    guest.load("map_syscalls.bpf.c", [], "res_spin_lock")
    asked = Asked(guest, f"res_{kind}", FIRST)
    asked.put()
    for call in KINDS[kind].calls:
        asked.expect(ACCEPTED, call, 0)
        asked.expect("EINVAL", call, LOCK)
    seen = guest.call(calls.MapLookup(asked.name, FIRST, fill=255))
    guest.check(seen == FIRST + asked.value[8:], "a lookup shows zeros in place of the lock", seen)


def test_lock_flag_in_helpers(guest):
    """Helpers accept BPF_F_LOCK only for maps with a lock, like system calls."""
    kinds = [(kind, which) for kind in ("array", "hash", "lazy") for which in ("locked", "plain")]
    guest.load("map_syscalls.bpf.c", [f"update_{which}_{kind}" for kind, which in kinds])
    for kind, which in kinds:
        expected = 0 if which == "locked" else -22  # EINVAL
        seen = guest.call(calls.TestRun(f"update_{which}_{kind}"))["retval"]
        guest.check(seen == expected, f"an update of {which}_{kind} returns {expected}", seen)
    guest.load("map_syscalls.bpf.c", ["get_storage", "get_storage_with_flag"], "socket")
    for program, expected in (("get_storage_with_flag", 0), ("get_storage", 1)):
        seen = guest.call(calls.TestRun(program))["retval"]
        guest.check(seen == expected, f"{program} finds {expected} elements", seen)
