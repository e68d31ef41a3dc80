# SPDX-License-Identifier: GPL-2.0-only
"""Actors of schedules: the calls that they make, and the memory by which the host steers them."""

import os
import struct
import sys
import time

import pytest

from harness.guest import actors, calls, uapi

KEY, VALUE = b"\1\0\0\0", b"\7" * 8
NO_COMMAND = 9999  # which every kernel refuses, whoever asks


def test_a_program_is_run_once_on_its_packet():
    operation = actors.run(2, 5, bytes(64))
    fd, _, size, _, data, _, repeat, _ = struct.unpack("<IIIIQQII", operation.attr)
    assert (operation.command, fd, size, repeat) == (uapi.BPF_PROG_TEST_RUN, 5, 64, 1)
    assert data == calls.ACTORS + 2 * calls.ACTOR_STRIDE + calls.ACTOR_VALUES


def test_a_program_without_a_packet_gets_none():
    attr = actors.run(0, 5, b"").attr
    assert struct.unpack("<IIIIQQII", attr) == (5, 0, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "way, command",
    [("lookup", 1), ("update", 2), ("delete", 3), ("lookup_and_delete", 21)],
)
def test_an_element_is_accessed_by_its_key(way, command):
    operation = actors.access(0, way, 7, (KEY, VALUE), uapi.BPF_F_LOCK)
    fd, _, key, value, flags = struct.unpack("<IIQQQ", operation.attr)
    assert (operation.command, fd, flags) == (command, 7, uapi.BPF_F_LOCK)
    assert key == calls.ACTORS + calls.ACTOR_KEYS
    assert value == (calls.ACTORS + calls.ACTOR_VALUES if way != "delete" else 0)


def test_a_batch_is_of_one_element():
    attr = actors.access(0, "update_batch", 7, (KEY, VALUE), uapi.BPF_F_LOCK).attr
    first, following, _, _, count, fd, flags, _ = struct.unpack("<QQQQIIQQ", attr)
    assert (first, following, count, fd, flags) == (0, 0, 1, 7, uapi.BPF_F_LOCK)
    reads = actors.access(0, "lookup_batch", 7, (KEY, VALUE), 0).attr
    assert struct.unpack("<QQQQIIQQ", reads)[1] == calls.ACTORS + calls.ACTOR_KEYS + 256


@pytest.fixture
def actor():
    """An actor with two calls, as a process, and its memory."""
    operations = [actors.Operation(NO_COMMAND, bytes(32), KEY, VALUE) for _ in range(2)]
    before = set(children())
    end = actors.start(min(os.sched_getaffinity(0)), operations)
    (child,) = set(children()) - before
    with open(f"/proc/{child}/mem", "r+b", buffering=0) as memory:
        yield memory
    end()


def children():
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def word(memory, address):
    memory.seek(address)
    return int.from_bytes(memory.read(8), "little", signed=True)


def result(memory, number):
    return word(memory, calls.ACTORS + number * calls.ACTOR_STRIDE + calls.ACTOR_RESULT)


def wait(condition):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if condition():
                return True
        except OSError:  # its memory is not there yet
            pass
        time.sleep(0.01)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_actor_does_nothing_at_first_and_then_what_its_order_says(actor):
    keys = calls.ACTORS + calls.ACTOR_KEYS
    assert wait(lambda: word(actor, keys) & 0xFFFFFFFF == 1)
    time.sleep(0.05)
    assert result(actor, 0) == result(actor, 1) == 0
    actor.seek(calls.ACTOR_ORDER)
    actor.write(bytes([1, 1]))
    assert wait(lambda: result(actor, 1) < 0)
    assert result(actor, 0) == 0


def test_addresses_are_those_of_known_symbols(tmp_path, monkeypatch):
    symbols = [(0x1000, "first"), (0x2000, "bpf_prog_0123456789abcdef_add_one"), (0x3000, "last")]
    monkeypatch.setattr(actors, "_kallsyms", lambda: iter(symbols))
    assert actors.addresses(["first", "add_one", "none"]) == {"first": 0x1000, "add_one": 0x2000}
    assert actors.symbols([0x1004, 0x2010, 0x10]) == ["first+0x4", "bpf_prog_add_one+0x10", "0x10"]
    assert actors.symbols([]) == []
