# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock --version`: the release and, in a checkout, the commit."""

from __future__ import annotations

import argparse
import configparser
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import paths
from harness.errors import SetupError


class ShowVersion(argparse.Action):
    """Print the version and exit. argparse's own action would run git on every call of `spinlock`."""

    def __init__(self, option_strings: Any, dest: str, **keywords: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **keywords)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print and exit. Raises SetupError when no version is found."""
        print(f"spinlock {version(paths.root())}")
        parser.exit()


def version(root: Path) -> str:
    """Return the release; in a checkout also its commit, with "-dirty" if tracked files differ.

    Raises SetupError when neither setup.cfg nor the installed package says a release.
    """
    commit = _commit(root)
    return f"{_release(root)} (commit {commit})" if commit else _release(root)


def _release(root: Path) -> str:
    # setup.cfg first: pip's metadata of an editable install may be older.
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    if setup.get("metadata", "name", fallback="") == paths.DISTRIBUTION:
        return setup["metadata"]["version"]
    try:
        return metadata.version(paths.DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise SetupError(
            f"No version is known: {root} has no setup.cfg of {paths.DISTRIBUTION}, "
            "and no such package is installed. Run `make setup` in a checkout."
        ) from None


def _commit(root: Path) -> str:
    """Return the checked-out commit, with "-dirty" after changes; "" outside of a checkout."""
    if not (root / ".git").exists():  # a wheel may be installed inside another project's repository
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            [*command, "--dirty"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""  # no git here
    return done.stdout.strip() if done.returncode == 0 else ""
