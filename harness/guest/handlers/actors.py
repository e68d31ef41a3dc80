# SPDX-License-Identifier: GPL-2.0-only
"""Actors of schedules, and the names of addresses."""

from __future__ import annotations

from typing import Dict, List

from harness.guest import actors, calls
from harness.guest.dispatch import answers
from harness.guest.state import State


@answers(calls.Act)
def act(state: State, call: calls.Act) -> None:
    operations = []
    for number, wanted in enumerate(call.operations):
        if wanted.way == "run":
            packet = bytes.fromhex(wanted.value)
            operations.append(actors.run(number, state.program(wanted.name), packet))
            continue
        element = bytes.fromhex(wanted.key), bytes.fromhex(wanted.value)
        fd = state.map(wanted.name).fd
        operations.append(actors.access(number, wanted.way, fd, element, wanted.flags))
    state.actors.callback(actors.start(call.cpu, operations))


@answers(calls.Rest)
def rest(state: State, call: calls.Rest) -> None:
    state.actors.close()


@answers(calls.Symbols)
def symbols(state: State, call: calls.Symbols) -> List[str]:
    return actors.symbols(call.addresses)


@answers(calls.Addresses)
def addresses(state: State, call: calls.Addresses) -> Dict[str, int]:
    return actors.addresses(call.names)


@answers(calls.Lines)
def lines(state: State, call: calls.Lines) -> List[List[int]]:
    return actors.lines(state.program(call.program))
