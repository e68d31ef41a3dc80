# SPDX-License-Identifier: GPL-2.0-only
"""The cases that took longest, and what their seconds went into. Pure."""

from __future__ import annotations

from typing import List, Sequence

from harness.results import matrix
from harness.results.result import Result

# What results have seconds of, beside those of the case. Its own go into the parts after the colon.
_BEFORE = ("boot", "build")
_OF_IT = ("open", "load", "settle", "queued", "waited")
_LEAST = 0.05  # seconds of a part that is shown


def text(results: Sequence[Result], count: int) -> str:
    """Return a line for each of the `count` cases that took longest, the slowest first."""
    chosen = sorted(results, key=lambda result: -_seconds(result, "case"))[:count]
    rows = [
        (f"{_seconds(r, 'case'):.1f} s", r.name, r.loader, r.kernel or matrix.column(r), _parts(r))
        for r in chosen
    ]
    head = ("case", "name", "loader", "kernel", "of it; and before it")
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    lines: List[str] = []
    for row in (head, *rows):
        cells = [row[0].rjust(widths[0]), *(c.ljust(w) for c, w in zip(row[1:], widths[1:]))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _seconds(result: Result, part: str) -> float:
    return float(result.seconds.get(part, 0))


def _parts(result: Result) -> str:
    """Return the parts that took some time: those of the case, and then those before it."""
    of_it, before = (
        ", ".join(
            f"{part} {_seconds(result, part):.1f}"
            for part in parts
            if _seconds(result, part) >= _LEAST
        )
        for parts in (_OF_IT, _BEFORE)
    )
    return "; ".join(filter(None, (of_it, before)))
