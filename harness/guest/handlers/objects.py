# SPDX-License-Identifier: GPL-2.0-only
"""Objects of any origin; see examine.py."""

from __future__ import annotations

import base64

from harness.guest import calls, examine
from harness.guest.dispatch import answers
from harness.guest.state import Json, State


@answers(calls.Examine)
def look(state: State, call: calls.Examine) -> None:
    state.begin("examine")
    examine.examine(call, state.log_lines, state.emit)


@answers(calls.DriveObject)
def drive(state: State, call: calls.DriveObject) -> Json:
    state.begin(call.program)
    data = base64.b64decode(call.object)
    seen = examine.drive(data, call.program, call.cpus, call.seconds)
    return {**seen, "kernel_log": state.log_lines()}
