# SPDX-License-Identifier: GPL-2.0-only
"""What a wheel must bring besides harness/, so that `spinlock run` and `check` work without a checkout."""

from __future__ import annotations

import configparser
from pathlib import Path, PurePosixPath

import pytest

from harness import paths

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def forget() -> None:
    paths.root.cache_clear()


def test_a_wheel_has_what_the_command_reads() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    installed = {
        place: {path.name for pattern in text.split() for path in ROOT.glob(pattern)}
        for place, text in setup["options.data_files"].items()
    }
    programs = ROOT / "bpf_progs"
    for folder in (programs, *(path for path in programs.iterdir() if path.is_dir())):
        there = {path.name for path in folder.iterdir() if path.is_file()}
        assert installed[f"share/spinlock/{folder.relative_to(ROOT)}"] == there
    for place in {path.parent for path in ROOT.glob("tests/lock/**/*.py")}:
        listed = installed[f"share/spinlock/{place.relative_to(ROOT)}"]
        assert listed == {path.name for path in place.glob("*.py")}
    assert installed["share/spinlock"] == {"setup.cfg", "Vagrantfile"}
    assert installed["share/spinlock/vagrant"] == {p.name for p in ROOT.glob("vagrant/*")}
    assert setup["metadata"]["name"] == paths.DISTRIBUTION


def test_a_wheel_has_every_package() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = [path.parent for path in ROOT.glob("harness/**/__init__.py")]
    listed = setup["options"]["packages"].split()
    assert sorted(listed) == sorted(".".join(p.relative_to(ROOT).parts) for p in packages)


def test_the_checkout_comes_first() -> None:
    assert paths.root() == ROOT


def test_an_installed_wheel_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Installed(PurePosixPath):
        def locate(self) -> Path:
            return tmp_path / "lib" / "python" / self

    monkeypatch.setattr(
        paths, "__file__", str(tmp_path / "lib" / "python" / "harness" / "paths.py")
    )
    listed = [Installed("../../share/spinlock/bpf_progs/spinlock.h")]
    monkeypatch.setattr(paths.metadata, "files", lambda name: listed)
    assert paths.root() == tmp_path / "share" / "spinlock"
    monkeypatch.setattr(paths.metadata, "files", lambda name: None)
    paths.root.cache_clear()
    assert paths.root() == tmp_path / "lib" / "python"
    paths.root.cache_clear()
