# SPDX-License-Identifier: GPL-2.0-only
"""Who waits for whom in the queues of a hung kernel's spinlocks, from its memory. Pure but for reads.

A CPU that queues uses a node of its own, one per level of nesting: a task's, a softirq's, an interrupt's, an
NMI's. Each node names its successor; the lock word names the last node, its tail.
commit a33fda35e3a7 ("locking/qspinlock: Introduce a simple generic 4-byte queued spinlock") (in v4.2)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

NODES = 4  # of a CPU, for each kind of lock
OFFSETS = "__per_cpu_offset"
# The per-CPU arrays of nodes: those of spinlocks, and since v6.15 those of res_spin_locks.
ARRAYS = {"qnodes": "spinlock", "rqnodes": "res_spin_lock"}
SYMBOLS = (OFFSETS, *ARRAYS)
SIZES = (32, 16)  # bytes of a node: with CONFIG_PARAVIRT_SPINLOCKS, and without

_TAIL_INDEX, _TAIL_CPU, _PENDING = 16, 18, 0x100  # of kernels for fewer than 16k CPUs

Place = Tuple[int, int]  # CPU, node
Read = Callable[[int, int], Sequence[int]]  # (address, words) -> words of 8 bytes; () if unreadable


@dataclass(frozen=True)
class Node:
    """A node in use."""

    next: Optional[Place]  # its successor


def nodes_in_use(
    symbols: Mapping[str, int], array: str, cpus: int, read: Read
) -> Dict[Place, Node]:
    """Return the nodes that CPUs wait with. {} if there is no such array, or it cannot be read."""
    offsets = symbols.get(OFFSETS)
    if offsets is None or array not in symbols:
        return {}
    starts = [(symbols[array] + offset) % (1 << 64) for offset in read(offsets, cpus)]
    content = [read(start, NODES * max(SIZES) // 8) for start in starts]
    for size in SIZES:
        found = _nodes(starts, content, size)
        if found is not None:
            return found
    return {}


def _nodes(
    starts: Sequence[int], content: Sequence[Sequence[int]], size: int
) -> Optional[Dict[Place, Node]]:
    """Return the nodes in use; None if one has a successor that is no node of this size."""
    places = {
        start + number * size: (cpu, number)
        for cpu, start in enumerate(starts)
        for number in range(NODES)
    }
    found = {}
    for cpu, words in enumerate(content):
        in_use = words[1] >> 32 if words else 0  # struct mcs_spinlock: next, locked, count
        for number in range(min(in_use, NODES)):
            after = words[number * size // 8]
            if after and after not in places:
                return None
            found[cpu, number] = Node(places.get(after))
    return found


def in_words(nodes: Mapping[Place, Node]) -> str:
    """Return who waits for whom, in words; "" if nobody queues."""
    before = {node.next: place for place, node in nodes.items() if node.next in nodes}
    parts = []
    for place in sorted(nodes):
        if place in before:
            parts.append(f"{_named(place)} waits behind {_named(before[place])}")
        else:
            parts.append(f"{_named(place)} is the first, and waits for the owner")
    circle = _circle(nodes, before)
    if circle:
        parts.append(f"so none of {', '.join(map(_named, circle))} goes on")
    return "; ".join(parts)


def _named(place: Place) -> str:
    return f"CPU {place[0]}'s node {place[1]}"


def _circle(nodes: Mapping[Place, Node], before: Mapping[Optional[Place], Place]) -> List[Place]:
    """Return the nodes that wait for each other; [] if there are none.

    A node waits for the one before it. What was interrupted waits for what interrupted it: the next
    node of the same CPU.
    """
    waits: Dict[Place, List[Place]] = {}
    for cpu, number in nodes:
        targets = [before[cpu, number]] if (cpu, number) in before else []
        targets += [(cpu, number + 1)] if (cpu, number + 1) in nodes else []
        waits[cpu, number] = targets

    def path_back(start: Place, at: Place, path: List[Place]) -> List[Place]:
        for target in waits[at]:
            if target == start:
                return path
            if target not in path:
                found = path_back(start, target, [*path, target])
                if found:
                    return found
        return []

    for start in sorted(nodes):
        found = path_back(start, start, [start])
        if found:
            return found
    return []


def tail(word: int) -> Optional[Place]:
    """Return the node that a lock word names as the last of its queue; None without a queue."""
    cpu = (word & 0xFFFFFFFF) >> _TAIL_CPU
    return (cpu - 1, word >> _TAIL_INDEX & 3) if cpu else None


def lock_words(dumps: Sequence[str], nodes: Mapping[Place, Node], read: Read) -> Dict[int, int]:
    """Return address -> word of the locks that registers point to and that have one of the queues.

    `dumps` are the registers of all CPUs. A word counts as a lock's if it names a node in use that
    has no successor.
    """
    found = {}
    for text in re.findall(r"=([0-9a-f]{16})\b", "\n".join(dumps)):
        address = int(text, 16)
        if address >> 47 != 0x1FFFF or address in found or address % 4:
            continue
        words = read(address, 1)
        last = tail(words[0]) if words else None
        if last is not None and last in nodes and nodes[last].next is None:
            found[address] = words[0] & 0xFFFFFFFF
    return found


def word_in_words(address: int, word: int) -> str:
    """Return a lock word in words."""
    last = tail(word)
    held = "held" if word & 0xFF else "not held"
    pending = ", one pending" if word & _PENDING else ""
    queue = f", its tail is {_named(last)}" if last else ""
    return f"the lock at {address:#x} ({word:#x}) is {held}{pending}{queue}"


def words_of(text: str) -> List[int]:
    """Return the words in the output of QEMU's `x /Nxg`; [] if the memory cannot be read."""
    return [int(word, 16) for word in re.findall(r"\s0x([0-9a-f]{16})\b", text)]
