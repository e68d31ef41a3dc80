# SPDX-License-Identifier: GPL-2.0-only
"""The protocol of QEMU's gdb stub, against answers in the format of QEMU 7.2."""

import socket
import threading

import pytest

from harness.errors import SetupError
from harness.machines import gdb_stub
from harness.machines.gdb_stub import NoStop, Region, Stub, packet, stopped, unpacked

# Answers of a guest with four vCPUs, by the packet. They are written by hand, not recorded.
GREETING = "T02thread:p01.01;"
ANSWERS = {
    "qSupported:multiprocess+;vContSupported+": "PacketSize=1000;qXfer:features:read+;"
    "vContSupported+;multiprocess+",
    "qXfer:features:read:target.xml:0,800": 'l<?xml version="1.0"?>',
    "Hgp1.3": "OK",
    "Z4,ffff888003d43110,28": "OK",
    "z4,ffff888003d43110,28": "E22",
    "mffff888003d43110,8": "0100000002000000",
    "m10,8": "E14",
    "Mffff888003d43110,2:beef": "OK",
    "g": "".join(
        [
            *(value.to_bytes(8, "little").hex() for value in range(1, 18)),
            (0x202).to_bytes(4, "little").hex(),
            "0" * 64,
        ]
    ),
    "vCont;c:p1.3;c:p1.1": "T05thread:p01.03;watch:ffff888003d43110;",
    "vCont;s:p1.3": "T05thread:p01.03;",
    "\x03": "T02thread:p01.01;",
}


class Qemu(threading.Thread):
    """Plays the stub: acknowledges a packet, and answers it once."""

    def __init__(self, answers):
        super().__init__(daemon=True)
        self.ours, self._theirs = socket.socketpair()
        self.asked, self._answers = [], answers

    def run(self):
        self._theirs.sendall(packet(GREETING))
        rest = b""
        while True:
            got = self._theirs.recv(4096)
            if not got:
                return
            rest += got
            while rest:
                if rest[:1] == b"+":
                    rest = rest[1:]
                    continue
                if rest[:1] == b"\x03":
                    text, rest = "\x03", rest[1:]
                else:
                    text, rest = unpacked(rest)
                    if text is None:
                        rest = rest or b""
                        break
                    self._theirs.sendall(b"+")
                self.asked.append(text)
                answer = self._answers[text]
                if answer is None:
                    self._theirs.close()
                    return
                if answer:
                    self._theirs.sendall(packet(answer))


@pytest.fixture
def connect():
    def start(**changed):
        qemu = Qemu({**ANSWERS, **changed})
        qemu.start()
        return qemu, Stub(qemu.ours)

    return start


def test_a_packet_ends_with_its_checksum():
    assert packet("OK") == b"$OK#9a"
    assert unpacked(b"+$OK#9a+") == ("OK", b"+")
    assert unpacked(b"+$OK#9") == (None, b"+$OK#9")


def test_escapes_and_runs_are_undone():
    assert unpacked(b"$a}\x03b#00")[0] == "a#b"
    assert unpacked(b"$0* 1#00")[0] == "00001"


@pytest.mark.parametrize(
    "answer, cpu, watched",
    [
        ("T05thread:p01.02;", 1, None),
        ("T05thread:p01.0a;rwatch:51b010000000;", 9, 0x51B010000000),
        ("T05thread:p01.01;awatch:ffff888003d43110;", 0, 0xFFFF888003D43110),
    ],
)
def test_a_stop_names_the_vcpu_and_what_was_accessed(answer, cpu, watched):
    assert (stopped(answer).cpu, stopped(answer).watched) == (cpu, watched)


@pytest.mark.parametrize("answer", ["E22", "OK", "W00", "T05"])
def test_no_stop_is_made_of_another_answer(answer):
    with pytest.raises(SetupError, match="a stop was expected"):
        stopped(answer)


def test_registers_and_memory_are_those_of_the_chosen_vcpu(connect):
    qemu, stub = connect()
    registers = stub.registers(2)
    assert (registers["rax"], registers["rsp"], registers["rip"]) == (1, 8, 17)
    assert registers["eflags"] == 0x202
    assert stub.read(2, Region(0xFFFF888003D43110, 8)) == bytes.fromhex("0100000002000000")
    stub.write(2, 0xFFFF888003D43110, b"\xbe\xef")
    assert qemu.asked.count("Hgp1.3") == 1  # chosen once


def test_what_is_not_mapped_is_told(connect):
    _, stub = connect()
    with pytest.raises(gdb_stub.Unreadable):
        stub.read(2, Region(0x10, 8))


def test_a_refused_command_is_an_error(connect):
    _, stub = connect()
    stub.watch(Region(0xFFFF888003D43110, 40))
    with pytest.raises(SetupError, match="E22"):
        stub.unwatch(Region(0xFFFF888003D43110, 40))


def test_only_the_named_vcpus_run_and_the_stopped_one_is_told(connect):
    _, stub = connect()
    stop = stub.run([2, 0], 5.0)
    assert (stop.cpu, stop.watched) == (2, 0xFFFF888003D43110)
    assert stub.step(2).watched is None


def test_a_time_limit_stops_all(connect):
    qemu, stub = connect(**{"vCont;c:p1.3;c:p1.1": ""})
    with pytest.raises(NoStop):
        stub.run([2, 0], 0.05)
    assert qemu.asked[-1] == "\x03"


def test_a_stop_just_before_the_interrupt_counts(connect):
    late = "T05thread:p01.03;watch:ffff888003d43110;"
    _, stub = connect(**{"vCont;c:p1.3;c:p1.1": "", "\x03": late})
    assert stub.run([2, 0], 0.05).watched == 0xFFFF888003D43110


def test_the_end_of_qemu_is_an_end_of_file(connect):
    _, stub = connect(**{"g": None})
    with pytest.raises(EOFError):
        stub.registers(2)
