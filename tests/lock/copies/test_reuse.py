# SPDX-License-Identifier: GPL-2.0-only
"""A hash table's element that is deleted and added again while others write to it.

One CPU does that to the programs of bpf_progs/driven/reuse.bpf.c; on all others, programs write values of
their own to whatever they find, and look whether the words of what is there then agree.
"""

import pytest

from harness.guest import calls
from harness.judging.verdict import Kind, Verdict
from harness.scenarios.scenario import KnownBug
from harness.scenarios.versions import covers

RULE = "A new element is written under its lock"
LOADERS = ("libbpf",)  # bcc's update has no flags

# Where a value is to be torn, one was in each of 20 runs per kernel and kind: within two seconds
# and 42,000 elements added again, mostly within 5,000. Where not, so many are tried as well:
ENOUGH = 60_000
LEAST = 10_000  # on a busy host, and on 5.10, which is slow to give memory back
SECONDS = {True: 20.0, False: 5.0}  # by whether one is to be torn

TORN = {
    "prepared": KnownBug("07738bc566c3", "<7.0.10"),
    # Before the kernel's own allocator for elements, memory was not used again at once.
    # commit fba1a1c6c912 ("bpf: Convert hash map to bpf_mem_alloc.") (in v6.1)
    "allocated": KnownBug("07738bc566c3", ">=6.1,<7.0.10"),
}


@pytest.mark.parametrize("kind", (*TORN, "rhash"))
def test_new_element_is_whole(guest, kind):
    if kind == "rhash":
        guest.needs("BPF_MAP_TYPE_RHASH", "7.2")
    if guest.cpus < 2:
        guest.conclude(Verdict(Kind.INCONCLUSIVE, "one CPU cannot delete what another writes to"))
        return
    add, rewrite = f"add_again_{kind}", f"rewrite_{kind}"
    guest.load("reuse.bpf.c", [add, rewrite], "rhash" if kind == "rhash" else "")
    images = guest.map("images")
    begin, end = images.value.span("words")
    for cpu in range(guest.cpus):
        images[cpu] = {"head": cpu + 1, "words": [cpu + 1] * ((end - begin) // 8)}
    guest.map(kind)[0] = {}

    known_bug = TORN.get(kind)
    known = known_bug is not None and covers(known_bug.kernels, guest.release)
    seconds = guest.call(
        calls.Race(
            programs=[add, *[rewrite] * (guest.cpus - 1)],
            until={"torn": 1} if known else {"torn": 1, "added": ENOUGH},
            seconds=SECONDS[known],
        )
    )
    torn, added = guest.map("torn").total(), guest.map("added").total()
    seen = f"{torn} torn values; {added} elements were added again in {seconds} seconds"
    guest.check(torn == 0, "all words of an element agree under its lock", seen, known_bug)
    weak = known or added < LEAST
    guest.conclude(
        Verdict(Kind.INCONCLUSIVE if weak and not torn else Kind.PASS, seen),
        torn=torn,
        added=added,
        seconds=seconds,
    )
