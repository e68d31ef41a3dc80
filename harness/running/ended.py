# SPDX-License-Identifier: GPL-2.0-only
"""What ended a session before its time, as an observation of the case that is to blame for it. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Union

from harness.judging.verdict import Observation
from harness.machines.loss import EmulatorFailed, GuestLost
from harness.machines.session import AgentError, KernelRefusal

Failure = Union[GuestLost, AgentError, KernelRefusal]


def observed(failure: Failure) -> Observation:
    """Return what ended a session as an observation of a case."""
    if isinstance(failure, GuestLost):
        return with_loss(Observation(kernel_log=()), failure)
    log = failure.kernel_log if isinstance(failure, AgentError) else None
    return Observation(stage="agent", detail=str(failure), kernel_log=tuple(log or ()))


def with_loss(observation: Observation, lost: GuestLost) -> Observation:
    """Return an observation of a case at whose end the guest was lost."""
    return replace(
        observation,
        lost=str(lost),
        lost_is_crash=lost.crashed,
        emulator_failed=isinstance(lost, EmulatorFailed),
        console=lost.console,
    )
