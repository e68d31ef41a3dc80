# SPDX-License-Identifier: GPL-2.0-only
"""Concurrent updates under a lock in inner maps, global variables and local storages.

The programs are those of bpf_progs/driven/places.bpf.c. All CPUs use one kernel object, and so contend for
the lock in its storage: they send from one socket, are in one cgroup, or make system calls on one file or
one process.
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

PORT = 23313  # of the socket that owns the storage
MADE = 5_000  # wanted elements per turn
MADE_SECONDS = 2.0  # the time limit of a turn
LEAST_LATE = 5  # wanted collisions, in which both CPUs were creating the element
MOST_TURNS = 10  # the most turns: a busy host may keep the CPUs apart

DATAGRAMS = 100


@dataclass(frozen=True)
class Place:
    """A place of a lock, and the driver that makes CPUs contend there."""

    unit: str  # of the C file
    driver: str = "test_run"
    operations: int = 12_000  # per CPU
    turns: int = 1000  # of the critical section
    map: str = ""  # the map's name, if it differs from the place's
    value: str = ""  # the C type of the map's values, if its definition has none
    owner: str = ""  # the kind of the storage's owner (calls.Owner)
    needs: Optional[Tuple[str, ...]] = None  # a name in the kernel's BTF, first version, option
    since: str = ""  # first version that lets these programs lock there
    why: str = ""  # the feature of that version
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
        # the program's hook, which is older than the storage
        needs=("security_task_kill", "5.1", "CONFIG_SECURITY"),
        since="5.15",
        why="tracing programs",
        **CALLS,
    ),
    "cgroup": Place("cgroup", owner="ours", needs=("BPF_MAP_TYPE_CGRP_STORAGE", "6.2")),
}


@pytest.mark.contends(both=("inner_array",))
@pytest.mark.parametrize("name", PLACES)
def test_storage(guest, name):
    guest.needs_two_cpus("one CPU never meets another")
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
    verdict, numbers = prove(guest, plan, place.twins, guest.lock_path)
    guest.conclude(verdict, **numbers)


def test_storage_made_at_once_is_one(guest):
    """CPUs that create a socket's storage element at the same time get the same one."""
    guest.needs_two_cpus("one CPU cannot make what another makes")
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
    """Ingress and egress programs of a cgroup have separate storages."""
    guest.load("places.bpf.c", ["pass_out", "pass_in"], "passage")
    keys = guest.call(calls.Passage(["pass_out", "pass_in"], DATAGRAMS))
    passages = guest.map("passages")
    counts = [passages.lookup(bytes.fromhex(key), LOCK).value for key in keys]
    guest.check(
        counts == [DATAGRAMS, 1000 * DATAGRAMS],
        f"{DATAGRAMS} datagrams are counted where they leave, and by 1000 where they arrive",
        counts,
    )
