# SPDX-License-Identifier: GPL-2.0-only
"""What in a kernel log or on a console counts as a splat. Pure."""

from __future__ import annotations

import re
from typing import Dict, NamedTuple, Optional, Sequence, Tuple

# Each row: what people call it, and how the kernel announces it. The first row that fits names the
# splat, so the particular stands before the general.
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
    """What a splat is called, the line that announces it, and which line of the log that is."""

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


# The CPU that an NMI makes panic prints no registers; after the NMI's own frames comes where it was.
# A kernel with CONFIG_UNWINDER_GUESS puts a question mark before every frame.
_RIP = re.compile(r"RIP: 0010:([\w.]+)")
_BEFORE_NMI = re.compile(r"</NMI>(?:\s|\[ *\d+\.\d+\]|</?\w+>|\?)*([\w.]+)\+0x")
_NAMELESS = "code that its backtrace does not name"

_IDLE = re.compile(r"safe_halt|default_idle|mwait_idle|cpu_idle|acpi_idle|intel_idle")


def at_work(console: str) -> Optional[Dict[int, str]]:
    """Return where in the kernel each CPU was that was not idle, from backtraces made by NMI.

    None: the console shows no such backtraces.
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
    """Tell whether a console shows what QEMU's emulation does to a healthy kernel.

    A kernel that patches its own code (a static key, say) puts an int3 there for a moment. An
    emulated CPU may still run its translation of that moment when the kernel has already finished
    and knows of no int3 any more: "Oops: int3". Measured with QEMU 7.2: one in some thousand
    switches of a scheduler's static key on 4 busy CPUs; not seen with KVM, not possible on a CPU.

    And after a cmpxchg16b, of which the kernel's allocator is fond, an interrupt may find part of an
    address among the flags, and the kernel cannot return from it: most often a double fault, whose
    registers show flags that no CPU can have. Measured with QEMU 7.2 on a kernel that gcc 12 made.
    """
    lines = console.splitlines()
    found = find(lines)
    if found is None:
        return False
    flags = _EFLAGS.search("\n".join(lines[found.position :]))
    impossible = flags is not None and bool(int(flags[1], 16) & _NEVER_SET)
    # Only of an oops: a lockup may show such flags as well, which did no harm, and is the kernel's.
    return "Oops: int3" in found.line or (found.kind == "oops" and impossible)
