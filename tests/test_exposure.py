"""Ways to a lock besides those of tests/test_map_copy.py: local storages, iterators, bpffs.

The programs are those of bpf_progs/exposure.bpf.c and copy_torn.bpf.c, the storages those of
bpf_progs/map_syscalls.bpf.c.
"""

import re
import struct

import pytest

from harness.judge import Kind, Verdict
from harness.scenario import KnownBug
from harness.target import KernelRefusal

RULE = "User space neither sees nor writes the lock"
LOADERS = ("libbpf",)  # bcc has no local storages, and no iterators over a map

LOCK = 4  # BPF_F_LOCK
FIRST = "00000000"
SECONDS = 10.0  # for a call; a lock word that was written would hang it for good
POISON = "ab" * 8  # struct counter, with lock bytes that are no lock's
HIDDEN = "00000000abababab"

# struct guarded of bpf_progs/copy_torn.bpf.c: before, lock, beside, fields
GUARDED = struct.Struct("<QIIQQQQQQQQQQQQQQ")
PORT = 23313  # of the socket
DUMPS = 200

# What owns a storage's elements -> (what kernels since a version have, that version)
STORAGES = {
    "socket": ("BPF_MAP_TYPE_SK_STORAGE", "5.2"),
    "file": ("BPF_MAP_TYPE_INODE_STORAGE", "5.10"),
    "process": ("BPF_MAP_TYPE_TASK_STORAGE", "5.11"),
    "cgroup": ("BPF_MAP_TYPE_CGRP_STORAGE", "6.2"),
    "attached": ("BPF_MAP_TYPE_CGROUP_STORAGE", "4.19"),
}


def is_off(guest, owner):
    """Tell whether files have no storage: the kernel's LSM for BPF is not among the active ones."""
    try:
        guest.call("map_update", map="plain_file", key=owner, value=POISON)
    except KernelRefusal as refusal:
        if refusal.errno != "EBADF":
            raise
        return True
    return False


@pytest.mark.parametrize("kind", STORAGES)
def test_storage_hides_lock(guest, kind):
    """commit 836e49e103df ("bpf: Do not copy spin lock field from user in bpf_selem_alloc") (in v6.1)"""
    guest.needs(*STORAGES[kind])
    name = f"locked_{kind}"
    programs = ["use_locked_storage"] if kind == "attached" else []
    guest.load("map_syscalls.bpf.c", programs, kind)
    owner = guest.call("owner", kind=kind, program="".join(programs))
    if kind == "file" and is_off(guest, owner):
        guest.conclude(Verdict(Kind.SKIP, "the storage of a file is off, without a lock as well"))
        return
    for flags in (0, LOCK):
        guest.call("map_update", limit=SECONDS, map=name, key=owner, value=POISON, flags=flags)
        for read in (0, LOCK):
            seen = guest.call(
                "map_lookup", limit=SECONDS, map=name, key=owner, flags=read, fill=255
            )
            guest.check(
                seen == HIDDEN,
                f"after an update with flags {flags:#x} and lock bytes, a lookup with {read:#x}"
                " shows zeros in their place",
                seen,
            )


def iterate(guest, program):
    """Run a program as an iterator; return None, or the kernel's refusal."""
    try:
        guest.load("exposure.bpf.c", [program, "iterator_reads_lock"])
        guest.call("map_iterate", map="shown", program=program)
    except KernelRefusal as refusal:
        return refusal
    return None


def test_iterator_leaves_lock_alone(guest):
    """An iterator over the elements may use what is beside the lock, and not the lock."""
    refusal = iterate(guest, "iterator_writes_value")
    guest.check(refusal is None, "an iterator may write beside the lock", refusal)
    # Any program of an iterator gets the whole value to read and write. Nothing mends it yet: the
    # commit is the one that made it so, "bpf: Implement bpf iterator for map elements" (in v5.9).
    bug = KnownBug("a5cbe05a6673", ">=5.9")
    refusal = iterate(guest, "iterator_writes_lock")
    if refusal is None:
        guest.call("map_iterate", map="shown", program="iterator_reads_lock")
        word = guest.call("map_lookup", map="seen", key=FIRST)
    else:
        word = FIRST
    guest.check(word == FIRST, "no iterator writes the lock", f"it wrote the lock: {word}", bug)


