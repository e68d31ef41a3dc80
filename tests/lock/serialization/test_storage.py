# SPDX-License-Identifier: GPL-2.0-only
"""Concurrent updates under a lock that is not simply in a map: inner maps, variables, storage.

The programs are those of bpf_progs/driven/places.bpf.c. Storage that belongs to a kernel object is
contended where that object is met on all CPUs: one socket that all send from, one cgroup that all
are in, one file and one process that all make system calls about.
"""

from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

import pytest
from packaging.version import Version

from harness.guest import calls
from harness.guest.uapi import BPF_F_LOCK as LOCK
from harness.judging.serialization import SKIPS_64, UNLOCKED, Way
from harness.judging.verdict import Kind, Verdict
from harness.running.experiment import Drive, Plan, prove

RULE = "A lock serializes wherever it lives"
LOADERS = ("libbpf",)  # bcc has neither variables nor these maps

PORT = 23313  # of the socket whose storage is made
MADE = 5_000  # elements,
MADE_SECONDS = 2.0  # unless that takes longer
LEAST_LATE = 5  # times another CPU was making it,
MOST_TURNS = 10  # unless a busy host keeps the CPUs apart for so many times MADE_SECONDS

DATAGRAMS = 100


@dataclass(frozen=True)
class Place:
    """Where a lock lives, and what makes CPUs meet there."""

    unit: str  # of the C file
    driver: str = "test_run"
    operations: int = 12_000  # per CPU
    turns: int = 1000  # of the critical section
    map: str = ""  # if it is not called like the place
    value: str = ""  # the C type of its values, if it does not say so
    owner: str = ""  # of the storage: what user space names it by
    needs: Optional[Tuple[str, ...]] = None  # a name in the kernel's BTF, since when, which option
    since: str = ""  # which kernels let these programs lock there,
    why: str = ""  # and what did not do so before
    twins: Tuple[Way, ...] = (UNLOCKED, SKIPS_64)


INNER: Dict[str, Any] = {"since": "6.2", "why": "inner maps"}
GLOBAL: Dict[str, Any] = {
    "unit": "global",
    "value": "struct shared",
    "since": "6.2",
    "why": "variables",
}
PACKETS: Dict[str, Any] = {"driver": "socket", "operations": 6_000, "twins": (UNLOCKED,)}
CALLS: Dict[str, Any] = {"operations": 6_000, "twins": (UNLOCKED,)}
PLACES = {
    "rhash": Place("rhash", needs=("BPF_MAP_TYPE_RHASH", "7.2")),
    "inner_array": Place("inner_array", **INNER),
    "inner_table": Place("inner_table", **INNER),
    "data": Place(map=".data.shared", **GLOBAL),
    "bss": Place(map=".bss.shared", **GLOBAL),
    "socket": Place("socket", **PACKETS),
    "attached": Place("attached", **PACKETS),
    "file": Place(
        "file",
        "fcntl",
        owner="file",
        needs=("bpf_lsm_file_open", "5.7", "CONFIG_BPF_LSM"),
        since="5.11",
        why="LSM programs",
        **CALLS,
    ),
    "process": Place(
        "process",
        "signal",
        owner="process",
        # the program's place, which is older than the storage
        needs=("security_task_kill", "5.1", "CONFIG_SECURITY"),
        since="5.15",
        why="tracing programs",
        **CALLS,
    ),
    "cgroup": Place("cgroup", owner="ours", needs=("BPF_MAP_TYPE_CGRP_STORAGE", "6.2")),
}


@pytest.mark.parametrize("name", PLACES)
def test_storage(guest, name):
    place = PLACES[name]
    if place.needs:
        guest.needs(*place.needs)
    if place.since and guest.release < Version(place.since):
        reason = f"{place.why} may hold or take a lock since v{place.since} only"
        guest.conclude(Verdict(Kind.SKIP, reason))
        return
    program = f"count_{name}"
    guest.load("places.bpf.c", [program], place.unit)
    keys, fd = (), -1
    if place.driver == "socket":
        channel = guest.call(calls.Channel(program))
        keys, fd = (bytes.fromhex(channel[name]),), channel["fd"]
    elif place.owner:
        keys = (bytes.fromhex(guest.call(calls.Owner(place.owner))),)
        fd = guest.map(place.map or name).key.decode(keys[0])
    drive = Drive(
        place.driver, tuple(range(guest.cpus)), place.operations, program, source=0, fd=fd
    )
    plan = Plan((drive,), place.turns, map=place.map or name, keys=keys, value=place.value)
    verdict, numbers = prove(guest, plan, place.twins)
    guest.conclude(verdict, **numbers)


def test_storage_made_at_once_is_one(guest):
    """CPUs that make an element of a socket's storage at the same time all get the same one."""
    if guest.cpus < 2:
        guest.conclude(Verdict(Kind.INCONCLUSIVE, "one CPU cannot make what another makes"))
        return
    guest.load("places.bpf.c", ["make_first", "make_second"], "made")
    key = guest.call(calls.Owner("socket", port=PORT))
    guest.map("stays")[bytes.fromhex(key)] = 0
    programs = ["make_first", "make_second"]
    for _ in range(MOST_TURNS):
        guest.call(calls.Race(programs=programs, until={"judgements": MADE}, seconds=MADE_SECONDS))
        seen = guest.map("judgements").total()
        if seen.wrong or seen.late >= LEAST_LATE:
            break
    rounds, wrong, late = seen.rounds, seen.wrong, seen.late
    guest.check(
        wrong == 0,
        "both CPUs count in one element, whoever makes it",
        f"in {wrong} of {rounds} elements not both had counted",
    )
    seen = f"{rounds} elements were made; {late} times another CPU was just making one"
    kind = Kind.INCONCLUSIVE if late < LEAST_LATE else Kind.PASS
    guest.conclude(Verdict(kind, seen), rounds=rounds, wrong=wrong, late=late)


def test_storages_of_two_attach_types_are_two(guest):
    """Programs that see packets leave a cgroup and arrive there count in storages of their own."""
    guest.load("places.bpf.c", ["pass_out", "pass_in"], "passage")
    keys = guest.call(calls.Passage(["pass_out", "pass_in"], DATAGRAMS))
    passages = guest.map("passages")
    counts = [passages.lookup(bytes.fromhex(key), LOCK).value for key in keys]
    guest.check(
        counts == [DATAGRAMS, 1000 * DATAGRAMS],
        f"{DATAGRAMS} datagrams are counted where they leave, and by 1000 where they arrive",
        counts,
    )
