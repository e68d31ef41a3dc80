# SPDX-License-Identifier: GPL-2.0-only
"""What of a bpf() call is carried to the guest, and what is not; and that none is made here."""

import base64
import ctypes
import os
import resource
import signal
import struct
import subprocess
import sys
import zlib

import pytest

from harness.guest import carried_bcc, uapi
from harness.guest.bcc_module import BccFailed
from harness.guest.carried_bcc import FIRST_FD, Beyond, BpfCall
from harness.guest.carried_calls import CarriedBeyond, CarriedModule, CarryFailed

NAME = FIRST_FD + 7
EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)


def load_imm64(source, value):
    return struct.pack("<BBhi", 0x18, source << 4 | 1, 0, value) + bytes(8)


class Attr:
    """Attributes of a call in this process's memory, and what they point to."""

    def __init__(self, size=148):
        self.memory = ctypes.create_string_buffer(size)
        self.kept = []

    def put(self, at, value, kind="I"):
        struct.pack_into(f"<{kind}", self.memory, at, value)
        return self

    def point(self, at, content):
        self.kept.append(ctypes.create_string_buffer(content, len(content)))
        return self.put(at, ctypes.addressof(self.kept[-1]), "Q")

    def call(self, command):
        return BpfCall(command, ctypes.addressof(self.memory), len(self.memory))


def program(code):
    return Attr().put(4, len(code) // 8).point(8, code).point(16, b"GPL\0")


def test_names_of_fds_are_found_in_instructions():
    code = load_imm64(1, NAME) + load_imm64(2, NAME) + load_imm64(1, 3) + load_imm64(0, NAME) + EXIT
    assert carried_bcc.fds_in_code(code) == [4, 20]


def test_a_program_goes_with_its_instructions_license_and_room_for_the_log():
    code = load_imm64(1, NAME) + EXIT
    attr = program(code).put(28, 100).point(32, bytes(100)).put(72, NAME)
    call = attr.call(uapi.BPF_PROG_LOAD)
    assert call.fds == [(-1, 72), (0, 4)]
    given = [base64.b64decode(buffer["data"]) for buffer in call.buffers[:2]]
    assert given == [code, b"GPL\0"]
    assert call.buffers[2] == {"at": 32, "room": 100, "back": True}
    call.take_back({"result": -22, "back": [base64.b64encode(b"no\0").decode()]})
    assert attr.kept[2].value == b"no"


def test_no_more_comes_back_than_there_is_room_for():
    attr = program(EXIT).put(28, 4).point(32, b"....after")
    attr.call(uapi.BPF_PROG_LOAD).take_back({"back": [base64.b64encode(b"12345678").decode()]})
    assert attr.kept[2].raw == b"1234after"


def test_a_map_goes_with_its_inner_map_and_its_btf():
    attr = Attr(72).put(20, NAME).put(48, NAME + 1)
    assert attr.call(uapi.BPF_MAP_CREATE).fds == [(-1, 20), (-1, 48)]


def test_information_comes_back_with_its_length():
    attr = Attr(16).put(0, NAME).put(4, 8).point(8, bytes(8))
    call = attr.call(uapi.BPF_OBJ_GET_INFO_BY_FD)
    assert call.asks_about == NAME
    answered = Attr(16).put(4, 5).memory.raw
    encode = [base64.b64encode(data).decode() for data in (b"12345\0\0\0", answered)]
    call.take_back({"back": encode[:1], "attr": encode[1]})
    assert attr.kept[0].raw == b"12345\0\0\0"
    assert struct.unpack_from("<I", attr.memory, 4) == (5,)


# The count of CO-RE's relocations and their place, fd_array, and what later kernels added.
@pytest.mark.parametrize("at", [116, 120, 128, 144])
def test_attributes_that_are_not_known_here_are_beyond(at):
    with pytest.raises(Beyond, match="attributes of command 5"):
        program(EXIT).put(at, 1).call(uapi.BPF_PROG_LOAD)


def test_other_commands_are_beyond():
    with pytest.raises(Beyond, match="command 2 of"):
        Attr().call(2)


def test_seccomp_ends_a_process_that_calls_bpf():
    """The command is none, so that nothing happens should the call be made."""
    code = (
        "from harness.guest import carried_bcc, system;"
        "carried_bcc._forbid_bpf(); print('still here', flush=True);"
        "system.bpf(9999, bytearray(8))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("still here\n", -signal.SIGSYS), done.stderr


def answering(*answers):
    """Return what asks the host, and what it was asked; the answers are the host's."""
    asked, left = [], list(answers)

    def ask(question):
        asked.append(question)
        return left.pop(0)

    return ask, asked


def test_the_guest_says_which_kernel_it_is_and_reads_for_the_host(tmp_path):
    (tmp_path / "kallsyms").write_bytes(b"0 T main\n" * 1000)
    ask, asked = answering({"read": str(tmp_path / "kallsyms")}, {"beyond": "it is"})
    with pytest.raises(CarriedBeyond, match="it is"):
        CarriedModule("int x;", ask)
    assert asked[0]["begin"]["text"] == "int x;"
    assert asked[0]["begin"]["uname"] == [*os.uname(), "(none)"]
    assert zlib.decompress(base64.b64decode(asked[1]["read"])) == b"0 T main\n" * 1000


def test_a_limit_that_bcc_sets_is_set_here():
    limits = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    ask, asked = answering(
        {"bpf": {"closed": [], "memlock": limits}}, {"refused": "no", "stderr": "x.c:1: error"}
    )
    with pytest.raises(BccFailed) as failed:
        CarriedModule("", ask)
    assert failed.value.stderr == "x.c:1: error"
    assert asked[1] == {"bpf": {"result": 0}}


def test_a_failure_outside_is_no_word_on_the_text():
    ask, _ = answering({"failed": "it ended"})
    with pytest.raises(CarryFailed, match="it ended"):
        CarriedModule("", ask)


def test_programs_come_with_their_instructions():
    ask, _ = answering(
        {"built": {"programs": {"one": [base64.b64encode(EXIT).decode(), []]}, "maps": {}}}
    )
    module = CarriedModule("", ask)
    place = module.instructions("one")
    assert ctypes.string_at(*place) == EXIT
    assert module.instructions("two") is None
