# SPDX-License-Identifier: GPL-2.0-only
"""In which order lanes run their chunks, one after the other; and which step a chunk is. Pure."""

from __future__ import annotations

import random
from typing import Callable, Dict, Iterator, List, Tuple

Chunk = Tuple[int, int, int]  # CPU, lane, and number in the lane
_Order = Callable[[int, int], Iterator[Chunk]]


def step_of(lane: int, chunk: int, steps: int) -> int:
    """Return the step of a lane's chunk: the same in all lanes at first, then shifted by the lane.

    Lanes have the same steps if the number of chunks is a multiple of that of steps.
    """
    return (chunk + lane * (chunk // steps)) % steps


def serial(name: str, lanes: int, chunks: int, steps: int) -> List[Chunk]:
    """Return all chunks in the order of a name of SERIAL.

    A name may be followed by the number of the step whose chunks come last: "in_turn 2".
    """
    word, _, last = name.partition(" ")
    order = [*SERIAL[word](lanes, chunks)]
    if not last:
        return order
    return sorted(order, key=lambda each: step_of(each[1], each[2], steps) == int(last))


def pauses(count: int, seconds: float) -> Dict[int, float]:
    """Return after which of so many chunks to wait, and how long: few long waits, and many short ones."""
    shares: Dict[int, float] = {}
    for part in (2, 8, 32) if seconds else ():  # each a third of the time
        for number in range(part):
            at = (2 * number + 1) * count // (2 * part)
            shares[at] = shares.get(at, 0.0) + seconds / 3 / part
    return shares


def _on_one(lanes: int, chunks: int) -> Iterator[Chunk]:
    return ((0, lane, number) for lane in range(lanes) for number in range(chunks))


def _from_last(lanes: int, chunks: int) -> Iterator[Chunk]:
    return ((lane, lane, number) for lane in reversed(range(lanes)) for number in range(chunks))


def _in_turn(lanes: int, chunks: int) -> Iterator[Chunk]:
    return ((lane, lane, number) for number in range(chunks) for lane in range(lanes))


def _shuffled(lanes: int, chunks: int) -> Iterator[Chunk]:
    left = [lane for lane in range(lanes) for _ in range(chunks)]
    random.Random(lanes * chunks).shuffle(left)
    at = [0] * lanes
    for lane in left:
        yield lane, lane, at[lane]
        at[lane] += 1


SERIAL: Dict[str, _Order] = {
    "in_turn": _in_turn,
    "on_one": _on_one,
    "from_last": _from_last,
    "shuffled": _shuffled,
}