def test_bpffs_hides_lock(guest):
    """commit a26ca7c982cb ("bpf: btf: Add pretty print support to the basic arraymap") (in v4.18)"""
    guest.load("exposure.bpf.c", ["hold_the_lock"])
    if guest.cpus < 2:
        guest.conclude(Verdict(Kind.INCONCLUSIVE, "one CPU cannot read while another holds"))
        return
    texts = guest.call("map_text", map="shown", times=30, program="hold_the_lock", cpus=[1])
    words = {int(word) for text in texts for word in re.findall(r"^0: \{\{(\d+),\}", text, re.M)}
    # It prints the value as it lies in memory. Nothing mends it yet: the commit is the lock's own.
    bug = KnownBug("d83525ca62cf", ">=5.1")
    seen = f"the file of a pinned map shows the lock: {sorted(words)}"
    guest.check(bool(words), "the file of a pinned map shows its elements", texts[0])
    guest.check(words == {0}, "the file of a pinned map shows no lock", seen, bug)


def leaves_memory_as_it_was(guest):
    """Tell whether the kernel gives out memory with what it held before."""
    words = guest.facts["command_line"].split()
    if "init_on_alloc=0" in words or "init_on_alloc=1" in words:
        return "init_on_alloc=0" in words
    option = "CONFIG_INIT_ON_ALLOC_DEFAULT_ON"
    return guest.call("options", names=[option]).get(option) != "y"


def test_socket_dump_hides_lock(guest):
    """commit d83525ca62cf ("bpf: introduce bpf_spin_lock") (in v5.1)"""
    if guest.cpus < 2:
        guest.conclude(Verdict(Kind.INCONCLUSIVE, "one CPU cannot read while another holds"))
        return
    guest.load("copy_torn.bpf.c", ["stir_socket"], "socket")
    owner = guest.call("owner", kind="socket", port=PORT)
    value = GUARDED.pack(1, 0, 2, *[0] * 14).hex()
    guest.call("map_update", map="guarded_socket", key=owner, value=value)
    guest.call("map_update", map="mode", key=FIRST, value="01000000")  # programs write
    try:
        found = guest.call(
            "socket_dump",
            map="guarded_socket",
            port=PORT,
            times=DUMPS,
            program="stir_socket",
            cpus=list(range(1, min(guest.cpus, 3))),
            limit=SECONDS,
        )
    except KernelRefusal as refusal:
        if refusal.errno != "ENOENT":
            raise
        guest.conclude(
            Verdict(Kind.SKIP, "this kernel tells of no UDP sockets, with a lock or not")
        )
        return
    values = [GUARDED.unpack(bytes.fromhex(text)) for text in found]
    guest.check(len(values) == DUMPS, f"{DUMPS} dumps show the storage", len(values))
    # Until v7.1 the dump does not write the four bytes, which show whatever was there before: where
    # the kernel clears all memory that it gives out, that is nothing. The commit is the lock's own.
    leaks = leaves_memory_as_it_was(guest)
    words = sorted({value[1] for value in values})
    bug = KnownBug("d83525ca62cf", "<7.1") if leaks and words != [0] else None
    shown = [f"{word:#x}" for word in words[:4]]
    guest.check(words == [0], "a dump of sockets shows no lock", f"it shows {shown}", bug)
    torn = [value for value in values if len(set(value[3:])) > 1]
    guest.check(not torn, "fields written under the lock agree in every dump", torn[:1])
    if not guest.call("map_lookup", map="guarded_socket", key=owner)[32:48].strip("0"):
        guest.conclude(Verdict(Kind.INCONCLUSIVE, "no program wrote meanwhile"))
