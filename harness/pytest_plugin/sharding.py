# SPDX-License-Identifier: GPL-2.0-only
"""Limits a run to a shard of its cases and to the guests that fit into memory. Pure."""

from __future__ import annotations

import re
from typing import Dict, Mapping, Set, Tuple

from harness.errors import SetupError, UsageError

# For a guest, its QEMU and its worker. 1024 MiB of it are the guest's memory, most of it shared.
GUEST_MIB = 1280


def shard(text: str) -> Tuple[int, int]:
    """Parse --shard: "2/3" is (2, 3). Raises UsageError."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    part, parts = (int(n) for n in match.groups()) if match else (0, 0)
    if not 1 <= part <= parts:
        raise UsageError(f"--shard {text}: write the part and the number of parts, such as 1/3.")
    return part, parts


def portion(sizes: Mapping[str, int], part: int, parts: int) -> Set[str]:
    """Return the groups of one of several machines, given the number of cases in each group.

    A group is never divided. Each machine gets consecutive groups, so that it boots few kernels,
    and about the same number of cases. All machines must be given the same groups.
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
    """Return the number of guests to run at once, and a sentence if it is less than `wanted`.

    Raises SetupError if there is no memory for one guest, UsageError if `wanted` is below 1.
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
