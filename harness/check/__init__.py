# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock check`: a program of the user's own, loaded on real kernels and explained.

`check()` is what the command calls, and a function for others; docs/check.md shows it. `examine` asks
the kernel; `lockset` and `refusal` read the object and the answers; `answer` holds what came of it,
and `report` and its like show it.
May import: `machines`, `provision`, `judging.splat`, `scenarios`, `guest.calls`, `guest.uapi`,
`progress`, `paths`, `errors`.
"""

from harness.check.answer import Answer, Group
from harness.check.checking import Options, check, check_loader
from harness.check.own_loader import Loader, open_loader

__all__ = ["Answer", "Group", "Loader", "Options", "check", "check_loader", "open_loader"]
