# SPDX-License-Identifier: GPL-2.0-only
"""bytecode.py: an agent with bytecode is the agent, and is not compiled where it runs."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from harness.provision import build, bytecode
from harness.provision.userland import Image


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    bytecode.with_bytecode([sys.executable], build.agent(), tmp_path / "agent.pyz")
    return tmp_path / "agent.pyz"


def run(archive: Path, code: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(archive), "PYTHONSAFEPATH": "1"}
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)


def test_bytecode_is_what_runs_and_a_traceback_has_the_source(compiled: Path) -> None:
    code = """
import traceback
from harness.guest import calls
print(calls.__file__)
try:
    calls.from_json({})
except KeyError:
    print(traceback.format_exc())  # as the agent reports its own failures
"""
    done = run(compiled, code)
    assert done.stdout.startswith(f"{compiled}/harness/guest/calls.pyc\n"), done.stderr
    assert 'File "harness/guest/calls.py"' in done.stdout
    assert 'CALLS[line["call"]]' in done.stdout, "the traceback has no line of the source"


def test_bytecode_of_another_python_is_passed_over(compiled: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pyz"
    with zipfile.ZipFile(compiled) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, b"\0\0\r\n" + data[4:] if name.endswith(".pyc") else data)
    done = run(other, "from harness.guest import calls as c; print(c.__file__, c.Has.name)")
    assert done.stdout == f"{other}/harness/guest/calls.py has\n", done.stderr


def test_all_of_the_agent_is_compiled(compiled: Path) -> None:
    names = set(zipfile.ZipFile(compiled).namelist())
    sources = {name for name in names if name.endswith(".py")}
    assert {f"{name}c" for name in sources} == {name for name in names if name.endswith(".pyc")}


def test_without_the_images_python_the_agent_has_sources_and_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "root.ext4").write_bytes(b"no file system")
    image = Image(tmp_path / "root.ext4", tmp_path, tmp_path, "of nothing", {})
    said: list[str] = []
    assert bytecode.agent(image, said.append) == build.agent()
    assert len(said) == 1 and "the image has no /usr/bin/python3.13" in said[0]
