# SPDX-License-Identifier: GPL-2.0-only
"""Runs a case to explore outside pytest: a session on a target, and the Result."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Callable, Tuple

from harness.errors import SetupError
from harness.explore.steps import Failed
from harness.machines.loss import GuestLost
from harness.machines.session import AgentError, KernelRefusal, Session
from harness.machines.target import Target
from harness.results.record import Case as Recorded
from harness.results.result import Result
from harness.running.driven import Guest, Unmet
from harness.scenarios.programs import Programs
from harness.scenarios.scenario import Rule

# What a case on a kernel may raise, which becomes its verdict.
_ENDINGS = (Unmet, Failed, GuestLost, AgentError, KernelRefusal)


def result(
    target: Target, programs: Programs, name: str, rule: Rule, act: Callable[[Guest], object]
) -> Result:
    """Open a session, let `act` explore there and conclude, and return the result.

    Raises SetupError.
    """
    with ExitStack() as sessions:

        def start(also: str) -> Tuple[Target, Session]:
            return target, sessions.enter_context(target.session(warm=True))

        repeat = f"spinlock explore {name}" + (
            f" --kernel {target.kernel}" if target.kernel else ""
        )
        try:
            guest = Guest(Recorded(name, "libbpf", rule, repeat), start, programs)
        except (GuestLost, AgentError) as error:
            raise SetupError(f"The guest could not begin: {error}.") from None
        try:
            act(guest)
        except _ENDINGS as ending:
            return guest.finish(ending)
        return guest.finish(None)
