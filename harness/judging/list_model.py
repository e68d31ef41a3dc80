# SPDX-License-Identifier: GPL-2.0-only
"""What all CPUs put into a list or a tree and took out of it -> anomalies by name. Pure.

Each operation has a ticket, so the order in which they happened is known: a model goes through them
in that order, and whatever came out of the real thing must be what comes out of the model. The
values are those of bpf_progs/driven/places_objects.bpf.c.
"""

from __future__ import annotations

import heapq
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from harness.judging.history import Anomaly

_FACTOR = 0x9E3779B1  # of key_of()


class Transfer(NamedTuple):
    """One operation: what it put in, or what it took out; both 0 if it found nothing."""

    ticket: int
    put: int
    taken: int
    process: str

    def __str__(self) -> str:
        did = f"put in {self.put}" if self.put else f"took out {self.taken or 'nothing'}"
        return f"ticket {self.ticket}: {self.process} {did}"


Rank = Callable[[Transfer], int]


def least_first(put: Transfer) -> int:
    """Rank what is in a tree."""
    return put.put * _FACTOR & 0xFFFFFFFF


def first_in_first_out(put: Transfer) -> int:
    """Rank what is in a list that is pushed to at one end and popped from the other."""
    return put.ticket


def check(transfers: Iterable[Transfer], left: Sequence[int], rank: Rank) -> List[Anomaly]:
    """Return what contradicts that the operations happened one after the other, by their tickets.

    `left` is what was taken out when they had ended, until there was nothing; of what is in, that
    with the lowest rank comes out first.
    """
    in_order = sorted(transfers)
    end = in_order[-1].ticket + 1 if in_order else 0
    in_order += [Transfer(end + n, 0, taken, "the end") for n, taken in enumerate(left)]
    waiting: List[Tuple[int, int]] = []  # a heap of (rank, id); those not inside any more as well
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
    """Return (name, sentence) of what is wrong with taking this out, with what was `expected`."""
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
