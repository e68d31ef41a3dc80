# SPDX-License-Identifier: GPL-2.0-only
"""Observes which path of the lock a guest's CPUs take when they contend."""

from __future__ import annotations

import weakref

from harness.guest import calls
from harness.judging import lock_path
from harness.machines.session import Session
from harness.machines.target import Target
from harness.running import experiment
from harness.scenarios.scenario import SourceFile

FILE, PROGRAM = "lock_path.bpf.c", "take_and_look"

_OPERATIONS, _SECONDS = 100_000, 0.2  # per CPU; the time limit of a round
_MOST_ROUNDS = 10  # on a busy host CPUs may run one after the other for a while
_LIMIT = 60.0

# A kernel chooses once, when it boots, and all guests of a target are booted alike.
_seen: "weakref.WeakKeyDictionary[Target, str]" = weakref.WeakKeyDictionary()


def observe(target: Target, session: Session, file: SourceFile, cpus: int) -> str:
    """Return the path that CPUs took in this target's guests: see lock_path.named().

    What was loaded in the session is unloaded. Raises CompileError, KernelRefusal, AgentError, GuestLost.
    """
    if target not in _seen:
        _seen[target] = _observed(target, session, file, cpus) if cpus > 1 else ""
    return _seen[target]


def _observed(target: Target, session: Session, file: SourceFile, cpus: int) -> str:
    loaded = experiment.load(session, file, [PROGRAM], "libbpf", target.headers())
    order = calls.Order("test_run", PROGRAM, 0, range(cpus), _OPERATIONS, _SECONDS)
    for _ in range(_MOST_ROUNDS):
        session.call(calls.Drive([order], "looks"), limit=_LIMIT)
        looks = loaded.map("looks").total()
        path = lock_path.named(looks.held, looks.queued)
        if path:
            return path
    return ""
