# SPDX-License-Identifier: GPL-2.0-only
"""Checks the pushes and pops of all CPUs on a BPF list or rbtree; names the anomalies. Pure.

Each operation took a ticket under the lock, so their order is known. A model replays them in that
order. Each pop of the real list or tree must return the object that the model returns. The values
are those of bpf_progs/driven/places_objects.bpf.c.
"""

from __future__ import annotations

import heapq
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from harness.judging.history import Anomaly

_FACTOR = 0x9E3779B1  # of key_of()


class Transfer(NamedTuple):
    """One operation: the id of the object put in or taken out. Both are 0 if it found nothing."""

    ticket: int
    put: int
    taken: int
    process: str

    def __str__(self) -> str:
        did = f"put in {self.put}" if self.put else f"took out {self.taken or 'nothing'}"
        return f"ticket {self.ticket}: {self.process} {did}"


Rank = Callable[[Transfer], int]


def least_first(put: Transfer) -> int:
    """Rank an object in an rbtree by its key, as key_of() computes it."""
    return put.put * _FACTOR & 0xFFFFFFFF


def first_in_first_out(put: Transfer) -> int:
    """Rank an object in a list that is pushed at one end and popped at the other."""
    return put.ticket


def check(transfers: Iterable[Transfer], left: Sequence[int], rank: Rank) -> List[Anomaly]:
    """Return the contradictions between the transfers and a model; [] if there are none.

    The transfers are replayed in the order of their tickets. `left` holds the objects that were
    popped at the end, until the container was empty. The object with the lowest `rank` comes out
    first.
    """
    in_order = sorted(transfers)
    end = in_order[-1].ticket + 1 if in_order else 0
    in_order += [Transfer(end + n, 0, taken, "the end") for n, taken in enumerate(left)]
    waiting: List[Tuple[int, int]] = []  # a heap of (rank, id), including objects already taken
    inside: Dict[int, Transfer] = {}
    gone: Dict[int, Transfer] = {}
    found: Dict[str, List[str]] = {}

    def note(name: str, sentence: str) -> None:
        found.setdefault(name, []).append(sentence)

    for transfer in in_order:
        if transfer.put:
            if transfer.put in inside or transfer.put in gone:
                note("object put in twice", f"{transfer}, which was put in before")
            inside[transfer.put] = transfer
            heapq.heappush(waiting, (rank(transfer), transfer.put))
            continue
        while waiting and waiting[0][1] not in inside:
            heapq.heappop(waiting)
        wrong = _contradiction(transfer, waiting[0][1] if waiting else 0, inside, gone)
        if wrong is not None:
            note(*wrong)
        if transfer.taken:
            inside.pop(transfer.taken, None)
            gone[transfer.taken] = transfer
    for lost in inside.values():
        note("lost object", f"{lost}, and it never came out")
    return [
        Anomaly(name, len(sentences), sentences[0] + _more(len(sentences)))
        for name, sentences in found.items()
    ]


def _contradiction(
    transfer: Transfer, expected: int, inside: Dict[int, Transfer], gone: Dict[int, Transfer]
) -> Optional[Tuple[str, str]]:
    """Return the anomaly (name, sentence) of a pop that should return `expected`; None if right."""
    taken = transfer.taken
    if taken in gone:
        return "object taken out twice", f"{transfer}, which was out since {gone[taken]}"
    if taken and taken not in inside:
        return "foreign object", f"{transfer}, which nobody had put in by then"
    if taken != expected:
        name = "wrong order" if taken else "lost object"
        return name, f"{transfer} instead of {expected}, since {inside[expected]}"
    return None


def _more(count: int) -> str:
    return f", and {count - 1} more" if count > 1 else ""
