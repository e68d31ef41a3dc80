# SPDX-License-Identifier: GPL-2.0-only
"""The paths of the lock, and which one CPUs took by what was seen of the lock word. Pure.

A kernel chooses at boot. Where it finds a hypervisor, a contended lock is test-and-set, because a queue
stands still while the host does not run its next vCPU. Elsewhere CPUs queue.
commit 2aa79af64263 ("locking/qspinlock: Revert to test-and-set on hypervisors") (in v4.2)
"""

from __future__ import annotations

from dataclasses import replace

from harness.judging.verdict import Kind, Verdict

TEST_AND_SET, QUEUED = "test-and-set", "queued"
PATHS = (TEST_AND_SET, QUEUED)

LEAST_HELD = 100  # looks that found the lock held: among so many a queue has shown itself


def named(held: int, queued: int) -> str:
    """Return the path that CPUs took; "" if they met too rarely to tell.

    `held` is the number of looks that found the lock word not 0, `queued` that of looks that found a
    pending bit or a tail.
    """
    if queued:
        return QUEUED
    return TEST_AND_SET if held >= LEAST_HELD else ""


def on_path(verdict: Verdict, asked: str, took: str) -> Verdict:
    """Return the verdict of a case that was asked for on a path of the lock ("": on any)."""
    if not asked or asked == took or verdict.kind not in (Kind.PASS, Kind.KNOWN):
        return verdict
    seen = f"CPUs took the lock by {took}" if took else "CPUs did not contend for it"
    reason = f"asked for the lock by {asked}, but {seen}: {verdict.reason}"
    return replace(verdict, kind=Kind.INCONCLUSIVE, reason=reason)


def words(path: str) -> str:
    """Return the words for a kernel's command line with which an emulated guest takes a path.

    159 is the bit of CPUID's flag "hypervisor" (X86_FEATURE_HYPERVISOR) in all kernels since v5.1. Its
    name is understood only since v5.18:
    commit 1625c833db93 ("x86/cpu: Allow feature bit names from /proc/cpuinfo in clearcpuid=") (in v5.18)
    """
    return "clearcpuid=159" if path == QUEUED else ""
