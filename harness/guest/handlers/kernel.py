# SPDX-License-Identifier: GPL-2.0-only
"""Facts, the kernel log, commands and files of the guest."""

from __future__ import annotations

import subprocess
from typing import Dict, List

from harness.guest import calls, facts
from harness.guest.dispatch import answers
from harness.guest.state import LATE_SECONDS, Json, State


@answers(calls.Facts)
def collect(state: State, call: calls.Facts) -> Json:
    return facts.collect()


@answers(calls.Has)
def has(state: State, call: calls.Has) -> Dict[str, bool]:
    return facts.names(call.names)


@answers(calls.Options)
def options(state: State, call: calls.Options) -> Dict[str, str]:
    return facts.options(call.names)


@answers(calls.Begin)
def begin(state: State, call: calls.Begin) -> List[str]:
    return state.begin(call.case)


@answers(calls.Late)
def late(state: State, call: calls.Late) -> List[str]:
    if state.kernel_log is None:
        return []
    state.kernel_log.settle(LATE_SECONDS)
    return state.kernel_log.read()


@answers(calls.End)
def end(state: State, call: calls.End) -> calls.Ended:
    built = state.unit.built if state.unit is not None else ""
    state.unload()
    return {**state.aftermath(LATE_SECONDS, ran=True), "built": built}


@answers(calls.Command)
def command(state: State, call: calls.Command) -> calls.Finished:
    done = subprocess.run(
        call.arguments, input=call.input, capture_output=True, text=True, check=False
    )
    return {"status": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


@answers(calls.Terminal)
def interact(state: State, call: calls.Terminal) -> int:
    from harness.guest import terminal  # only `spinlock shell` needs it

    return terminal.run(list(call.arguments), call.rows, call.columns, state.source, state.emit)


@answers(calls.Write)
def write(state: State, call: calls.Write) -> None:
    with open(call.path, "w", encoding="utf-8") as file:
        file.write(call.text)
