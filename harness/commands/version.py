# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock --version`: which release this is and, in a checkout, which commit."""

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
    """Print the version and exit. argparse's own action would ask git on every call of `spinlock`."""

    def __init__(self, option_strings: Any, dest: str, **keywords: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **keywords)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Do so. Raises SetupError when no version is found."""
        print(f"spinlock {version(paths.root())}")
        parser.exit()


def version(root: Path) -> str:
    """Return the release; in a checkout also its commit and whether tracked files differ from it.

    Raises SetupError when neither setup.cfg nor the installed package says a release.
    """
    commit = _commit(root)
    return f"{_release(root)} (commit {commit})" if commit else _release(root)


def _release(root: Path) -> str:
    # setup.cfg first: what pip remembers of an editable install may be older.
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
    """Return the commit that is checked out, and "-dirty" after changes; "" where git has none."""
    if not (root / ".git").exists():  # a wheel may lie inside of a repository of another project
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            [*command, "--dirty"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""  # no git here
    return done.stdout.strip() if done.returncode == 0 else ""
