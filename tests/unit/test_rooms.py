# SPDX-License-Identifier: GPL-2.0-only
"""`make lint` asks whether a room imports only rooms below it; this asks whether it would notice."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tmp_path):
    """A copy of the package, and how to ask the linter about it."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "harness", tmp_path / "harness", ignore=ignored)
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    return tmp_path


def lint(place):
    program = (
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports('setup.cfg'))"
    )
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)


def test_the_rooms_are_as_they_must_be(copy):
    done = lint(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "module, line, contract",
    [
        ("judging/splat.py", "import harness.machines.qemu", "imports only rooms below it"),
        ("reports/page.py", "import harness.check.report", "imports only rooms below it"),
        ("guest/facts.py", "import harness.errors", "imports nothing of the host"),
        ("machines/local.py", "import harness.guest.libbpf", "only what both sides share"),
        ("judging/history.py", "import harness.judging.serialization", "No circles"),
    ],
)
def test_an_import_that_points_upwards_is_found(copy, module, line, contract):
    with (copy / "harness" / module).open("a") as file:
        file.write(f"\n\ndef _late():\n    {line}\n")
    done = lint(copy)
    broken = [words for words in done.stdout.splitlines() if words.endswith("BROKEN")]
    assert done.returncode == 1 and any(contract in words for words in broken), done.stdout


def test_a_new_module_needs_a_room(copy):
    (copy / "harness" / "extra.py").write_text('"""Nowhere."""\n')
    assert lint(copy).returncode == 1
