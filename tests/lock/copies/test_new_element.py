# SPDX-License-Identifier: GPL-2.0-only
"""The lock of a new element is free, whatever was written in its place or was in its memory before.

The programs of bpf_progs/driven/copy_new.bpf.c count lock words that are not zero. The maps have twins in
which the kernel sees no lock, so bytes written in its place stay.
"""

import pytest

from harness.guest import calls
from harness.guest.uapi import BPF_F_LOCK as LOCK, BPF_NOEXIST as NOEXIST
from harness.judging.verdict import Kind, Verdict

RULE = "A new element's lock is free"
LOADERS = ("libbpf",)  # bcc's update has no flags

POISON = 0xAB  # all bytes of a value
ELEMENTS = 256
FILLED = 4096
SECONDS = 60.0  # for a call; a lock that is not free would hang it for good
FLAGS = (0, NOEXIST, LOCK, NOEXIST | LOCK)  # of an update that adds an element

PORT = 23313  # of the listening socket
CONNECTIONS = 200
LEAST_HELD = 10  # of the looks at the listening socket's lock

KINDS = ("array", "hash", "lazy", "rhash")


def keys(map, count=ELEMENTS):
    return [map.key.encode(number).hex() for number in range(count)]


def filled(map, byte=POISON):
    """Return a value that consists of one repeated byte, not zero."""
    return bytes([byte]) * map.value.size


def counted(guest, program):
    """Return the number of elements, and of those whose lock word is not zero."""
    result = guest.call(calls.TestRun(program))["retval"]
    return result >> 16, result & 0xFFFF


class New:
    """Ways to add all elements of a map, with wrong bytes in place of the lock."""

    def __init__(self, guest, kind):
        self.guest, self.kind, self.map = guest, kind, guest.map(f"guarded_{kind}")
        self.keys, self.value = keys(self.map), filled(self.map).hex()

    def ways(self):
        """Return name of the way -> function that adds the elements."""
        ways = {
            "update_batch": lambda: self._batch(0),
            "update_batch with BPF_F_LOCK": lambda: self._batch(LOCK),
            "a program": lambda: self._run(f"make_{self.kind}"),
            "a program with BPF_F_LOCK": lambda: self._run(f"make_{self.kind}_locked"),
        }
        for flags in FLAGS:
            if self.kind != "array" or not flags & NOEXIST:
                ways[f"update with flags {flags:#x}"] = lambda flags=flags: self._each(flags)
        return ways

    def _each(self, flags):
        update = calls.MapUpdateEach(self.map.name, self.keys, self.value, flags=flags)
        self.guest.call(update, limit=SECONDS)

    def _batch(self, flags):
        elements = [(key, self.value) for key in self.keys]
        self.guest.call(calls.MapUpdateBatch(self.map.name, elements, flags=flags), limit=SECONDS)

    def _run(self, program):
        self.guest.call(calls.TestRun(program), limit=SECONDS)


def fill(guest):
    """Fill and free memory that new elements may reuse: none of its bytes is zero."""
    guest.load("copy_new.bpf.c", [], "filler")
    for name in ("filler_hash", "filler_lazy"):
        map = guest.map(name)
        update = calls.MapUpdateEach(name, keys(map, FILLED), filled(map, 0xFF).hex())
        guest.call(update, limit=SECONDS)


@pytest.mark.parametrize("kind", KINDS)
def test_lock_of_new_element_is_free(guest, kind):
    if kind == "rhash":
        guest.needs("BPF_MAP_TYPE_RHASH", "7.2")
    fill(guest)
    programs = [f"held_in_{kind}", f"shown_in_{kind}", f"make_{kind}", f"make_{kind}_locked"]
    guest.load("copy_new.bpf.c", programs, "rhash" if kind == "rhash" else "")
    image, twin = guest.map("image"), guest.map(f"twin_{kind}")
    image[0] = filled(image)
    guest.call(calls.MapUpdateEach(twin.name, keys(twin), filled(twin).hex()))
    found, shown = counted(guest, f"shown_in_{kind}")
    # Twice: the second time, new elements reuse the memory of the deleted ones.
    for again in ("", " again"):
        for way, make in New(guest, kind).ways().items():
            guest.call(calls.MapReset(f"guarded_{kind}"))
            make()
            there, held = counted(guest, f"held_in_{kind}")
            guest.check(
                (there, held) == (ELEMENTS, 0),
                f"{ELEMENTS} elements made by {way} in a {kind}{again} have a lock word of zero",
                f"{held} of {there} have another",
            )
            if held:
                continue  # taking such a lock would hang
            # With BPF_F_LOCK the kernel takes the lock, which must be free.
            for flags in (LOCK, 0):
                seen = guest.call(
                    calls.MapReadBatch(f"guarded_{kind}", "lookup_batch", flags=flags),
                    limit=SECONDS,
                )
                guest.check(len(seen) == ELEMENTS, "all elements can be read", len(seen))
    if shown != found or not found:
        reason = f"the program sees {shown} of {found} words that are no lock and not zero"
        guest.conclude(Verdict(Kind.INCONCLUSIVE, reason))


def test_lock_of_accepted_connection_is_free(guest):
    """An accepted connection's storage has a free lock, even if the listening socket's lock is held."""
    guest.needs_two_cpus("one CPU cannot accept while another holds")
    looks = ["word_in_accepted_socket", "word_in_accepted_twin", "word_in_listener"]
    guest.load("copy_new.bpf.c", [*looks, "hold_listener"], "listener")
    key = guest.call(calls.Owner("listener", port=PORT))
    for name in ("guarded_listener", "twin_listener"):
        map = guest.map(name)
        map[bytes.fromhex(key)] = filled(map)
    seen = guest.call(
        calls.Accept(
            times=CONNECTIONS,
            looks=looks,
            program="hold_listener",
            cpus=list(range(1, min(guest.cpus, 3))),
        ),
        limit=SECONDS,
    )
    accepted, twins, listeners = ([word & 0xFFFFFFFF for word in words] for words in zip(*seen))
    free = sum(word == 0 for word in accepted)
    guest.check(
        free == CONNECTIONS,
        f"the lock is free in the storages of {CONNECTIONS} accepted connections",
        f"{free} are, others have {sorted({hex(word) for word in accepted if word})[:3]}",
    )
    shown = sum(word == POISON * 0x01010101 for word in twins)
    held = sum(word != 0 for word in listeners)
    reason = f"{held} of {CONNECTIONS} looks found the listening socket's lock held"
    if shown < CONNECTIONS:
        reason = f"{shown} of {CONNECTIONS} words that are no lock were copied"
    weak = shown < CONNECTIONS or held < LEAST_HELD
    kind = Kind.INCONCLUSIVE if weak else Kind.PASS
    guest.conclude(Verdict(kind, reason), held=held, shown=shown)
