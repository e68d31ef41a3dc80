# SPDX-License-Identifier: GPL-2.0-only
"""The addresses of kernel symbols."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, Sequence

KALLSYMS = "/proc/kallsyms"


def addresses(names: Sequence[str]) -> Dict[str, int]:
    """Return the addresses of kernel symbols, by name; those of per-CPU variables are offsets.

    Without CONFIG_KALLSYMS_ALL there are no variables among them. To read all takes seconds where the
    machine is emulated.
    """
    try:
        text = Path(KALLSYMS).read_bytes()
    except OSError:
        return {}
    wanted = b"|".join(re.escape(name.encode()) for name in names)
    found = re.findall(rb"^([0-9a-f]+) \w (" + wanted + rb")$", text, re.MULTILINE)
    return {name.decode(): int(address, 16) for address, name in found}
