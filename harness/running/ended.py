# SPDX-License-Identifier: GPL-2.0-only
"""Turns the failure that ended a session into an observation of the case at fault. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Union

from harness.judging.verdict import Observation
from harness.machines.loss import EmulatorFailed, GuestLost
from harness.machines.session import AgentError, KernelRefusal

Failure = Union[GuestLost, AgentError, KernelRefusal]


def observed(failure: Failure) -> Observation:
    """Return the observation of a case whose session ended with a failure."""
    if isinstance(failure, GuestLost):
        return with_loss(Observation(kernel_log=()), failure)
    log = failure.kernel_log if isinstance(failure, AgentError) else None
    return Observation(stage="agent", detail=str(failure), kernel_log=tuple(log or ()))


def with_loss(observation: Observation, lost: GuestLost) -> Observation:
    """Add the loss of the guest to the observation of a case."""
    return replace(
        observation,
        lost=str(lost),
        lost_is_crash=lost.crashed,
        emulator_failed=isinstance(lost, EmulatorFailed),
        console=lost.console,
    )
