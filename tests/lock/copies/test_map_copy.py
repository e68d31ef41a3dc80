"""Values with a lock, copied by user space: the lock is neither shown nor written.

The programs are those of bpf_progs/driven/map_copy.bpf.c. While "held", they take the lock on all CPUs but
one, over and over; how often it was held is seen by a program that peeks at the lock word.
"""

import struct

import pytest
from packaging.version import Version

from harness.judging.judge import Kind, Verdict
from harness.machines.session import KernelRefusal

RULE = "User space neither sees nor writes the lock"

KINDS = ("array", "table")
FIRST, ABSENT = "00000000", "09000000"  # keys; no array has the second

NOEXIST, EXIST, LOCK = 1, 2, 4  # flags of element access

# struct guarded: before, lock, beside, fields
GUARDED = struct.Struct("<QIIQQQQQQQQQQQQQQ")
HIDDEN = [8, 12]
EVEN = [16, GUARDED.size]
VISITS = struct.Struct("<QQQ")  # struct visits: runs, busy, intruders

POISON = 0xABABABAB
TIMES = 300  # of copying at least,
HELD = 10  # with so many peeks that found the lock held, if that can be had
PATIENCE = 5.0  # in so many seconds: the host may let one virtual CPU run at a time
SECONDS = 30.0  # for a call; a lock word that was written would hang it for good


def value(lock, field):
    """Return a whole value, in hexadecimal."""
    return GUARDED.pack(1, lock, 2, *[field] * 14).hex()


def put(guest, kind):
    guest.call("map_update", map=f"guarded_{kind}", key=FIRST, value=value(0, 0))


def copy(guest, kind, way, held, flags=0, times=TIMES, content="ff" * GUARDED.size, cpus=None):
    """Let user space copy, while the lock is held or while it is free; return what it saw."""
    return guest.call(
        "copy",
        limit=SECONDS,
        map=f"guarded_{kind}",
        way=way,
        times=times,
        held=HELD if held else 0,
        seconds=PATIENCE,
        values=[content],
        hidden=HIDDEN,
        even=EVEN,
        peek=f"peek_{kind}",
        flags=flags,
        program=f"write_{kind}" if held else "",
        cpus=list(range(1, guest.cpus)) if cpus is None else cpus,
    )


def peek(guest, kind):
    """Return the lock word."""
    return guest.call("test_run", program=f"peek_{kind}")["retval"] & 0xFFFFFFFF


def held_share(seen):
    """Return the share of the peeks that found the lock held."""
    return 1 - seen["peeked"].get("0x0", 0) / sum(seen["peeked"].values())


def called(way, flags):
    return f"{way} with BPF_F_LOCK" if flags & LOCK else way


def intruders(guest):
    """Return how often two CPUs were inside at once, and start counting anew."""
    data = bytes.fromhex(guest.call("map_lookup", map="runs", key=FIRST))
    guest.call("map_reset", map="runs")
    return sum(cpu[2] for cpu in VISITS.iter_unpack(data))


def takes_away(guest, kind):
    """Return the ways that remove what they read, as far as this kernel has them."""
    if kind == "array":
        return []
    # commit 3e87f192b405 ("bpf: Add lookup_and_delete_elem support to hashtab") (in v5.14)
    ways = ["lookup_and_delete"] if guest.release >= Version("5.14") else []
    return [*ways, "lookup_and_delete_batch"]


@pytest.mark.parametrize("kind", KINDS)
def test_lock_is_never_shown(guest, kind):
    guest.load("map_copy.bpf.c", [f"write_{kind}", f"peek_{kind}"])
    if guest.cpus < 2:
        guest.conclude(Verdict(Kind.INCONCLUSIVE, "one CPU cannot read while another holds"))
        return
    shares = {}
    for way in ["lookup", "lookup_batch", *takes_away(guest, kind)]:
        for flags in (0, LOCK):
            put(guest, kind)
            removes = "delete" in way
            free = copy(guest, kind, way, held=False, flags=flags, times=1 if removes else 10)
            guest.check(
                set(free["hidden"]) == {"00000000"},
                f"{called(way, flags)} of a free lock shows zeros in its place",
                free["hidden"],
            )
            put(guest, kind)
            held = copy(guest, kind, way, held=True, flags=flags)
            guest.check(
                set(held["hidden"]) == {"00000000"},
                f"{called(way, flags)} of a held lock shows zeros in its place",
                held["hidden"],
            )
            shares[called(way, flags)] = held_share(held)
    conclude_held(guest, shares)


