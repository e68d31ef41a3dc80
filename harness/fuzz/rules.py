# SPDX-License-Identifier: GPL-2.0-only
"""What the oracle knows of kernels: the reasons of a refusal, and what differs by version. Pure.

A reason cites its rule of docs/rules.md, whose cases are bpf_progs/rules/.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Mapping

from packaging.version import Version

from harness.scenarios.versions import covers

# Why a program must be refused -> the rule of the rule book.
EXIT_LOCKED = "exit_locked"
NOT_LOCKED = "not_locked"
DIFFERENT_LOCK = "different_lock"
SECOND_LOCK = "second_lock"
CALL_LOCKED = "call_locked"
PACKET_LOCKED = "packet_locked"
LOCK_ACCESSED = "lock_accessed"
LOCK_PASSED = "lock_passed"
NO_LOCK_THERE = "no_lock_there"
VARIABLE_LOCK = "variable_lock"
PROGRAM_TYPE = "program_type"
INNER_TYPE = "inner_type"
CALLBACK_LOCKED = "callback_locked"
NULL = "null"
OUTSIDE = "outside"

BOOK: Mapping[str, str] = {
    EXIT_LOCKED: "Unlock before return, on every path",
    NOT_LOCKED: "No unlock without a lock",
    DIFFERENT_LOCK: "Unlock the lock that was taken",
    SECOND_LOCK: "One lock at a time",
    CALL_LOCKED: "No calls while holding the lock",
    PACKET_LOCKED: "No LD_ABS or LD_IND while holding the lock",
    LOCK_ACCESSED: "The lock field is opaque to loads and stores",
    LOCK_PASSED: "The lock field is opaque to helpers",
    NO_LOCK_THERE: "The lock lives in a map value, not on the stack, in ctx or in a packet",
    VARIABLE_LOCK: "The pointer to the lock has a known, constant offset",
    PROGRAM_TYPE: "Tracing programs and socket filters may not lock",
    INNER_TYPE: "Tracing programs and socket filters may not lock",
    CALLBACK_LOCKED: "Unlock before return, on every path",
}
# Not the lock's rules, but the verifier refuses such programs as well.
OTHERS: Mapping[str, str] = {
    NULL: "a pointer is used that may be NULL",
    OUTSIDE: "an access is outside of the value",
}


@dataclass(frozen=True)
class Clause:
    """What the verifier does on a range of kernels."""

    kernels: str
    rule: str  # of the rule book; "" if that has none


CLAUSES: Mapping[str, Clause] = {
    # commit a44b1334aadd ("bpf: Allow calling static subprogs while holding a bpf_spin_lock")
    "static_calls": Clause(">=6.9", "Unlock before return, on every path"),
    # commit b7ff97925b55 ("bpf: Allow locking bpf_spin_lock in inner map values")
    "inner_maps": Clause(">=6.2", "Inner maps"),
    # commit d0d78c1df9b1 ("bpf: Allow locking bpf_spin_lock global variables"): two addresses of one
    # element are the same lock.
    "same_address": Clause(">=6.2", "Global variables"),
    # commit d2102f2f5d75 ("bpf: verifier: Support eliding map lookup nullness"): an element of an
    # array, looked up by a constant, is not NULL.
    "array_is_there": Clause(">=6.14", ""),
    # commit 2afae08c9dcb ("bpf: Validate global subprogs lazily"): those that nothing calls are not.
    "lazy_globals": Clause(">=6.8", ""),
    # commit ab5cfac139ab ("bpf: verify callbacks as if they are called unknown number of times")
    "many_rounds": Clause(">=6.7", ""),
    # commit 69c087ba6225 ("bpf: Add bpf_for_each_map_elem() helper")
    "for_each": Clause(">=5.13", "No calls while holding the lock"),
    # The verifier counts this type as tracing; before, it lacked the helper (program_tracing.bpf.c).
    "writable_traces": Clause(">=6.0", "Tracing programs and socket filters may not lock"),
    # commit e6f2dd0f8067 ("bpf: Add bpf_loop helper")
    "bpf_loop": Clause(">=5.17", "No calls while holding the lock"),
}

# Program types that may not lock since the first kernel.
REFUSED_TYPES = (
    "socket_filter",
    "kprobe",
    "tracepoint",
    "perf_event",
    "raw_tracepoint",
    "raw_tracepoint_writable",
)


@dataclass(frozen=True)
class Kernel:
    """The clauses that hold on one kernel."""

    static_calls: bool
    inner_maps: bool
    same_address: bool
    array_is_there: bool
    lazy_globals: bool
    many_rounds: bool
    for_each: bool
    bpf_loop: bool
    writable_traces: bool


@lru_cache(maxsize=None)
def of(release: Version) -> Kernel:
    """Return what holds on a kernel of this version."""
    return Kernel(**{name: covers(clause.kernels, release) for name, clause in CLAUSES.items()})


def rule(reason: str) -> str:
    """Return the words for a reason: the rule's title, or what else it is."""
    return BOOK.get(reason) or OTHERS[reason]
