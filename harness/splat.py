"""What in a kernel log counts as a splat, and what does not. Pure."""

from __future__ import annotations

import re
from typing import Optional, Sequence, Tuple

# Each row: what people call it, and how the kernel announces it.
SPLATS: Tuple[Tuple[str, str], ...] = (
    ("panic", r"Kernel panic - not syncing"),
    ("BUG", r"kernel BUG at |BUG: unable to handle|BUG: kernel NULL pointer"),
    ("soft lockup", r"watchdog: BUG: soft lockup"),
    ("hard lockup", r"Watchdog detected hard LOCKUP|NMI watchdog: .*hard LOCKUP"),
    (
        "RCU stall",
        r"rcu: INFO: .*detected (expedited )?stall|rcu_\w+ (kthread|self-detected)|rcu: .*self-detected stall",
    ),
    ("hung task", r"INFO: task .* blocked for more than"),
    ("scheduling while atomic", r"BUG: scheduling while atomic"),
    ("sleeping in atomic context", r"BUG: sleeping function called from invalid context"),
    ("KASAN", r"BUG: KASAN:"),
    ("KFENCE", r"BUG: KFENCE:"),
    ("UBSAN", r"UBSAN:"),
    (
        "lockdep",
        r"WARNING: (possible|inconsistent|bad|suspicious|circular)|DEBUG_LOCKS_WARN_ON|INFO: trying to register non-static key",
    ),
    ("preempt imbalance", r"preempt_count .* (imbalance|leak)|BUG: workqueue leaked"),
    ("list corruption", r"list_(add|del) corruption"),
    ("refcount", r"refcount_t: "),
    ("oops", r"Oops: |general protection fault|invalid opcode: 0000"),
    ("WARN", r"WARNING: (CPU: \d+ PID: \d+ at|.* at )"),
    ("BUG", r"\bBUG: "),
)

# What looks like one and is none: the line, why it is harmless, and when the row can go.
HARMLESS: Tuple[Tuple[str, str], ...] = ()

_PATTERNS = [(name, re.compile(pattern)) for name, pattern in SPLATS]
_HARMLESS = [re.compile(pattern) for pattern, _ in HARMLESS]


def find(lines: Sequence[str]) -> Optional[Tuple[str, str]]:
    """Return (kind, line) of the first splat in a kernel log or console, or None."""
    for line in lines:
        for name, pattern in _PATTERNS:
            if pattern.search(line) and not any(p.search(line) for p in _HARMLESS):
                return name, line.strip()
    return None
