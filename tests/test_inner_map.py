"""Maps put into a map of maps whose template has a lock."""

from packaging.version import Version

from harness.target import KernelRefusal

RULE = "Inner maps"
LOADERS = ("libbpf",)  # bcc cannot give the template of a map of maps BTF

MAPS = {"same_lock": "accepted", "lock_elsewhere": "EINVAL", "no_lock": "EINVAL"}


def test_inner_map_has_lock_of_template(guest):
    """Programs are verified against the template, so a map with another lock, or none, stays out."""
    try:
        guest.load("map_syscalls.bpf.c", [], "inner")
    except KernelRefusal as refusal:
        # commit b7ff97925b55 ("bpf: Allow locking bpf_spin_lock in inner map values") (in v6.2)
        old = guest.release < Version("6.2")
        guest.check(old and refusal.errno == "ENOTSUPP", "no template with a lock", refusal)
        return
    for name, errno in MAPS.items():
        try:
            guest.call("map_put_map", map="outer", key="00000000", inner=name)
            seen = "accepted"
        except KernelRefusal as refusal:
            seen = refusal.errno
        guest.check(seen == errno, f"{name} in the map of maps: {errno}", seen)
