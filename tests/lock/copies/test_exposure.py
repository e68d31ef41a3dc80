# SPDX-License-Identifier: GPL-2.0-only
"""Ways to read or write a lock besides those of test_map_copy.py: local storages, iterators, bpffs.

The programs are those of bpf_progs/driven/exposure.bpf.c, the storages those of
bpf_progs/driven/map_syscalls.bpf.c.
"""

import re

import pytest

from harness.guest import calls
from harness.guest.uapi import BPF_F_LOCK as LOCK
from harness.judging.verdict import Kind, Verdict
from harness.machines.session import KernelRefusal
from harness.scenarios.scenario import KnownBug

RULE = "User space neither sees nor writes the lock"
LOADERS = ("libbpf",)  # bcc has no local storages, and no iterators over a map

SECONDS = 10.0  # for a call; a lock word that was written would hang it for good
HELD = 30  # least number of peeks, between readings of the file, that find the lock held
PATIENCE = 20.0  # seconds to wait for that: the host may not run the CPU that holds the lock
POISON = 0xABABABAB  # no lock's word

# Owner of a storage's elements -> (a name in the kernel's BTF, the first version with it, an option)
STORAGES = {
    "socket": ("BPF_MAP_TYPE_SK_STORAGE", "5.2"),
    "file": ("bpf_lsm_file_open", "5.7", "CONFIG_BPF_LSM"),
    "process": ("BPF_MAP_TYPE_TASK_STORAGE", "5.11"),
    "cgroup": ("BPF_MAP_TYPE_CGRP_STORAGE", "6.2"),
    "attached": ("BPF_MAP_TYPE_CGROUP_STORAGE", "4.19"),
}


@pytest.mark.parametrize("kind", STORAGES)
def test_storage_hides_lock(guest, kind):
    """commit 836e49e103df ("bpf: Do not copy spin lock field from user in bpf_selem_alloc") (in v6.1)"""
    guest.needs(*STORAGES[kind])
    name = f"locked_{kind}"
    programs = ["use_locked_storage"] if kind == "attached" else []
    guest.load("map_syscalls.bpf.c", programs, kind)
    owner = guest.call(calls.Owner(kind, program="".join(programs)))
    counter = guest.map(name).value
    value = counter.encode({"lock": {"val": POISON}, "value": POISON}).hex()
    hidden = counter.encode({"value": POISON}).hex()
    for flags in (0, LOCK):
        guest.call(calls.MapUpdate(name, owner, value, flags=flags), limit=SECONDS)
        for read in (0, LOCK):
            seen = guest.call(calls.MapLookup(name, owner, flags=read, fill=255), limit=SECONDS)
            guest.check(
                seen == hidden,
                f"after an update with flags {flags:#x} and lock bytes, a lookup with {read:#x}"
                " shows zeros in their place",
                seen,
            )


def iterate(guest, program):
    """Run a program as an iterator; return None, or the kernel's refusal."""
    try:
        guest.load("exposure.bpf.c", [program, "iterator_reads_lock"])
        guest.call(calls.MapIterate("shown", program))
    except KernelRefusal as refusal:
        return refusal
    return None


def test_iterator_leaves_lock_alone(guest):
    """A map iterator program may write the value beside the lock, but not the lock."""
    refusal = iterate(guest, "iterator_writes_value")
    guest.check(refusal is None, "an iterator may write beside the lock", refusal)
    # An iterator program may read and write the whole value. There is no fix yet. The commit is the one
    # that introduced the bug: "bpf: Implement bpf iterator for map elements" (in v5.9).
    bug = KnownBug("a5cbe05a6673", ">=5.9")
    refusal = iterate(guest, "iterator_writes_lock")
    if refusal is None:
        guest.call(calls.MapIterate("shown", "iterator_reads_lock"))
        word = guest.map("seen")[0]
    else:
        word = 0
    guest.check(word == 0, "no iterator writes the lock", f"it wrote the lock: {word:#x}", bug)


def test_bpffs_hides_lock(guest):
    """commit a26ca7c982cb ("bpf: btf: Add pretty print support to the basic arraymap") (in v4.18)"""
    guest.load("exposure.bpf.c", ["hold_the_lock", "peek_at_lock"])
    guest.needs_two_cpus("one CPU cannot read while another holds")
    seen = guest.call(
        calls.MapText(
            map="shown",
            program="hold_the_lock",
            cpus=[1],
            peek="peek_at_lock",
            held=HELD,
            seconds=PATIENCE,
        ),
        limit=2 * PATIENCE,
    )
    shown = "\n".join(seen["texts"])
    words = {int(word) for word in re.findall(r"^0: \{\{(\d+),\}", shown, re.M)}
    # The kernel prints the value's memory as it is. There is no fix yet: the commit is the lock's own.
    bug = KnownBug("d83525ca62cf", ">=5.1")
    lock = f"the file of a pinned map shows the lock: {sorted(words)}"
    guest.check(bool(words), "the file of a pinned map shows its elements", shown)
    guest.check(words == {0}, "the file of a pinned map shows no lock", lock, bug)
    if words == {0} and seen["held"] < HELD:
        reason = f"only {seen['held']} looks between the readings found the lock held"
        guest.conclude(Verdict(Kind.INCONCLUSIVE, reason))
