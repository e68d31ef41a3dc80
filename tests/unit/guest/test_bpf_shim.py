# SPDX-License-Identifier: GPL-2.0-only
"""What the shim takes away from the kernel and gives to its handler, in a process of its own."""

import json
import platform
import subprocess
import sys

import pytest

from harness.provision import native_userland

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the shim makes system calls as x86-64 does"
)
PROGRAM = r"""
import ctypes, json, os, resource, sys
shim, libc = ctypes.CDLL(sys.argv[1]), ctypes.CDLL(None, use_errno=True)
asked = []
kind = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long)
def answer(question, argument, size):
    text = ctypes.string_at(argument).decode() if question == -2 else None
    asked.append([question, size, text])
    return -13 if question >= 0 else 0
handler = kind(answer)
names = b"".join(name.encode().ljust(65, b"\0") for name in
                 ("Linux", "guest", "9.9.9", "#1", "x86_64", "(none)"))
before = os.uname().nodename
shim.shim_begin(handler, names)
said = {
    "uname": [before, os.uname().nodename, os.uname().release],
    "bpf": [libc.syscall(ctypes.c_long(321), ctypes.c_long(5), names, ctypes.c_long(48)),
            ctypes.get_errno()],
    "perf": libc.syscall(ctypes.c_long(298), names, 0, 0, 0, 0),
    "other": libc.syscall(ctypes.c_long(39)) == os.getpid(),
    "close": libc.close(1 << 20),
    "files": [libc.access(path, 0) for path in (b"/proc/no", b"/sys/no", b"/proc/self/no", b"/no")],
    "there": [open("/proc/version").read() != "", libc.access(b"/sys", 0)],
}
try:
    open("/sys/no")
except FileNotFoundError:
    said["open"] = "not found"
resource.setrlimit(resource.RLIMIT_MEMLOCK, (1, 1))
os.close(os.dup(1))
os.sysconf("SC_NPROCESSORS_ONLN"), os.sysconf("SC_PAGE_SIZE")
print(json.dumps([said, asked]))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    shim = native_userland.shim(tmp_path_factory.mktemp("shim"))
    command = [sys.executable, "-c", PROGRAM, str(shim)]
    done = subprocess.run(
        command, env={"LD_PRELOAD": str(shim)}, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_calls_are_answered_by_the_handler(seen):
    said, asked = seen
    assert said["bpf"] == [-1, 13] and [5, 48, None] in asked
    assert said["perf"] == 0 and [-4, 0, None] in asked
    assert said["close"] == 0 and [-1, 1 << 20, None] in asked
    assert [-3, 16, None] in asked  # the limit


def test_uname_is_the_guests_once_there_is_one(seen):
    before, *after = seen[0]["uname"]
    assert before != "guest" and after == ["guest", "9.9.9"]


def test_what_is_missing_of_the_kernels_files_is_noticed(seen):
    said, asked = seen
    assert said["files"] == [-1, -1, -1, -1] and said["open"] == "not found"
    looked = [text for question, _, text in asked if question == -2]
    assert looked == ["/proc/no", "/sys/no", "/sys/no", "the number of CPUs"]


def test_all_else_goes_to_the_kernel(seen):
    said, asked = seen
    assert said["other"] and said["there"] == [True, 0]
    assert len(asked) == 8
