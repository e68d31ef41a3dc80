# SPDX-License-Identifier: GPL-2.0-only
"""Copies of elements by each way of access; see copies.py."""

from __future__ import annotations

import fcntl
import functools
import os
from contextlib import ExitStack
from typing import Callable, ContextManager, Dict, List, Optional

from harness.guest import calls, copies, drivers, libbpf
from harness.guest.dispatch import answers
from harness.guest.maps import Map
from harness.guest.state import State, fd_key

LONGER = 53  # bytes of padding; the program tells these datagrams from others by their length
FILL = 0xEE  # fills the buffers of a sweep's reads


@answers(calls.Copy)
def copy(state: State, call: calls.Copy) -> calls.Copied:
    target, key = state.map(call.map), bytes.fromhex(call.access.key)
    copying = copies.Copying(
        map=target,
        way=call.access.way,
        key=key,
        flags=call.access.flags,
        values=tuple(bytes.fromhex(value) for value in call.access.values),
        shape=call.shape,
        until=call.until,
        renewed=bytes.fromhex(call.renewed.value),
        before=bytes.fromhex(call.renewed.before),
        other=_other(state, call, target),
    )

    def look() -> int:
        return state.run(call.peek) & 0xFFFFFFFF

    with ExitStack() as stack:
        if call.busy.program:
            stack.enter_context(_running(state, call.busy, key, short=bool(call.renewed.value)))
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        if call.here is not None:
            os.sched_setaffinity(0, {call.here})
        return copies.copy(copying, look if call.peek else None)


@answers(calls.Sweep)
def sweep(state: State, call: calls.Sweep) -> Dict[str, List[List[int]]]:
    element = call.element

    def run(order: int) -> int:
        state.map("orders").update(bytes(4), bytes.fromhex(element.orders[order]))
        return state.run(element.program)

    sweep = copies.Sweep(
        map=state.map(element.map),
        key=bytes.fromhex(element.key),
        before=bytes.fromhex(call.before),
        value=bytes.fromhex(call.value),
        fill=FILL,
        writes=tuple((way, flags, is_new) for way, flags, is_new in call.writes),
        reads=tuple((way, flags) for way, flags in call.reads),
        program=run,
        image=state.map("image"),
        memory=state.map("memory"),
        times=call.times,
    )
    with ExitStack() as stack:
        if call.busy.program:
            stack.enter_context(_running(state, call.busy, b"", short=True))
        return copies.sweep(sweep)


def _running(state: State, busy: calls.Busy, key: bytes, short: bool) -> ContextManager[None]:
    """Run busy.program in a loop; `short` if another task often waits for an RCU grace period."""
    if busy.runs == "system_call":
        return copies.calling(busy.cpus, lambda: os.getppid, state.group)
    if busy.runs == "fcntl":
        return copies.calling(busy.cpus, lambda: _asking(key, fcntl.F_GETFD))
    if busy.runs == "datagram":
        return copies.calling(busy.cpus, drivers.datagrams, state.group)
    by_cpu = dict.fromkeys(busy.cpus, state.program(busy.program))
    if short:
        return copies.running(by_cpu, copies.SHORT_RUNS_AT_A_TIME)
    return copies.running(by_cpu)


def _other(state: State, call: calls.Copy, map: Map) -> Optional[Callable[[], List[bytes]]]:
    """Return a function for the way "other" of calls.Access; None if there is none."""
    if call.access.other == "accept":
        return lambda: [_accepted(state, map)]
    if call.busy.runs == "system_call":
        return lambda: _nothing(os.getpriority(os.PRIO_PROCESS, 0))
    if call.busy.runs == "fcntl":
        ask = _asking(bytes.fromhex(call.access.key), fcntl.F_GETFL)
        return lambda: _nothing(ask())
    if call.busy.runs == "datagram":
        send = drivers.datagrams(LONGER)
        return lambda: _nothing(send())
    if not call.access.other:
        return None
    fd = state.program(call.access.other)
    return lambda: _nothing(libbpf.test_run(fd, libbpf.PACKET))


def _accepted(state: State, map: Map) -> bytes:
    """Accept a connection; return the local storage of the new socket."""
    with state.connection() as accepted:
        return map.lookup(fd_key(accepted.fileno()), 0, 0xFF)


def _nothing(done: object) -> List[bytes]:
    """No values: this copy reads none."""
    return []


def _asking(key: bytes, question: int) -> Callable[[], object]:
    """Return a function that calls fcntl() on the file whose fd is the storage's key."""
    return functools.partial(fcntl.fcntl, int.from_bytes(key, "little"), question)
