# SPDX-License-Identifier: GPL-2.0-only
"""bcc's process outside the guest: how it is called, and what comes of one that fails."""

import base64
import os
import sys
import threading
import time
import zlib
from pathlib import Path

import pytest

from harness.errors import SetupError
from harness.machines import native_bcc
from harness.machines.native_bcc import NativeBcc
from harness.provision.kernel_store import Kernel
from harness.provision.native_userland import Tree

NOWHERE = Path("/nowhere")
# Stands for bcc: a text is what it does.
PROCESS = r"""
import json, os, sys, time
def say(**line): print(json.dumps(line), flush=True)
def ask(**line): say(**line); return json.loads(sys.stdin.readline())
say(ready="0.31.0")
for line in sys.stdin:
    text = json.loads(line)["text"]
    if text == "dies": sys.exit("it has a fault")
    if text == "ends": say(ended=-31); time.sleep(60)
    if text == "hangs": time.sleep(60)
    if text == "asks": say(built=ask(bpf={"command": 5})["bpf"])
    else: say(refused=text, stderr="")
    say(ended=0)
"""


def kernel(**changes):
    facts = dict(
        name="6.12",
        release="6.12.118",
        package_version="",
        vmlinux=NOWHERE,
        bzimage=NOWHERE,
        initrd=NOWHERE,
        modules=NOWHERE,
        headers="own",
        digest="",
    )
    return Kernel(**{**facts, **changes})


@pytest.fixture
def bcc(tmp_path, monkeypatch):
    """bcc in a tree that is there, with symbols of its guest."""
    (tmp_path / "proc").mkdir()
    tree = Tree(tmp_path, "/agent", "/shim")
    tree.symbols.write_text("0 T main\n")
    monkeypatch.setattr(native_bcc.native_userland, "ensure", lambda *arguments: tree)
    command = [sys.executable, "-c", PROCESS]
    monkeypatch.setattr(native_bcc, "command", lambda tree, root: command)
    monkeypatch.setattr(native_bcc.platform, "machine", lambda: "x86_64")
    said = []
    found = NativeBcc(None, kernel(), said.append)
    found.said, found.tree = said, tree
    yield found
    found.close()


def begin(text):
    return {"begin": {"text": text, "uname": []}}


def test_nobody_runs_it_in_the_tree_of_its_kernel():
    tree = Tree(Path("/cache/tree"), "/spinlock/agent.pyz", "/spinlock/shim.so")
    words = native_bcc.command(tree, root=True)
    assert words[:4] == ["unshare", "--root=/cache/tree", "--setgid=65534", "--setuid=65534"]
    assert native_bcc.command(tree, root=False)[2] == "--map-root-user"
    assert words[-3:] == ["/spinlock/agent.pyz", "compile", "/spinlock/shim.so"]


def test_a_call_goes_to_and_fro(bcc):
    assert bcc.answer(begin("asks")) == {"bpf": {"command": 5}}
    assert bcc.answer({"bpf": {"result": 3}}) == {"built": {"result": 3}}
    assert bcc.answer(begin("next")) == {"refused": "next", "stderr": ""}


def test_the_symbols_of_the_guest_are_asked_for_once(bcc):
    bcc.tree.symbols.unlink()
    assert bcc.answer(begin("one")) == {"read": "/proc/kallsyms"}
    content = base64.b64encode(zlib.compress(b"1 T start\n")).decode()
    assert bcc.answer({"read": content})["refused"] == "one"
    assert bcc.tree.symbols.read_bytes() == b"1 T start\n"
    assert bcc.answer(begin("two"))["refused"] == "two"


@pytest.mark.parametrize(
    "text, why",
    [
        ("dies", "ended: it has a fault"),
        ("ends", "ended: status -31"),
        ("hangs", "says nothing"),
    ],
)
def test_a_process_that_fails_is_a_failure_and_the_next_text_has_another(
    bcc, monkeypatch, text, why
):
    monkeypatch.setattr(native_bcc, "STEP_SECONDS", 1.0)
    bcc.answer(begin("before"))
    process = bcc._process._process.pid
    assert why in bcc.answer(begin(text))["failed"]
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert bcc.answer(begin("after"))["refused"] == "after"
    assert not bcc.said


def test_a_guest_that_is_lost_in_the_middle_costs_the_next_text_nothing(bcc):
    assert "bpf" in bcc.answer(begin("asks"))
    assert bcc.answer(begin("next"))["refused"] == "next"


def test_closing_leaves_no_process(bcc):
    bcc.answer(begin("asks"))
    process = bcc._process._process.pid
    started = time.monotonic()
    bcc.close()
    assert time.monotonic() - started < 5
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_machine_that_refuses_the_process_says_so_once(bcc, monkeypatch):
    refused = [sys.executable, "-c", "import sys; sys.exit('unshare failed')"]
    monkeypatch.setattr(native_bcc, "command", lambda tree, root: refused)
    answers = [bcc.answer(begin(text)) for text in ("one", "two")]
    assert answers == [{"beyond": "bcc cannot run outside the guest (unshare failed)"}] * 2
    assert len(bcc.said) == 1 and "unshare failed" in bcc.said[0]


def test_a_machine_without_unshare(bcc, monkeypatch):
    monkeypatch.setattr(native_bcc, "command", lambda tree, root: ["/no/unshare"])
    assert bcc.answer(begin("x")) == {
        "beyond": "/no/unshare cannot be run (No such file or directory)"
    }


def test_a_tree_that_cannot_be_made_is_said_once(bcc, monkeypatch):
    def full(*arguments):
        raise SetupError("The disk is full.")

    monkeypatch.setattr(native_bcc.native_userland, "ensure", full)
    assert [bcc.answer(begin("x")) for _ in "12"] == [{"beyond": "The disk is full."}] * 2
    assert len(bcc.said) == 1


@pytest.mark.parametrize(
    "changes, why", [({"modules": None}, "no headers"), ({"headers": ""}, "no headers")]
)
def test_a_kernel_without_headers(changes, why):
    assert why in NativeBcc(None, kernel(**changes), print).answer(begin("x"))["beyond"]


def test_another_kind_of_machine(monkeypatch):
    monkeypatch.setattr(native_bcc.platform, "machine", lambda: "aarch64")
    assert "aarch64" in NativeBcc(None, kernel(), print).answer(begin("x"))["beyond"]


def test_its_tree_is_made_while_the_guest_boots(bcc, monkeypatch):
    made = threading.Event()

    def slowly(*arguments):
        time.sleep(0.2)
        made.set()
        return bcc.tree

    monkeypatch.setattr(native_bcc.native_userland, "ensure", slowly)
    bcc.prepare()
    assert not made.is_set(), "the guest would boot after it"
    bcc.answer(begin("x"))
    assert made.is_set()


def test_whether_it_works_here_is_tried_by_starting_it(bcc, monkeypatch):
    assert bcc.why_inside() == ""
    assert "no headers" in NativeBcc(None, kernel(headers=""), print).why_inside()
    monkeypatch.setattr(native_bcc, "command", lambda tree, root: ["/no/unshare"])
    assert bcc.why_inside() == "/no/unshare cannot be run (No such file or directory)"
