# SPDX-License-Identifier: GPL-2.0-only
"""Copies with BPF_F_LOCK, of every kind of map, while programs on other CPUs use the same element.

The programs are those of bpf_progs/driven/copy_torn.bpf.c. First they write under the lock, and every
copy out must be whole. Then they inspect the element under the lock, and every copy in must be whole.
Twins without the lock must be torn: copies out without the flag, and a program that copies in bare.
"""

from dataclasses import dataclass
from typing import Optional, Tuple

import pytest
from packaging.version import Version

from harness.guest import calls
from harness.guest.calls import FIRST
from harness.guest.uapi import BPF_EXIST as EXIST, BPF_F_LOCK as LOCK
from harness.judging.verdict import Kind, Verdict

RULE = "A copy with BPF_F_LOCK is whole"
LOADERS = ("libbpf",)  # bcc has no local storages; test_map_copy.py asks through both

SECOND = "01000000"  # key of the element in use; batch calls reach another element first
WRITE, INSPECT = 1, 2  # modes of the programs

POISON = 0xABABABAB  # in place of the lock, in what is written
PORT = 23313  # of the socket
TIMES = 100  # least number of copies
LEAST = 0.3  # least seconds of copying: in less, the host may not run the other virtual CPUs
TAKES = 40  # least number of reads that remove the element; each waits for an RCU grace period
# These reads are slow, so their number is measured: without the flag, until TORN of them are torn. With
# the flag TIMES_OVER times as many are made. A missing lock is then overlooked 1 time in 64.
TORN = 3
TIMES_OVER = 3
PATIENCE = 10.0  # seconds to wait for a torn copy: the host may run one virtual CPU at a time
SECONDS = 60.0  # limit of a call: an overwritten lock word would hang it for good


@dataclass(frozen=True)
class Element:
    """A kind of map, and the ways to access its elements."""

    reads: Tuple[str, ...] = ("lookup",)
    writes: Tuple[str, ...] = ("update", "update of what exists")
    unit: str = ""  # of the C file
    needs: Optional[Tuple[str, ...]] = None
    locks_since: str = ""  # first version that lets this program type lock
    owned: bool = False  # a local storage: a kernel object owns the element
    runs: str = "test_run"  # the trigger of the programs
    images: str = "images"  # the map with the values that programs copy in


ARRAY = ("lookup", "lookup_batch")
TABLE = (*ARRAY, "lookup_and_delete", "lookup_and_delete_batch")
CALLS = ("update", "update of what exists", "update_batch", "update by a program")
KINDS = {
    "array": Element(ARRAY, CALLS),
    "page": Element(ARRAY, CALLS, images="page_images"),
    "hash": Element(TABLE, CALLS),
    "lazy": Element(TABLE, CALLS),
    "rhash": Element(TABLE, CALLS, unit="rhash", needs=("BPF_MAP_TYPE_RHASH", "7.2")),
    # commit b7ff97925b55 ("bpf: Allow locking bpf_spin_lock in inner map values") (in v6.2)
    "inner": Element(TABLE, CALLS, unit="inner"),
    "socket": Element(unit="socket", owned=True),
    "listener": Element(("lookup", "accept"), unit="listener", owned=True),
    "process": Element(
        unit="process",
        needs=("BPF_MAP_TYPE_TASK_STORAGE", "5.11"),
        owned=True,
        runs="system_call",
    ),
    "file": Element(
        unit="file",
        needs=("bpf_lsm_file_open", "5.7", "CONFIG_BPF_LSM"),
        locks_since="5.11",
        owned=True,
        runs="fcntl",
    ),
    "cgroup": Element(
        unit="cgroup",
        needs=("BPF_MAP_TYPE_CGRP_STORAGE", "6.2"),
        owned=True,
        runs="system_call",
    ),
    "attached": Element(unit="attached", owned=True, runs="datagram"),
}