def conclude_held(guest, shares):
    """End with a pass only if the lock was held while user space copied, each way."""
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
        "map_lookup", limit=SECONDS, map=f"guarded_{kind}", key=FIRST, flags=LOCK, fill=255
    )
    if field is not None:
        guest.check(seen == value(0, field), f"all but the lock is written by {after}", seen)


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
        content = value(POISON, field)
        copy(guest, kind, way, held=False, flags=flags, times=1, content=content)
        check_is_usable(guest, kind, called(way, flags), field)
    for program in stores:
        guest.check(guest.call("test_run", program=program)["retval"] == 0, f"{program} stores")
        check_is_usable(guest, kind, program)

    shares = {}
    for way, flags in ways:
        for lock in (POISON, 0):
            intruders(guest)
            seen = copy(guest, kind, way, held=True, flags=flags, content=value(lock, 7))
            what = f"{called(way, flags)} with lock bytes {lock:#x}"
            guest.check(
                f"{POISON:#x}" not in seen["peeked"],
                f"the lock word is not written by {what}, while held",
                seen["peeked"],
            )
            # Without the flag, a hash table gets a new element, which has a lock of its own.
            if kind == "array" or flags & LOCK:
                count = intruders(guest)
                guest.check(count == 0, f"the lock stays closed during {what}", f"{count} entered")
            check_is_usable(guest, kind, what)
            shares[what] = held_share(seen)
    conclude_held(guest, shares)
    if guest.cpus > 1:
        careless = {
            "driver": "test_run",
            "program": f"careless_{kind}",
            "source": 0,
            "cpus": list(range(guest.cpus)),
            "operations": 50_000,
        }
        guest.call("drive", orders=[careless], counter="runs")
    if not intruders(guest):
        reason = "no intruder was seen without the lock either"
        guest.conclude(Verdict(Kind.INCONCLUSIVE, reason))


@pytest.mark.parametrize("kind", KINDS)
def test_locked_lookup_is_never_torn(guest, kind):
    """What programs write under the lock is read whole with BPF_F_LOCK; without it, it is not."""
    guest.load("map_copy.bpf.c", [f"write_{kind}", f"peek_{kind}"])
    put(guest, kind)
    writers = list(range(1, min(guest.cpus, 3)))
    plain = copy(guest, kind, "lookup", held=bool(writers), times=2_000, cpus=writers)
    locked = copy(guest, kind, "lookup", held=bool(writers), flags=LOCK, times=2_000, cpus=writers)
    guest.check(
        locked["uneven"] == 0,
        "fields written under the lock agree in every lookup with BPF_F_LOCK",
        f"{locked['uneven']} of {locked['done']} torn, as {locked['witness']}",
    )
    seen = f"{plain['uneven']} of {plain['done']} lookups without BPF_F_LOCK were torn"
    kind_of_verdict = Kind.PASS if plain["uneven"] else Kind.INCONCLUSIVE
    reason = f"{seen}, {locked['uneven']} of {locked['done']} with it"
    guest.conclude(Verdict(kind_of_verdict, reason), plain=plain, locked=locked)


def answer(guest, function, **arguments):
    """Return the errno of a call by name, or "accepted"."""
    try:
        guest.call(function, limit=SECONDS, **arguments)
    except KernelRefusal as refusal:
        return refusal.errno
    return "accepted"


@pytest.mark.parametrize("kind", KINDS)
def test_lock_flag_is_checked(guest, kind):
    """BPF_F_LOCK is for maps with a lock, and changes nothing about the other flags."""
    guest.load("map_copy.bpf.c", [f"peek_{kind}"])
    guarded, plain = f"guarded_{kind}", f"plain_{kind}"
    one = {guarded: value(0, 1), plain: "01" + "00" * 7}
    for name in one:
        guest.call("map_update", map=name, key=FIRST, value=one[name])

    def expect(errno, function, name, key=FIRST, flags=LOCK, way=""):
        arguments = {"map": name, "flags": flags}
        if function == "map_read_batch":
            arguments["name"] = way
        elif function == "map_update_batch":
            arguments["elements"] = [[key, one[name]]]
        else:
            arguments["key"] = key
        if function == "map_update":
            arguments["value"] = one[name]
        seen = answer(guest, function, **arguments)
        where = f"{way or function[4:]} of {name}[{key}] with flags {flags:#x}"
        guest.check(seen == errno, f"{where}: {errno}", seen)

    for function, way in (
        ("map_lookup", ""),
        ("map_update", ""),
        ("map_read_batch", "lookup_batch"),
        ("map_update_batch", ""),
    ):
        expect("accepted", function, guarded, way=way)
        expect("EINVAL", function, plain, way=way)
        expect("EINVAL", function, guarded, flags=LOCK | 8, way=way)
    expect("EINVAL", "map_lookup", guarded, flags=NOEXIST)
    expect("EINVAL", "map_lookup", guarded, flags=LOCK | NOEXIST)
    expect("EINVAL", "map_update", guarded, flags=NOEXIST | EXIST)
    expect("EINVAL", "map_update", guarded, flags=LOCK | NOEXIST | EXIST)
    expect("EINVAL", "map_update", guarded, flags=8)
    expect("EEXIST", "map_update", guarded, flags=LOCK | NOEXIST)
    expect("accepted", "map_update", guarded, flags=LOCK | EXIST)
    expect("ENOENT", "map_lookup", guarded, key=ABSENT)
    if kind == "array":
        expect("E2BIG", "map_update", guarded, key=ABSENT)
        return
    expect("ENOENT", "map_update", guarded, key=ABSENT, flags=LOCK | EXIST)
    expect("accepted", "map_update", guarded, key=ABSENT)
    expect("accepted", "map_lookup", guarded, key=ABSENT)
    expect("EEXIST", "map_update", guarded, key=ABSENT, flags=LOCK | NOEXIST)
    for way in takes_away(guest, kind):
        function = "map_read_batch" if way.endswith("batch") else f"map_{way}"
        batch_way = way if way.endswith("batch") else ""
        expect("EINVAL", function, plain, way=batch_way)
        expect("accepted", function, guarded, way=batch_way)
        expect("ENOENT", "map_lookup", guarded)
        expect("accepted", "map_update", guarded, flags=LOCK | NOEXIST)
