# SPDX-License-Identifier: GPL-2.0-only
"""What is on record: kernels that are known to answer some programs wrongly. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import FrozenSet, Optional, Tuple

from packaging.version import Version

from harness.fuzz import ir, oracle, rules
from harness.scenarios.versions import covers


@dataclass(frozen=True)
class Known:
    """A fault of a range of kernels, told by the oracle's reasons and by statements it needs."""

    name: str
    kernels: str
    mended: str  # the commit, "" if none is known
    reasons: FrozenSet[str]  # for which a program must be refused, but is not
    needs: FrozenSet[str] = frozenset()  # words of statements
    refuses: bool = False  # it refuses correct programs, too


_LOCKED = (
    rules.EXIT_LOCKED,
    rules.CALLBACK_LOCKED,
    rules.CALL_LOCKED,
    rules.SECOND_LOCK,
    rules.PACKET_LOCKED,
    rules.DIFFERENT_LOCK,
)

KNOWN: Tuple[Known, ...] = (
    Known(
        "a callback's value has no identity, so that its lock is not tracked",
        ">=5.13,<6.2",
        "d0d78c1df9b1",
        frozenset(_LOCKED),
        frozenset({"value"}),
        refuses=True,
    ),
    Known(
        "pruning takes one element for another",
        "<6.2",
        "7c884339bbff",
        frozenset({rules.DIFFERENT_LOCK}),
    ),
    Known(
        "the values of two callbacks are taken for one",
        ">=6.2,<7.3",
        "71919742c83c",
        frozenset({rules.DIFFERENT_LOCK}),
        frozenset({"value"}),
    ),
    Known(
        "a lock in an inner map is open to programs that may not lock",
        ">=6.2",
        "",
        frozenset({rules.INNER_TYPE}),
        frozenset({"inner"}),
    ),
)


def find(program: ir.Program, verdict: oracle.Verdict, release: Version) -> Optional[Known]:
    """Return the fault on record that a wrong answer shows, if there is one."""
    words = {statement.word for statement in ir.everything(program)}
    for each in KNOWN:
        shows = each.refuses if verdict.answer == oracle.ACCEPT else verdict.reason in each.reasons
        if shows and covers(each.kernels, release) and each.needs <= words:
            return each
    return None
