# SPDX-License-Identifier: GPL-2.0-only
"""Objects of unknown origin, for `spinlock check`; see examine.py and turns.py."""

from __future__ import annotations

from harness.guest import calls, examine, own_loader, turns
from harness.guest.dispatch import answers
from harness.guest.state import Json, State


@answers(calls.Examine)
def look(state: State, call: calls.Examine) -> None:
    state.begin("examine")
    examine.examine(call, state.log_lines, state.emit)


@answers(calls.TakeTurns)
def take_turns(state: State, call: calls.TakeTurns) -> Json:
    state.begin("turns")
    return {**turns.take(call), "kernel_log": state.log_lines()}


@answers(calls.RunTogether)
def run_together(state: State, call: calls.RunTogether) -> Json:
    state.begin("turns")
    return {**turns.take(call), "kernel_log": state.log_lines()}


@answers(calls.RunLoader)
def run_loader(state: State, call: calls.RunLoader) -> calls.LoaderRan:
    state.begin("loader")
    ran = own_loader.run(call)
    return {**ran, "kernel_log": state.log_lines()}
