# SPDX-License-Identifier: GPL-2.0-only
"""Maps put into a map of maps whose template has a lock."""

from packaging.version import Version

from harness.guest import calls
from harness.judging.verdict import Kind, Verdict
from harness.machines.session import KernelRefusal

RULE = "Inner maps"
LOADERS = ("libbpf",)  # bcc cannot give the template of a map of maps BTF

MAPS = {
    "same_lock": "accepted",
    "lock_elsewhere": "EINVAL",
    "no_lock": "EINVAL",
    "shorter_value": "EINVAL",
    "longer_value": "EINVAL",
}
POINTERS = {
    "same_pointer": "accepted",
    "pointer_elsewhere": "EINVAL",
    "pointer_to_other_type": "EINVAL",
    "no_pointer": "EINVAL",
}


def check_put(guest, unit, outer, maps):
    """Put the maps of a unit into its map of maps; check the errno of each."""
    try:
        guest.load("map_syscalls.bpf.c", [], unit)
    except KernelRefusal as refusal:
        # commit b7ff97925b55 ("bpf: Allow locking bpf_spin_lock in inner map values") (in v6.2)
        old = guest.release < Version("6.2")
        guest.check(old and refusal.errno == "ENOTSUPP", "no template with a lock", refusal)
        return
    for name, errno in maps.items():
        try:
            guest.call(calls.MapPutMap(outer, calls.FIRST, name))
            seen = "accepted"
        except KernelRefusal as refusal:
            seen = refusal.errno
        guest.check(seen == errno, f"{name} in the map of maps: {errno}", seen)


def test_inner_map_has_lock_of_template(guest):
    """A map of maps refuses an inner map whose lock differs from the template's."""
    check_put(guest, "inner", "outer", MAPS)


def test_inner_map_has_lock_and_pointer_of_template(guest):
    """A map of maps refuses an inner map with the template's lock but another kptr."""
    if guest.release < Version("6.2"):  # inner maps may not hold a lock; some kernels lack kptrs
        reason = "inner maps may hold a lock since v6.2 only"
        guest.conclude(Verdict(Kind.SKIP, reason))
        return
    check_put(guest, "inner_pointer", "outer_of_pointers", POINTERS)
