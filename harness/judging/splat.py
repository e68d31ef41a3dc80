# SPDX-License-Identifier: GPL-2.0-only
"""Finds splats (warnings, oopses, lockups and so on) in kernel logs and consoles. Pure."""

from __future__ import annotations

import re
from typing import Dict, NamedTuple, Optional, Sequence, Tuple

# Each row: the common name, and a regex of the line that the kernel prints. The first row that
# matches names the splat, so special rows stand before general ones.
SPLATS: Tuple[Tuple[str, str], ...] = (
    ("soft lockup", r"BUG: soft lockup"),
    ("soft lockup", r"Kernel panic - not syncing: softlockup"),
    ("hard lockup", r"hard LOCKUP"),
    ("RCU stall", r"rcu: INFO: .*detected (expedited )?stall"),
    ("RCU stall", r"rcu: .*self-detected stall"),
    ("RCU stall", r"rcu_\w+ kthread starved"),
    ("hung task", r"INFO: task .* blocked for more than"),
    ("scheduling while atomic", r"BUG: scheduling while atomic"),
    ("sleeping in atomic context", r"BUG: sleeping function called from invalid context"),
    ("KASAN", r"BUG: KASAN:"),
    ("KFENCE", r"BUG: KFENCE:"),
    ("UBSAN", r"UBSAN:"),
    ("KCSAN", r"BUG: KCSAN:"),
    ("KMSAN", r"BUG: KMSAN:"),
    ("lockdep", r"WARNING: (possible|inconsistent|bad|suspicious|circular)"),
    ("lockdep", r"WARNING: (held lock freed|lock held when returning|Nested lock was not taken)"),
    ("lockdep", r"WARNING: \S+-safe -> \S+-unsafe lock order"),
    ("lockdep", r"BUG: Invalid wait context"),
    ("lockdep", r"DEBUG_LOCKS_WARN_ON"),
    ("lockdep", r"INFO: trying to register non-static key"),
    ("preempt imbalance", r"BUG: workqueue leaked"),
    ("preempt imbalance", r"BUG: using \w+\(\) in preemptible"),
    ("preempt imbalance", r"huh, entered .* with preempt_count|preempt leak: \w+ -> \w+"),
    ("list corruption", r"list_(add|del) corruption"),
    ("refcount", r"refcount_t: "),
    ("WARN", r"WARNING: (CPU: \d+ PID: \d+ at|.* at )"),
    ("oops", r"Oops: |general protection fault|invalid opcode: 0000|unable to handle"),
    ("BUG", r"kernel BUG at |\bBUG: "),
    ("panic", r"Kernel panic - not syncing"),
)

_PATTERNS = [(name, re.compile(pattern)) for name, pattern in SPLATS]


class Splat(NamedTuple):
    """The name of a splat, its first line, and the index of that line in the log."""

    kind: str
    line: str
    position: int


def find(lines: Sequence[str]) -> Optional[Splat]:
    """Return the first splat in a kernel log or console, or None."""
    for index, line in enumerate(lines):
        for kind, pattern in _PATTERNS:
            if pattern.search(line):
                return Splat(kind, line.strip(), index)
    return None


# A CPU that panics in an NMI prints no registers. The interrupted function is the first frame after
# </NMI>. CONFIG_UNWINDER_GUESS puts a question mark before every frame.
_RIP = re.compile(r"RIP: 0010:([\w.]+)")
_BEFORE_NMI = re.compile(r"</NMI>(?:\s|\[ *\d+\.\d+\]|</?\w+>|\?)*([\w.]+)\+0x")
_NAMELESS = "code that its backtrace does not name"

_IDLE = re.compile(r"safe_halt|default_idle|mwait_idle|cpu_idle|acpi_idle|intel_idle")


def at_work(console: str) -> Optional[Dict[int, str]]:
    """Return the kernel function that each busy CPU was in, by CPU, from NMI backtraces.

    None if the console has no NMI backtraces.
    """
    blocks = re.split(r"NMI backtrace for cpu (\d+)", console)[1:]
    if not blocks:
        return None
    found = {}
    for cpu, block in zip(blocks[::2], blocks[1::2]):
        if "idling at" in block.partition("\n")[0]:
            continue
        match = _RIP.search(block) or _BEFORE_NMI.search(block)
        place = match.group(1) if match else _NAMELESS
        if not _IDLE.search(place):
            found[int(cpu)] = place
    return dict(sorted(found.items()))


# Bits of EFLAGS that are 0 on every CPU: 3, 5, 15, and from 22 on.
_NEVER_SET = 0xFFC08028
_EFLAGS = re.compile(r"EFLAGS: ([0-9a-f]{8})\b")


def is_emulators(console: str) -> bool:
    """Tell whether a console shows a bug of QEMU's emulation (TCG), not of the kernel.

    Two such bugs are known, both measured with QEMU 7.2:

    "Oops: int3". The kernel patches its own code, for example a static key, and puts an int3 there
    for a moment. An emulated CPU may still run its stale translation of the int3 after the kernel
    has finished. Seen once in some thousand switches of a scheduler's static key on 4 busy CPUs.
    Not seen with KVM, and impossible on a real CPU.

    Impossible flags. After a cmpxchg16b, which the slab allocator uses, an interrupt may save part
    of an address as EFLAGS. The kernel cannot return from it: most often a double fault. Its
    registers show flags that no CPU can have. Seen with a kernel built by gcc 12.
    """
    lines = console.splitlines()
    found = find(lines)
    if found is None:
        return False
    flags = _EFLAGS.search("\n".join(lines[found.position :]))
    impossible = flags is not None and bool(int(flags[1], 16) & _NEVER_SET)
    # Flags count only in an oops. A lockup may show such flags, too, but is the kernel's own.
    return "Oops: int3" in found.line or (found.kind == "oops" and impossible)
