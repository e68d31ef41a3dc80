# SPDX-License-Identifier: GPL-2.0-only
"""Programs that stay loaded, and their triggers."""

from __future__ import annotations

import functools
import os
import time

from harness.guest import calls, copies, drivers, libbpf
from harness.guest.dispatch import answers
from harness.guest.loaders import BccUnit, Wanted, open_unit
from harness.guest.state import State

RACES_AT_A_TIME = 500  # runs per system call; between two, RCU sees a quiescent state
RACE_POLL_SECONDS = 0.02
SIGN_SECONDS = 5.0  # between two signs of life of a race


@answers(calls.Load)
def load(state: State, call: calls.Load) -> None:
    """Raises Refused."""
    state.unload()
    if call.source.loader == "bcc":
        text = call.source.text
        if text not in state.modules:
            state.modules[text] = BccUnit(text, state.ask)
        state.unit = state.modules[text]
    else:
        state.unit = open_unit(call.source, state.ask)
    state.unit.load([Wanted(program.name, program.section) for program in call.programs])


@answers(calls.Attach)
def attach(state: State, call: calls.Attach) -> None:
    link = libbpf.open_raw_tracepoint(state.program(call.program))
    state.stack.callback(os.close, link)


@answers(calls.TestRun)
def test_run(state: State, call: calls.TestRun) -> calls.Ran:
    fd, before = state.program(call.program), os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if call.cpu is None else {call.cpu})
    try:
        return {"retval": libbpf.test_run(fd, libbpf.PACKET, call.repeat)}
    finally:
        os.sched_setaffinity(0, before)


@answers(calls.Drive)
def drive(state: State, call: calls.Drive) -> calls.Drove:
    runs = state.map(call.counter) if call.counter else None

    def order(number: int, wanted: calls.Order) -> drivers.Order:
        key = wanted.source.to_bytes(4, "little")
        return drivers.Order(
            driver=wanted.driver,
            program=state.program(wanted.program) if wanted.program else -1,
            cpus=tuple(wanted.cpus),
            operations=wanted.operations,
            seconds=wanted.seconds,
            ran=functools.partial(runs.total, key) if runs is not None else None,
            number=number,
            map=state.map(wanted.map) if wanted.map else None,
            fd=wanted.fd,
            members=wanted.members,
        )

    orders = [order(*pair) for pair in enumerate(call.orders)]
    return drivers.drive(orders, lambda sent: state.emit({"alive": sent}))


@answers(calls.Race)
def race(state: State, call: calls.Race) -> float:
    fds = [state.program(name) for name in call.programs]
    counters = [(state.map(name), enough) for name, enough in call.until.items()]
    started = told = time.monotonic()
    before = 0
    with copies.running(dict(enumerate(fds)), RACES_AT_A_TIME):
        while time.monotonic() < started + call.seconds:
            totals = [counter.total() for counter, _ in counters]
            if any(total >= enough for total, (_, enough) in zip(totals, counters)):
                break
            if sum(totals) > before and time.monotonic() > told + SIGN_SECONDS:
                state.emit({"alive": sum(totals)})
                before, told = sum(totals), time.monotonic()
            time.sleep(RACE_POLL_SECONDS)
        return round(time.monotonic() - started, 3)
