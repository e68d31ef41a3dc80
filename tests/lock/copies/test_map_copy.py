# SPDX-License-Identifier: GPL-2.0-only
"""Copies of values with a lock by user space, which neither show nor write the lock.

The programs are those of bpf_progs/driven/map_copy.bpf.c. For a "held" lock they take it in a loop on all
CPUs but one. Another program peeks at the lock word, to count how often it was held.
"""

from dataclasses import replace

import pytest
from packaging.version import Version

from harness.guest import calls
from harness.guest.calls import FIRST
from harness.guest.uapi import BPF_EXIST as EXIST, BPF_F_LOCK as LOCK, BPF_NOEXIST as NOEXIST
from harness.judging.verdict import Kind, Verdict
from harness.machines.session import KernelRefusal

RULE = "User space neither sees nor writes the lock"

KINDS = ("array", "table")
ABSENT = "09000000"  # a key that no array has

POISON = 0xABABABAB
TIMES = 300  # least number of copies
HELD = 10  # wanted number of peeks that find the lock held
PATIENCE = 5.0  # seconds to wait for them: the host may run one virtual CPU at a time
SECONDS = 30.0  # limit of a call: an overwritten lock word would hang it for good


def value(guest, kind, lock, field):
    """Return a value in hexadecimal, with equal fields."""
    layout = guest.map(f"guarded_{kind}").value
    begin, end = layout.span("fields")
    fields = [field] * ((end - begin) // 8)
    members = {"before": 1, "lock": {"val": lock}, "beside": 2, "fields": fields}
    return layout.encode(members).hex()


def put(guest, kind):
    guest.call(calls.MapUpdate(f"guarded_{kind}", FIRST, value(guest, kind, 0, 0)))


def access(way, flags=0, content=""):
    return calls.Access(way, [content] if content else [], flags=flags)


def others(guest):
    """Return all CPUs but the first: those that hold the lock."""
    return range(1, guest.cpus)


def copy(guest, kind, access, held_on=(), times=TIMES):
    """Copy from user space while programs on some CPUs (or none) take the lock; return the counts."""
    layout = guest.map(f"guarded_{kind}").value
    if not access.values:  # they fill the buffers of reads
        access = replace(access, values=["ff" * layout.size])
    copy = calls.Copy(
        f"guarded_{kind}",
        access,
        calls.Shape(layout.span("lock"), layout.span("fields")),
        calls.Until(times, PATIENCE, held=HELD if held_on else 0),
        calls.Busy(f"write_{kind}", held_on) if held_on else calls.Busy(),
        peek=f"peek_{kind}",
    )
    return guest.call(copy, limit=SECONDS)


def peek(guest, kind):
    """Return the lock word."""
    return guest.call(calls.TestRun(f"peek_{kind}"))["retval"] & 0xFFFFFFFF


def held_share(seen):
    """Return the share of the peeks that found the lock held."""
    return 1 - seen["peeked"].get("0x0", 0) / sum(seen["peeked"].values())


def called(way, flags):
    return f"{way} with BPF_F_LOCK" if flags & LOCK else way


def intruders(guest):
    """Return how often two CPUs were inside at once, and reset the count."""
    runs = guest.map("runs")
    seen = runs.total()
    runs.reset()
    return seen.intruders


def takes_away(guest, kind):
    """Return this kernel's ways to read and delete an element."""
    if kind == "array":
        return []
    # commit 3e87f192b405 ("bpf: Add lookup_and_delete_elem support to hashtab") (in v5.14)
    ways = ["lookup_and_delete"] if guest.release >= Version("5.14") else []
    return [*ways, "lookup_and_delete_batch"]


@pytest.mark.parametrize("kind", KINDS)
def test_lock_is_never_shown(guest, kind):
    guest.load("map_copy.bpf.c", [f"write_{kind}", f"peek_{kind}"])
    guest.needs_two_cpus("one CPU cannot read while another holds")
    shares = {}
    for way in ["lookup", "lookup_batch", *takes_away(guest, kind)]:
        for flags in (0, LOCK):
            put(guest, kind)
            removes = "delete" in way
            free = copy(guest, kind, access(way, flags), times=1 if removes else 10)
            guest.check(
                set(free["hidden"]) == {"00000000"},
                f"{called(way, flags)} of a free lock shows zeros in its place",
                free["hidden"],
            )
            put(guest, kind)
            held = copy(guest, kind, access(way, flags), others(guest))
            guest.check(
                set(held["hidden"]) == {"00000000"},
                f"{called(way, flags)} of a held lock shows zeros in its place",
                held["hidden"],
            )
            shares[called(way, flags)] = held_share(held)
    conclude_held(guest, shares)


def conclude_held(guest, shares):
    """Pass only if the lock was seen held during each way of copying."""
    never = [way for way, share in shares.items() if not share]
    if never:
        reason = f"the lock was never seen held during {', '.join(never)}"
        guest.conclude(Verdict(Kind.INCONCLUSIVE, reason))
    else:
        least = min(shares.values())
        reason = f"{len(shares)} ways of access; {100 * least:.0f} % of peeks or more saw it held"
        guest.conclude(Verdict(Kind.PASS, reason), held=shares)


def check_is_usable(guest, kind, after, field=None):
    """Check that the lock is free and can be taken, and that the field has arrived."""
    guest.check(peek(guest, kind) == 0, f"the lock is free after {after}")
    seen = guest.call(
        calls.MapLookup(f"guarded_{kind}", FIRST, flags=LOCK, fill=255), limit=SECONDS
    )
    if field is not None:
        guest.check(
            seen == value(guest, kind, 0, field), f"all but the lock is written by {after}", seen
        )


@pytest.mark.parametrize("kind", KINDS)
def test_lock_is_never_written(guest, kind):
    stores = [f"store_{kind}"]
    if guest.loader == "libbpf":  # bcc's update has no flags
        stores.append(f"store_{kind}_locked")
    programs = [f"{verb}_{kind}" for verb in ("write", "careless", "peek")]
    guest.load("map_copy.bpf.c", [*programs, *stores])
    put(guest, kind)

    ways = [(way, flags) for way in ("update", "update_batch") for flags in (0, LOCK)]
    for field, (way, flags) in enumerate(ways, start=1):
        content = value(guest, kind, POISON, field)
        copy(guest, kind, access(way, flags, content), times=1)
        check_is_usable(guest, kind, called(way, flags), field)
    for program in stores:
        guest.check(guest.call(calls.TestRun(program))["retval"] == 0, f"{program} stores")
        check_is_usable(guest, kind, program)

    shares = {}
    for way, flags in ways:
        for lock in (POISON, 0):
            intruders(guest)
            content = value(guest, kind, lock, 7)
            seen = copy(guest, kind, access(way, flags, content), others(guest))
            what = f"{called(way, flags)} with lock bytes {lock:#x}"
            guest.check(
                f"{POISON:#x}" not in seen["peeked"],
                f"the lock word is not written by {what}, while held",
                seen["peeked"],
            )
            # Without the flag, an update of a hash table adds a new element with a lock of its own.
            if kind == "array" or flags & LOCK:
                count = intruders(guest)
                guest.check(count == 0, f"the lock stays closed during {what}", f"{count} entered")
            check_is_usable(guest, kind, what)
            shares[what] = held_share(seen)
    conclude_held(guest, shares)
    if guest.cpus > 1:
        careless = calls.Order("test_run", f"careless_{kind}", 0, range(guest.cpus), 50_000)
        guest.call(calls.Drive([careless], "runs"))
    if not intruders(guest):
        reason = "no intruder was seen without the lock either"
        guest.conclude(Verdict(Kind.INCONCLUSIVE, reason))


@pytest.mark.contends
@pytest.mark.parametrize("kind", KINDS)
def test_locked_lookup_is_never_torn(guest, kind):
    """Lookups with BPF_F_LOCK are never torn while programs write; lookups without it are."""
    guest.load("map_copy.bpf.c", [f"write_{kind}", f"peek_{kind}"])
    put(guest, kind)
    writers = range(1, min(guest.cpus, 3))
    plain = copy(guest, kind, access("lookup"), writers, times=2_000)
    locked = copy(guest, kind, access("lookup", LOCK), writers, times=2_000)
    guest.check(
        locked["uneven"] == 0,
        "fields written under the lock agree in every lookup with BPF_F_LOCK",
        f"{locked['uneven']} of {locked['done']} torn, as {locked['witness']}",
    )
    seen = f"{plain['uneven']} of {plain['done']} lookups without BPF_F_LOCK were torn"
    kind_of_verdict = Kind.PASS if plain["uneven"] else Kind.INCONCLUSIVE
    reason = f"{seen}, {locked['uneven']} of {locked['done']} with it"
    guest.conclude(Verdict(kind_of_verdict, reason), plain=plain, locked=locked)


def answer(guest, call):
    """Return the errno of a call, or "accepted"."""
    try:
        guest.call(call, limit=SECONDS)
    except KernelRefusal as refusal:
        return refusal.errno
    return "accepted"


@pytest.mark.parametrize("kind", KINDS)
def test_lock_flag_is_checked(guest, kind):
    """BPF_F_LOCK is accepted for maps with a lock only; other flags keep their meaning."""
    guest.load("map_copy.bpf.c", [f"peek_{kind}"])
    guarded, plain = f"guarded_{kind}", f"plain_{kind}"
    one = {guarded: value(guest, kind, 0, 1), plain: guest.map(plain).value.encode(1).hex()}
    for name in one:
        guest.call(calls.MapUpdate(name, FIRST, one[name]))

    def expect(errno, way, name, key=FIRST, flags=LOCK):
        seen = answer(guest, calls.element_call(way, name, (key, one[name]), flags))
        where = f"{way} of {name}[{key}] with flags {flags:#x}"
        guest.check(seen == errno, f"{where}: {errno}", seen)

    for way in ("lookup", "update", "lookup_batch", "update_batch"):
        expect("accepted", way, guarded)
        expect("EINVAL", way, plain)
        expect("EINVAL", way, guarded, flags=LOCK | 8)
    expect("EINVAL", "lookup", guarded, flags=NOEXIST)
    expect("EINVAL", "lookup", guarded, flags=LOCK | NOEXIST)
    expect("EINVAL", "update", guarded, flags=NOEXIST | EXIST)
    expect("EINVAL", "update", guarded, flags=LOCK | NOEXIST | EXIST)
    expect("EINVAL", "update", guarded, flags=8)
    expect("EEXIST", "update", guarded, flags=LOCK | NOEXIST)
    expect("accepted", "update", guarded, flags=LOCK | EXIST)
    expect("ENOENT", "lookup", guarded, key=ABSENT)
    if kind == "array":
        expect("E2BIG", "update", guarded, key=ABSENT)
        return
    expect("ENOENT", "update", guarded, key=ABSENT, flags=LOCK | EXIST)
    expect("accepted", "update", guarded, key=ABSENT)
    expect("accepted", "lookup", guarded, key=ABSENT)
    expect("EEXIST", "update", guarded, key=ABSENT, flags=LOCK | NOEXIST)
    for way in takes_away(guest, kind):
        expect("EINVAL", way, plain)
        expect("accepted", way, guarded)
        expect("ENOENT", "lookup", guarded)
        expect("accepted", "update", guarded, flags=LOCK | NOEXIST)
