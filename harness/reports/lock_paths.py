# SPDX-License-Identifier: GPL-2.0-only
"""The table of lock paths x kernels: which path contending CPUs took, and with what verdicts. Pure."""

from __future__ import annotations

import collections
from typing import List, Sequence

from harness.judging.lock_path import PATHS
from harness.judging.verdict import Kind
from harness.results.matrix import Matrix, column
from harness.results.result import Result

LOCKS = ("bpf_spin_lock", "bpf_res_spin_lock")


def lock(result: Result) -> str:
    """Return the kind of lock that a result is about."""
    return LOCKS["res_spin_lock" in result.rule]


def markdown(pivot: Matrix) -> str:
    """Return the table in Markdown: a row per kind of lock and path, a column per kernel."""
    seen = [result for result in pivot.results if result.lock_path]
    if not seen:
        return "No result says by which path CPUs took the lock: run the contests first.\n"
    kernels = [name for name in pivot.columns if any(column(r) == name for r in seen)]
    lines = ["| lock | path | " + " | ".join(kernels) + " |", "|---" * (len(kernels) + 2) + "|"]
    for kind in LOCKS:
        for path in PATHS:
            rows = [r for r in seen if (lock(r), r.lock_path) == (kind, path)]
            if rows:
                cells = [_cell([r for r in rows if column(r) == name]) for name in kernels]
                lines.append(f"| `{kind}` | {path} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(results: Sequence[Result]) -> str:
    """Return the number of results per verdict, the worst first; a dash without any."""
    counts = collections.Counter(result.verdict for result in results)
    words: List[str] = [f"{counts[kind]} {kind.value}" for kind in Kind if counts[kind]]
    return ", ".join(words) or "–"
