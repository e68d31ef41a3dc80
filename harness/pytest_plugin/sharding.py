# SPDX-License-Identifier: GPL-2.0-only
"""How much of a run this machine does, and how much of it at once. Pure."""

from __future__ import annotations

import re
from typing import Dict, Mapping, Set, Tuple

from harness.errors import SetupError, UsageError

# A guest's memory, QEMU beside it, and a worker: 1024 MiB are mapped, of which most is shared.
GUEST_MIB = 1280


def shard(text: str) -> Tuple[int, int]:
    """Return "2/3" as (2, 3). Raises UsageError."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    part, parts = (int(n) for n in match.groups()) if match else (0, 0)
    if not 1 <= part <= parts:
        raise UsageError(f"--shard {text}: write the part and the number of parts, such as 1/3.")
    return part, parts


def portion(sizes: Mapping[str, int], part: int, parts: int) -> Set[str]:
    """Return the groups that one of several machines takes, given the number of cases in each.

    A group is taken whole, by one machine. They are cut in their order, so that a machine boots few
    kernels, and such that each has about as many cases. All machines must be given the same groups.
    """
    total = sum(sizes.values())
    taken, before = set(), 0
    for name, size in sizes.items():
        middle = before + size / 2
        if part - 1 <= middle * parts / total < part:
            taken.add(name)
        before += size
    return taken


def bounded(wanted: int, available_mib: int, cpus: int) -> Tuple[int, str]:
    """Return how many guests this machine can run at once, and a sentence when that is less.

    Raises SetupError when there is no room for one; UsageError for a number that is none.
    """
    if wanted < 1:
        raise UsageError(f"-j {wanted}: there must be one guest at least.")
    room = available_mib // GUEST_MIB
    if room < 1:
        raise SetupError(
            f"{available_mib} MiB of memory are available and a guest needs {GUEST_MIB} MiB: end"
            " something, or run elsewhere."
        )
    limits: Dict[str, int] = {
        f"{available_mib} MiB of memory are available, {GUEST_MIB} MiB per guest": room,
        f"there {'is 1 CPU' if cpus == 1 else f'are {cpus} CPUs'} for them": cpus,
    }
    why, most = min(limits.items(), key=lambda limit: limit[1])
    return (wanted, "") if wanted <= most else (most, f"-j {most} instead of {wanted}: {why}.")
