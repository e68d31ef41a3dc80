# SPDX-License-Identifier: GPL-2.0-only
"""The plugin is for a project that asks for it: pytest anywhere else is as if it were not installed."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path
from typing import List, Sequence

import pytest

ROOT = Path(__file__).parents[3]

# Another project's conftest.py: its options have the names of the plugin's.
CONFTEST = """
OPTIONS = ("target", "kernel", "loader", "cpus", "programs", "append", "results", "shard", "scenario")


def pytest_addoption(parser):
    for name in OPTIONS:
        parser.addoption(f"--{name}", default="its own")
    parser.addoption("--resume", action="store_true")


def pytest_generate_tests(metafunc):
    if "scenario" in metafunc.fixturenames:
        metafunc.parametrize("scenario", ["sunny", "rainy"])
"""

TESTS = """
import sys

import pytest
from conftest import OPTIONS


@pytest.fixture
def guest():
    return "a person"


def test_options(request):
    given = {name: request.config.getoption(name) for name in OPTIONS}
    assert given == {**dict.fromkeys(OPTIONS, "its own"), "target": "paper", "results": "kept"}
    assert request.config.getoption("resume")


def test_fixtures(guest, scenario):
    assert guest == "a person" and scenario in ("sunny", "rainy")


def test_imports():
    assert "harness" not in sys.modules
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Return another project, in an environment where this one is installed as setup.cfg says."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    name, version = setup["metadata"]["name"], setup["metadata"]["version"]
    installed = tmp_path / "site" / f"{name.replace('-', '_')}-{version}.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )
    groups = setup["options.entry_points"].items()
    points = "".join(f"[{group}]\n{listed.strip()}\n" for group, listed in groups)
    (installed / "entry_points.txt").write_text(points)
    project = tmp_path / "project"
    project.mkdir()
    (project / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers --strict-config\n")
    (project / "conftest.py").write_text(CONFTEST)
    (project / "test_weather.py").write_text(TESTS)
    return project


def ran(place: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join([str(ROOT), str(place.parent / "site")])
    return subprocess.run(
        [sys.executable, *arguments, "-p", "no:cacheprovider", "-p", "no:hypothesispytest"],
        cwd=place,
        env={
            **os.environ,
            "PYTHONPATH": path,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_ADDOPTS": "",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_another_project_keeps_its_options_and_fixtures(
    elsewhere: Path, workers: List[str]
) -> None:
    if workers:
        pytest.importorskip("xdist")
    before = sorted(elsewhere.iterdir())
    given = ["--target=paper", "--results=kept", "--resume"]
    done = ran(elsewhere, "-m", "pytest", *given, *workers)
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout + done.stderr
    assert "spinlock" not in done.stdout + done.stderr
    assert sorted(elsewhere.iterdir()) == before


def test_another_project_is_shown_nothing_of_it(elsewhere: Path) -> None:
    (elsewhere / "conftest.py").unlink()
    (elsewhere / "test_weather.py").write_text("def test_nothing():\n    pass\n")
    done = ran(elsewhere, "-m", "pytest", "--help")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "spin" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "listing, listed",
    [
        (
            "--help",
            ("--target={", "--kernel=", "--loader={", "--resume", "--shard=I/N", "--scenario="),
        ),
        ("--fixtures", ("guest --", "verdict --")),
    ],
)
def test_this_project_asks_for_it(tmp_path: Path, listing: str, listed: Sequence[str]) -> None:
    here = ["-c", str(ROOT / "setup.cfg"), f"--rootdir={ROOT}"]
    (tmp_path / "test_nothing.py").write_text("")
    done = ran(tmp_path, "-m", "pytest", *here, listing, "test_nothing.py")
    assert done.returncode in (0, 5), done.stdout + done.stderr
    assert [words for words in listed if words not in done.stdout] == []
    assert not (tmp_path / "results").exists()
