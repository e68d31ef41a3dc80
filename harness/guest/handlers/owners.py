# SPDX-License-Identifier: GPL-2.0-only
"""Owners of local storage elements: sockets, files, processes, cgroups."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from typing import Any, List

from harness.guest import calls, copies, drivers, uapi
from harness.guest.dispatch import answers
from harness.guest.state import State, fd_key


@answers(calls.Owner)
def owner(state: State, call: calls.Owner) -> str:
    if call.kind in ("socket", "listener"):
        return _socket(state, call)
    if call.kind == "file":
        return _open_key(state, tempfile.TemporaryFile())
    if call.kind == "process":
        return fd_key(os.pidfd_open(os.getpid())).hex()
    if call.kind == "ours":
        return fd_key(state.open_directory(drivers.own_cgroup())).hex()
    directory = state.stack.enter_context(drivers.cgroup())
    if call.join:
        state.group = directory
        state.stack.enter_context(drivers.member_of(directory))
    if call.kind == "cgroup":
        return fd_key(state.open_directory(directory)).hex()
    return state.attach_to(directory, call.program)


def _socket(state: State, call: calls.Owner) -> str:
    """Open a UDP socket bound to call.port, or a TCP socket listening there; return its key."""
    listens = call.kind == "listener"
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM if listens else socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind(("127.0.0.1", call.port))
    if listens:
        opened.listen()
        state.listener = opened
    return _open_key(state, opened)


def _open_key(state: State, file: Any) -> str:
    """Keep a file open; return its key."""
    state.stack.enter_context(file)
    return fd_key(file.fileno()).hex()


@answers(calls.Channel)
def channel(state: State, call: calls.Channel) -> calls.Storages:
    directory = state.stack.enter_context(drivers.cgroup())
    attached = state.attach_to(directory, call.program)
    with drivers.member_of(directory):
        sender = state.stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver = state.stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver.bind(("127.0.0.1", 0))
    sender.connect(receiver.getsockname())
    fd = sender.fileno()
    return {"socket": fd_key(fd).hex(), "attached": attached, "fd": fd}


@answers(calls.Passage)
def passage(state: State, call: calls.Passage) -> List[str]:
    directory = state.stack.enter_context(drivers.cgroup())
    types = (uapi.BPF_CGROUP_INET_EGRESS, uapi.BPF_CGROUP_INET_INGRESS)
    pairs = zip(call.programs, types)
    keys = [state.attach_to(directory, name, attach_type) for name, attach_type in pairs]
    with drivers.member_of(directory):
        send = drivers.datagrams()
        for _ in range(call.datagrams):
            send()
    return keys


@answers(calls.Accept)
def accept(state: State, call: calls.Accept) -> List[List[int]]:
    seen: List[List[int]] = []
    program = state.program(call.program)
    with copies.running(dict.fromkeys(call.cpus, program), copies.SHORT_RUNS_AT_A_TIME):
        for _ in range(call.times):
            with state.connection() as accepted:
                port = socket.htons(accepted.getpeername()[1])
                state.map("peers").update(bytes(4), struct.pack("<I", port))
                seen.append([state.run(look) for look in call.looks])
    return seen
