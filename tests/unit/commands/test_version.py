# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock --version`, in a checkout and elsewhere."""

import configparser
import subprocess
from pathlib import Path

import pytest

from harness import __main__ as command, paths
from harness.commands import version
from harness.errors import SetupError

ROOT = Path(__file__).resolve().parents[3]
SETUP = f"[metadata]\nname = {paths.DISTRIBUTION}\nversion = 1.2.3\n"


def git(place, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    subprocess.run(["git", "-C", place, *identity, *words], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    """A repository with one commit and a tag, which says nothing of the release."""
    (tmp_path / "setup.cfg").write_text(SETUP)
    git(tmp_path, "init")
    git(tmp_path, "add", "setup.cfg")
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "tag", "-m", "some tag", "v9")
    return tmp_path


def head(place):
    words = ["git", "-C", place, "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def test_the_command_says_the_release(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--version"])
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"spinlock {setup['metadata']['version']}")


def test_a_checkout_has_a_commit_too(checkout):
    assert version.version(checkout) == f"1.2.3 (commit {head(checkout)})"


def test_changes_are_said(checkout):
    (checkout / "setup.cfg").write_text(SETUP + "license = none\n")
    assert version.version(checkout) == f"1.2.3 (commit {head(checkout)}-dirty)"


def test_the_repository_around_an_installed_wheel_is_another_one(checkout):
    share = checkout / "venv" / "share" / "spinlock"
    share.mkdir(parents=True)
    (share / "setup.cfg").write_text(SETUP)
    assert version.version(share) == "1.2.3"


def test_a_machine_without_git_knows_the_release(checkout, monkeypatch):
    monkeypatch.setenv("PATH", str(checkout))
    assert version.version(checkout) == "1.2.3"


def test_without_setup_cfg_the_package_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(version.metadata, "version", lambda name: {paths.DISTRIBUTION: "4.5"}[name])
    assert version.version(tmp_path) == "4.5"


def test_no_release_at_all_is_a_sentence(tmp_path, monkeypatch, capsys):
    def absent(name):
        raise version.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(version.metadata, "version", absent)
    with pytest.raises(SetupError, match="No version is known"):
        version.version(tmp_path)
    monkeypatch.setattr(version.paths, "root", lambda: tmp_path)
    assert command.main(["--version"]) == 4
    assert "make setup" in capsys.readouterr().err