class Stirred:
    """An element that is copied while programs on other CPUs use it in a loop."""

    def __init__(self, guest, kind):
        self.guest, self.kind, self.element = guest, kind, KINDS[kind]
        self.key = SECOND
        self.cpus = list(range(1, min(guest.cpus, 3)))

    @property
    def layout(self):
        """The type of the map's values."""
        return self.guest.map(f"guarded_{self.kind}").value

    def value(self, field):
        """Return a value whose fields consist of one repeated byte."""
        members = {"before": 1, "beside": 2, "lock": {"val": POISON}}
        for name in self.layout.members.keys() & {"between", "fields"}:
            begin, end = self.layout.span(name)
            members[name] = bytes([field]) * (end - begin)
        return self.layout.encode(members).hex()

    @property
    def values(self):
        """Return two values that differ in all fields."""
        return [self.value(0x11), self.value(0x22)]

    def make(self):
        """Load the programs and create the element, with equal fields."""
        guest, kind, element = self.guest, self.kind, self.element
        programs = [f"stir_{kind}"]
        if element.runs == "test_run":
            programs.append(f"smear_{kind}")
        if "update by a program" in element.writes:
            programs.append(f"put_{kind}")
        guest.load("copy_torn.bpf.c", programs, element.unit, element.locks_since)
        if kind == "inner":
            guest.call(calls.MapPutMap("outer", FIRST, "guarded_inner"))
        if element.runs in ("system_call", "fcntl"):
            guest.call(calls.Attach(programs[0]))
        if element.owned:
            program = programs[0] if kind == "attached" else ""
            joins = kind in ("cgroup", "attached")
            self.key = guest.call(calls.Owner(kind, program=program, port=PORT, join=joins))
        images = guest.map(element.images)
        for number, image in enumerate(self.values):
            images[number] = bytes.fromhex(image)
        self.put()

    def put(self):
        keys = [self.key] if self.element.owned else [FIRST, SECOND]
        update = calls.MapUpdateEach(f"guarded_{self.kind}", keys, self.values[0])
        self.guest.call(update, limit=SECONDS)

    def copy(self, way, mode, flags=LOCK, times=0, enough=0, least=LEAST):
        """Copy while programs write or inspect; return the counts of the copies and the programs."""
        values = self.values
        if way == "update of what exists":
            way, flags = "update", flags | EXIST
        other = {
            "update by a program": f"put_{self.kind}",
            "bare": f"smear_{self.kind}",
            "accept": "accept",
        }.get(way)
        self.guest.map("mode")[0] = mode
        self.guest.map("seen").reset()
        copy = calls.Copy(
            f"guarded_{self.kind}",
            calls.Access(
                way="other" if other else way,
                values=values if mode == INSPECT else ["ff" * (len(values[0]) // 2)],
                key=self.key,
                flags=flags,
                other=other or "",
            ),
            calls.Shape(self.layout.span("lock"), self.layout.span("fields")),
            calls.Until(times, PATIENCE, least=0 if enough else least, uneven=enough),
            calls.Busy(f"stir_{self.kind}", self.cpus, self.element.runs),
            calls.Renewed(
                values[0] if "delete" in way else "", "" if self.element.owned else FIRST
            ),
        )
        seen = self.guest.call(copy, limit=SECONDS)
        return {**seen, **dict(self.guest.map("seen").total())}


def known_reads(guest, element):
    """Return the ways to read that this kernel has."""
    # commit 3e87f192b405 ("bpf: Add lookup_and_delete_elem support to hashtab") (in v5.14)
    if guest.release < Version("5.14"):
        return [way for way in element.reads if way != "lookup_and_delete"]
    return element.reads


@pytest.mark.contends(both=("array", "hash"))
@pytest.mark.parametrize("kind", KINDS)
def test_copy_with_lock_flag_is_whole(guest, kind):
    """Copies with BPF_F_LOCK are never torn, while programs on other CPUs use the element."""
    element = KINDS[kind]
    if element.needs:
        guest.needs(*element.needs)
    if kind == "inner" and guest.release < Version("6.2"):
        guest.conclude(Verdict(Kind.SKIP, "no inner map has a lock before v6.2"))
        return
    guest.needs_two_cpus("one CPU cannot copy what another uses")
    stirred = Stirred(guest, kind)
    stirred.make()
    measured, blind = {}, []
    check_reads(guest, stirred, measured, blind)
    check_writes(guest, stirred, measured, blind)
    if blind:
        guest.conclude(Verdict(Kind.INCONCLUSIVE, f"of {kind}, {'; '.join(blind)}"), **measured)
        return
    counts = ", ".join(f"{way} {numbers[0]}" for way, numbers in measured.items())
    reason = f"none of these was torn with the flag, and without it some of each were: {counts}"
    guest.conclude(Verdict(Kind.PASS, reason), **measured)


def check_reads(guest, stirred, measured, blind):
    """Copy out while programs write; note the counts in `measured`, missing power in `blind`."""
    kind = stirred.kind
    for way in known_reads(guest, stirred.element):
        # accept() always copies under the lock. The preceding lookups without the flag show the power.
        if way != "accept":
            plain = stirred.copy(way, WRITE, flags=0, times=1, enough=TORN)
        times = max(TAKES, TIMES_OVER * plain["done"]) if "delete" in way else TIMES
        locked = stirred.copy(way, WRITE, times=times)
        measured[way] = (plain["done"], plain["uneven"], locked["done"], locked["runs"])
        if plain["uneven"] < TORN:
            blind.append(f"{plain['uneven']} of {plain['done']} {way} without the flag were torn")
        guest.check(
            locked["uneven"] == 0,
            f"fields written under the lock agree in every {way} of {kind} with BPF_F_LOCK",
            f"{locked['uneven']} of {locked['done']} torn, as {locked['witness']}",
        )
        shown = {*plain["hidden"], *locked["hidden"]}
        guest.check(
            shown == {"00000000"}, f"a {way} of {kind} shows zeros in place of the lock", shown
        )
        stirred.put()


def bare_copies(stirred):
    """Copy without the lock until a program saw a torn value, at most PATIENCE seconds.

    A copy tears only if the program reads in the middle of it. Return how many copies there were,
    how many reads found one torn, and all reads.
    """
    done = torn = runs = 0
    spent, least = 0.0, LEAST
    while not torn and spent < PATIENCE:
        seen = stirred.copy("bare", INSPECT, times=TIMES, least=least)
        done, torn, runs = done + seen["done"], torn + seen["torn"], runs + seen["runs"]
        spent, least = spent + least, min(2 * least, PATIENCE - spent - least)
    return done, torn, runs


def check_writes(guest, stirred, measured, blind):
    """Copy in while programs inspect; note the counts in `measured`, missing power in `blind`."""
    kind = stirred.kind
    bare = bare_copies(stirred)
    measured["bare"] = bare
    if not bare[1]:
        blind.append(f"in {PATIENCE:.0f} s, no program saw any of {bare[0]} bare copies torn")
    for way in stirred.element.writes:
        stirred.put()
        seen = stirred.copy(way, INSPECT, times=TIMES)
        measured[way] = (seen["done"], seen["torn"], seen["runs"])
        guest.check(
            seen["torn"] == 0,
            f"programs that hold the lock find every {way} of {kind} with BPF_F_LOCK whole",
            f"{seen['torn']} of {seen['runs']} found fields that differ, of {seen['done']} updates",
        )
        guest.check(
            seen["intruders"] == 0,
            f"the lock stays closed during {way} of {kind} with lock bytes {POISON:#x}",
            f"{seen['intruders']} of {seen['runs']} were joined by another CPU",
        )
        if not seen["runs"]:
            blind.append(f"no program ran during {way}")
